"""What stands on the page of a study? Ledger records become plain values; the template only lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from node.ledger import Job, JobState, Ledger, Study, StudyState
from node.ledger.records import WorklistRow
from node.worklist import words
from node.worklist.answer_view import Answer, answer_of
from node.worklist.course_view import (
    DeliveryLine,
    HistoryLine,
    SeriesLine,
    delivery_line,
    history_of,
    series_line,
)
from node.worklist.montage import page_count
from node.worklist.over_time import StudyPoint, over_time
from node.worklist.review import Review
from node.worklist.viewer import VIEWS, Screen, Slices, Spot, screen_of
from node.worklist.views import StudyLine, row_of, study_line, unsent_why
from pipeline.errors import InputError
from pipeline.pictures import CROPS, SLICES, Book

_DOWNLOADS = {"sr": "Structured report", "seg": "Segmentation", "capture": "Picture", "ko": "Key images"}


@dataclass(frozen=True)
class Pictures:
    """The crops of a result: which views of each lesion there are, and how large a strip is."""

    job: int
    views: tuple[tuple[str, str], ...]
    width: int
    height: int


@dataclass(frozen=True)
class Download:
    """A file of the result."""

    label: str
    url: str
    size: str


@dataclass(frozen=True)
class StudyPage:
    """Everything about one study. `job` is the result that is shown; `correcting` says that another is being made."""

    line: StudyLine
    birth_date: str
    sex: str
    moving: bool
    retry: str
    warnings: tuple[str, ...]
    job: int | None
    correcting: str
    answer: Answer | None
    montage: tuple[str, ...]
    pictures: Pictures | None
    screen: Screen | None
    screen_why: str
    review: Review | None
    review_why: str
    over_time: tuple[StudyPoint, ...]
    downloads: tuple[Download, ...]
    destinations: str
    series: tuple[SeriesLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    history: tuple[HistoryLine, ...]


@dataclass(frozen=True)
class Shown:
    """The result that is shown: its job and findings. While a correction is being made, that is the one before it."""

    job: Job
    findings: dict[str, Any]


def shown_of(ledger: Ledger, job: Job | None) -> Shown | None:
    """The newest result that a job has, or that it corrects; ``None`` if there is none."""
    if job is None:
        return None
    for one in (job, *(ledger.corrected(job.id) if job.correction is not None else ())):
        findings = ledger.findings(one.id)
        if findings is not None:
            return Shown(one, findings)
    return None


def study_page(ledger: Ledger, uid: str, archive: Path, review: Review | None = None) -> StudyPage | None:
    """Everything about one study; ``None`` if the ledger has none of that UID. `review` is a form that was begun."""
    row = row_of(ledger, uid)
    if row is None:
        return None
    job, series = row.job, ledger.series(uid)
    shown = shown_of(ledger, job)
    why = no_review(row, shown)
    if shown is not None and job is not None and not why:
        review = review or first_review(job, shown, archive, next((s.institution for s in series if s.institution), ""))
    return StudyPage(
        line=study_line(row, unsent_why(ledger, row)),
        birth_date=words.dicom_date(row.study.patient_birth_date),
        sex=row.study.patient_sex,
        moving=row.state not in (StudyState.DELIVERED, StudyState.FAILED, StudyState.IGNORED),
        retry=f"cmbnode retry {job.id}" if job is not None and job.state is JobState.FAILED else "",
        warnings=tuple(dict.fromkeys(words.sentence(one) for one in _warnings(ledger, job, shown))),
        job=shown.job.id if shown is not None else None,
        correcting=_correcting(job, shown),
        answer=_answer(ledger, shown, archive) if shown is not None else None,
        montage=_montage(ledger, shown, archive) if shown is not None else (),
        pictures=_pictures(shown, archive) if shown is not None else None,
        screen=screen(shown, review, archive) if shown is not None else None,
        screen_why=_no_slices(row.study),
        review=None if why else review,
        review_why=why,
        over_time=over_time(ledger, row.study),
        downloads=tuple(_downloads(ledger, shown, archive)) if shown is not None else (),
        destinations=", ".join(job.destinations) if job is not None else "",
        series=tuple(series_line(one, job) for one in series),
        deliveries=tuple(delivery_line(one) for one in ledger.deliveries(job.id)) if job is not None else (),
        history=history_of(ledger, uid, series),
    )


def _warnings(ledger: Ledger, job: Job | None, shown: Shown | None) -> Iterator[str]:
    yield from _replaced(ledger, job)
    if job is not None:
        yield from job.warnings
    if shown is not None:
        yield from (shown.findings.get("quality") or {}).get("warnings", ())


def _replaced(ledger: Ledger, job: Job | None) -> Iterator[str]:
    """Say that a result which may have been read already does not hold any more."""
    before = ledger.predecessor(job.id) if job is not None and job.correction is None else None
    if job is not None and before is not None:
        counts = (ledger.findings(before.id) or {}).get("counts", {})
        number = f" ({counts['total']} marked)" if counts else ""
        at = words.clock(before.finished_at)
        yield f"Job {job.id} takes the place of job {before.id}{number} of {at}: other images came since."


def _correcting(job: Job | None, shown: Shown | None) -> str:
    """Say that a correction is on its way; the page shows the result before it."""
    if job is None or job.correction is None or shown is None or shown.job.id == job.id:
        return ""
    who = words.person_name(job.correction.observer)
    if job.state is JobState.FAILED:
        return f"The correction by {who} could not be written. What follows is the result before it."
    return f"The correction by {who} is being written. What follows is the result before it."


def no_review(row: WorklistRow, shown: Shown | None) -> str:
    """Why the result cannot be corrected now; empty if it can."""
    if shown is None:
        return "There is no result yet."
    if row.study.removed_at is not None:
        return (
            f"The images were removed on {words.clock(row.study.removed_at, 'minute')}, when their time was over. "
            "To correct the result, send the study again."
        )
    if row.job is not None and row.job.id != shown.job.id and row.job.state is not JobState.FAILED:
        return "Another correction is being written; this page shows it as soon as it is done."
    return ""


def first_review(job: Job, shown: Shown, archive: Path, organisation: str = "") -> Review:
    """The form as it is first shown: at the first bleed, or in the middle."""
    slices, position = slices_of(archive, shown.job.id), 0
    if slices is not None:
        places = [tuple(lesion["centroid_lps_mm"]) for lesion in shown.findings["lesions"]]
        position = min(map(slices.position_of, places), default=len(slices.order) // 2)
    return Review(job.id, organisation=organisation, position=position)


def slices_of(archive: Path, job: int) -> Slices | None:
    """The slices of a job, if they are still kept."""
    try:
        with Book(file_of(archive, job, SLICES)) as book:
            return Slices.of(book.index)
    except InputError:
        return None


def screen(shown: Shown, review: Review | None, archive: Path, notice: str = "") -> Screen | None:
    """What the viewer shows; ``None`` if the slices are not kept any more."""
    slices = slices_of(archive, shown.job.id)
    if slices is None:
        return None
    review = review or first_review(shown.job, shown, archive)
    base = f"/studies/{quote(shown.job.study_instance_uid)}/pictures/{shown.job.id}"
    return screen_of(slices, review.position, review.view, tuple(_spots(shown.findings, review)), base, notice)


def _spots(findings: dict[str, Any], review: Review) -> Iterator[Spot]:
    for lesion in findings["lesions"]:
        kept = review.verdicts.get(lesion["tracking_uid"], True)
        tone = lesion["certainty"] if kept else "rejected"
        yield Spot(tuple(lesion["centroid_lps_mm"]), lesion["diameter_mm"], str(lesion["id"]), tone)
    for lesion in findings.get("rejected", ()):
        tone = lesion["certainty"] if review.verdicts.get(lesion["tracking_uid"]) else "rejected"
        yield Spot(tuple(lesion["centroid_lps_mm"]), lesion["diameter_mm"], str(lesion["id"]), tone)
    for lesion in (findings.get("change") or {}).get("no_longer_seen", ()):
        yield Spot(tuple(lesion["centroid_lps_mm"]), lesion["diameter_mm"], "gone", "gone")
    for n, added in enumerate(review.added, start=1):
        yield Spot(added.centroid_lps_mm, 3.0, f"A{n}", added.certainty)


def _no_slices(study: Study) -> str:
    if study.removed_at is not None:
        return f"The slices went with the images on {words.clock(study.removed_at, 'minute')}."
    return "No slices are kept for this result; they are in the PACS."


def _answer(ledger: Ledger, shown: Shown, archive: Path) -> Answer:
    try:
        with Book(file_of(archive, shown.job.id, CROPS)) as book:
            slices = dict(book.index.get("slices", {}))
    except InputError:
        slices = {}
    change = shown.findings.get("change") or {}
    prior = row_of(ledger, change["prior_study_instance_uid"]) if change else None
    return answer_of(shown.findings, slices, ledger.findings(prior.job.id) if prior and prior.job else None)


def _pictures(shown: Shown, archive: Path) -> Pictures | None:
    try:
        with Book(file_of(archive, shown.job.id, CROPS)) as book:
            width, height = book.index["size"]
            views = tuple((view, VIEWS[view]) for view in book.index["views"])
            return Pictures(shown.job.id, views, width, height)
    except InputError:
        return None


def file_of(archive: Path, job: int, name: str) -> Path:
    """A file in the outbox of a job."""
    return archive / "outbox" / str(job) / name


def capture_of(ledger: Ledger, job: Job) -> str | None:
    """Path of the job's picture, relative to the archive; ``None`` if it made none."""
    return next((result.path for result in ledger.results(job.id) if result.kind == "capture"), None)


def _montage(ledger: Ledger, shown: Shown, archive: Path) -> tuple[str, ...]:
    """Address of each page of the job's picture."""
    path = capture_of(ledger, shown.job)
    if path is None or not (archive / path).is_file():
        return ()
    # The job's number in the address: a superseding result is a new picture, never one from the browser's cache.
    base = f"/studies/{quote(shown.job.study_instance_uid)}/montage.png?job={shown.job.id}"
    return tuple(f"{base}&page={page}" if page else base for page in range(page_count(archive / path)))


def _downloads(ledger: Ledger, shown: Shown, archive: Path) -> Iterator[Download]:
    base = f"/studies/{quote(shown.job.study_instance_uid)}/results/{shown.job.id}"
    for result in ledger.results(shown.job.id):
        path = archive / result.path
        if result.kind in _DOWNLOADS and path.is_file():
            size = f"{max(1, path.stat().st_size // 1000)} kB"
            yield Download(_DOWNLOADS[result.kind], f"{base}/{result.kind}.dcm", size)
    yield Download("Findings", f"{base}/findings.json", "JSON")
