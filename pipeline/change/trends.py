"""Which microbleeds are new, stable, undecided or no longer seen?

A difference counts only where both studies could have shown it. A microbleed is undecided if it lies outside the brain
of the other images, or where the other analysis has a candidate below its threshold or one that a reader rejected:
microbleeds persist for years, and what varies around a threshold is more often the image than the brain. Undecided
microbleeds are counted and listed separately, and the grade of ARIA-H does not include them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.findings import Findings, Lesion, Point, PriorLesion, RejectedLesion, Trend
from pipeline.parameters import ChangeParameters

from .matching import match, near
from .reference import Prior, ReferenceImage
from .registration import Pose

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trends:
    """Microbleeds of both studies by what became of them, with the reason for those that are undecided."""

    stable: dict[int, str]  # number of the microbleed now, tracking UID then
    new: tuple[Lesion, ...]
    undecided: tuple[tuple[Lesion, str], ...]
    gone: tuple[PriorLesion, ...]
    unclear: tuple[tuple[PriorLesion, str], ...]

    def marked(self, lesion: Lesion) -> Lesion:
        """The lesion with its trend."""
        if lesion.id in self.stable:
            return replace(lesion, trend=Trend.STABLE, prior_tracking_uid=self.stable[lesion.id])
        trend = Trend.NEW if any(lesion.id == new.id for new in self.new) else None
        return replace(lesion, trend=trend, prior_tracking_uid=None)


@dataclass(frozen=True, eq=False)
class TrendDecision:
    """How each trend is decided: from the two results, their reference images, and the pose between them."""

    present: Findings
    prior: Prior
    here: ReferenceImage
    there: ReferenceImage
    pose: Pose
    parameters: ChangeParameters

    def outcome(self) -> Trends:
        """Match the microbleeds of both studies, and decide about those without a partner."""
        now, then = self.present.lesions, self.prior.findings.lesions
        at, was = _centres(now), self.pose.to_present(_centres(then))
        pairs = match(at, was, self.parameters.match_mm)
        alone = [n for n in range(len(now)) if n not in {a for a, _ in pairs}]
        lost = [n for n in range(len(then)) if n not in {b for _, b in pairs}]
        before = self._doubts(at[alone], self.prior.findings, self.there, then=True)
        after = self._doubts(was[lost], self.present, self.here, then=False)
        moved = [_moved(then[n], was[n]) for n in lost]
        return Trends(
            stable={now[a].id: then[b].tracking_uid for a, b in pairs},
            new=tuple(now[n] for n, why in zip(alone, before, strict=True) if not why),
            undecided=tuple((now[n], why) for n, why in zip(alone, before, strict=True) if why),
            gone=tuple(lesion for lesion, why in zip(moved, after, strict=True) if not why),
            unclear=tuple((lesion, why) for lesion, why in zip(moved, after, strict=True) if why),
        )

    def _doubts(self, places: Points, other: Findings, scan: ReferenceImage, *, then: bool) -> list[str]:
        """Why the other study does not show that nothing was at these places (in present coordinates)."""
        to_here = self.pose.to_present if then else np.asarray
        seen = scan.shows(self.pose.to_prior(places) if then else places, self.parameters.coverage_mm)
        rejected = near(places, to_here(_centres(other.rejected)), self.parameters.match_mm)
        faint = near(places, to_here(self._below_threshold(other)), self.parameters.doubt_mm)
        study = "the prior study" if then else "this study"
        words = {
            "unseen": f"the images of {study} do not show this location",
            "rejected": f"a reader rejected a finding of {study} there",
            "faint": f"{study} has a candidate below the threshold there",
        }
        return [
            words["unseen"] if not s else words["rejected"] if r else words["faint"] if f else ""
            for s, r, f in zip(seen, rejected, faint, strict=True)
        ]

    def _below_threshold(self, findings: Findings) -> Points:
        """Centres of candidates that were scored above the limit of doubt and not reported."""
        reported = {one.centroid_lps_mm for one in findings.lesions} | {
            one.centroid_lps_mm for one in findings.rejected
        }
        scored = [c for c in findings.candidates if c.probability >= self.parameters.doubt_probability]
        return _points([c.centroid_lps_mm for c in scored if c.centroid_lps_mm not in reported])


def _moved(lesion: Lesion, at: Points) -> PriorLesion:
    x, y, z = (round(float(v), 2) for v in at)  # the registration is no more exact
    facts = {name: getattr(lesion, name) for name in PriorLesion.__dataclass_fields__ if name != "centroid_lps_mm"}
    return PriorLesion(centroid_lps_mm=(x, y, z), **facts)


def _centres(lesions: Sequence[Lesion | RejectedLesion]) -> Points:
    return _points([lesion.centroid_lps_mm for lesion in lesions])


def _points(places: Sequence[Point]) -> Points:
    return np.asarray(places, dtype=np.float64).reshape(-1, 3)
