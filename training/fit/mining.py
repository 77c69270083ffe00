"""What does the second stage have to tell apart? What the first proposes, named by the marks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.candidates import Candidate
from pipeline.classifiers import cnn3d
from pipeline.classifiers.probability import candidate_odds, centres_of
from pipeline.measure.candidate_regions import find_regions
from pipeline.networks.heatmap import KINDS
from pipeline.networks.inputs import prepare
from pipeline.profile import Profile
from training.datasets.cache import CachedStudy
from training.datasets.mark_kinds import REJECTED
from training.datasets.record import Mark
from training.evaluation.froc import CountedCandidates

from .config import MiningConfig
from .targets import NO_POINT, NOTHING, UNKNOWN, kind_of

SKIP = -3
"""Class of a candidate that is too near to a microbleed to be none, and too far to be it."""


@dataclass(frozen=True, eq=False)
class MinedCandidates:
    """Candidates of some studies.

    Parameters
    ----------
    patches : Tensor of half, shape (n, …)
        As the classifier's module cuts them.
    kinds : ndarray of int, shape (n,)
        ``pipeline.networks.context.CLASSES``, ``UNKNOWN`` or ``SKIP``.
    odds : ndarray, shape (n,)
        Log odds of the first stage.
    study : ndarray of int, shape (n,)
        Which study each is from.
    points : ndarray, shape (n, 3)
        Patient coordinates.
    sizes : ndarray, shape (n,)
        Diameter of the microbleed that each is, mm; infinite for the others.
    """

    patches: Tensor
    kinds: NDArray[np.int64]
    odds: NDArray[np.float64]
    study: NDArray[np.int64]
    points: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def classes(self, method: str) -> Tensor:
        """Classes as a method tells them apart: two, or all kinds."""
        if method == "context":
            return torch.from_numpy(self.kinds)
        bleed = self.kinds == 0
        return torch.from_numpy(np.where(self.kinds == SKIP, SKIP, np.where(bleed, cnn3d.BLEED, 0)))


def mine(
    studies: Sequence[CachedStudy],
    profile: Profile,
    config: MiningConfig,
    device: str,
    *,
    training: bool,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> MinedCandidates:
    """Propose candidates in every study, filter them by the profile's shapes, and cut their patches.

    With `training`, marked microbleeds that no candidate found and null insertions are added; figures are never
    drawn from such a set. What was mined is kept in the folder `keep`, so that a training that continues in another
    sitting does not mine again.
    """
    settings = f"{profile.digest}\0{config.model_dump_json()}\0{training}"
    folder = None if keep is None else keep / hashlib.sha256(settings.encode()).hexdigest()[:16]
    parts = []
    for n, study in enumerate(studies):
        path = None if folder is None else folder / f"{study.name}.npz"
        if path is not None and path.is_file():
            mined = _read(path)
        else:
            mined = _mine_study(study, profile, config, device, training=training)
            if path is not None:
                _write(mined, path)
        say(f"{study.name}: {len(mined.kinds)} candidates, {(mined.kinds == 0).sum()} at microbleeds")
        if len(mined.kinds):
            parts.append(replace(mined, study=np.full(len(mined.kinds), n)))
    return _join(parts)


def _mine_study(
    study: CachedStudy, profile: Profile, config: MiningConfig, device: str, *, training: bool
) -> MinedCandidates:
    assert profile.classifier is not None  # noqa: S101 - nothing to mine for without one
    method = profile.classifier.module
    parameters = method.Parameters(**profile.classifier.parameters)
    acquisition = study.acquisition()
    proposed = profile.candidates.call("propose", acquisition, study.brain, device=device)
    regions = find_regions(proposed, acquisition, study.brain, profile)
    candidates = sorted((r.region.candidate for r in regions), key=lambda c: -c.score)[: config.candidates]
    kinds = name_candidates(study, centres_of(candidates), config)
    if training:
        candidates, kinds = add_marks(study, candidates, kinds, config)
    if not candidates:
        return _join([])
    centres = centres_of(candidates)
    points = study.geometry.to_lps(centres)
    patches = method.cut(prepare(acquisition, study.brain), centres, parameters).half()
    nowhere = np.zeros(len(kinds), np.int64)
    return MinedCandidates(patches, kinds, candidate_odds(candidates), nowhere, points, _sizes(study, points, kinds))


def _sizes(study: CachedStudy, points: NDArray[np.float64], kinds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Diameter of the nearest visible microbleed of each candidate that is one."""
    sizes = np.full(len(points), np.inf)
    bleeds = study.visible_bleeds()
    centres = np.array([m.centre_lps_mm for m in bleeds]).reshape(-1, 3)
    for n in np.flatnonzero(kinds == 0):
        sizes[n] = bleeds[int(np.linalg.norm(centres - points[n], axis=1).argmin())].size_mm
    return sizes


