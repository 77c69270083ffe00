"""How does a training become a profile? Weights, a complete TOML file that names them by hash, and a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.profile import Profile, load_profile

from .profile_files import to_toml
from .recipe import recipe_digest, without_weights
from .run import FITTED, SCHEMA
from .weights import sha256_of


def export(run: Path, out: Path, recipe: Profile, name: str | None = None) -> Profile:
    """Write the profile of a finished training.

    Parameters
    ----------
    run : Path
        Folder of the training.
    out : Path
        Where to: ``NAME.toml``, ``NAME-METHOD.safetensors`` and ``NAME.md``.
    recipe : Profile
        The profile that was trained.
    name : str, optional
        What to call it; the recipe's name without it.

    Returns
    -------
    Profile
        As it is read back from `out`.

    Raises
    ------
    InputError
        When the training is not finished, was of another recipe, or its weights were changed since.
    """
    fitted = read_fitted(run)
    if fitted["recipe"] != recipe_digest(recipe):
        raise InputError(f"profile {recipe.name} has changed since it was trained", where=str(run), do="train it again")
    name = name or recipe.name
    document = without_weights(recipe).model_dump(mode="json", exclude_none=True)
    document |= {"name": name, "thresholds": fitted["thresholds"]}
    document["caveats"] = [caveat.replace(recipe.name, name) for caveat in recipe.caveats]
    out.mkdir(parents=True, exist_ok=True)
    for file, sha256 in fitted["weights"].items():
        if sha256_of(run / file) != sha256:
            raise InputError("is not the file that was trained", where=str(run / file), do="train it again")
        method = Path(file).stem.removeprefix(f"{recipe.name}-")
        stage = next(s for s in ("candidates", "classifier") if document.get(s, {}).get("method") == method)
        kept = f"{name}-{method}.safetensors"
        shutil.copyfile(run / file, out / kept)
        document[stage]["weights"] = {"name": Path(kept).stem, "file": kept, "sha256": sha256}
    header = f"# Written by `cmbtrain export`; {name}.md says what the weights were trained on.\n\n"
    (out / f"{name}.toml").write_text(header + to_toml(document))
    profile = load_profile(str(out / f"{name}.toml"))
    (out / f"{name}.md").write_text(model_card(profile, fitted))
    return profile


def read_fitted(run: Path) -> dict[str, Any]:
    """What a finished training left.

    Raises
    ------
    InputError
        When it is not finished, or of another version.
    """
    path = run / FITTED
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError("holds no finished training", where=str(run), do="run `cmbtrain fit` to its end") from error
    if document.get("schema") != SCHEMA:
        raise InputError(f"has schema {document.get('schema')}, not {SCHEMA}", where=str(path))
    return document


def _started(fitted: dict[str, Any]) -> str:
    start = ", ".join(f"`{name}` ({sha[:16]})" for name, sha in fitted.get("start", {}).items())
    if start:
        return f"The networks started from {start}."
    missing = fitted["config"]["pretrained"] == "imagenet"
    reason = ", because the ImageNet weights could not be downloaded" if missing else ""
    return f"The networks started from random numbers{reason}."


def model_card(profile: Profile, fitted: dict[str, Any]) -> str:
    """Say in Markdown what the weights are, what they were trained on, and what they cannot do."""
    training, validation = fitted["training"], fitted["validation"]
    heads = {"training": training["anatomies"], "validation": validation["anatomies"]}
    figures = "\n".join(f"| {_figure(name)} | {value:.3f} |" for name, value in fitted["figures"].items())
    rows = "\n".join(
        f"| {n} | {s['studies']} | {len(s['anatomies'])} | {s['visible_bleeds']} | `{s['sha256'][:16]}` |"
        for n, s in (("training", training), ("validation", validation))
    )
    weights = "\n".join(f"| `{w}` | `{sha}` |" for w, sha in profile.weights.items())
    return f"""# {profile.name}

{profile.description}. For research use only; not a medical device.

Profile digest: `{profile.digest}`.

| weights | SHA-256 |
|---|---|
{weights}

## Training data

| | studies | heads | visible microbleeds | SHA-256 of the studies' names |
|---|---|---|---|---|
{rows}

- Training heads: {", ".join(heads["training"])}.
- Validation heads: {", ".join(heads["validation"])}.
- Seed {fitted["seed"]}, source commit `{fitted["commit"]}`, recipe `{fitted["recipe"][:16]}`.
- {_started(fitted)}

## Figures

These figures are optimistic: they come from the validation studies, which also selected the epoch, the calibration and
the thresholds. `cmbtrain evaluate` measures on held-out heads.

| figure | value |
|---|---|
{figures}

Thresholds: possible {profile.thresholds.possible}, definite {profile.thresholds.definite}.

## Limits

{chr(10).join(f"- {caveat[:1].upper()}{caveat[1:]}." for caveat in profile.caveats) or "- None stated."}
- Voxels of {profile.suits.in_plane_mm[0]} to {profile.suits.in_plane_mm[1]} mm in plane, slices of \
{profile.suits.slice_mm[0]} to {profile.suits.slice_mm[1]} mm; other images are analysed with a warning.
- Figures on simulated images are no claim of clinical sensitivity.
- Superficial siderosis and macrobleeds are not detected.
"""


def _figure(name: str) -> str:
    """The name of a figure in words."""
    return name.replace("_fp", " false positives per study").replace("_", " ")
