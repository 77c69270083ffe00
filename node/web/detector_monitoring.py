"""Does the detector behave as it did? Its findings by scanner, profile and month, and where they have shifted.

What readers say of the findings is their agreement with the detector, not its accuracy: they see its result as they
read, and verify a selection of the studies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import chain, groupby
from statistics import median, quantiles

from node.ledger import Ledger, MonitoredStudy

from .detector_shifts import LEAST_STUDIES, MEASURES, Shift, shifts

MONTHS_BEFORE = 12
"""How many months with studies a month is compared with."""


@dataclass(frozen=True)
class DetectorMonth:
    """The studies of one scanner and profile that were received in one month.

    Parameters
    ----------
    month : str
        Year and month (``2026-11``), in the zone of the node.
    per_study : tuple of int
        Quartiles of the findings of a study.
    no_finding, outside_training : int
        Studies without a finding; studies outside the range of the training images.
    snr, motion : float, optional
        Medians.
    verified : int
        Studies that a reader verified; `accepted`, `rejected` and `added` are findings in these.
    shifts : tuple of Shift
        What differs from the months before.
    """

    scanner: str
    profile: str
    month: str
    studies: int
    findings: int
    definite: int
    per_study: tuple[float, float, float]
    no_finding: int
    outside_training: int
    snr: float | None
    motion: float | None
    verified: int
    accepted: int
    rejected: int
    added: int
    shifts: tuple[Shift, ...] = ()


def detector_months(studies: Iterable[MonitoredStudy], zone: tzinfo | None) -> list[DetectorMonth]:
    """Summarise the studies: by scanner and profile, the newest month first."""

    def group(study: MonitoredStudy) -> tuple[str, str]:
        return study.scanner, study.profile

    def month(study: MonitoredStudy) -> str:
        return f"{study.received_at.astimezone(zone):%Y-%m}"

    rows = []
    for _, of_group in groupby(sorted(studies, key=group), key=group):
        by_month = [tuple(some) for _, some in groupby(sorted(of_group, key=month), key=month)]
        for n, present in reversed(list(enumerate(by_month))):
            before = tuple(chain.from_iterable(by_month[max(0, n - MONTHS_BEFORE) : n]))
            rows.append(_summary(month(present[0]), present, shifts(present, before)))
    return rows


def last_months(ledger: Ledger, zone: tzinfo | None, months: int) -> list[DetectorMonth]:
    """The current month and those before it, `months` in all, by scanner and profile; the newest first."""
    now = datetime.now(UTC).astimezone(zone)
    shown, read = (_first_day(now, many) for many in (months, months + MONTHS_BEFORE))
    rows = detector_months(ledger.monitored_studies(read), zone)
    return [row for row in rows if row.month >= f"{shown:%Y-%m}"]


def _first_day(now: datetime, months: int) -> datetime:
    """The first day of the first of `months` months, the last of which is the present one."""
    count = now.year * 12 + now.month - months
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=now.tzinfo)


def shifted_scanners(rows: Iterable[DetectorMonth]) -> Mapping[tuple[str, ...], int]:
    """Profile and measure → how many scanners have shifted, by the newest month of each that has enough studies."""
    shifted = Counter[tuple[str, ...]]()
    judged = set()
    for row in rows:
        shifted.update({(row.profile, measure): 0 for measure in MEASURES})
        if row.studies >= LEAST_STUDIES and (row.scanner, row.profile) not in judged:
            judged.add((row.scanner, row.profile))
            shifted.update((row.profile, shift.measure) for shift in row.shifts)
    return shifted


def _summary(month: str, studies: Sequence[MonitoredStudy], shifted: tuple[Shift, ...]) -> DetectorMonth:
    verified = [study for study in studies if study.verified]
    rejected = sum(study.rejected for study in verified)
    return DetectorMonth(
        scanner=studies[0].scanner,
        profile=studies[0].profile,
        month=month,
        studies=len(studies),
        findings=sum(study.total for study in studies),
        definite=sum(study.definite for study in studies),
        per_study=_quartiles([study.total for study in studies]),
        no_finding=sum(study.total == 0 for study in studies),
        outside_training=sum(study.outside_training for study in studies),
        snr=_median(study.snr for study in studies),
        motion=_median(study.motion for study in studies),
        verified=len(verified),
        accepted=sum(study.total for study in verified) - rejected,
        rejected=rejected,
        added=sum(study.added for study in verified),
        shifts=shifted,
    )


def _quartiles(values: Sequence[int]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (float(values[0]),) * 3
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return first, middle, third


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 2) if known else None
