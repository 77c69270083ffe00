"""``cmbtrain check``, ``cache``, ``fit``, ``export`` and ``fit-forest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from training.text import numbered

DatasetArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Folder of the data set; docs/train.md describes the layouts.")
]
KindOption = Annotated[
    str | None, typer.Option(help="simulated, valdo, dou, momeni, points or site [default: found by the layout].")
]


def check(dataset: DatasetArgument, kind: KindOption = None) -> None:
    """List every problem of a data set before training. The exit status is 2 if there is an error."""
    from training.datasets.check import check as find_problems
    from training.datasets.layouts import open_dataset, unused_labels

    records = open_dataset(dataset, kind)
    problems = []
    for problem in find_problems(records, unused_labels(dataset, kind)):
        problems.append(problem)
        typer.echo(str(problem))
    errors = sum(p.error for p in problems)
    counts = {"study": len(records), "error": errors, "note": len(problems) - errors}
    typer.echo(", ".join(numbered(number, noun) for noun, number in counts.items()))
    if errors:
        raise InputError(numbered(errors, "error"), where=str(dataset), do="correct them first")


def cache(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder of the cache.")],
    kind: KindOption = None,
    part_mb: Annotated[
        int, typer.Option(min=1, help="Largest size of a part, MiB; parts can be copied one by one.")
    ] = 56,
    limit: Annotated[int, typer.Option(min=0, help="Use only the first N studies; 0 uses all.")] = 0,
    coarse: Annotated[int, typer.Option(min=1, max=8, help="Keep every Nth intensity step; 4 halves the size.")] = 1,
    magnitude: Annotated[bool, typer.Option(help="Keep the magnitude.")] = True,
) -> None:
    """Prepare a data set for training. Crops it to the brain, 8 bits per value; a stopped run continues."""
    from training.datasets.cache import MEBIBYTE, make_cache
    from training.datasets.layouts import open_dataset

    records = open_dataset(dataset, kind)
    made = make_cache(records, out, part_mb=part_mb, limit=limit, coarse=coarse, magnitude=magnitude, say=_say)
    size = sum(path.stat().st_size for path in made) / MEBIBYTE
    typer.echo(
        f"{out}: {numbered(len(made), 'study')}, {size:.0f} MiB in {numbered(len({p.parent for p in made}), 'part')}"
    )


def fit(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Name of a profile, or a TOML file.")],
    data: Annotated[
        list[Path], typer.Option(help="Folder of a cache or one of its parts; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the training.")],
    config: Annotated[
        str | None, typer.Option(help="TOML file, or a name such as heatmap-gpu [default: the one for this machine].")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Weights (.pth, .safetensors) with which the classifier starts.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Trained profile whose weights the networks start with."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="Stop each stage after N minutes; the same command continues. 0 never stops.")
    ] = 0,
) -> None:
    """Train all learned stages of a profile. A stopped run continues where it left off."""
    from pipeline.profile import load_profile
    from training.datasets.cache import read_cache
    from training.fit.config import default_config, load_config
    from training.fit.holdout import hold_out_validation
    from training.fit.recipe import without_weights
    from training.fit.run import fit as train_profile
    from training.fit.training_run import TrainingRun

    recipe = load_profile(profile)
    settings = load_config(config or default_config(recipe.name))
    split = hold_out_validation(read_cache(data), settings.validation_share)
    _say(f"{numbered(len(split.train), 'study')} for training, {len(split.validation)} for validation")
    begin = load_profile(start) if start else None
    fitted = train_profile(TrainingRun(without_weights(recipe), settings, split, out, pretrained, begin, minutes, _say))
    typer.echo(f"{out}: thresholds {fitted['thresholds']}; next: `cmbtrain export {out} --profile {profile}`")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training.")],
    profile: Annotated[str, typer.Option(help="The profile that was trained.")],
    out: Annotated[Path, typer.Option(help="Folder for profile, weights and model card.")],
    name: Annotated[str | None, typer.Option(help="Name of the new profile [default: unchanged].")] = None,
) -> None:
    """Write a trained profile: TOML file, weights and model card."""
    from pipeline.profile import load_profile
    from training.fit.export import export as write_profile

    written = write_profile(run, out, load_profile(profile), name)
    typer.echo(f"{out / written.name}.toml: digest {written.digest}")


def fit_forest(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder for the profile, its weights and the features.")],
    profile: Annotated[str, typer.Option(help="Profile whose classifier is a random forest.")] = "frst-forest",
    seed: Annotated[int, typer.Option(min=0, help="The same seed and studies give the same forest.")] = 0,
    kind: KindOption = None,
) -> None:
    """Train the random forest of a profile. Leaves out studies of a test split; a stopped run continues."""
    from pipeline.profile import load_profile
    from training.datasets.layouts import open_dataset
    from training.fit.forest import fit_forest as fit

    recipe = load_profile(profile)
    records = [record for record in open_dataset(dataset, kind) if record.split != "test"]
    out.mkdir(parents=True, exist_ok=True)
    path = fit(records, recipe, out, seed=seed, say=_say)
    typer.echo(f"{path}: digest {load_profile(str(path)).digest}; use it with --profile {path}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
