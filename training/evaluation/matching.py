"""Which mark is which bleed? Greedy by probability, within 5 mm, one mark a bleed (VALDO: Sudre et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import dist

from training.evaluation.cases import NULL, Mark, Point, Thing, Truth

WITHIN_MM = 5.0
VEIN_WITHIN_MM = 2.5
"""End-on veins are many, so that one within 5 mm would often be there by chance."""
DUPLICATE = "duplicate"
NOTHING = "nothing inserted"


class Verdict(StrEnum):
    """What a mark turned out to be."""

    HIT = "hit"
    FALSE = "false"
    NOT_COUNTED = "not counted"


@dataclass(frozen=True)
class Judged:
    """A mark with its verdict.

    Parameters
    ----------
    mark : Mark
        What was marked.
    verdict : Verdict
        A bleed that cannot be seen, when marked, is not counted: neither found nor false.
    bleed : int or None
        Which bleed of the truth it is.
    lies_on : str
        For a false mark, what is there: kind of a mimic, ``end-on vein``, ``duplicate``, ``nothing inserted``.
    """

    mark: Mark
    verdict: Verdict
    bleed: int | None = None
    lies_on: str = ""


def judge(marks: Sequence[Mark], truth: Truth, within_mm: float = WITHIN_MM) -> tuple[Judged, ...]:
    """Judge all marks of a study, the most probable first.

    What is judged of the first n marks does not depend on those after them, so one run serves every threshold.
    A mark takes the nearest free visible bleed within reach, else the nearest free invisible one.
    """
    free = dict(enumerate(truth.bleeds))
    judged = []
    for mark in sorted(marks, key=lambda m: -m.probability):
        reach = {
            n: distance
            for n, bleed in free.items()
            if (distance := dist(bleed.centre_lps_mm, mark.centre_lps_mm)) <= within_mm
        }
        if not reach:
            judged.append(Judged(mark, Verdict.FALSE, lies_on=_what_is_at(mark.centre_lps_mm, truth, within_mm)))
            continue
        nearest = min(reach, key=lambda n: (not free[n].visible, reach[n]))
        verdict = Verdict.HIT if free.pop(nearest).visible else Verdict.NOT_COUNTED
        judged.append(Judged(mark, verdict, nearest))
    return tuple(judged)


def _what_is_at(point: Point, truth: Truth, within_mm: float) -> str:
    """The nearest thing that shows; a bleed there has been taken by a more probable mark."""
    shown = [*truth.bleeds, *(m for m in truth.mimics if m.visible and m.kind != NULL)]
    if (near := _nearest(point, shown, within_mm)) is not None:
        return DUPLICATE if any(near is bleed for bleed in truth.bleeds) else near.kind
    return NOTHING if (vein := _nearest(point, truth.veins, VEIN_WITHIN_MM)) is None else vein.kind


def _nearest(point: Point, things: Sequence[Thing], within_mm: float) -> Thing | None:
    near = min(things, key=lambda thing: dist(thing.centre_lps_mm, point), default=None)
    return near if near is not None and dist(near.centre_lps_mm, point) <= within_mm else None
