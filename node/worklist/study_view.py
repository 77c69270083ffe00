"""What stands on the page of a study? Ledger records become plain values; the template only lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from node.ledger import Delivery, DeliveryState, Job, JobState, Ledger, Series, StudyState
from node.worklist import words
from node.worklist.montage import page_count
from node.worklist.slices import slice_numbers
from node.worklist.views import StudyLine, row_of, study_line, unsent_why

_HISTORY = 60


@dataclass(frozen=True)
class SeriesLine:
    """A series of the study: what it is taken for and why."""

    number: str
    description: str
    images: int
    role: str
    state: str
    tone: str
    why: str


@dataclass(frozen=True)
class DeliveryLine:
    """One object on its way to one destination, with that side's answer."""

    destination: str
    kind: str
    state: str
    tone: str
    tries: str
    answer: str
    at: datetime | None


@dataclass(frozen=True)
class HistoryLine:
    """One change of state, in words."""

    at: datetime
    what: str
    why: str


@dataclass(frozen=True)
class LesionLine:
    """A row of the lesion table, formatted."""

    id: int
    certainty: str
    probability: str
    diameter: str
    volume: str
    slice: str
    location: str
    position: str


@dataclass(frozen=True)
class Answer:
    """What the analysis found."""

    total: int
    definite: int
    possible: int
    burden_class: str
    lesions: tuple[LesionLine, ...]
    profile: str
    software: str


