"""What does the page of a study offer to do, besides reading? Retry, send again, another priority, another viewer."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from node.ledger import Job, JobState, StudyRecord
from node.ledger.jobs import OVER

from .auth import User
from .list_query import PRIORITIES


@dataclass(frozen=True)
class StudyOffers:
    """What is possible now, for this user. `job` is the newest job; `viewer_url` is empty if no viewer is set."""

    job: int | None
    retry: bool
    send: bool
    priorities: dict[str, str]
    viewer_url: str


def study_offers(user: User, study: StudyRecord, job: Job | None, viewer_url: str | None) -> StudyOffers:
    """What the page offers a user; `viewer_url` is the setting."""
    link = _viewer_link(viewer_url, study)
    if job is None or not user.can_correct:
        return StudyOffers(None, False, False, {}, link)
    has_result = job.analysed_at is not None and bool(job.destinations) and study.removed_at is None
    return StudyOffers(
        job=job.id,
        retry=job.state is JobState.FAILED,
        send=has_result and job.state in (JobState.DELIVERING, JobState.DELIVERED),
        priorities={} if job.state in OVER else PRIORITIES,
        viewer_url=link,
    )


def _viewer_link(template: str | None, study: StudyRecord) -> str:
    if not template:
        return ""
    uid, accession, patient = study.study_instance_uid, study.accession_number, study.patient_id
    fields = {"study_uid": uid, "accession": accession, "patient_id": patient}
    return template.format(**{name: quote(value, safe="") for name, value in fields.items()})
