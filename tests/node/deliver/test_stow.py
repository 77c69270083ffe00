"""STOW-RS, against a service that answers in every way the standard knows, and some that it does not."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from node.deliver import SendResult, Unreachable, open_destination
from node.deliver.http import ANSWER_BYTES, ServiceResponse
from node.deliver.stow import judge
from node.settings.destinations import StowDestination
from tests.node.jobs import capture
from tests.node.reports import job
from tests.node.web_service import Request, Response, web
from tests.ports import free_port

DICOM_JSON = "application/dicom+json"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two small objects."""
    paths = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for path in paths:
        capture(job(), path.stem).save_as(path, enforce_file_format=True)
    return paths


def uid_of(path: Path) -> str:
    return str(dcmread(path).SOPInstanceUID)


def received(request: Request) -> Any:
    """The instance in a request, taken apart as a service does."""
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    head, _, part = request.content.partition(b"\r\n\r\n")
    assert head.startswith(b"--" + boundary)
    assert b"application/dicom" in head
    return dcmread(DicomBytesIO(part.removesuffix(b"\r\n--" + boundary + b"--\r\n")))


def store_response(stored: dict[str, int] | None = None, failed: dict[str, int | None] | None = None) -> bytes:
    """A Store Instances Response: warnings of what was stored, reasons of what was not."""

    def item(uid: str, tag: str, code: int | None) -> dict[str, Any]:
        told = {"00081155": {"vr": "UI", "Value": [uid]}}
        return told | ({tag: {"vr": "US", "Value": [code]}} if code else {})

    document = {}
    if stored:
        items = [item(uid, "00081196", code) for uid, code in stored.items()]
        document["00081199"] = {"vr": "SQ", "Value": items}
    if failed:
        items = [item(uid, "00081197", code) for uid, code in failed.items()]
        document["00081198"] = {"vr": "SQ", "Value": items}
    return json.dumps(document).encode()


def stores(request: Request) -> Response:
    return Response(200, store_response({received(request).SOPInstanceUID: 0}), DICOM_JSON)


def send(paths: list[Path], url: str, timeout_s: float = 20, **more: Any) -> list[SendResult]:
    answers: list[SendResult] = []
    to = StowDestination(kind="stow", url=url, timeout_s=timeout_s, **more)
    open_destination(to, "CMBNODE").send(paths, answers.append)
    return answers


def test_every_object_arrives_as_it_is_and_is_answered_in_order(files: list[Path]) -> None:
    with web(stores) as service:
        answers = send(files, service.url)
    assert [(a.path, a.accepted, a.status, a.answer) for a in answers] == [(f, True, 0, "stored") for f in files]
    assert [received(request) for request in service.requests] == [dcmread(path) for path in files]
    assert {request.path for request in service.requests} == {"/api/studies"}


def test_a_warning_means_stored_and_is_kept(files: list[Path]) -> None:
    uids = {uid_of(path): 0xB000 for path in files}
    with web(lambda _request: Response(202, store_response(uids), DICOM_JSON)) as service:
        answers = send(files, service.url)
    assert [(a.accepted, a.status) for a in answers] == [(True, 0xB000)] * 2
    assert "Coercion" in answers[0].answer


def test_of_a_partial_success_each_object_gets_its_own_answer(files: list[Path]) -> None:
    first, second = map(uid_of, files)
    both = store_response({first: 0}, {second: 0xA700})
    with web(lambda _request: Response(202, both, DICOM_JSON)) as service:
        answers = send(files, service.url)
    assert [(a.accepted, a.status) for a in answers] == [(True, 0), (False, 0xA700)]
    assert "Out of" in answers[1].answer


@pytest.mark.parametrize(("reason", "accepted"), [(0x0110, False), (0x0122, False), (0xC000, False), (0x0111, True)])
def test_a_refused_object_has_its_reason_and_one_that_is_there_already_is_there(
    files: list[Path], reason: int, accepted: bool
) -> None:
    uids: dict[str, int | None] = {uid_of(path): reason for path in files}
    with web(lambda _request: Response(409, store_response(failed=uids), DICOM_JSON)) as service:
        answers = send(files[:1], service.url)
    assert (answers[0].accepted, answers[0].status) == (accepted, reason)
    assert f"0x{reason:04X}" in answers[0].answer


