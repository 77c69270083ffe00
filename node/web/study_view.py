"""What does the page of a study show? Ledger records become plain values; the template only lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from node.ledger import Job, JobState, Ledger, StudyRecord, StudyState
from node.ledger.worklist_records import WorklistRow
from pipeline.errors import InputError, ProfileError
from pipeline.findings import Findings, read_findings, wording
from pipeline.pictures import CROPS, SLICES, VOLUMES, PictureArchive
from pipeline.profile import load_profile

from . import labels
from .added_microbleeds import AddedRow, AddedView, PlaceExaminer
from .auth import User
from .findings_view import FindingsView, findings_view
from .history_view import DeliveryLine, HistoryLine, SeriesLine, delivery_line, history_of, series_line
from .review import Review
from .study_actions import StudyOffers, study_offers
from .trend import StudyPoint, over_time
from .viewer import VIEWS, MarkedPlace, ViewerSlices, ViewerState, page_count, viewer_state
from .volumes import VolumeGrid, VolumesView, volumes_view
from .worklist_view import StudyLine, row_of, study_line, unsent_why

_DOWNLOADS = {"sr": "Structured report", "seg": "Segmentation", "capture": "Capture", "ko": "Key images"}


@dataclass(frozen=True)
class CropLinks:
    """The close views of a result's microbleeds: which there are, and the size of a strip."""

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
    """Everything about one study. `job` made the result on the page; `correcting`: another is being written."""

    line: StudyLine
    offers: StudyOffers
    birth_date: str
    sex: str
    moving: bool
    retry: str
    warnings: tuple[str, ...]
    standing: tuple[str, ...]
    job: int | None
    correcting: str
    answer: FindingsView | None
    montage: tuple[str, ...]
    pictures: CropLinks | None
    viewer: ViewerState | None
    volumes: VolumesView | None
    no_viewer: str
    review: Review | None
    added: AddedView
    no_review: str
    over_time: tuple[StudyPoint, ...]
    downloads: tuple[Download, ...]
    destinations: str
    series: tuple[SeriesLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    history: tuple[HistoryLine, ...]


@dataclass(frozen=True)
class DisplayedResult:
    """The result on the page: its job and findings. While a correction is being written, the result before it."""

    job: Job
    findings: Findings


def displayed_result(ledger: Ledger, job: Job | None) -> DisplayedResult | None:
    """The newest result of a job, or of the jobs that it corrects; ``None`` if there is none."""
    if job is None:
        return None
    for one in (job, *(ledger.corrected(job.id) if job.correction is not None else ())):
        document = ledger.findings(one.id)
        if document is not None:
            return DisplayedResult(one, read_findings(document))
    return None


def study_page(
    ledger: Ledger, uid: str, archive: Path, user: User, viewer_url: str | None = None, review: Review | None = None
) -> StudyPage | None:
    """Everything about one study, for a user; ``None`` if the ledger does not know it. `review`: a form begun."""
    row = row_of(ledger, uid)
    if row is None:
        return None
    job, series = row.job, ledger.series(uid)
    result = displayed_result(ledger, job)
    why = why_no_review(row, result)
    said, standing = tuple(_warnings(ledger, job, result)), _standing(result)
    if result is not None and job is not None and not why:
        review = review or first_review(
            job, result, archive, next((s.institution for s in series if s.institution), "")
        )
    return StudyPage(
        line=study_line(row, unsent_why(ledger, row)),
        offers=study_offers(user, row.study, job, viewer_url),
        birth_date=labels.dicom_date(row.study.patient_birth_date),
        sex=row.study.patient_sex,
        moving=row.state not in (StudyState.DELIVERED, StudyState.FAILED, StudyState.IGNORED),
        retry=f"cmbnode retry {job.id}" if job is not None and job.state is JobState.FAILED else "",
        warnings=tuple(dict.fromkeys(wording.sentence(one) for one in said if one not in standing)),
        standing=tuple(wording.sentence(one) for one in standing),
        job=result.job.id if result is not None else None,
        correcting=_correcting(job, result),
        answer=_answer(ledger, result, archive) if result is not None else None,
        montage=_montage(ledger, result, archive) if result is not None else (),
        pictures=_pictures(result, archive) if result is not None else None,
        viewer=viewer_of(result, review, archive) if result is not None else None,
        volumes=_volumes(result, archive) if result is not None else None,
        no_viewer=_no_viewer(row.study),
        review=None if why else review,
        added=added_view(result, review, archive) if result is not None and review is not None else AddedView(),
        no_review=why,
        over_time=over_time(ledger, row.study),
        downloads=tuple(_downloads(ledger, result, archive)) if result is not None else (),
        destinations=", ".join(job.destinations) if job is not None else "",
        series=tuple(series_line(one, job) for one in series),
        deliveries=tuple(delivery_line(one) for one in ledger.deliveries(job.id)) if job is not None else (),
        history=history_of(ledger, uid, series),
    )


def _warnings(ledger: Ledger, job: Job | None, result: DisplayedResult | None) -> Iterator[str]:
    yield from _replaced(ledger, job)
    if job is not None:
        yield from job.warnings
    if result is not None:
        yield from result.findings.warnings


def _standing(result: DisplayedResult | None) -> tuple[str, ...]:
    """The caveats of the profile, which are in every result and say nothing of this study."""
    if result is None:
        return ()
    try:
        caveats = load_profile(result.job.profile).caveats
    except ProfileError:
        return ()
    return tuple(one for one in caveats if one in result.findings.warnings)


def _replaced(ledger: Ledger, job: Job | None) -> Iterator[str]:
    """Say that a result which a reader may already have seen is no longer valid."""
    before = ledger.predecessor(job.id) if job is not None and job.correction is None else None
    if job is not None and before is not None:
        counts = (ledger.findings(before.id) or {}).get("counts", {})
        number = f" ({counts['total']} marked)" if counts else ""
        at = labels.clock(before.finished_at)
        yield f"Job {job.id} supersedes job {before.id}{number} of {at}: further images have arrived since."


def _correcting(job: Job | None, result: DisplayedResult | None) -> str:
    """Say that a correction is being written; the page shows the result before it."""
    if job is None or job.correction is None or result is None or result.job.id == job.id:
        return ""
    who = labels.person_name(job.correction.observer)
    if job.state is JobState.FAILED:
        return f"The correction by {who} could not be written. This page shows the previous result."
    return f"The correction by {who} is being written. Until then this page shows the previous result."


def why_no_review(row: WorklistRow, result: DisplayedResult | None) -> str:
    """Why the result cannot be corrected now; empty if it can."""
    if result is None:
        return "There is no result yet."
    if row.study.removed_at is not None:
        return (
            f"The images were deleted on {labels.clock(row.study.removed_at)}, after their retention period. "
            "To correct the result, send the study again."
        )
    if row.job is not None and row.job.id != result.job.id and row.job.state is not JobState.FAILED:
        return "Another correction is being written; this page will show it."
    return ""


def first_review(job: Job, result: DisplayedResult, archive: Path, organisation: str = "") -> Review:
    """The form at first: the viewer is at the first microbleed, or at the middle slice."""
    slices, position = slices_of(archive, result.job.id), 0
    if slices is not None:
        places = [lesion.centroid_lps_mm for lesion in result.findings.lesions]
        position = min(map(slices.position_of, places), default=len(slices.order) // 2)
    return Review(job.id, organisation=organisation, position=position)


def slices_of(archive: Path, job: int) -> ViewerSlices | None:
    """The slices of a job; ``None`` if they have been deleted."""
    try:
        with PictureArchive(file_of(archive, job, SLICES)) as pictures:
            return ViewerSlices.of(pictures.index)
    except InputError:
        return None


def viewer_of(result: DisplayedResult, review: Review | None, archive: Path, notice: str = "") -> ViewerState | None:
    """What the viewer shows; ``None`` if the slices have been deleted."""
    slices = slices_of(archive, result.job.id)
    if slices is None:
        return None
    review = review or first_review(result.job, result, archive)
    places = tuple(_places(result.findings, review))
    return viewer_state(slices, review.position, review.view, places, _pictures_base(result.job), notice)


def _pictures_base(job: Job) -> str:
    return f"/studies/{quote(job.study_instance_uid)}/pictures/{job.id}"


def grid_of(archive: Path, job: int) -> VolumeGrid | None:
    """The grid of a job's volumes; ``None`` if they have been deleted."""
    try:
        with PictureArchive(file_of(archive, job, VOLUMES)) as pictures:
            return VolumeGrid.of(pictures.index)
    except InputError:
        return None


def examiner_of(result: DisplayedResult, archive: Path) -> PlaceExaminer:
    """What examines the places that a reader marks on a result."""
    return PlaceExaminer(archive, result.job, _pictures_base(result.job), grid_of(archive, result.job.id))


def added_view(
    result: DisplayedResult,
    review: Review,
    archive: Path,
    confirm: AddedRow | None = None,
    refusal: str = "",
    examiner: PlaceExaminer | None = None,
) -> AddedView:
    """What the reader adds; the volumes are read only if there is something."""
    if not review.added:
        return AddedView((), confirm, refusal)
    return AddedView((examiner or examiner_of(result, archive)).rows(review), confirm, refusal)


def _volumes(result: DisplayedResult, archive: Path) -> VolumesView | None:
    grid = grid_of(archive, result.job.id)
    if grid is None:
        return None
    change = result.findings.change
    titles = {"prior": f"Prior {wording.date(change.prior_study_date)}"} if change else {}
    return volumes_view(grid, _pictures_base(result.job), titles)


def _places(findings: Findings, review: Review) -> Iterator[MarkedPlace]:
    for lesion in findings.lesions:
        tone = lesion.certainty.value if review.verdicts.get(lesion.tracking_uid, True) else "rejected"
        yield MarkedPlace(lesion.centroid_lps_mm, lesion.diameter_mm, str(lesion.id), tone)
    for rejected in findings.rejected:
        tone = rejected.certainty.value if review.verdicts.get(rejected.tracking_uid) else "rejected"
        yield MarkedPlace(rejected.centroid_lps_mm, rejected.diameter_mm, str(rejected.id), tone)
    for prior in findings.change.no_longer_seen if findings.change else ():
        yield MarkedPlace(prior.centroid_lps_mm, prior.diameter_mm, "gone", "gone")
    for n, added in enumerate(review.added, start=1):
        yield MarkedPlace(added.centroid_lps_mm, 3.0, f"A{n}", added.certainty)


def _no_viewer(study: StudyRecord) -> str:
    if study.removed_at is not None:
        return f"The slices were deleted with the images on {labels.clock(study.removed_at)}."
    return "This node keeps no slices of this result; the PACS has the images."


def _answer(ledger: Ledger, result: DisplayedResult, archive: Path) -> FindingsView:
    try:
        with PictureArchive(file_of(archive, result.job.id, CROPS)) as pictures:
            slices = dict(pictures.index.get("slices", {}))
    except InputError:
        slices = {}
    change = result.findings.change
    prior = row_of(ledger, change.prior_study_instance_uid) if change else None
    document = ledger.findings(prior.job.id) if prior and prior.job else None
    before = read_findings(document) if document else None
    return findings_view(result.findings, slices, before, grid_of(archive, result.job.id))


def _pictures(result: DisplayedResult, archive: Path) -> CropLinks | None:
    try:
        with PictureArchive(file_of(archive, result.job.id, CROPS)) as pictures:
            width, height = pictures.index["size"]
            views = tuple((view, VIEWS[view]) for view in pictures.index["views"])
            return CropLinks(result.job.id, views, width, height)
    except InputError:
        return None


def file_of(archive: Path, job: int, name: str) -> Path:
    """A file in a job's outbox."""
    return archive / "outbox" / str(job) / name


def capture_of(ledger: Ledger, job: Job) -> str | None:
    """Path of the job's capture object, relative to the archive; ``None`` if it has none."""
    return next((file.path for file in ledger.results(job.id) if file.kind == "capture"), None)


def _montage(ledger: Ledger, result: DisplayedResult, archive: Path) -> tuple[str, ...]:
    """The address of each page of the capture object."""
    path = capture_of(ledger, result.job)
    if path is None or not (archive / path).is_file():
        return ()
    # The job's number is in the address, so a browser never shows an older result's picture from its cache.
    base = f"/studies/{quote(result.job.study_instance_uid)}/montage.png?job={result.job.id}"
    return tuple(f"{base}&page={page}" if page else base for page in range(page_count(archive / path)))


def _downloads(ledger: Ledger, result: DisplayedResult, archive: Path) -> Iterator[Download]:
    base = f"/studies/{quote(result.job.study_instance_uid)}/results/{result.job.id}"
    for file in ledger.results(result.job.id):
        path = archive / file.path
        if file.kind in _DOWNLOADS and path.is_file():
            size = f"{max(1, path.stat().st_size // 1000)} kB"
            yield Download(_DOWNLOADS[file.kind], f"{base}/{file.kind}.dcm", size)
    yield Download("Findings", f"{base}/findings.json", "JSON")
