"""Has the detector's work shifted? One month against the months before, of the same scanner and profile.

A shift is a difference in one of six measures that chance would make in less than one month of a thousand: the
Mann-Whitney U test for numbers of findings and measures of the images, Fisher's exact test for shares, both two-sided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from node.ledger import MonitoredStudy

LEAST_STUDIES = 10
"""A month with fewer studies is not tested."""
LEAST_BEFORE = 20
"""Nor is one with fewer studies in the months before."""
P = 0.001

Studies = Sequence[MonitoredStudy]
_NUMBERS: tuple[tuple[str, Callable[[MonitoredStudy], float | None]], ...] = (
    ("findings per study", lambda study: study.total),
    ("signal-to-noise ratio", lambda study: study.snr),
    ("motion", lambda study: study.motion),
)
_SHARES: tuple[tuple[str, Callable[[Studies], tuple[int, int]]], ...] = (
    ("studies outside the intended range", lambda studies: (sum(s.outside_training for s in studies), len(studies))),
    ("findings rejected by readers", lambda studies: (sum(s.rejected for s in studies), _judged(studies))),
    (
        "microbleeds added by readers",
        lambda studies: (added := sum(s.added for s in studies), _judged(studies) + added),
    ),
)
MEASURES = tuple(name for name, _ in (*_NUMBERS, *_SHARES))


@dataclass(frozen=True)
class Shift:
    """A measure that has shifted, and by how much in a few words."""

    measure: str
    change: str

    def __str__(self) -> str:
        return f"{self.measure}: {self.change}"


def shifts(present: Studies, before: Studies) -> tuple[Shift, ...]:
    """What differs from before by more than chance explains; nothing where there are too few studies."""
    if len(present) < LEAST_STUDIES or len(before) < LEAST_BEFORE:
        return ()
    return (*_shifted_numbers(present, before), *_shifted_shares(present, before))


def _shifted_numbers(present: Studies, before: Studies) -> Iterator[Shift]:
    from scipy.stats import mannwhitneyu  # slow to load, and only this page needs it

    for name, value in _NUMBERS:
        now, then = ([number for s in studies if (number := value(s)) is not None] for studies in (present, before))
        if len(now) < LEAST_STUDIES or len(then) < LEAST_BEFORE:
            continue
        if mannwhitneyu(now, then).pvalue < P:
            yield Shift(name, f"{fmean(now):.1f} on average, {fmean(then):.1f} before")


def _shifted_shares(present: Studies, before: Studies) -> Iterator[Shift]:
    import numpy as np
    from scipy.stats import fisher_exact

    for name, share in _SHARES:
        (now, of_now), (then, of_then) = share(present), share(before)
        if not of_now or not of_then:
            continue
        if fisher_exact(np.array([[now, of_now - now], [then, of_then - then]])).pvalue < P:
            yield Shift(name, f"{100 * now / of_now:.0f} %, {100 * then / of_then:.0f} % before")


def _judged(studies: Studies) -> int:
    """Findings of the detector in studies that a reader has verified."""
    return sum(study.total for study in studies if study.verified)
