"""When is a series complete, and what if a slice comes late?

DICOM storage has no "last image" message. A series settles when it has been quiet for a while *and* there is evidence
that it is whole: every association that brought it was released, and its slices lie evenly spaced without a gap (or it
is a multi-frame object, which comes in one piece). Without that evidence it settles after a longer silence, and says
what was lacking. An image that comes later still reopens the series, in the ledger.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import structlog

from node.config import SettlingSettings
from node.ledger import Ledger, ReceivingSeries

_GAP = 1.5  # steps of more than this many slice spacings: a slice is missing in between
_UNEVEN = 0.1  # tolerated difference of a step from the slice spacing, as a fraction of it
_SAME_MM = 0.01  # slices closer than this lie in the same place (echoes, magnitude and phase in one series)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Settle:
    """The series is complete, or will not get any more complete by waiting."""

    why: str
    whole: bool


@dataclass(frozen=True)
class Wait:
    """Not yet."""

    reason: str


def slice_place(orientation: Sequence[float] | None, position: Sequence[float] | None) -> tuple[str, float | None]:
    """Say which stack of parallel slices an image belongs to, and where it lies in it.

    Parameters
    ----------
    orientation : sequence of 6 floats or None
        Image Orientation (Patient).
    position : sequence of 3 floats or None
        Image Position (Patient), mm.

    Returns
    -------
    key : str
        Equal for parallel slices (their normals agree within about half a degree); empty if there is no plane.
    position : float or None
        Along the normal, mm.
    """
    if orientation is None or position is None or len(orientation) != 6 or len(position) != 3:
        return "", None
    row, column = np.asarray(orientation[:3], dtype=float), np.asarray(orientation[3:], dtype=float)
    with np.errstate(all="ignore"):  # headers may hold any number
        normal = np.cross(row, column)  # PS3.3 C.7.6.2.1.1
        length = float(np.linalg.norm(normal))
        place = float(np.dot(normal, np.asarray(position, dtype=float)))
    if not np.isfinite(length) or length < 0.5 or not np.isfinite(place):
        return "", None
    rounded = np.round(normal / length, 2) + 0.0  # no negative zero
    return ",".join(f"{x:.2f}" for x in rounded), place / length


def decide(series: ReceivingSeries, now: datetime, settings: SettlingSettings) -> Settle | Wait:
    """Decide whether a series has settled at time `now`."""
    silence = (now - series.last_instance_at).total_seconds()
    if silence < settings.quiet_s:
        return Wait(f"quiet for {silence:.0f} s of {settings.quiet_s:g} s")
    lacking = [what for what in (_association_lacking(series), _slices_lacking(series)) if what]
    if not lacking:
        return Settle(f"quiet for {settings.quiet_s:g} s, and whole by the evidence", whole=True)
    if silence < settings.limit_s:
        return Wait("; ".join(lacking))
    return Settle(f"quiet for {settings.limit_s:g} s, though {'; '.join(lacking)}", whole=False)


def _association_lacking(series: ReceivingSeries) -> str:
    if series.open_associations:
        return "an association that brings it is still open"
    return "" if series.last_ended_released else "its last association was not released"


def _slices_lacking(series: ReceivingSeries) -> str:
    """What speaks against the slices being complete; empty if nothing does."""
    stacks: dict[str, list[float]] = defaultdict(list)
    unplaced = 0
    for key, position, frames in series.places:
        if frames > 1:
            continue  # comes in one piece
        if position is None:
            unplaced += 1
        else:
            stacks[key].append(position)
    if unplaced and stacks:
        return f"{unplaced} of its images have no position"
    for positions in stacks.values():
        if (what := _stack_lacking(positions)) != "":
            return what
    return ""


def _stack_lacking(positions: list[float]) -> str:
    """The same for one stack of parallel slices."""
    places: list[float] = []
    counts: Counter[int] = Counter()
    for position in sorted(positions):
        if not places or position - places[-1] > _SAME_MM:
            places.append(position)
        counts[len(places) - 1] += 1
    if len(set(counts.values())) > 1:
        most, fewest = max(counts.values()), min(counts.values())
        return f"some slices are there {most} times and some {fewest}"
    if len(places) < 3:
        return ""  # one or two slices cannot be uneven
    steps = np.diff(places)
    spacing = float(np.median(steps))
    gaps = steps > _GAP * spacing
    if gaps.any():
        missing = int(np.round(steps[gaps] / spacing).sum() - gaps.sum())
        where = places[int(np.argmax(gaps))]
        return f"{missing} slices seem to be missing, the first after {where:.1f} mm along the normal"
    uneven = np.abs(steps - spacing) > _UNEVEN * spacing + _SAME_MM
    return f"its slices are not evenly spaced (about {spacing:.2f} mm)" if uneven.any() else ""


def settle(ledger: Ledger, now: datetime, settings: SettlingSettings) -> int:
    """Settle every series that is ready for it; how many were."""
    settled = 0
    for series in ledger.series_receiving(quiet_since=now - timedelta(seconds=settings.quiet_s)):
        decision = decide(series, now, settings)
        if isinstance(decision, Wait):
            continue
        uid = series.series_instance_uid
        if ledger.settle_series(uid, decision.why, whole=decision.whole, seen=series.last_instance_at):
            log.info("series settled", series=uid, images=len(series.places), why=decision.why)
            settled += 1
    return settled
