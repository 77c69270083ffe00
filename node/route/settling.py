"""When is a series complete, and what if a slice comes late?

DICOM storage has no "last image" message. A series settles when no image has arrived for a while *and* there is
evidence that it is complete: every association that sent it was released, and its slices are evenly spaced without a
gap (or it is a multi-frame object, which is one instance). Without that evidence it settles after a longer wait, with
the reason why it may be incomplete. An image that arrives later reopens the series in the ledger.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import structlog

from node.ledger import Ledger, ReceivingSeries
from node.settings import SettlingSettings
from pipeline.read.stack import SAME_PLACE_MM, UNEVEN

_GAP = 1.5  # a step of more slice spacings than this: a slice is missing in between

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SettlingDecision:
    """Whether a series settles now, why (or why not yet), and whether there is evidence that it is complete."""

    settles: bool
    why: str
    complete: bool = False


def decide(series: ReceivingSeries, now: datetime, settings: SettlingSettings) -> SettlingDecision:
    """Decide whether a series settles at time `now`."""
    silence = (now - series.last_instance_at).total_seconds()
    if silence < settings.quiet_s:
        return SettlingDecision(False, f"no image for {silence:.0f} s of {settings.quiet_s:g} s")
    doubts = [doubt for doubt in (_association_doubt(series), _slices_doubt(series)) if doubt]
    if not doubts:
        return SettlingDecision(
            True, f"no image for {settings.quiet_s:g} s, and no sign that one is missing", complete=True
        )
    if silence < settings.limit_s:
        return SettlingDecision(False, "; ".join(doubts))
    return SettlingDecision(True, f"no image for {settings.limit_s:g} s, but {'; '.join(doubts)}")


def _association_doubt(series: ReceivingSeries) -> str:
    if series.open_associations:
        return "an association that sends it is still open"
    return "" if series.last_ended_released else "its last association was not released"


def _slices_doubt(series: ReceivingSeries) -> str:
    """Why slices may be missing; empty if there is no sign of it."""
    stacks: dict[str, list[float]] = defaultdict(list)
    unplaced = 0
    for key, position, frames in series.places:
        if frames > 1:
            continue  # one instance holds all
        if position is None:
            unplaced += 1
        else:
            stacks[key].append(position)
    if unplaced and stacks:
        return f"{unplaced} images have no position"
    for positions in stacks.values():
        if (what := _stack_doubt(positions)) != "":
            return what
    return ""


def _stack_doubt(positions: list[float]) -> str:
    """Why slices of one stack of parallel slices may be missing."""
    places: list[float] = []
    counts: Counter[int] = Counter()
    for position in sorted(positions):
        if not places or position - places[-1] > SAME_PLACE_MM:
            places.append(position)
        counts[len(places) - 1] += 1
    if len(set(counts.values())) > 1:
        most, fewest = max(counts.values()), min(counts.values())
        return f"some slices were received {most} times and some {fewest} times"
    if len(places) < 3:
        return ""  # one or two slices cannot be uneven
    steps = np.diff(places)
    spacing = float(np.median(steps))
    gaps = steps > _GAP * spacing
    if gaps.any():
        missing = int(np.round(steps[gaps] / spacing).sum() - gaps.sum())
        where = places[int(np.argmax(gaps))]
        slices = "slice seems" if missing == 1 else "slices seem"
        return f"{missing} {slices} to be missing after {where:.1f} mm along the normal"
    uneven = np.abs(steps - spacing) > UNEVEN * spacing + SAME_PLACE_MM
    return f"its slices are not evenly spaced (about {spacing:.2f} mm)" if uneven.any() else ""


def settle(ledger: Ledger, now: datetime, settings: SettlingSettings) -> int:
    """Settle every series that is complete or has waited long enough; return their number."""
    settled = 0
    for series in ledger.series_receiving(quiet_since=now - timedelta(seconds=settings.quiet_s)):
        decision = decide(series, now, settings)
        if not decision.settles:
            continue
        uid = series.series_instance_uid
        if ledger.settle_series(uid, decision.why, whole=decision.complete, seen=series.last_instance_at):
            log.info("series settled", series=uid, images=len(series.places), why=decision.why)
            settled += 1
    return settled
