"""How is the forest of a profile grown? From any data set, with thresholds and calibration chosen out of fold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from pipeline.brain import extract_brain
from pipeline.classifiers.features import NAMES, OF_MAGNITUDE, OF_PHASE, measure
from pipeline.classifiers.forest import Parameters, calibrated, log_odds
from pipeline.errors import InputError, ProfileError
from pipeline.profile import Profile, Thresholds
from training.datasets.mark_kinds import BLEED
from training.datasets.record import Mark, Record
from training.evaluation.cases import Case, CaseFindings, CaseTruth, ReportedMark, TruthObject
from training.evaluation.matching import MATCH_MM
from training.evaluation.metrics import StudyResult, froc_of
from training.evaluation.outcomes import DUPLICATE
from training.evaluation.run import code_digest

from .profile_files import weights_of, write_profile

Say = Callable[[str], None]
Floats = NDArray[np.float64]

NEAR_MM = 2.5
"""A candidate this near to a visible microbleed, or within it, is one; from there to 5 mm it is left out."""
FOLDS = 5
POSSIBLE_FP, DEFINITE_FP = 1.0, 0.25
"""False positives per study, out of fold, at the two thresholds …"""
LEAST_POSSIBLE, LEAST_DEFINITE = 0.1, 0.5
"""… which are no lower than this, however few false positives there are."""
NO_PHASE, NO_MAGNITUDE = 0.25, 0.4
"""Share of studies that are seen once more without their phase, or their magnitude."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The candidates of one study.

    Parameters
    ----------
    record : Record
        Where they are from.
    marks : tuple of Mark
        What is in the study.
    centres : ndarray, shape (n, 3)
        LPS millimetres.
    features : ndarray of float32, shape (n, figures)
        See :mod:`pipeline.classifiers.features`.
    """

    record: Record
    marks: tuple[Mark, ...]
    centres: Floats
    features: NDArray[np.float32]

    def labels(self) -> NDArray[np.int64]:
        """1 for a microbleed, 0 for none, −1 to leave out: beside a microbleed, or on one that cannot be seen."""
        labels = np.zeros(len(self.centres), np.int64)
        bleeds = [mark for mark in self.marks if mark.kind == BLEED]
        for mark in sorted(bleeds, key=lambda m: m.visible):
            distance = np.linalg.norm(self.centres - mark.centre_lps_mm, axis=1)
            labels[(distance <= MATCH_MM) & (labels == 0)] = -1
            if mark.visible:
                labels[distance <= max(NEAR_MM, mark.size_mm / 2)] = 1
        return labels


def fit_forest(
    records: Sequence[Record], profile: Profile, out: Path, *, seed: int = 0, say: Say = lambda _: None
) -> Path:
    """Grow the forest of a profile; the same records and seed give the same file.

    Parameters
    ----------
    records : sequence of Record
        Studies to train on, of at least two heads.
    profile : Profile
        Its classifier is ``forest``; its other stages need no weights or have them.
    out : Path
        Folder for ``NAME.toml``, ``NAME.safetensors`` and the features, which are measured once.
    seed : int
        Of the forest.
    say : callable
        Told what is being done.

    Returns
    -------
    Path
        The profile with its weights.

    Raises
    ------
    InputError
        When there are too few heads, or no microbleed among the candidates.
    ProfileError
        When the profile has no forest.
    """
    if profile.classifier is None or profile.classifier.method != "forest":
        raise ProfileError(f"profile {profile.name} has no random forest", do="use frst-forest")
    parameters = Parameters(**profile.classifier.parameters)
    studies = _measure_all(records, profile, parameters, out / "features", say)
    groups = _groups(studies)
    say(f"{profile.name}: growing {parameters.trees} trees, {min(FOLDS, len(set(groups)))} times out of fold")
    votes = _out_of_fold(studies, groups, parameters, seed)
    calibration = _calibrate(studies, votes)
    possible, definite = _thresholds(studies, votes, calibration)
    tensors = export(_grow(studies, parameters, seed), calibration)
    path = out.absolute() / f"{profile.name}.safetensors"
    save_file(tensors, path)
    trained = profile.model_copy(
        update={
            "classifier": profile.classifier.model_copy(update={"weights": weights_of(path, f"{profile.name}-forest")}),
            "thresholds": Thresholds(possible=possible, definite=definite),
        }
    )
    say(f"{profile.name}: possible from {possible:.3f}, definite from {definite:.3f}")
    return write_profile(trained, out / f"{profile.name}.toml")


def _measure_all(
    records: Sequence[Record], profile: Profile, parameters: Parameters, folder: Path, say: Say
) -> list[Samples]:
    folder.mkdir(parents=True, exist_ok=True)
    studies = []
    for n, record in enumerate(sorted(records, key=lambda r: r.name), start=1):
        studies.append(_measure(record, profile, parameters, folder))
        found = int((studies[-1].labels() == 1).sum())
        say(
            f"{profile.name} {n}/{len(records)} {record.name}: {len(studies[-1].centres)} candidates, "
            f"{found} on microbleeds"
        )
    return studies


def _measure(record: Record, profile: Profile, parameters: Parameters, folder: Path) -> Samples:
    """Candidates and features of one study, kept for the same stages and code."""
    stages = profile.model_dump_json(include={"brain", "candidates"}) + parameters.measure.model_dump_json()
    digest = hashlib.sha256(f"{record.name}{stages}{code_digest()}".encode()).hexdigest()
    path = folder / f"{digest}.npz"
    if path.is_file():
        with np.load(path) as stored:
            marks = tuple(_mark(entry) for entry in json.loads(stored["marks"].tobytes()))
            return Samples(record, marks, stored["centres"], stored["features"])
    study = record.read()
    images = study.acquisition
    brain = extract_brain(images.magnitude or images.swi, profile.brain) if study.brain is None else study.brain
    candidates = profile.candidates.call("propose", images, brain, device="cpu")
    features = measure(images, brain, candidates, parameters.measure)
    centres = images.swi.geometry.to_lps(np.array([c.ijk for c in candidates]).reshape(-1, 3))
    marks_json = np.frombuffer(json.dumps([asdict(mark) for mark in study.marks]).encode(), np.uint8)
    partial = path.with_name(f".{path.name}")
    np.savez(partial, centres=centres, features=features, marks=marks_json)
    partial.replace(path)
    return Samples(record, study.marks, centres, features)


def _mark(entry: dict[str, object]) -> Mark:
    return Mark(**{**entry, "centre_lps_mm": tuple(entry["centre_lps_mm"])})  # type: ignore[arg-type]


def _groups(studies: Sequence[Samples]) -> list[str]:
    """What may not be on both sides of a fold: the head, or where there is one head only, the person."""
    for groups in ([s.record.anatomy for s in studies], [s.record.subject for s in studies]):
        if len(set(groups)) > 1:
            return groups
    raise InputError("a forest needs studies of two heads or more", do="give more studies")


def _rows(studies: Sequence[Samples], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All labelled candidates, and those of some studies once more as if images were missing."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for study in studies:
        label = study.labels()
        known = label >= 0
        features.append(study.features[known])
        labels.append(label[known])
        for columns, share in ((OF_PHASE, NO_PHASE), (OF_MAGNITUDE, NO_MAGNITUDE)):
            if rng.random() < share:
                poorer = study.features[known].copy()
                poorer[:, columns] = np.nan
                features.append(poorer)
                labels.append(label[known])
    return np.concatenate(features), np.concatenate(labels)


def _grow(studies: Sequence[Samples], parameters: Parameters, seed: int) -> RandomForestClassifier:
    features, labels = _rows(studies, seed)
    if not labels.any() or labels.all():
        raise InputError(
            "no candidate of some heads lies on a visible microbleed", do="give more studies with microbleeds"
        )
    forest = RandomForestClassifier(
        parameters.trees,
        min_samples_leaf=parameters.leaf,
        class_weight="balanced_subsample",
        n_jobs=-1,
        random_state=seed,
    )
    forest.fit(features, labels)
    forest.n_jobs = 1  # threads would add up the votes of the trees in any order, so their last bits would differ
    return forest


def _out_of_fold(studies: Sequence[Samples], groups: Sequence[str], parameters: Parameters, seed: int) -> list[Floats]:
    """Votes for every study by a forest that knows no study of its head."""
    votes: list[Floats] = [np.empty(0)] * len(studies)
    folds = GroupKFold(min(FOLDS, len(set(groups))))
    for train, test in folds.split(np.zeros(len(studies)), groups=groups):
        forest = _grow([studies[n] for n in train], parameters, seed)
        for n in test:
            votes[n] = forest.predict_proba(studies[n].features)[:, 1] if len(studies[n].features) else np.empty(0)
    return votes


def _calibrate(studies: Sequence[Samples], votes: Sequence[Floats]) -> Floats:
    """Offset and slope of Platt scaling, out of fold."""
    labels = np.concatenate([study.labels() for study in studies])
    known = labels >= 0
    odds = log_odds(np.concatenate(list(votes)))[known, None]
    fitted = LogisticRegression(C=1e6).fit(odds, labels[known])
    return np.array([fitted.intercept_[0], fitted.coef_[0, 0]], np.float64)


def _thresholds(studies: Sequence[Samples], votes: Sequence[Floats], calibration: Floats) -> tuple[float, float]:
    results = []
    for study, vote in zip(studies, votes, strict=True):
        places = zip(study.centres.tolist(), calibrated(vote, calibration).tolist(), strict=True)
        marks = tuple(ReportedMark((x, y, z), p) for (x, y, z), p in places)
        truth = CaseTruth(
            tuple(TruthObject(m.centre_lps_mm, visible=m.visible) for m in study.marks if m.kind == BLEED)
        )
        case = Case(study.record.name, study.record.subject, study.record.anatomy, Path(), truth)
        judged = StudyResult.of(case, CaseFindings((), marks)).candidates
        # Candidates on the same object become one lesion, so a second mark of a microbleed is no false one here.
        results.append(StudyResult(case, (), tuple(j for j in judged if j.lies_on != DUPLICATE)))
    froc = froc_of(results)
    possible = min(1.0, max(LEAST_POSSIBLE, froc.threshold_at(POSSIBLE_FP)))
    return possible, min(1.0, max(LEAST_DEFINITE, possible, froc.threshold_at(DEFINITE_FP)))


def export(forest: RandomForestClassifier, calibration: Floats | None = None) -> dict[str, NDArray[np.generic]]:
    """The arrays of a grown forest, named as :class:`pipeline.classifiers.forest.Forest` has them, and its features."""
    trees = [estimator.tree_ for estimator in forest.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    bleed = list(forest.classes_).index(1)
    parts: dict[str, list[NDArray[np.generic]]] = {f: [] for f in ("left", "right", "feature", "threshold")}
    parts |= {"missing_left": [], "value": []}
    for tree, start in zip(trees, starts, strict=False):
        leaf = tree.children_left < 0
        own = np.arange(tree.node_count)
        parts["left"].append(np.where(leaf, own, tree.children_left) + start)
        parts["right"].append(np.where(leaf, own, tree.children_right) + start)
        parts["feature"].append(np.where(leaf, -1, tree.feature))
        parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
        parts["missing_left"].append(tree.missing_go_to_left.astype(bool))
        parts["value"].append(tree.value[:, 0, bleed] / tree.value[:, 0].sum(axis=1))
    integers = ("left", "right", "feature")
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    arrays |= {name: arrays[name].astype(np.int64) for name in integers}
    arrays["roots"] = starts[:-1].astype(np.int64)
    arrays["calibration"] = np.array([0.0, 1.0]) if calibration is None else calibration
    arrays["names"] = np.frombuffer("\n".join(NAMES).encode(), np.uint8)
    return arrays
