"""The answer, as data: lesions, candidates and what to know about them (``findings.json``, schema cmb-findings/1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipeline.geometry import PhaseRecord
from pipeline.summary import Summary, summarise

SCHEMA = "cmb-findings/1"


class Certainty(StrEnum):
    """How sure the finding is, after MARS (Gregoire 2009)."""

    DEFINITE = "definite"
    POSSIBLE = "possible"


class Trend(StrEnum):
    """What became of a bleed since the earlier scan."""

    NEW = "new"
    STABLE = "stable"


class Origin(StrEnum):
    """Who says that it is a bleed."""

    DETECTED = "detected"
    ADDED = "added"


Point = tuple[float, float, float]


@dataclass(frozen=True)
class Lesion:
    """One microbleed. Millimetres are DICOM patient coordinates (LPS); `voxel_ijk` is the nearest voxel of the SWI.

    A bleed that a person added has no probability of the detector's; its `probability` is 1 and is not reported.
    """

    id: int
    tracking_uid: str
    centroid_lps_mm: Point
    voxel_ijk: tuple[int, int, int]
    slice_sop_instance_uid: str
    diameter_mm: float
    volume_mm3: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None
    trend: Trend | None = None
    prior_tracking_uid: str | None = None
    origin: Origin = Origin.DETECTED


@dataclass(frozen=True)
class RejectedLesion:
    """What the detector took for a bleed and a person did not. `id` is its number in the detector's own result."""

    id: int
    tracking_uid: str
    centroid_lps_mm: Point
    diameter_mm: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class Verification:
    """Who looked at the result, for which organisation, when (`at` names its time zone), and what else they said."""

    observer: str
    organisation: str
    at: datetime
    comment: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("the time of a verification must name its time zone")
        if not self.observer.strip():
            raise ValueError("a verification must name its observer")


@dataclass(frozen=True)
class ScoredCandidate:
    """Any place that was scored, kept or not, so that a FROC curve can be drawn."""

    centroid_lps_mm: Point
    probability: float


@dataclass(frozen=True)
class SeriesUsed:
    """Series Instance UIDs the answer rests on."""

    swi: str
    phase: str | None = None
    magnitude: str | None = None


@dataclass(frozen=True)
class Placement:
    """How the brain was laid on the atlas. `fit` is the Dice overlap of the brain with the atlas, 0 to 1.

    `coverage` is the share of the atlas's brain that lies inside the slices. When it was not assessed, no lesion has a
    region and `why` says why.
    """

    assessed: bool
    why: str = ""
    fit: float | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class ImageQuality:
    """What can be measured of the images; ``None`` is what could not be.

    `coverage` is the share of the brain, as the atlas expects it, inside the slices; `snr` the brain's median over the
    noise, which was measured in `snr_from` (``air`` or ``brain``); `motion` the energy of ghosts beside the head over
    that of its background, 1 without any.
    """

    in_plane_mm: float | None = None
    slice_mm: float | None = None
    coverage: float | None = None
    snr: float | None = None
    snr_from: str | None = None
    motion: float | None = None


@dataclass(frozen=True)
class PriorLesion:
    """A bleed of the earlier scan; its place is in the coordinates of the present one."""

    tracking_uid: str
    centroid_lps_mm: Point
    diameter_mm: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class ChangeOverTime:
    """The comparison with an earlier scan of the same patient.

    `new` and `stable` count bleeds of this study. One that is neither has no trend and is named in `undecided`: the
    earlier scan does not show its place, or shows something there that was not counted. `unclear` are earlier bleeds
    that are, for such a reason, neither stable nor no longer seen.

    `aria_h` is the radiographic grade of new bleeds (none, mild, moderate, severe), ``None`` if not assessed; `flags`
    are thresholds passed, in words ("more than 4 microbleeds"); `fit` is the agreement of the two registered images.
    """

    prior_study_instance_uid: str
    prior_study_date: str
    prior_sr_sop_instance_uid: str | None
    assessed: bool
    why: str = ""
    new: int = 0
    stable: int = 0
    no_longer_seen: tuple[PriorLesion, ...] = ()
    aria_h: str | None = None
    flags: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    fit: float | None = None
    undecided: tuple[int, ...] = ()
    unclear: tuple[PriorLesion, ...] = ()
    prior_sr_series_instance_uid: str | None = None


@dataclass(frozen=True)
class Findings:
    """Everything the pipeline has to say about one study."""

    profile: str
    weights: dict[str, str]
    software: str
    study_instance_uid: str
    series: SeriesUsed
    lesions: tuple[Lesion, ...]
    candidates: tuple[ScoredCandidate, ...]
    warnings: tuple[str, ...] = ()
    phase: PhaseRecord | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    placement: Placement | None = None
    image_quality: ImageQuality | None = None
    change: ChangeOverTime | None = None
    verification: Verification | None = None
    rejected: tuple[RejectedLesion, ...] = ()

    @property
    def summary(self) -> Summary:
        """What the lesions come to."""
        return summarise(self.lesions, self.placement, self.change)

    @property
    def counts(self) -> dict[str, int]:
        """Number of lesions: all, and by certainty."""
        by = {c.value: sum(lesion.certainty == c for lesion in self.lesions) for c in Certainty}
        return {"total": len(self.lesions), **by}

    def to_json(self) -> dict[str, Any]:
        """The document of the schema, made of plain JSON types."""
        return {
            "schema": SCHEMA,
            "profile": self.profile,
            "weights": dict(self.weights),
            "software": self.software,
            "study_instance_uid": self.study_instance_uid,
            "series": asdict(self.series),
            "lesions": [asdict(lesion) for lesion in self.lesions],
            "candidates": [asdict(c) for c in self.candidates],
            "counts": self.counts,
            "summary": self.summary.to_json(),
            "quality": {
                "warnings": list(self.warnings),
                "phase": asdict(self.phase) if self.phase else None,
                "measures": asdict(self.image_quality) if self.image_quality else None,
            },
            "placement": asdict(self.placement) if self.placement else None,
            "change": asdict(self.change) if self.change else None,
            "verification": _verification(self.verification),
            "rejected": [asdict(lesion) for lesion in self.rejected],
            "timing_s": dict(self.timing_s),
        }


def _verification(verification: Verification | None) -> dict[str, str] | None:
    return {**asdict(verification), "at": verification.at.isoformat()} if verification else None