ODD = [
    (Response(200, b"<html>please sign in</html>", "text/html"), "without saying that it stored"),
    (Response(200, b"", DICOM_JSON), "without saying that it stored"),
    (Response(200, b"{", DICOM_JSON), "without saying that it stored"),
    (Response(200, store_response({"1.2.3": 0}), DICOM_JSON), "without saying that it stored"),
    (Response(200, b'[[[["', DICOM_JSON), "without saying that it stored"),
    (Response(302, b"", "text/html", {"Location": "http://127.0.0.1:1/"}), "302 Found"),
    (Response(400, b"bad multipart", "text/plain"), "400 Bad Request: bad multipart"),
    (Response(409, b"", DICOM_JSON), "409 Conflict"),
    (Response(500, b"boom", "text/plain"), "500 Internal Server Error: boom"),
    (Response(200, b"x" * (ANSWER_BYTES + 1), DICOM_JSON), "longer than"),
]


@pytest.mark.parametrize(("response", "words"), ODD)
def test_nothing_but_a_clear_answer_is_an_acceptance(files: list[Path], response: Response, words: str) -> None:
    with web(lambda _request: response) as service:
        (answer,) = send(files[:1], service.url)
    assert not answer.accepted
    assert words in answer.answer


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_service_that_lets_nobody_in_now_is_asked_once(files: list[Path], status: int) -> None:
    with (
        web(lambda _request: Response(status, b"later", "text/plain")) as service,
        pytest.raises(Unreachable, match=f"answers {status} .*: later"),
    ):
        send(files, service.url)
    assert len(service.requests) == 1


def test_a_silent_service_is_given_up_in_time(files: list[Path]) -> None:
    hold = threading.Event()
    with web(lambda _request: Response(200, b"x", hold=hold)) as service:
        (answer,) = send(files[:1], service.url, timeout_s=0.4)
        hold.set()
    assert "no answer within 0.4 s" in answer.answer
    with pytest.raises(Unreachable, match="cannot be reached"):
        send(files, f"http://127.0.0.1:{free_port()}")


def test_the_node_signs_in_as_it_is_told(files: list[Path]) -> None:
    with web(stores) as service:
        send(files[:1], service.url, token="s3cret")
        send(files[:1], service.url, username="node", password="pä:ss")
        send(files[:1], service.url)
    basic = base64.b64encode("node:pä:ss".encode()).decode()
    told = [request.headers.get("authorization") for request in service.requests]
    assert told == ["Bearer s3cret", f"Basic {basic}", None]


def test_no_secret_is_shown(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with web(lambda _request: Response(400, b"", "text/plain")) as service:
        to = StowDestination(kind="stow", url=service.url, token="s3cret")
        (answer,) = send(files[:1], service.url, token="s3cret")
    shown = f"{to} {to!r} {to.model_dump_json()} {answer} {caplog.text}"
    assert "s3cret" not in shown


def test_a_vanished_file_is_reported_and_the_others_go(files: list[Path]) -> None:
    files[0].unlink()
    with web(stores) as service:
        answers = send(files, service.url)
    assert [answer.accepted for answer in answers] == [False, True]
    assert "can no longer read this result" in answers[0].answer


@pytest.mark.parametrize(("status", "well"), [(200, True), (204, True), (401, False), (404, False), (503, False)])
def test_echo_asks_for_a_study(status: int, well: bool) -> None:
    with web(lambda _request: Response(status, b"[]" if status == 200 else b"", DICOM_JSON)) as service:
        destination = open_destination(StowDestination(kind="stow", url=service.url), "CMBNODE")
        if well:
            assert destination.check() == "answers QIDO-RS"
        else:
            with pytest.raises(Unreachable, match=str(status)):
                destination.check()
    assert service.requests[0].path == "/api/studies?limit=1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["00081199", "00081198", "Value", "00081196", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_answer_that_does_not_name_the_object_accepts_it(document: Any) -> None:
    answer = ServiceResponse(200, DICOM_JSON, json.dumps(document).encode())
    assert not judge(Path("x"), "1.2.3.4", answer).accepted
