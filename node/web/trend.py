"""How has the number of microbleeds changed? Every analysed study of one patient, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.ledger import Ledger, StudyRecord, WorklistFilters
from node.ledger.patient_matching import contradiction

from . import labels

_MOST = 50


@dataclass(frozen=True)
class StudyPoint:
    """One study of the patient. `here`: the page is about this one; `since`: the date of its prior."""

    uid: str
    date: str
    description: str
    total: int
    definite: int
    possible: int
    new: str
    gone: str
    aria_h: str
    since: str
    verified: bool
    here: bool


def over_time(ledger: Ledger, study: StudyRecord) -> tuple[StudyPoint, ...]:
    """Every analysed study of the patient, oldest first; none if this is the only one."""
    points = tuple(sorted(_points(ledger, study), key=lambda point: (point.date, point.uid)))
    return points if len(points) > 1 or any(not point.here for point in points) else ()


def _points(ledger: Ledger, study: StudyRecord) -> Iterator[StudyPoint]:
    if not study.patient_id:
        return
    for row in ledger.worklist(WorklistFilters(patient_id=study.patient_id), limit=_MOST):
        other = row.study
        if contradiction(study, other):
            continue
        findings = ledger.findings(row.job.id) if row.job is not None else None
        if findings is None:
            continue
        change, counts = findings.get("change") or {}, findings["counts"]
        assessed = bool(change.get("assessed"))
        yield StudyPoint(
            uid=other.study_instance_uid,
            date=labels.dicom_date(other.study_date),
            description=other.study_description or labels.ABSENT,
            total=counts["total"],
            definite=counts["definite"],
            possible=counts["possible"],
            new=str(change["new"]) if assessed else labels.ABSENT,
            gone=str(len(change["no_longer_seen"])) if assessed else labels.ABSENT,
            aria_h=(change.get("aria_h") or labels.ABSENT) if assessed else labels.ABSENT,
            since=labels.dicom_date(change["prior_study_date"]) if assessed else labels.ABSENT,
            verified=bool(findings.get("verification")),
            here=other.study_instance_uid == study.study_instance_uid,
        )
