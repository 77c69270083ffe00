"""Which microbleeds are found, which are not, and what do false positives lie on?"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .bootstrap import Estimate, Resamples
from .cases import NULL, TruthObject
from .metrics import StudyResult, ratio
from .outcomes import MarkOutcome

SIZES_MM = (2.0, 3.0, 5.0)
"""Limits between classes of apparent diameter; a microbleed blooms to about twice its size."""


@dataclass(frozen=True)
class Group:
    """Microbleeds of one kind: how many there are, how many were found."""

    name: str
    bleeds: int
    found: int
    sensitivity: Estimate


@dataclass(frozen=True)
class FalseKind:
    """What false positives lie on: `count` of them, among `things` such mimics that show (``None`` if not mimics)."""

    name: str
    count: int
    per_study: Estimate
    things: int | None


def size_classes() -> list[str]:
    """All classes of apparent diameter, from small to large."""
    return [f"< {SIZES_MM[0]:g} mm", *(f"{a:g}–{b:g} mm" for a, b in pairwise(SIZES_MM)), f"≥ {SIZES_MM[-1]:g} mm"]


def size_class(bleed: TruthObject) -> str:
    """Class of apparent diameter; empty when it is not known."""
    return "" if bleed.diameter_mm is None else size_classes()[bisect_right(SIZES_MM, bleed.diameter_mm)]


BY: dict[str, Callable[[TruthObject], str]] = {
    "size": size_class,
    "region": lambda bleed: bleed.region,
    "placement": lambda bleed: bleed.placement,
}


def sensitivity_by(
    results: Sequence[StudyResult], of: Callable[[TruthObject], str], resamples: Resamples, order: Sequence[str] = ()
) -> list[Group]:
    """Sensitivity of each group of visible microbleeds that `of` names; an empty name leaves a microbleed out."""
    names = {name for r in results for bleed in r.case.truth.visible if (name := of(bleed))}
    groups = []
    for name in [*(n for n in order if n in names), *sorted(names - set(order))]:
        bleeds = np.array([sum(of(b) == name for b in r.case.truth.visible) for r in results], dtype=float)
        missed = np.array([sum(of(b) == name for b in r.missed) for r in results], dtype=float)
        found = bleeds - missed
        groups.append(Group(name, int(bleeds.sum()), int(found.sum()), resamples.estimate(ratio(found, bleeds))))
    return groups


def false_kinds(results: Sequence[StudyResult], resamples: Resamples) -> list[FalseKind]:
    """What the reported false positives lie on, the most frequent first."""
    each = [Counter(j.lies_on for j in r.lesions if j.verdict is MarkOutcome.FALSE) for r in results]
    truths = [r.case.truth for r in results]
    shown = Counter(m.kind for t in truths for m in (*t.mimics, *t.veins) if m.visible and m.kind != NULL)
    kinds = []
    for name in {*shown, *(name for counter in each for name in counter)}:
        counts = np.array([counter[name] for counter in each], dtype=float)
        per_study = resamples.estimate(ratio(counts, np.ones_like(counts)))
        kinds.append(FalseKind(name, int(counts.sum()), per_study, shown.get(name)))
    return sorted(kinds, key=lambda kind: (-kind.count, kind.name))
