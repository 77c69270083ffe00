"""Which pages does a study have? The study, its pictures, its files, and the way a correction takes."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from node.archive import Archive
from node.bell import QueueAwayError
from node.correcting import open_correction
from node.ledger import Job
from node.ledger.access_records import Action
from node.rules import recognition
from node.worklist.access import LOCAL, Reader, User, Viewer, audit
from node.worklist.context import Context, context_of
from node.worklist.montage import montage_png
from node.worklist.preview import preview_of
from node.worklist.review import Review, act, read_review
from node.worklist.study_view import (
    StudyPage,
    capture_of,
    file_of,
    screen,
    shown_of,
    slices_of,
    study_page,
)
from node.worklist.viewer import slice_jpeg
from node.worklist.views import row_of
from pipeline.errors import InputError
from pipeline.pictures import CROPS, SLICES, Book

ONE_LOOK_S = 600.0
"""Pictures fetched within so long of looking at their study belong to that look."""
_KEEP = {"Cache-Control": "private, max-age=3600"}  # a picture of a job never changes; no shared cache may hold it

router = APIRouter(prefix="/studies/{uid}", default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]


async def _form(request: Request) -> FormData:
    return await request.form()


Form = Annotated[FormData, Depends(_form)]


@router.get("")
def study(request: Request, uid: str, shared: Shared, user: Viewer) -> Response:
    """One study."""
    page = _page(shared, uid, user)
    audit(request, Action.STUDY, uid)
    return shared.templates.TemplateResponse(request, "study.html", {"study": page})


def _page(shared: Context, uid: str, user: User, review: Review | None = None) -> StudyPage:
    page = study_page(shared.ledger, uid, shared.archive, review)
    if page is None:
        raise HTTPException(404, "This node has no such study.")
    if page.review is not None:
        page = replace(page, review=_signed(user, page.review))
    return page


def _signed(user: User, review: Review) -> Review:
    """The observer is who is signed in; where nobody signs in, whoever writes a name."""
    return review if user == LOCAL else replace(review, observer=user.display_name)


@router.post("/review")
def review(request: Request, uid: str, shared: Shared, user: Viewer, form: Form) -> Response:
    """The study with what the reader has said so far, or the viewer alone where only that is asked for."""
    given = _signed(user, _read(form))
    job, row = _job(shared, uid, given.job), row_of(shared.ledger, uid)
    shown = shown_of(shared.ledger, job)
    if row is None or row.job is None or shown is None:
        raise HTTPException(404, "This node has no result for this study.")
    notice, alone = _newer(given, row.job), request.headers.get("hx-target") == "viewer"
    if "preview" in form or (notice and not alone):
        return _preview(request, shared, given, notice)
    try:
        given = act(given, form, slices_of(shared.archive, shown.job.id))
    except InputError as error:
        notice = str(error)
    picture = screen(shown, given, shared.archive, notice)
    if alone:
        view = {
            "screen": picture,
            "screen_why": "",
            "review": given,
            "editable": user.reads and row.study.removed_at is None,
            "uid": uid,
        }
        return shared.templates.TemplateResponse(request, "viewer.html", view)
    page = replace(_page(shared, uid, user, given), screen=picture)
    return shared.templates.TemplateResponse(request, "study.html", {"study": page})


def _newer(given: Review, current: Job) -> str:
    """Say that the result the reader looks at is not the newest any more."""
    if given.job == current.id:
        return ""
    return f"job {given.job} was superseded meanwhile by job {current.id}: look at that result and correct it"


def _read(form: FormData) -> Review:
    try:
        return read_review(form)
    except InputError as error:
        raise HTTPException(422, str(error)) from error


def _preview(request: Request, shared: Context, given: Review, refusal: str = "") -> Response:
    """What would be sent; or, with the reason, what was not."""
    view = {"preview": preview_of(shared.ledger, given, refusal), "review": given}
    return shared.templates.TemplateResponse(request, "preview.html", view, 409 if refusal else 200)


@router.post("/corrections")
def correct(request: Request, uid: str, shared: Shared, user: Reader, form: Form) -> Response:
    """Open the job that makes the verified result, and go back to the study."""
    given = _signed(user, _read(form))
    _job(shared, uid, given.job)
    correction = given.correction()
    try:
        archive = Archive(shared.settings.data_dir, shared.settings.archive.free_disk_mb)
        rules = recognition(shared.settings)
        job = open_correction(shared.ledger, archive, given.job, correction, user.name, rules)
    except InputError as error:
        return _preview(request, shared, given, str(error))
    audit(request, Action.CORRECTED, uid, f"job {job.id}: {correction.summary}")
    if shared.bell is not None:
        with suppress(QueueAwayError):  # the sweep will ring
            shared.bell.analyse(job.id, job.priority)
    return RedirectResponse(f"/studies/{quote(uid)}", 303)


def _job(shared: Context, uid: str, number: int) -> Job:
    """A job of this study, and of no other."""
    for job in shared.ledger.jobs_of_study(uid):
        if job.id == number:
            return job
    raise HTTPException(404, "This study has no such result.")


@router.get("/montage.png", response_class=Response)
def montage(
    request: Request, uid: str, shared: Shared, job: int | None = None, page: Annotated[int, Query(ge=0, le=10_000)] = 0
) -> Response:
    """A page of the capture object of a study's result as PNG; `job` picks an earlier result of the same study."""
    jobs = shared.ledger.jobs_of_study(uid)  # the newest first
    chosen = next((one for one in jobs if job in (None, one.id)), None)
    path = capture_of(shared.ledger, chosen) if chosen is not None else None
    if path is None or not (shared.archive / path).is_file():
        raise HTTPException(404, "There is no picture for this study.")
    try:
        png = montage_png(shared.archive / path, page)
    except IndexError as error:
        raise HTTPException(404, "The picture has no such page.") from error
    _look(request, uid)
    return Response(png, media_type="image/png", headers=_KEEP)