_ARRAYS = ("kinds", "odds", "study", "points", "sizes")


def _write(mined: MinedCandidates, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as opened:
        arrays = {name: getattr(mined, name) for name in _ARRAYS}
        np.savez(opened, allow_pickle=False, patches=mined.patches.numpy(), **arrays)
    partial.replace(path)


def _read(path: Path) -> MinedCandidates:
    with np.load(path, allow_pickle=False) as stored:
        return MinedCandidates(torch.from_numpy(stored["patches"]), *(stored[name] for name in _ARRAYS))


def _join(parts: Sequence[MinedCandidates]) -> MinedCandidates:
    if not parts:
        none, nothing = np.empty(0), np.empty(0, np.int64)
        return MinedCandidates(torch.empty(0), nothing, none, nothing, none.reshape(0, 3), none)
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return MinedCandidates(torch.cat([p.patches for p in parts]), **joined)


def name_candidates(study: CachedStudy, centres: NDArray[np.float64], config: MiningConfig) -> NDArray[np.int64]:
    """Kind of each candidate, by the nearest mark; what a reader rejected is no microbleed, even near to one."""
    points = study.geometry.to_lps(centres.reshape(-1, 3))
    named = np.full(len(points), NOTHING if study.mimics_known else UNKNOWN, np.int64)
    kinds = np.array([kind_of(m) for m in study.marks], np.int64)
    where = np.array([m.centre_lps_mm for m in study.marks]).reshape(-1, 3)
    rejected = np.array([m.kind == REJECTED for m in study.marks], bool)
    for n, point in enumerate(points):
        distance = np.linalg.norm(where - point, axis=1)
        mimics = np.where((kinds > 0) & (kinds < len(KINDS)), distance, np.inf)
        if mimics.min(initial=np.inf) <= config.match_mm:
            named[n] = kinds[mimics.argmin()]
        bleeds, any_bleed = np.where(kinds == 0, distance, np.inf), np.where(kinds <= 0, distance, np.inf)
        any_bleed[kinds == NO_POINT] = np.inf
        refused = distance[rejected].min(initial=np.inf)
        if bleeds.min(initial=np.inf) <= min(config.match_mm, mimics.min(initial=np.inf), refused):
            named[n] = 0
        elif refused <= config.match_mm:
            named[n] = UNKNOWN if named[n] == NOTHING else named[n]
        elif any_bleed.min(initial=np.inf) <= config.ignore_mm and named[n] in (NOTHING, UNKNOWN):
            named[n] = SKIP
    return named


def add_marks(
    study: CachedStudy, candidates: list[Candidate], kinds: NDArray[np.int64], config: MiningConfig
) -> tuple[list[Candidate], NDArray[np.int64]]:
    """Add the visible microbleeds that were missed, the places of null insertions, and what a reader rejected."""
    centres = study.geometry.to_lps(centres_of(candidates)).reshape(-1, 3)
    extra: list[Candidate] = []
    extra_kinds: list[int] = []
    for mark, at in zip(study.marks, study.points(study.marks).tolist(), strict=True):
        near = np.linalg.norm(centres - mark.centre_lps_mm, axis=1) <= config.match_mm
        kind = _missed(mark, bool(near.any()), bool((near & (kinds == 0)).any()), config)
        if kind is not None:
            extra.append(Candidate((at[0], at[1], at[2]), 0.5))
            extra_kinds.append(kind)
    return [*candidates, *extra], np.concatenate([kinds, np.array(extra_kinds, np.int64)])


def _missed(mark: Mark, proposed: bool, found: bool, config: MiningConfig) -> int | None:
    """Class under which a mark is added, if it is: when it was not proposed, or not as a microbleed."""
    kind = kind_of(mark)
    if mark.kind == REJECTED:
        return None if proposed else UNKNOWN
    if kind == NO_POINT:
        return NOTHING
    return 0 if kind == 0 and config.add_bleeds and not found else None


def score_mined(
    mined: MinedCandidates, scores: NDArray[np.float64], studies: Sequence[CachedStudy]
) -> list[CountedCandidates]:
    """Mined candidates, with scores, as each study's FROC curve counts them."""
    return [
        CountedCandidates.of(mined.points[mined.study == n], scores[mined.study == n], *study.reference())
        for n, study in enumerate(studies)
    ]
