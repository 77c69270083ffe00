"""STOW-RS: what arrives is stored as if it came by C-STORE, and every request gets one clear answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from httpx import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from node.archive import StoredFile
from node.ledger import Ledger
from node.ledger.metrics import INSTANCES
from node.receive.ingest import Ingest
from node.receive.multipart import PartsError, boundary_of
from node.web import connections
from node.web.app import create_app
from node.web.dicomweb import store
from node.web.dicomweb.media_types import json_or_xml, wants_multipart
from tests.node.dicomweb import SENDER, TYPE, VIEWER, as_file, bearer, body, settings_with_clients, uids
from tests.node.priors.site import study
from tests.waiting import wait_for
from tests.web_server import port_of, serving

IMAGES = study("stow", "20260503")[:3]
FILES = [as_file(image) for image in IMAGES]
FIRST, SECOND, THIRD = (str(image.SOPInstanceUID) for image in IMAGES)
SERIES = str(IMAGES[0].SeriesInstanceUID)
REFERENCED, FAILED, OTHER = "00081199", "00081198", "0008119A"
A_WAVEFORM = "1.2.840.10008.5.1.4.1.1.9.1.1"


def app_of(folder: Path, ledger: Ledger, **more: Any) -> FastAPI:
    return create_app(settings_with_clients(folder, **more), ledger)


def post(app: FastAPI, content: Any, path: str = "/dicomweb/studies", token: str = SENDER, **headers: str) -> Response:
    given = {"Content-Type": TYPE, **bearer(token), **{name.replace("_", "-"): v for name, v in headers.items()}}
    return TestClient(app, base_url="http://127.0.0.1").post(path, content=content, headers=given)


@pytest.fixture
def app(ledger: Ledger, fast_folder: Path) -> FastAPI:
    return app_of(fast_folder, ledger)


def half_written(folder: Path) -> list[Path]:
    return list((folder / "incoming").iterdir())


def test_a_study_is_stored_under_the_name_of_its_sender(app: FastAPI, ledger: Ledger, fast_folder: Path) -> None:
    answer = post(app, body(*FILES))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert uids(answer.json(), REFERENCED) == {FIRST: None, SECOND: None, THIRD: None}
    assert not {FAILED, OTHER} & answer.json().keys()
    rows = ledger.instances(SERIES)
    stored = {row.sop_instance_uid: (fast_folder / row.path).read_bytes() for row in rows}
    assert stored.keys() == {FIRST, SECOND, THIRD}
    assert stored[FIRST][-600:] == FILES[0][-600:]
    (series,) = ledger.series(str(IMAGES[0].StudyInstanceUID))
    assert series.calling_ae == "MR1"
    (receiving,) = ledger.series_receiving()
    assert (receiving.open_associations, receiving.last_ended_released) == (0, True)
    assert half_written(fast_folder) == []


def test_the_same_study_again_is_stored_once(app: FastAPI, ledger: Ledger) -> None:
    assert [post(app, body(*FILES)).status_code for _ in range(2)] == [200, 200]
    assert len(ledger.instances(SERIES)) == 3


def test_the_answer_is_xml_for_a_client_that_asks_for_it(app: FastAPI) -> None:
    answer = post(app, body(FILES[0], b"no DICOM"), Accept="application/dicom+xml, application/dicom+json;q=0.5")
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/dicom+xml")
    root = ElementTree.fromstring(answer.content)
    stored = root.find("DicomAttribute[@tag='00081199']/Item[@number='1']/DicomAttribute[@tag='00081155']/Value")
    reason = root.find("DicomAttribute[@keyword='OtherFailuresSequence']/Item/DicomAttribute[@vr='US']/Value")
    assert stored is not None
    assert reason is not None
    assert (stored.text, reason.text) == (FIRST, str(0xC000))


def test_each_instance_that_fails_has_its_reason(app: FastAPI, ledger: Ledger) -> None:
    waveform = deepcopy(IMAGES[1])
    waveform.SOPClassUID = A_WAVEFORM
    film = FILES[2].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x00" + b"1.2.840.10008.1.9.9\0")
    assert film != FILES[2]
    cut = FILES[0][:-20]
    answer = post(app, body(FILES[0], as_file(waveform), film, b"no DICOM", b""))
    assert answer.status_code == 202
    assert uids(answer.json(), REFERENCED) == {FIRST: None}
    assert uids(answer.json(), FAILED) == {SECOND: 0x0122, THIRD: 0xC122}
    assert uids(answer.json(), OTHER) == {"0": 0xC000, "1": 0xC000}
    assert "SOP class not accepted" in answer.headers["warning"]
    assert uids(post(app, body(cut)).json(), FAILED) == {FIRST: 0xC000}
    assert [row.calling_ae for row in ledger.quarantined()] == ["MR1"]
    counted = {tally.labels.split('"')[3]: tally.number for tally in ledger.tallies() if tally.metric == INSTANCES.name}
    assert counted == {"stored": 1, "unsupported": 2, "not_understood": 3}


def test_the_metrics_count_what_is_new_and_what_comes_again(app: FastAPI, ledger: Ledger) -> None:
    post(app, body(*FILES[:2]))
    post(app, body(*FILES))
    counted = {tally.labels: tally.number for tally in ledger.tallies() if tally.metric == INSTANCES.name}
    assert counted == {'{"outcome": "stored"}': 3, '{"outcome": "repeated"}': 2}


def test_other_content_under_a_known_uid_is_a_warning_and_kept_aside(app: FastAPI, ledger: Ledger) -> None:
    other = deepcopy(IMAGES[0])
    other.PixelData = bytes(len(other.PixelData))
    post(app, body(FILES[0]))
    answer = post(app, body(as_file(other)))
    assert (answer.status_code, uids(answer.json(), REFERENCED)) == (202, {FIRST: 0xB000})
    assert len(ledger.quarantined()) == 1


def test_a_study_in_the_address_must_be_that_of_the_instances(app: FastAPI, ledger: Ledger) -> None:
    answer = post(app, body(FILES[0]), "/dicomweb/studies/1.2.3")
    assert (answer.status_code, uids(answer.json(), FAILED)) == (409, {FIRST: 0xA900})
    assert ledger.instances(SERIES) == []
    assert post(app, body(FILES[0]), f"/dicomweb/studies/{IMAGES[0].StudyInstanceUID}").status_code == 200
    assert post(app, body(FILES[0]), "/dicomweb/studies/no-uid").status_code == 400


def test_a_disk_that_is_full_says_so_and_a_sender_may_try_again(ledger: Ledger, fast_folder: Path) -> None:
    answer = post(app_of(fast_folder, ledger, archive={"free_disk_mb": 10**9}), body(*FILES[:2]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert uids(answer.json(), FAILED) == {FIRST: 0xA700, SECOND: 0xA700}
    assert "must stay free" in answer.headers["warning"]
    assert half_written(fast_folder) == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OperationalError("x", None, Exception()), 503, 0xA700),
        (OSError(5, "x"), 503, 0xA700),
        (KeyError(), 409, 0x0110),
    ],
)
def test_a_fault_of_the_node_is_an_answer(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, reason: int, fast_folder: Path
) -> None:
    def fail(*_: object) -> StoredFile:
        raise error

    monkeypatch.setattr(Ingest, "_enter", fail)
    answer = post(app, body(FILES[0]))
    assert (answer.status_code, uids(answer.json(), FAILED)) == (status, {FIRST: reason})
    assert half_written(fast_folder) == []


@pytest.mark.parametrize("token", ["", "x" * 32, SENDER[:-1], "ä" * 32])
def test_without_the_token_of_a_client_nothing_is_read(app: FastAPI, ledger: Ledger, token: str) -> None:
    headers = {"Content-Type": TYPE, "Authorization": f"Bearer {token}".encode()}
    with capture_logs() as lines:
        answer = TestClient(app, base_url="http://127.0.0.1").post("/dicomweb/studies", content=b"", headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    said = str(lines)
    assert "no valid token" in said
    assert not token or token not in said
    assert ledger.series_receiving() == []


def test_a_client_may_do_only_what_its_settings_say(app: FastAPI) -> None:
    assert post(app, body(FILES[0]), token=VIEWER).status_code == 403
    web = TestClient(app, base_url="http://127.0.0.1")
    assert web.get("/dicomweb/studies", headers=bearer(SENDER)).status_code == 403


def test_without_clients_there_is_no_dicomweb(ledger: Ledger, fast_folder: Path) -> None:
    settings = settings_with_clients(fast_folder, dicomweb={"clients": {}})
    answer = post(create_app(settings, ledger), body(FILES[0]))
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content_Type": "multipart/related; type=application/dicom"}, 400, "names no boundary"),
        ({"Content_Type": TYPE + "X" * 300}, 400, "boundary is too long"),
        ({"Content_Type": "application/dicom"}, 415, "instead of multipart/related"),
        ({"Content_Type": "multipart/form-data; boundary=XbX"}, 415, "instead of multipart/related"),
        ({"Content_Type": 'multipart/related; type="application/dicom+json"; boundary=XbX'}, 415, "dicom+json"),
        ({"Content_Type": "äöü"}, 415, "instead of multipart/related"),
        ({"Content_Encoding": "gzip"}, 415, "Content-Encoding"),
        ({"Accept": "text/html;q=0.4, image/*"}, 406, "application/dicom+json"),
        ({"Content_Length": "17179869185"}, 413, "dicomweb.max_request_bytes"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_before_its_body(
    app: FastAPI, headers: dict[str, Any], status: int, words: str, ledger: Ledger
) -> None:
    given = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = post(app, body(FILES[0]), **given)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert ledger.series_receiving() == []


@pytest.mark.parametrize(
    "content", [b"", b"--XbX--\r\n", b"<html>", b"\r\n" * 400, b"--XbX\r\n", body(FILES[0])[:-400]]
)
def test_a_body_without_a_complete_instance_is_a_bad_request(
    app: FastAPI, content: bytes, fast_folder: Path, ledger: Ledger
) -> None:
    answer = post(app, content)
    assert answer.status_code == 400
    assert REFERENCED not in answer.json()
    assert ledger.series_receiving() == []
    assert half_written(fast_folder) == []


def test_of_a_truncated_request_what_was_complete_stays_and_is_named(app: FastAPI, ledger: Ledger) -> None:
    answer = post(app, body(*FILES[:2])[:-400])
    assert answer.status_code == 202
    assert uids(answer.json(), REFERENCED) == {FIRST: None}
    assert uids(answer.json(), OTHER) == {"0": 0xC000}
    assert "truncated" in answer.headers["warning"]
    (series,) = ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (0, False)


@pytest.mark.parametrize("end", [b"", b"\r\n--XbX", b"\r\n--XbX-"])
def test_a_request_that_is_cut_off_in_a_refused_part_is_truncated(app: FastAPI, end: bytes) -> None:
    waveform = deepcopy(IMAGES[1])
    waveform.SOPClassUID = A_WAVEFORM
    answer = post(app, body(as_file(waveform), end=end))
    assert (answer.status_code, uids(answer.json(), FAILED)) == (400, {SECOND: 0x0122})
    assert "the message is truncated" in answer.headers["warning"]


def test_an_instance_that_is_too_large_ends_the_request(ledger: Ledger, fast_folder: Path) -> None:
    app = app_of(fast_folder, ledger, receiver={"max_instance_bytes": 2**20})
    big = deepcopy(IMAGES[1])
    big.PixelData = bytes(2**20 + 10)
    answer = post(app, body(FILES[0], as_file(big), FILES[2]))
    assert answer.status_code == 413
    assert uids(answer.json(), REFERENCED) == {FIRST: None}
    assert uids(answer.json(), FAILED) == {SECOND: 0xA700}
    assert half_written(fast_folder) == []


def test_a_request_without_an_end_is_ended(ledger: Ledger, fast_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(fast_folder, ledger, dicomweb={"max_request_bytes": 2**20})
    pieces = (bytes(2**18) for _ in range(10_000))
    assert post(app, iter([body(FILES[0], end=b"\r\n--XbX\r\n\r\n"), *[next(pieces)] * 9])).status_code == 413
    monkeypatch.setattr(store, "MOST_PARTS", 3)
    assert post(app, body(*[b""] * 3)).status_code == 409
    assert post(app, body(*[b""] * 4)).status_code == 413


def test_too_many_requests_at_once_are_sent_away(app: FastAPI) -> None:
    app.state.dicomweb.uploads = 8
    answer = post(app, body(FILES[0]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    app.state.dicomweb.uploads = 7
    assert post(app, body(FILES[0])).status_code == 200
    assert app.state.dicomweb.uploads == 7


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_is_left_without_an_answer(app: FastAPI, fast_folder: Path, data: st.DataObject) -> None:
    """Any change to a message, in pieces of any size: an answer of PS3.18, and nothing half-written."""
    content = bytearray(body(FILES[0], FILES[1]))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    size = data.draw(st.integers(200, len(content) + 1))
    pieces = [bytes(content[start : start + size]) for start in range(0, len(content), size)]
    assert post(app, iter(pieces)).status_code in (200, 202, 400, 409)
    assert half_written(fast_folder) == []


@given(header=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80))
def test_no_header_of_a_request_is_left_without_an_answer(header: str) -> None:
    request = Request({"type": "http", "headers": [(b"accept", header.encode("latin-1"))]})
    with suppress(HTTPException):
        json_or_xml(request)
    with suppress(HTTPException):
        wants_multipart(request, ["1.2.840.10008.1.2.1"])
    with suppress(PartsError):
        assert boundary_of(header)


HEAD = f"POST /dicomweb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {TYPE}\r\n"
TOKEN = f"Authorization: Bearer {SENDER}\r\n"


@contextmanager
def uploading(app: FastAPI, head: str, content: bytes) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    """A running server, and a sender that has sent some of its files."""
    with serving(app) as server, socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection:
        connection.sendall(f"{HEAD}{head}Content-Length: {len(body(*FILES))}\r\n\r\n".encode() + content)
        yield server, connection


def test_an_upload_may_take_longer_than_other_requests(app: FastAPI) -> None:
    content = body(*FILES)
    with uploading(app, TOKEN, content[:-400]) as (server, sender):
        wait_for(lambda: app.state.dicomweb.uploads == 1, 20)
        (connection,) = server.server_state.connections
        assert isinstance(connection, connections.BoundedProtocol)
        wait_for(lambda: connection._timer is None, 20)
        sender.sendall(content[-400:])
        assert sender.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: connection._timer is not None, 20)  # for its next request
    assert app.state.dicomweb.uploads == 0


def test_an_upload_that_stands_still_is_ended(ledger: Ledger, fast_folder: Path) -> None:
    app = app_of(fast_folder, ledger, receiver={"idle_timeout_s": 0.3})
    with uploading(app, TOKEN, body(*FILES)[:-400]) as (_, sender):
        answer = sender.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"receiver.idle_timeout_s" in answer
    assert half_written(fast_folder) == []


def test_a_stranger_has_no_more_time_than_on_any_page(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 3.0)  # a busy machine needs a second to answer
    with uploading(app, "", body(*FILES)[:-400]) as (_, stranger):
        assert stranger.recv(65_536).startswith(b"HTTP/1.1 401 ")
        with suppress(ConnectionResetError):
            while stranger.recv(65_536):  # cut off, though its request is not complete
                pass


def test_of_a_sender_that_hangs_up_what_was_complete_stays(
    app: FastAPI, ledger: Ledger, fast_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 256)
    with uploading(app, TOKEN, body(*FILES[:2])[:-100]) as (_, sender):
        wait_for(lambda: len(half_written(fast_folder)) == 1 and ledger.series_receiving(), 20)
        sender.close()
        wait_for(lambda: ledger.series_receiving()[0].open_associations == 0, 20)
    (series,) = ledger.series_receiving()
    assert (len(series.places), series.last_ended_released) == (1, False)
    assert half_written(fast_folder) == []


def test_what_a_killed_process_was_receiving_counts_as_aborted(app: FastAPI, ledger: Ledger, fast_folder: Path) -> None:
    post(app, body(FILES[0]))
    prefix = app.state.dicomweb.prefix
    reader = store.PartsReader(TYPE, app.state.dicomweb.ingest, store.Sender(peer="x", association=f"{prefix}dead"),
                               app.state.dicomweb.ingest.store, lambda _: None)  # fmt: skip
    reader.write(body(FILES[1], FILES[2])[:-400])  # and no more of it
    assert ledger.series_receiving()[0].open_associations == 1
    app_of(fast_folder, ledger)
    assert ledger.series_receiving()[0].open_associations == 0
    reader.close()
