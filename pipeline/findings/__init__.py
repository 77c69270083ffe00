"""The answer, as data: the findings of one study, what they are made of, and what they add up to."""

from .document import SCHEMA, Findings, read_findings
from .summary import FindingsSummary
from .types import (
    Certainty,
    ChangeOverTime,
    ImageQuality,
    Lesion,
    LesionOrigin,
    Placement,
    Point,
    PriorLesion,
    RejectedLesion,
    ScoredCandidate,
    SeriesUsed,
    Trend,
    Verification,
)

__all__ = [
    "SCHEMA",
    "Certainty",
    "ChangeOverTime",
    "Findings",
    "FindingsSummary",
    "ImageQuality",
    "Lesion",
    "LesionOrigin",
    "Placement",
    "Point",
    "PriorLesion",
    "RejectedLesion",
    "ScoredCandidate",
    "SeriesUsed",
    "Trend",
    "Verification",
    "read_findings",
]
