"""How does a method do on heads it was not trained on, over a whole cohort? Folds by anatomy; train, then measure."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold

from pipeline.errors import InputError
from pipeline.profile import Profile, load_profile
from pipeline.volume import read_acquisition
from training.datasets.record import Labelled, Mark, Record
from training.evaluation.cases import Case
from training.evaluation.metrics import StudyResult
from training.evaluation.run import code_digest, pick_case, run_profile

Say = Callable[[str], None]
Trainer = Callable[[Sequence[Record], Profile, Path], Path]
"""Trains a profile on some studies; returns the profile file that it wrote, with weights, into the folder."""

TRAINERS = {"forest": "training.forest:fit_forest"}
"""The trainer of a profile by the method of its classifier, as ``module:function``."""


@dataclass(frozen=True)
class Fold:
    """Studies to train on and studies to test on; no anatomy is on both sides."""

    number: int
    train: tuple[Case, ...]
    test: tuple[Case, ...]


def split(cases: Sequence[Case], folds: int, seed: int = 0) -> list[Fold]:
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
            do="use 2 folds or more, at most one an anatomy",
        )
    found = []
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for number, (train, test) in enumerate(splitter.split(np.zeros(len(cases)), groups=anatomies), start=1):
        found.append(Fold(number, tuple(cases[n] for n in train), tuple(cases[n] for n in test)))
    return found


def trainer_of(profile: Profile) -> Trainer | None:
    """Find what trains a profile; ``None`` when nothing in it is learned.

    Raises
    ------
    InputError
        When its method cannot be trained here.
    """
    if profile.classifier is None and not profile.untrained:
        return None
    method = profile.classifier.method if profile.classifier else profile.candidates.method
    if method not in TRAINERS:
        raise InputError(f"nothing here trains {method}", where=f"profile {profile.name}", do="use another profile")
    module, function = TRAINERS[method].split(":")
    trainer: Trainer = getattr(importlib.import_module(module), function)
    return trainer


def cross_validate(
    cases: Sequence[Case], profile: Profile, out: Path, *, folds: int, device: str = "auto", say: Say = lambda _: None
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
    device : str
        ``auto``, ``cpu`` or ``cuda``, for the test.
    say : callable
        Told what is being done.

    Returns
    -------
    list of list of StudyResult
        The test studies of each fold, judged; together the whole cohort, once.
    """
    bare = without_weights(profile)
    trainer = trainer_of(bare)
    results = []
    for fold in split(cases, folds):
        say(f"{profile.name}: fold {fold.number} of {folds}, {len(fold.train)} studies to train on")
        folder = out / profile.name / f"fold-{fold.number}"
        trained = bare if trainer is None else _trained(bare, trainer, fold, folder)
        results.append(list(run_profile(fold.test, trained, out / "findings", device=device, say=say)))
    return results


def without_weights(profile: Profile) -> Profile:
    """The profile as it is before any training."""
    candidates = profile.candidates.model_copy(update={"weights": None})
    classifier = profile.classifier and profile.classifier.model_copy(update={"weights": None})
    return profile.model_copy(update={"candidates": candidates, "classifier": classifier})


def _trained(profile: Profile, trainer: Trainer, fold: Fold, folder: Path) -> Profile:
    note = folder / "trained-on.json"
    studies = {"studies": [case.name for case in fold.train], "profile": profile.digest, "code": code_digest()}
    if not (note.is_file() and (known := json.loads(note.read_text()))["from"] == studies):
        folder.mkdir(parents=True, exist_ok=True)
        path = trainer([record_of(case) for case in fold.train], profile, folder)
        known = {"from": studies, "profile": path.name}
        note.write_text(json.dumps(known, indent=1) + "\n")
    return load_profile(str(folder / known["profile"]))


def record_of(case: Case) -> Record:
    """A case as a study to train on."""
    return Record(case.name, case.subject, case.anatomy, "train", bool(case.truth.mimics), partial(_read, case))


def _read(case: Case) -> Labelled:
    things = (*case.truth.bleeds, *case.truth.mimics)
    marks = tuple(Mark(t.centre_lps_mm, t.kind, t.diameter_mm or None, t.visible) for t in things)
    return Labelled(read_acquisition(pick_case(case)), marks)
