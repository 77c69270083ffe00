"""How has the number of bleeds changed? Every analysed study of one patient that the ledger knows, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.ledger import Filters, Ledger, Study
from node.ledger.patients import contradiction
from node.worklist import words

_MOST = 50


@dataclass(frozen=True)
class StudyPoint:
    """One study of the patient. `here` is the one that the page is about; `since` the one it was compared with."""

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


def over_time(ledger: Ledger, study: Study) -> tuple[StudyPoint, ...]:
    """Every analysed study of the patient, the oldest first; none if this one is the only one."""
    points = tuple(sorted(_points(ledger, study), key=lambda point: (point.date, point.uid)))
    return points if len(points) > 1 or any(not point.here for point in points) else ()


def _points(ledger: Ledger, study: Study) -> Iterator[StudyPoint]:
    if not study.patient_id:
        return
    for row in ledger.worklist(Filters(patient_id=study.patient_id), limit=_MOST):
        other = row.study
        if contradiction(study, other.patient_id, other.issuer_of_patient_id, other.patient_birth_date):
            continue
        findings = ledger.findings(row.job.id) if row.job is not None else None
        if findings is None:
            continue
        change, counts = findings.get("change") or {}, findings["counts"]
        assessed = bool(change.get("assessed"))
        yield StudyPoint(
            uid=other.study_instance_uid,
            date=words.dicom_date(other.study_date),
            description=other.study_description or words.ABSENT,
            total=counts["total"],
            definite=counts["definite"],
            possible=counts["possible"],
            new=str(change["new"]) if assessed else words.ABSENT,
            gone=str(len(change["no_longer_seen"])) if assessed else words.ABSENT,
            aria_h=(change.get("aria_h") or words.ABSENT) if assessed else words.ABSENT,
            since=words.dicom_date(change["prior_study_date"]) if assessed else words.ABSENT,
            verified=bool(findings.get("verification")),
            here=other.study_instance_uid == study.study_instance_uid,
        )