@router.get("/pictures/{number}/{name}.jpg", response_class=Response)
def crop(request: Request, uid: str, number: int, name: str, shared: Shared) -> Response:
    """A bleed from near: ``<lesion>-<view>``."""
    _job(shared, uid, number)
    try:
        with Book(file_of(shared.archive, number, CROPS)) as book:
            picture = book.picture(f"{name}.jpg")
    except InputError:
        picture = None
    return _jpeg(request, uid, picture)


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
    _job(shared, uid, number)
    try:
        with Book(file_of(shared.archive, number, SLICES)) as book:
            picture = slice_jpeg(book, view, k)
    except InputError:
        picture = None
    return _jpeg(request, uid, picture)


def _jpeg(request: Request, uid: str, picture: bytes | None) -> Response:
    if picture is None:
        raise HTTPException(404, "This picture is not on this node.")
    _look(request, uid)
    return Response(picture, media_type="image/jpeg", headers=_KEEP)


_looked: dict[tuple[str, str], float] = {}


def _look(request: Request, uid: str) -> None:
    """Write down that someone looked at pictures of a study; not each of the hundred that one look fetches."""
    now, who = time.monotonic(), (getattr(request.state.user, "name", ""), uid)
    if now - _looked.get(who, -ONE_LOOK_S) < ONE_LOOK_S / 2:
        return
    if len(_looked) > 10_000:
        _looked.clear()
    _looked[who] = now
    audit(request, Action.STUDY, uid, "picture", once_within_s=ONE_LOOK_S)


@router.get("/results/{number}/findings.json", response_class=Response)
def findings(request: Request, uid: str, number: int, shared: Shared) -> Response:
    """The findings as a file."""
    document = shared.ledger.findings(_job(shared, uid, number).id)
    if document is None:
        raise HTTPException(404, "This result has no findings.")
    audit(request, Action.DOWNLOAD, uid, f"job {number}, findings.json")
    name = {"Content-Disposition": f'attachment; filename="findings-{number}.json"'}
    return Response(json.dumps(document, indent=1), media_type="application/json", headers=name)


@router.get("/results/{number}/{kind}.dcm", response_class=Response)
def result(
    request: Request, uid: str, number: int, kind: Literal["sr", "seg", "capture", "ko"], shared: Shared
) -> Response:
    """A DICOM object of a result as a file."""
    found = [one for one in shared.ledger.results(_job(shared, uid, number).id) if one.kind == kind]
    if not found or not (shared.archive / found[0].path).is_file():
        raise HTTPException(404, "This file is not on this node; the PACS has what was delivered.")
    audit(request, Action.DOWNLOAD, uid, f"job {number}, {kind}")
    name = f"{kind}-{number}.dcm"
    return FileResponse(shared.archive / found[0].path, media_type="application/dicom", filename=name)
