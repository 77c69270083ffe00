"""How does a method do on heads it was not trained on, over a whole cohort? Folds by anatomy; train, then measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from pipeline.errors import InputError
from pipeline.profile import Profile, load_profile
from training.datasets.record import LabelledStudy, Mark, Record, vein_marks
from training.fit.recipe import without_weights

from .cases import Case
from .metrics import StudyResult
from .run import code_digest, images_of, run_profile

Say = Callable[[str], None]
ARMS: dict[str, dict[str, Any]] = {"plain": {"augmentation": {"kind": "none"}}, "frozen": {"freeze": True}}
"""Other ways to train a classifier of Afzal et al. (2021), and what each changes of its configuration."""


@dataclass(frozen=True)
class Fold:
    """Studies to train on and studies to test on; no anatomy is on both sides."""

    number: int
    train: tuple[Case, ...]
    test: tuple[Case, ...]


@dataclass(frozen=True)
class Training:
    """How networks are trained.

    Parameters
    ----------
    cache : Path
        Folder for the studies as training reads them.
    config : str or None
        Configuration; by default the profile's own, for this machine.
    pretrained : Path or None
        Weights that the classifier starts from.
    arm : str
        One of :data:`ARMS`; empty: as configured.
    say : callable
        Told what is being done.
    """

    cache: Path
    config: str | None = None
    pretrained: Path | None = None
    arm: str = ""
    say: Say = lambda _: None


def anatomy_folds(cases: Sequence[Case], folds: int, seed: int = 0) -> list[Fold]:
    """Split by anatomy, in folds of about as many studies.

    Raises
    ------
    InputError
        When there are fewer anatomies than folds.
    """
    anatomies = [case.anatomy for case in cases]
    if not 2 <= folds <= len(set(anatomies)):
        raise InputError(
            f"{len(set(anatomies))} anatomies cannot make {folds} folds",
            do="use at least 2 folds, and at most one per anatomy",
        )
    found = []
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for number, (train, test) in enumerate(splitter.split(np.zeros(len(cases)), groups=anatomies), start=1):
        found.append(Fold(number, tuple(cases[n] for n in train), tuple(cases[n] for n in test)))
    return found


def train(records: Sequence[Record], profile: Profile, folder: Path, how: Training) -> Path:
    """Train what is learned in a profile; returns the profile file with its weights."""
    if profile.classifier is not None and profile.classifier.method == "forest":
        from training.fit.forest import fit_forest

        return fit_forest(records, profile, folder, say=how.say)
    return _train_networks(records, profile, folder, how)


def _train_networks(records: Sequence[Record], profile: Profile, folder: Path, how: Training) -> Path:
    """Prepare the studies once for all folds and profiles, fit, export."""
    from training.datasets.cache import make_cache, read_study
    from training.fit.config import FitConfig, default_config, load_config
    from training.fit.export import export
    from training.fit.holdout import hold_out_validation
    from training.fit.run import fit
    from training.fit.training_run import TrainingRun

    config = load_config(how.config or default_config(profile.name))
    if how.arm:
        document = config.model_dump()
        config = FitConfig.model_validate(document | {"classifier": document["classifier"] | ARMS[how.arm]})
    studies = [read_study(path) for path in make_cache(records, how.cache, say=how.say)]
    split = hold_out_validation(studies, config.validation_share)
    fit(TrainingRun(profile, config, split, folder / "run", how.pretrained, say=how.say))
    export(folder / "run", folder, profile)
    return folder / f"{profile.name}.toml"


def cross_validate(
    cases: Sequence[Case], profile: Profile, out: Path, *, folds: int, how: Training, device: str = "auto"
) -> list[list[StudyResult]]:
    """Train and test on every fold; a fold that was trained before on the same studies is not trained again.

    Parameters
    ----------
    cases : sequence of Case
        The cohort.
    profile : Profile
        What is trained; weights it may have are not used.
    out : Path
        Folder for the trained profiles and the findings.
    folds : int
        How many.
    how : Training
        Of the networks.
    device : str
        ``auto``, ``cpu`` or ``cuda``, for the test.

    Returns
    -------
    list of list of StudyResult
        The test studies of each fold, judged; together the whole cohort, once.
    """
    bare = without_weights(profile)
    results = []
    for fold in anatomy_folds(cases, folds):
        how.say(f"{profile.name}: fold {fold.number} of {folds}, {len(fold.train)} studies to train on")
        folder = out / profile.name / f"fold-{fold.number}"
        trained = _trained(bare, fold, folder, how) if bare.untrained else bare
        results.append(list(run_profile(fold.test, trained, out / "findings", device=device, say=how.say)))
    return results


def named_for(profile: Profile, arm: str) -> Profile:
    """A profile under the name of its arm.

    Raises
    ------
    InputError
        When there is no such arm, or none for this profile.
    """
    if not arm:
        return profile
    if arm not in ARMS:
        raise InputError("no such training", where=f"--arm {arm}", do=f"use {' or '.join(ARMS)}")
    if profile.classifier is None or profile.classifier.method != "transfer":
        raise InputError(
            f"profile {profile.name} cannot be trained as {arm}: it has none of Afzal's classifiers",
            do="leave out --arm, or name only profiles such as afzal-2021-alexnet",
        )
    return Profile.model_validate(profile.model_dump() | {"name": f"{profile.name}-{arm}"})


def _trained(profile: Profile, fold: Fold, folder: Path, how: Training) -> Profile:
    note = folder / "trained-on.json"
    made_from = {
        "studies": [case.name for case in fold.train],
        "profile": profile.digest,
        "config": Path(how.config).read_text() if how.config and Path(how.config).is_file() else how.config,
        "code": code_digest(),
    }
    if not (note.is_file() and (known := json.loads(note.read_text()))["from"] == made_from):
        folder.mkdir(parents=True, exist_ok=True)
        path = train([record_of(case) for case in fold.train], profile, folder, how)
        known = {"from": made_from, "profile": path.name}
        note.write_text(json.dumps(known, indent=1) + "\n")
    return load_profile(str(folder / known["profile"]))


def record_of(case: Case) -> Record:
    """A case as a study to train on, whatever split it is in."""
    if case.record:
        return replace(case.record, split=None)
    return Record(case.name, case.subject, case.anatomy, None, bool(case.truth.mimics), partial(_read, case))


def _read(case: Case) -> LabelledStudy:
    things = (*case.truth.bleeds, *case.truth.mimics)
    marks = tuple(Mark(t.centre_lps_mm, t.kind, t.diameter_mm or None, t.visible) for t in things)
    places = [vein.centre_lps_mm for vein in case.truth.veins]
    veins = vein_marks(places, [vein.diameter_mm for vein in case.truth.veins], marks)
    return LabelledStudy(images_of(case), (*marks, *veins))
