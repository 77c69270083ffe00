"""The answer, as data: lesions, candidates and what to know about them (``findings.json``, schema cmb-findings/1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.geometry import PhaseRecord

SCHEMA = "cmb-findings/1"


class Certainty(StrEnum):
    """How sure the finding is, after MARS (Gregoire 2009)."""

    DEFINITE = "definite"
    POSSIBLE = "possible"


Point = tuple[float, float, float]


@dataclass(frozen=True)
class Lesion:
    """One microbleed. Millimetres are DICOM patient coordinates (LPS); `voxel_ijk` is the nearest voxel of the SWI."""

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
            "quality": {"warnings": list(self.warnings), "phase": asdict(self.phase) if self.phase else None},
            "timing_s": dict(self.timing_s),
        }
