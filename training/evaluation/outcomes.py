"""What did each mark turn out to be? A hit, a false positive and what it lies on, or not to be counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import dist

import numpy as np

from .cases import NULL, CaseTruth, Point, ReportedMark, TruthObject
from .matching import FREE, MATCH_MM, match

VEIN_WITHIN_MM = 2.5
"""Veins are many, so that one within 5 mm would often be there by chance."""
DUPLICATE = "duplicate"
NOTHING = "nothing marked"


class MarkOutcome(StrEnum):
    """What a mark turned out to be."""

    HIT = "hit"
    FALSE = "false"
    NOT_COUNTED = "not counted"


@dataclass(frozen=True)
class JudgedMark:
    """A mark with its verdict.

    Parameters
    ----------
    mark : ReportedMark
        What was marked.
    verdict : MarkOutcome
        A microbleed that cannot be seen, when marked, is not counted: neither found nor false.
    bleed : int or None
        Which microbleed of the truth it is.
    lies_on : str
        For a false mark, what is there: kind of a mimic, ``end-on vein``, ``duplicate``, ``nothing marked``.
    """

    mark: ReportedMark
    verdict: MarkOutcome
    bleed: int | None = None
    lies_on: str = ""


def judge(marks: Sequence[ReportedMark], truth: CaseTruth, within_mm: float = MATCH_MM) -> tuple[JudgedMark, ...]:
    """Judge all marks of a study, the most probable first; see :func:`training.evaluation.matching.match`."""
    ranked = sorted(marks, key=lambda m: -m.probability)
    taken = match(
        np.array([m.centre_lps_mm for m in ranked], float).reshape(-1, 3),
        np.array([m.probability for m in ranked], float),
        np.array([b.centre_lps_mm for b in truth.bleeds], float).reshape(-1, 3),
        np.array([b.visible for b in truth.bleeds], bool),
        within_mm,
    )
    return tuple(_judged(mark, int(n), truth) for mark, n in zip(ranked, taken, strict=True))


def _judged(mark: ReportedMark, bleed: int, truth: CaseTruth) -> JudgedMark:
    if bleed == FREE:
        return JudgedMark(mark, MarkOutcome.FALSE, lies_on=_what_is_at(mark.centre_lps_mm, truth))
    verdict = MarkOutcome.HIT if truth.bleeds[bleed].visible else MarkOutcome.NOT_COUNTED
    return JudgedMark(mark, verdict, bleed)


def _what_is_at(point: Point, truth: CaseTruth) -> str:
    """The nearest thing that shows; a microbleed there has been taken by a more probable mark."""
    shown = [*truth.bleeds, *(m for m in truth.mimics if m.visible and m.kind != NULL)]
    if (near := _nearest(point, shown, MATCH_MM)) is not None:
        return DUPLICATE if any(near is bleed for bleed in truth.bleeds) else near.kind
    return NOTHING if (vein := _nearest(point, truth.veins, VEIN_WITHIN_MM)) is None else vein.kind


def _nearest(point: Point, things: Sequence[TruthObject], within_mm: float) -> TruthObject | None:
    near = min(things, key=lambda thing: dist(thing.centre_lps_mm, point), default=None)
    return near if near is not None and dist(near.centre_lps_mm, point) <= within_mm else None
