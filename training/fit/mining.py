"""What does the second stage have to tell apart? What the first proposes, named by the marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.candidates import Candidate
from pipeline.classifiers import cnn3d
from pipeline.classifiers._learned import candidate_odds, centres_of
from pipeline.inputs import prepare
from pipeline.networks.heatmap import KINDS
from pipeline.profile import Profile
from pipeline.regions import find_regions
from training.datasets.cache import CachedStudy
from training.datasets.record import REJECTED, Mark
from training.fit.config import MiningConfig
from training.fit.matching import Matched, match
from training.fit.targets import NO_POINT, NOTHING, UNKNOWN, kind_of

SKIP = -3
"""Class of a candidate that is too near to a bleed to be none, and too far to be it."""


@dataclass(frozen=True, eq=False)
class Mined:
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
    """

    patches: Tensor
    kinds: NDArray[np.int64]
    odds: NDArray[np.float64]
    study: NDArray[np.int64]
    points: NDArray[np.float64]

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
    say: Callable[[str], None] = lambda _: None,
) -> Mined:
    """Propose candidates in every study, filter them by the profile's shapes, and cut their patches.

    With `training`, marked bleeds that no candidate found and null insertions are added; figures are never drawn from
    such a set.
    """
    assert profile.classifier is not None  # noqa: S101 - nothing to mine for without one
    method = profile.classifier.module
    parameters = method.Parameters(**profile.classifier.parameters)
    parts = []
    for n, study in enumerate(studies):
        acquisition = study.acquisition()
        proposed = profile.candidates.call("propose", acquisition, study.brain, device=device)
        regions = find_regions(proposed, acquisition, study.brain, profile)
        candidates = [r.region.candidate for r in regions]
        candidates = sorted(candidates, key=lambda c: -c.score)[: config.candidates]
        kinds = name_candidates(study, centres_of(candidates), config)
        if training:
            candidates, kinds = add_marks(study, candidates, kinds, config)
        say(f"{study.name}: {len(candidates)} candidates, {(kinds == 0).sum()} at bleeds")
        if candidates:
            centres = centres_of(candidates)
            patches = method.cut(prepare(acquisition, study.brain), centres, parameters).half()
            points = study.geometry.to_lps(centres)
            parts.append(Mined(patches, kinds, candidate_odds(candidates), np.full(len(kinds), n), points))
    return _join(parts)


def _join(parts: Sequence[Mined]) -> Mined:
    if not parts:
        return Mined(torch.empty(0), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty((0, 3)))
    return Mined(
        torch.cat([p.patches for p in parts]),
        np.concatenate([p.kinds for p in parts]),
        np.concatenate([p.odds for p in parts]),
        np.concatenate([p.study for p in parts]),
        np.concatenate([p.points for p in parts]),
    )


def name_candidates(study: CachedStudy, centres: NDArray[np.float64], config: MiningConfig) -> NDArray[np.int64]:
    """Kind of each candidate, by the nearest mark; what a reader rejected is no bleed, even near to one."""
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
    """Add the visible bleeds that were missed, the places of null insertions, and what a reader rejected."""
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
    """Class under which a mark is added, if it is: when it was not proposed, or not as a bleed."""
    kind = kind_of(mark)
    if mark.kind == REJECTED:
        return None if proposed else UNKNOWN
    if kind == NO_POINT:
        return NOTHING
    return 0 if kind == 0 and config.add_bleeds and not found else None


def match_mined(mined: Mined, scores: NDArray[np.float64], studies: Sequence[CachedStudy]) -> list[Matched]:
    """Match mined candidates, with scores, to the bleeds of their studies."""
    matched = []
    for n, study in enumerate(studies):
        of_study = mined.study == n
        visible, hidden = (
            np.array([m.centre_lps_mm for m in study.bleeds(visible=v)]).reshape(-1, 3) for v in (True, False)
        )
        matched.append(match(mined.points[of_study], scores[of_study], visible, hidden))
    return matched
