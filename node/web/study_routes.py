"""Which pages does a study have? The study, its pictures and files, and the steps of a correction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from node.analyse.correction import open_correction
from node.archive import Archive
from node.ledger import Job
from node.ledger.access_records import AuditAction
from node.settings.recognition import recognition
from pipeline.errors import InputError
from pipeline.findings import wording
from pipeline.pictures import CROPS, SLICES, VOLUMES, PictureArchive
from pipeline.pictures.marking import StoredVolumes

from .added_microbleeds import mark
from .audit import audit
from .auth import LOCAL, POLL, Reader, User, Viewer
from .context import Context, context_of
from .preview import preview_of
from .review import Review, apply_action, marked, read_place, read_review
from .study_view import (
    StudyPage,
    added_view,
    capture_of,
    displayed_result,
    examiner_of,
    file_of,
    slices_of,
    study_page,
    viewer_of,
)
from .viewer import montage_png, slice_jpeg
from .worklist_view import row_of

_CACHE = {"Cache-Control": "private, max-age=3600"}  # a job's picture never changes; no shared cache may hold it

router = APIRouter(prefix="/studies/{uid}", default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
_ADDED = {"place", "place.x", "mark", "confirm", "dismiss", "remove"}  # buttons that change what is added
VolumeName = Literal["swi", "phase", "mip", "prior"]


async def _form(request: Request) -> FormData:
    return await request.form()


Form = Annotated[FormData, Depends(_form)]


@router.get("")
def study(request: Request, uid: str, shared: Shared, user: Viewer) -> Response:
    """One study."""
    page = _page(shared, uid, user)
    audit(request, AuditAction.STUDY, uid, repeats=POLL in request.headers)
    return shared.templates.TemplateResponse(request, "study.html", {"study": page})


def _page(shared: Context, uid: str, user: User, review: Review | None = None) -> StudyPage:
    page = study_page(shared.ledger, uid, shared.archive, user, shared.settings.worklist.viewer_url, review)
    if page is None:
        raise HTTPException(404, "This node has no such study.")
    if page.review is not None:
        page = replace(page, review=_with_observer(user, page.review))
    return page


def _with_observer(user: User, review: Review) -> Review:
    """The observer is the user who is signed in; only where sign-in is switched off may the form name one."""
    return review if user is LOCAL else replace(review, observer=user.display_name)


@router.post("/review")
def review(request: Request, uid: str, shared: Shared, user: Viewer, form: Form) -> Response:
    """The study with the verdicts so far; the viewer alone if the page asks for nothing else."""
    review = _with_observer(user, _review_of(form))
    job, row = job_of(shared, uid, review.job), row_of(shared.ledger, uid)
    result = displayed_result(shared.ledger, job)
    if row is None or row.job is None or result is None:
        raise HTTPException(404, "This node has no result for this study.")
    audit(request, AuditAction.STUDY, uid, repeats=True)
    notice, part = _superseded_notice(review, row.job), request.headers.get("hx-target")
    if "preview" in form or (notice and part not in ("viewer", "added")):
        return _preview(request, shared, review, notice)
    refusal, confirm, examiner = "", None, None
    slices = slices_of(shared.archive, result.job.id)
    try:
        review = apply_action(review, form, slices)
        if (place := marked(review, form, slices)) is not None:
            examiner = examiner_of(result, shared.archive)
            review, confirm = mark(review, place, result.findings, examiner, confirmed="confirm" in form)
    except InputError as error:
        refusal = wording.sentence(str(error)) + "."
    added = added_view(result, review, shared.archive, confirm, refusal, examiner)
    editable = user.can_correct and row.study.removed_at is None
    view = {"uid": uid, "review": review, "added": added, "editable": editable, "part": part, "notice": notice}
    if part == "added":
        return shared.templates.TemplateResponse(request, "added.html", view)
    viewer = viewer_of(result, review, shared.archive, notice)
    if part == "viewer":
        view |= {"viewer": viewer, "no_viewer": "", "with_added": bool(_ADDED & form.keys()) or refusal != ""}
        return shared.templates.TemplateResponse(request, "viewer.html", view)
    page = replace(_page(shared, uid, user, review), viewer=viewer, added=added)
    return shared.templates.TemplateResponse(request, "study.html", {"study": page})


def _superseded_notice(review: Review, current: Job) -> str:
    """Say that a newer result exists; empty if the reader is looking at the newest."""
    if review.job == current.id:
        return ""
    return f"job {review.job} has been superseded by job {current.id}: review that result instead"


def _review_of(form: FormData) -> Review:
    try:
        return read_review(form)
    except InputError as error:
        raise HTTPException(422, str(error)) from error


def _preview(request: Request, shared: Context, review: Review, refusal: str = "") -> Response:
    """What would be sent; with `refusal`, what was not sent and why."""
    view = {"preview": preview_of(shared.ledger, shared.archive, review, refusal), "review": review}
    return shared.templates.TemplateResponse(request, "preview.html", view, 409 if refusal else 200)


@router.post("/corrections")
def correct(request: Request, uid: str, shared: Shared, user: Reader, form: Form) -> Response:
    """Open the job that writes the verified result, and go back to the study."""
    review = _with_observer(user, _review_of(form))
    result = displayed_result(shared.ledger, job_of(shared, uid, review.job))
    if result is None:
        raise HTTPException(404, "This node has no result for this study.")
    correction = review.correction(result.findings)
    try:
        archive = Archive(shared.settings.data_dir, shared.settings.archive.free_disk_mb)
        rules = recognition(shared.settings)
        job = open_correction(shared.ledger, archive, review.job, correction, user.name, rules)
    except InputError as error:
        audit(request, AuditAction.STUDY, uid, repeats=True)
        return _preview(request, shared, review, str(error))
    audit(request, AuditAction.CORRECTION, uid, f"job {job.id}: {correction.summary}")
    shared.signal(job)
    return RedirectResponse(f"/studies/{quote(uid)}", 303)


def job_of(shared: Context, uid: str, number: int) -> Job:
    """A job of this study and of no other."""
    for job in shared.ledger.jobs_of_study(uid):
        if job.id == number:
            return job
    raise HTTPException(404, "This study has no such result.")


@router.get("/montage.png", response_class=Response)
def montage(
    request: Request, uid: str, shared: Shared, job: int | None = None, page: Annotated[int, Query(ge=0, le=10_000)] = 0
) -> Response:
    """A page of a result's capture object as PNG; `job` chooses an earlier result of the same study."""
    jobs = shared.ledger.jobs_of_study(uid)  # newest first
    source = next((one for one in jobs if job in (None, one.id)), None)
    path = capture_of(shared.ledger, source) if source is not None else None
    if path is None or not (shared.archive / path).is_file():
        raise HTTPException(404, "There is no picture for this study.")
    try:
        png = montage_png(shared.archive / path, page)
    except IndexError as error:
        raise HTTPException(404, "The picture has no such page.") from error
    return _picture(request, uid, png, "image/png")


