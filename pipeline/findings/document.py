"""The findings of one study, as data and as the document ``findings.json`` (schema cmb-findings/1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import InputError
from pipeline.geometry import PhaseRecord

from .summary import FindingsSummary, summarise
from .types import (
    Certainty,
    ChangeOverTime,
    ImageQuality,
    Lesion,
    Placement,
    RejectedLesion,
    ScoredCandidate,
    SeriesUsed,
    Verification,
)

SCHEMA: Final = "cmb-findings/1"


@dataclass(frozen=True)
class Findings:
    """Everything that the pipeline reports about one study."""

    profile: str
    weights: dict[str, str]
    software: str
    study_instance_uid: str
    series: SeriesUsed
    lesions: tuple[Lesion, ...]
    candidates: tuple[ScoredCandidate, ...] = ()
    warnings: tuple[str, ...] = ()
    phase: PhaseRecord | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    placement: Placement | None = None
    image_quality: ImageQuality | None = None
    change: ChangeOverTime | None = None
    verification: Verification | None = None
    rejected: tuple[RejectedLesion, ...] = ()

    @property
    def summary(self) -> FindingsSummary:
        """Counts, pattern and burden."""
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


_ADAPTER: TypeAdapter[Findings] = TypeAdapter(Findings)


def read_findings(document: dict[str, Any]) -> Findings:
    """Read what :meth:`pipeline.findings.Findings.to_json` wrote.

    Raises
    ------
    InputError
        If the document is of another schema or has a malformed value.
    """
    if document.get("schema") != SCHEMA:
        raise InputError(f"the findings are of schema {document.get('schema')}, not {SCHEMA}")
    quality = document.get("quality") or {}
    given = {name: value for name, value in document.items() if name in Findings.__dataclass_fields__}
    given |= {"warnings": quality.get("warnings") or (), "phase": quality.get("phase")}
    given["image_quality"] = quality.get("measures")
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"the findings cannot be read: {place}: {first['msg']}") from error
