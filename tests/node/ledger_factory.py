"""Short ways to put things into a ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from node.ledger import Job, Ledger, NewInstance, NewJob, Priority, ResultFile, SeriesVerdict
from pipeline.uids import derive_uid

SR = "1.2.840.10008.5.1.4.1.1.88.33"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"


def uid(*names: object) -> str:
    return derive_uid("ledger-test", *names)


def instance(study: str, series: str, number: int, at: datetime, **given: Any) -> NewInstance:
    """Slice `number` of a series; studies and series are named by words."""
    values: dict[str, Any] = {
        "sop_instance_uid": uid(study, series, number),
        "sop_class_uid": MR,
        "transfer_syntax_uid": EXPLICIT,
        "series_instance_uid": uid(study, series),
        "study_instance_uid": uid(study),
        "path": f"studies/{study}/{series}/{number}.dcm",
        "size": 1000,
        "sha256": f"{number:064x}",
        "received_at": at,
        "association": "a1",
        "orientation": "0.00,0.00,1.00",
        "position": 2.0 * number,
        "patient_id": "P1",
        "patient_name": "Doe^Jane",
        "study_date": "20260301",
        "study_time": "080000",
        "modality": "MR",
        "series_number": 11,
        "series_description": series,
    }
    return NewInstance(**{**values, **given})


def receive(ledger: Ledger, study: str, at: datetime, series: str = "swi", slices: int = 3, **given: Any) -> str:
    """A whole series arrives and its association is released."""
    for number in range(slices):
        ledger.record_instance(instance(study, series, number, at, **given))
    ledger.release_series([uid(study, series)], at, association=given.get("association", "a1"))
    return uid(study)


def settle_and_route(ledger: Ledger, study: str, *series: str) -> None:
    for name in series or ("swi",):
        ledger.settle_series(uid(study, name), "quiet")
    verdicts = [SeriesVerdict(uid(study, name), True, "swi", "rule", "why") for name in series or ("swi",)]
    ledger.mark_routed(uid(study), ledger.study(uid(study)).revision, verdicts, "routed")


def open_job(
    ledger: Ledger,
    study: str = "study",
    key: str = "key",
    priority: Priority = Priority.ROUTINE,
    destinations: tuple[str, ...] = ("pacs",),
) -> Job:
    new = NewJob(
        key=key,
        study_instance_uid=uid(study),
        swi_series_uid=uid(study, "swi"),
        profile="frst",
        priority=priority,
        destinations=destinations,
    )
    return ledger.open_job(new)


def job_of_new_study(ledger: Ledger, at: datetime, study: str = "study", **given: Any) -> Job:
    """A study arrives, settles, and its job is opened."""
    receive(ledger, study, at)
    settle_and_route(ledger, study)
    return open_job(ledger, study, **{"key": study, **given})


def results(*kinds: str) -> list[ResultFile]:
    return [ResultFile(kind, uid("result", kind), SR, f"{kind}.dcm", 10, "0" * 64) for kind in kinds]


def findings(total: int = 2, definite: int = 1) -> dict[str, Any]:
    return {
        "schema": "cmb-findings/1",
        "lesions": [{"id": n + 1} for n in range(total)],
        "counts": {"total": total, "definite": definite, "possible": total - definite},
    }


def analyse(ledger: Ledger, job: Job, *kinds: str, total: int = 2) -> None:
    """A worker claims the job and finishes it."""
    assert ledger.claim_job(job.id, "worker", 30) is not None
    assert ledger.finish_analysis(job.id, "worker", findings(total), results(*(kinds or ("sr", "seg"))))


def deliver(ledger: Ledger, destination: str = "pacs", owner: str = "sender") -> int:
    """A sender delivers everything that is due; how much that was."""
    claimed = ledger.claim_deliveries(destination, owner, 30, 100)
    for delivery in claimed:
        assert ledger.delivery_accepted(delivery.id, owner, 0)
    return len(claimed)
