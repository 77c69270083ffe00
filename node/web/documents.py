"""How is a job written as JSON? One document for `cmbnode jobs --json`, `cmbnode show --json` and the web API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from node.ledger import Ledger
from node.ledger.records import Delivery, HistoryEntry, Job, StudyRecord
from node.ledger.worklist_records import FindingCounts, JobSummary

from .worklist_view import unsent_words

Json = dict[str, Any]


def job_documents(ledger: Ledger, summaries: Sequence[JobSummary]) -> list[Json]:
    """The jobs of a list, each with the reason why its results have not been delivered."""
    unsent = unsent_words(ledger, (summary.job for summary in summaries))
    return [job_document(summary, unsent.get(summary.job.id, "")) for summary in summaries]


def job_document(summary: JobSummary, unsent: str = "") -> Json:
    """One job of a list; `unsent` says why its results have not been delivered."""
    job, burden = summary.job, summary.burden
    return {
        "id": job.id,
        "state": job.state.value,
        "why": job.why or unsent,
        "progress": job.progress,
        "attempts": job.attempts,
        "priority": job.priority.name.lower(),
        "profile": job.profile,
        "destinations": list(job.destinations),
        "study": _study(summary.study),
        "counts": None
        if burden is None
        else {"total": burden.total, "definite": burden.definite, "possible": burden.possible},
        "supersedes": job.supersedes,
        "superseded_by": job.superseded_by,
        "times": _times(job, summary.study),
    }


def job_details(ledger: Ledger, number: int) -> Json:
    """Everything about one job: its input, findings, deliveries and history.

    Raises
    ------
    InputError
        If there is no such job.
    """
    job = ledger.job(number)
    findings = ledger.findings(number)
    counts = (
        None if findings is None else FindingCounts(*(findings["counts"][n] for n in ("total", "definite", "possible")))
    )
    return {
        **job_documents(ledger, [JobSummary(job, ledger.study(job.study_instance_uid), counts)])[0],
        "key": job.key,
        "series": {"swi": job.swi_series_uid, "phase": job.phase_series_uid, "magnitude": job.magnitude_series_uid},
        "warnings": list(job.warnings),
        "findings": findings,
        "deliveries": [_delivery(delivery) for delivery in ledger.deliveries(job.id)],
        "history": [_change(change) for change in ledger.history("job", job.id)],
        "earlier_studies": _earlier(ledger, job.study_instance_uid),
    }


def _earlier(ledger: Ledger, study_uid: str) -> Json | None:
    """The request for priors; ``None`` if there was none."""
    request = ledger.prior_request(study_uid)
    if request is None:
        return None
    return {
        "state": request.state.value,
        "why": request.why,
        "too_late": request.late,
        "attempts": request.attempts,
        "asked": iso(request.created_at),
        "waited_for_until": iso(request.deadline_at),
        "finished": iso(request.finished_at),
        "fetched": [
            {
                "study_instance_uid": one.prior_study_uid,
                "study_date": one.study_date,
                "state": one.state.value,
                "why": one.why,
                "images": asdict(one.counts),
            }
            for one in ledger.prior_fetches(study_uid)
        ],
        "history": [_change(change) for change in ledger.history("prior", study_uid)],
    }


def _study(study: StudyRecord) -> Json:
    return {
        "study_instance_uid": study.study_instance_uid,
        "patient_id": study.patient_id,
        "patient_name": study.patient_name,
        "accession_number": study.accession_number,
        "study_date": study.study_date,
        "study_description": study.study_description,
        "for_comparison_only": study.fetched,
    }


def _times(job: Job, study: StudyRecord) -> Json:
    return {
        "received": iso(study.last_received_at),
        "created": iso(job.created_at),
        "started": iso(job.started_at),
        "analysed": iso(job.analysed_at),
        "finished": iso(job.finished_at),
    }


def _delivery(delivery: Delivery) -> Json:
    return {
        "destination": delivery.destination,
        "kind": delivery.result.kind,
        "sop_instance_uid": delivery.result.sop_instance_uid,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "status": None if delivery.status is None else f"0x{delivery.status:04X}",
        "answer": delivery.answer,
        "next_attempt": iso(delivery.next_attempt_at) if delivery.state.value == "waiting" else None,
        "accepted": iso(delivery.accepted_at),
    }


def _change(change: HistoryEntry) -> Json:
    return {
        "at": iso(change.at),
        "from": change.from_state,
        "to": change.to_state,
        "why": change.why,
        "actor": change.actor,
    }


def iso(at: datetime | None) -> str | None:
    """A time as ISO 8601, or ``null``."""
    return None if at is None else at.isoformat(timespec="milliseconds")