@router.get("/pictures/{number}/place.jpg", response_class=Response)
def place_picture(request: Request, uid: str, number: int, at: str, shared: Shared) -> Response:
    """The surroundings of a place that a reader marks; `at`: three numbers, LPS mm."""
    job_of(shared, uid, number)
    picture = _if_kept(lambda: StoredVolumes(file_of(shared.archive, number, VOLUMES)).thumbnail(read_place(at)))
    return _picture(request, uid, picture)


@router.get("/pictures/{number}/{name}.jpg", response_class=Response)
def crop(request: Request, uid: str, number: int, name: str, shared: Shared) -> Response:
    """A close view of a microbleed: ``<lesion>-<view>``."""
    return _picture(request, uid, _member(shared, uid, number, CROPS, f"{name}.jpg"))


@router.get("/pictures/{number}/{view}/{k}.jpg", response_class=Response)
def slice_picture(
    request: Request,
    uid: str,
    number: int,
    view: Literal["swi", "phase", "mip"],
    k: Annotated[int, "in slice order"],
    shared: Shared,
) -> Response:
    """One slice, as the analysis saw it."""
    job_of(shared, uid, number)

    def draw() -> bytes | None:
        with PictureArchive(file_of(shared.archive, number, SLICES)) as pictures:
            return slice_jpeg(pictures, view, k)

    return _picture(request, uid, _if_kept(draw))


@router.get("/pictures/{number}/{name}.nii", response_class=Response)
def volume(request: Request, uid: str, number: int, name: VolumeName, shared: Shared) -> Response:
    """A volume for the viewer, in NIfTI."""
    content = _member(shared, uid, number, VOLUMES, f"{name}.nii.gz")
    answer = _picture(request, uid, content, "application/octet-stream")
    answer.headers["Content-Encoding"] = "gzip"  # it is stored so, and unpacked by the browser
    return answer


def _member(shared: Shared, uid: str, number: int, file: str, name: str) -> bytes | None:
    """A member of one of a result's picture files; ``None`` if it is not there."""
    job_of(shared, uid, number)

    def read() -> bytes | None:
        with PictureArchive(file_of(shared.archive, number, file)) as pictures:
            return pictures.picture(name)

    return _if_kept(read)


def _if_kept(read: Callable[[], bytes | None]) -> bytes | None:
    """What `read` gives; ``None`` where the file is gone, as after retention, or the place is malformed."""
    try:
        return read()
    except InputError:
        return None


def _picture(request: Request, uid: str, picture: bytes | None, media_type: str = "image/jpeg") -> Response:
    """A picture; in the audit it belongs to the look at its study, of which a page fetches a hundred."""
    if picture is None:
        raise HTTPException(404, "This picture is not on this node.")
    audit(request, AuditAction.STUDY, uid, "picture", repeats=True)
    return Response(picture, media_type=media_type, headers=_CACHE)


@router.get("/results/{number}/findings.json", response_class=Response)
def findings(request: Request, uid: str, number: int, shared: Shared) -> Response:
    """The findings as a file."""
    document = shared.ledger.findings(job_of(shared, uid, number).id)
    if document is None:
        raise HTTPException(404, "This result has no findings.")
    audit(request, AuditAction.DOWNLOAD, uid, f"job {number}, findings.json")
    name = {"Content-Disposition": f'attachment; filename="findings-{number}.json"'}
    return Response(json.dumps(document, indent=1), media_type="application/json", headers=name)


@router.get("/results/{number}/{kind}.dcm", response_class=Response)
def result(
    request: Request, uid: str, number: int, kind: Literal["sr", "seg", "capture", "ko"], shared: Shared
) -> Response:
    """A DICOM object of a result as a file."""
    file = next((one for one in shared.ledger.results(job_of(shared, uid, number).id) if one.kind == kind), None)
    if file is None or not (shared.archive / file.path).is_file():
        raise HTTPException(404, "This file is no longer on this node. The PACS holds what was delivered.")
    audit(request, AuditAction.DOWNLOAD, uid, f"job {number}, {kind}")
    name = f"{kind}-{number}.dcm"
    return FileResponse(shared.archive / file.path, media_type="application/dicom", filename=name)
