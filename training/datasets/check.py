"""What is wrong with a data set? Everything that would spoil a training, before any training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.errors import CmbError

from .mark_kinds import BLEED
from .record import LabelledStudy, Mark, Record

THICKEST_MM = 5.0
NEAREST_MM = 1.0
SIZES_MM = (0.5, 20.0)


@dataclass(frozen=True)
class Problem:
    """One finding; an `error` makes a study or the set useless, the others are worth knowing."""

    study: str
    what: str
    error: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.error else 'note'}: {self.study}: {self.what}"


def check(records: Sequence[Record], unused: Sequence[Problem] = ()) -> Iterator[Problem]:
    """Read every study; yield every problem, and first those of labels that are not used."""
    yield from unused
    bleeds = 0
    for record in records:
        try:
            labelled = record.read()
        except CmbError as error:
            place = "" if error.where == record.name else f"{error.where}: " if error.where else ""
            yield Problem(record.name, f"{place}{error.what}" + (f"; {error.do}" if error.do else ""))
            continue
        yield from check_study(record.name, labelled)
        bleeds += sum(m.kind == BLEED and m.visible for m in labelled.marks)
    yield from check_splits(records)
    if not bleeds:
        yield Problem("all", "no microbleed is marked")


def check_study(name: str, labelled: LabelledStudy) -> Iterator[Problem]:
    """Problems of one study that could be read."""
    acquisition = labelled.acquisition
    swi, geometry = acquisition.swi, acquisition.swi.geometry
    if not np.isfinite(swi.array).all() or swi.array.max() <= swi.array.min():
        yield Problem(name, "the image is empty, constant or not finite")
    for kind, volume in (("phase", acquisition.phase), ("magnitude", acquisition.magnitude)):
        if volume is None:
            yield Problem(name, f"has no {kind}", error=False)
        elif not volume.geometry.matches(geometry):
            yield Problem(name, f"the {kind} lies on another grid")
    if acquisition.phase is not None and np.abs(acquisition.phase.array).max() > 2 * np.pi:
        yield Problem(name, "the phase is not in radians")
    if geometry.spacing[2] > THICKEST_MM:
        yield Problem(name, f"slices of {geometry.spacing[2]:.1f} mm are thicker than {THICKEST_MM:g} mm")
    yield from (Problem(name, note, error=False) for note in labelled.notes)
    yield from _check_marks(name, labelled)


def _check_marks(name: str, labelled: LabelledStudy) -> Iterator[Problem]:
    geometry = labelled.acquisition.swi.geometry
    limit = np.array(geometry.shape[::-1]) - 0.5
    for mark in labelled.marks:
        at = geometry.to_ijk(mark.centre_lps_mm)
        where = ", ".join(f"{v:.1f}" for v in mark.centre_lps_mm)
        if ((at < -0.5) | (at > limit)).any():
            yield Problem(name, f"the {_name(mark)} at {where} mm (LPS) is outside the image")
        low, high = SIZES_MM
        if mark.visible and mark.diameter_mm is not None and not low <= mark.diameter_mm <= high:
            size = f"the {_name(mark)} at {where} mm has a diameter of {mark.diameter_mm:g} mm"
            yield Problem(name, size, error=False)
    bleeds = [m for m in labelled.marks if m.kind == BLEED]
    for a, b in combinations(bleeds, 2):
        if np.linalg.norm(np.subtract(a.centre_lps_mm, b.centre_lps_mm)) < NEAREST_MM:
            where = ", ".join(f"{v:.1f}" for v in a.centre_lps_mm)
            yield Problem(name, f"two microbleeds within {NEAREST_MM:g} mm at {where} mm: marked twice?", error=False)


def _name(mark: Mark) -> str:
    return "microbleed" if mark.kind == BLEED else mark.kind


def check_splits(records: Sequence[Record]) -> Iterator[Problem]:
    """A head or a person on two sides makes any figure worthless."""
    for what in ("anatomy", "subject"):
        sides: dict[str, set[str]] = defaultdict(set)
        for record in records:
            if record.split is not None:
                sides[getattr(record, what)].add(record.split)
        for name, splits in sorted(sides.items()):
            if len(splits) > 1:
                yield Problem(name, f"{what} is in {' and '.join(sorted(splits))}")