@dataclass(frozen=True)
class StudyPage:
    """Everything about one study."""

    line: StudyLine
    birth_date: str
    sex: str
    moving: bool
    retry: str
    warnings: tuple[str, ...]
    answer: Answer | None
    montage: tuple[str, ...]
    series: tuple[SeriesLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    history: tuple[HistoryLine, ...]


def study_page(ledger: Ledger, uid: str, archive: Path) -> StudyPage | None:
    """Everything about one study; ``None`` if the ledger has none of that UID."""
    row = row_of(ledger, uid)
    if row is None:
        return None
    job = row.job
    series = ledger.series(uid)
    findings = ledger.findings(job.id) if job is not None else None
    warnings = [
        *_replaced(ledger, job),
        *(job.warnings if job is not None else ()),
        *((findings or {}).get("quality", {}).get("warnings", [])),
    ]
    return StudyPage(
        line=study_line(row, unsent_why(ledger, row)),
        birth_date=words.dicom_date(row.study.patient_birth_date),
        sex=row.study.patient_sex,
        moving=row.state not in (StudyState.DELIVERED, StudyState.FAILED, StudyState.IGNORED),
        retry=f"cmbnode retry {job.id}" if job is not None and job.state is JobState.FAILED else "",
        warnings=tuple(dict.fromkeys(warnings)),
        answer=answer_of(findings, _slices(ledger, job, findings, archive)) if findings is not None else None,
        montage=_montage(ledger, job, uid, archive),
        series=tuple(_series_line(one, job) for one in series),
        deliveries=tuple(_delivery_line(one) for one in ledger.deliveries(job.id)) if job is not None else (),
        history=_history(ledger, uid, series),
    )


def _replaced(ledger: Ledger, job: Job | None) -> tuple[str, ...]:
    """Say that a result which may have been read already does not hold any more."""
    before = ledger.predecessor(job.id) if job is not None else None
    if job is None or before is None:
        return ()
    counts = (ledger.findings(before.id) or {}).get("counts", {})
    number = f" ({counts['total']} marked)" if counts else ""
    at = words.clock(before.finished_at)
    return (f"Job {job.id} takes the place of job {before.id}{number} of {at}: other images came since.",)


def capture_of(ledger: Ledger, job: Job) -> str | None:
    """Path of the job's picture, relative to the archive; ``None`` if it made none."""
    return next((result.path for result in ledger.results(job.id) if result.kind == "capture"), None)


def _montage(ledger: Ledger, job: Job | None, uid: str, archive: Path) -> tuple[str, ...]:
    """Address of each page of the job's picture."""
    path = capture_of(ledger, job) if job is not None else None
    if job is None or path is None or not (archive / path).is_file():
        return ()
    # The job's number in the address: a superseding result is a new picture, never one from the browser's cache.
    base = f"/studies/{quote(uid)}/montage.png?job={job.id}"
    return tuple(f"{base}&page={page}" if page else base for page in range(page_count(archive / path)))


def _slices(ledger: Ledger, job: Job | None, findings: dict[str, Any], archive: Path) -> dict[str, int]:
    wanted = (lesion["slice_sop_instance_uid"] for lesion in findings["lesions"])
    return slice_numbers(ledger, archive, job.series_uids, wanted) if job is not None else {}


def answer_of(findings: dict[str, Any], slices: Mapping[str, int]) -> Answer:
    """Format a findings document (schema cmb-findings/1); lesions in the order of a reader who scrolls.

    Parameters
    ----------
    findings : dict
        The document.
    slices : mapping of str to int
        The number a PACS shows for a slice, by SOP Instance UID.
    """
    counts = findings["counts"]
    lesions = sorted(findings["lesions"], key=lambda lesion: (lesion["voxel_ijk"][2], lesion["id"]))
    return Answer(
        total=counts["total"],
        definite=counts["definite"],
        possible=counts["possible"],
        burden_class=words.burden_class(counts["total"]),
        lesions=tuple(_lesion_line(lesion, slices) for lesion in lesions),
        profile=findings["profile"],
        software=findings["software"],
    )


def _lesion_line(lesion: dict[str, Any], slices: Mapping[str, int]) -> LesionLine:
    place = " ".join(filter(None, (lesion["side"], lesion["location"] or lesion["region"])))
    return LesionLine(
        id=lesion["id"],
        certainty=lesion["certainty"],
        probability=f"{lesion['probability']:.2f}",
        diameter=f"{lesion['diameter_mm']:.1f}",
        volume=f"{lesion['volume_mm3']:.1f}",
        slice=str(slices.get(lesion["slice_sop_instance_uid"], words.ABSENT)),
        location=place or "not assessed",
        position=" ".join(f"{value:.0f}" for value in lesion["centroid_lps_mm"]),
    )


def _series_line(series: Series, job: Job | None) -> SeriesLine:
    state, tone = words.series_words(series.state)
    if state == "Used" and (job is None or series.series_instance_uid not in job.series_uids):
        state, tone = "Complete", "quiet"
    return SeriesLine(
        number=words.ABSENT if series.series_number is None else str(series.series_number),
        description=series.description or words.ABSENT,
        images=series.instance_count,
        role=words.role_words(series.role),
        state=state,
        tone=tone,
        why=series.why + (" (please confirm)" if series.needs_confirmation else ""),
    )


def _delivery_line(delivery: Delivery) -> DeliveryLine:
    state, tone = words.delivery_words(delivery.state)
    return DeliveryLine(
        destination=delivery.destination,
        kind=words.kind_words(delivery.result.kind),
        state=state,
        tone=tone,
        tries=_tries(delivery),
        answer=delivery.answer,
        at=delivery.accepted_at or delivery.first_attempt_at,
    )


def _tries(delivery: Delivery) -> str:
    """How often it was tried, where that says something."""
    if delivery.state is DeliveryState.WAITING and delivery.attempts:
        return f"try {delivery.attempts + 1} at {words.clock(delivery.next_attempt_at)}"
    return f"{delivery.attempts} tries" if delivery.attempts > 1 else ""


def _history(ledger: Ledger, uid: str, series: list[Series]) -> tuple[HistoryLine, ...]:
    """What happened to the study, its series and its jobs, the newest first."""
    names = {one.series_instance_uid: one.description or one.series_instance_uid for one in series}
    changes = [*ledger.history("study", uid)]
    for one in series:
        changes += ledger.history("series", one.series_instance_uid)
    for job in ledger.jobs_of_study(uid):
        changes += ledger.history("job", job.id)
    newest = sorted(changes, key=lambda change: (change.at, change.id), reverse=True)[:_HISTORY]
    return tuple(HistoryLine(change.at, words.change_words(change, names), change.why) for change in newest)
