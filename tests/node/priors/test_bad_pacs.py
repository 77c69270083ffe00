"""A PACS that misbehaves costs time, never the node: it never ends, lies in its answers, or sends only a part."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.ledger import PriorState
from node.retrieve.dicom_qr import QueryRetrieve
from node.retrieve.source import MOST_ANSWERS, SourceError, TransferLimits
from node.settings.priors import DicomPacs
from tests.dicom_factory import encode

from .site import Site, running_site, study, uid_of

pytestmark = pytest.mark.slow

PRIOR = study("prior", "20240503")
QUERY, MOVE = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove


@contextmanager
def pacs(find: Callable[[Any], Any], move: Callable[[Any], Any]) -> Iterator[int]:
    """A query/retrieve SCP with these handlers; its port."""
    entity = AE(ae_title="PACS")
    for sop_class in (QUERY, MOVE):
        entity.add_supported_context(sop_class)
    entity.add_requested_context(MRImageStorage)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def answers(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    """C-FIND: the one study, and its series."""
    known = {str(image.SeriesInstanceUID): image for image in PRIOR}
    for image in [PRIOR[0]] if event.identifier.QueryRetrieveLevel == "STUDY" else known.values():
        found = Dataset()
        for element in event.identifier:
            setattr(found, element.keyword, image.get(element.keyword, element.value))
        found.ModalitiesInStudy = "MR"
        yield 0xFF00, found


def refuses(code: int) -> Callable[[Any], Iterator[Any]]:
    def handle(_event: Any) -> Iterator[Any]:
        yield 1
        yield code, None

    return handle


def bounds(seconds: float = 30) -> TransferLimits:
    return TransferLimits(time.monotonic() + seconds, lambda: "", 4000)


def asked(port: int) -> QueryRetrieve:
    return QueryRetrieve(DicomPacs(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5), "CMBNODE")


def test_a_retrieval_that_never_ends_is_aborted() -> None:
    over = threading.Event()

    def hang(_event: Any) -> Iterator[Any]:
        over.wait(20)
        yield None, None

    with pacs(answers, hang) as port:
        with pytest.raises(SourceError, match=r"given up: it took longer than priors\.fetch_s"):
            asked(port).fetch(uid_of(PRIOR), ["1.2.3"], bounds(0.5))
        over.set()


def test_an_unknown_destination_is_told_with_what_to_do() -> None:
    def unknown(_event: Any) -> Iterator[Any]:
        yield None, None

    with pacs(answers, unknown) as port, pytest.raises(SourceError, match="enter CMBNODE there") as caught:
        asked(port).fetch(uid_of(PRIOR), ["1.2.3"], bounds())
    assert caught.value.lasting


@pytest.mark.parametrize(("code", "lasting"), [(0xA702, False), (0xA900, True), (0xC123, False)])
def test_a_refused_query_says_why(code: int, lasting: bool) -> None:
    def refuse(_event: Any) -> Iterator[Any]:
        yield code, None

    with pacs(refuse, refuses(code)) as port, pytest.raises(SourceError, match=str(port)) as caught:
        asked(port).series("1.2.3")
    assert caught.value.lasting is lasting


def test_a_pacs_that_answers_for_ever_is_not_listened_to() -> None:
    def endless(_event: Any) -> Iterator[Any]:
        for number in range(MOST_ANSWERS + 50):
            found = Dataset()
            found.SeriesInstanceUID = f"1.2.{number}"
            yield 0xFF00, found

    with pacs(endless, refuses(0xA702)) as port, pytest.raises(SourceError, match="too many matches"):
        asked(port).series("1.2.3")


def test_a_study_of_which_a_part_could_not_be_sent_is_failed_with_the_counts(tmp_path: Path) -> None:
    """The PACS names images that it then cannot send: the node takes no such object."""
    with running_site(tmp_path) as site:

        def half(event: Any) -> Iterator[Any]:
            uid = str(event.identifier.SeriesInstanceUID)
            images = [encode(image) for image in PRIOR if image.SeriesInstanceUID == uid]
            yield "127.0.0.1", site.port, {"contexts": [build(MRImageStorage)]}
            yield len(images)
            for number, image in enumerate(images):
                if number == 1:
                    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
                yield 0xFF00, image

        with pacs(answers, half) as port:
            request = site.ask(asked(port), site.receives(study("present", "20260102")), attempts=1)
        assert request.state is PriorState.FAILED
        (fetch,) = site.ledger.prior_fetches(request.study_instance_uid)
        assert (fetch.state, fetch.counts.failed > 0) == (PriorState.FAILED, True)
        assert fetch.counts.completed > 0


def build(sop_class: str) -> Any:
    from pynetdicom.presentation import build_context

    return build_context(sop_class)


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """An HTTP service that sends `head`, then a byte now and then, for ever; its address."""
    over = threading.Event()

    def serve(listening: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(head)
                    while not over.wait(0.05):
                        connection.sendall(b"0")
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=XbX\r\nContent-Length: 1000000\r\n\r\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


def test_a_service_that_drips_is_cut_off(site: Site) -> None:
    with dripping(HEAD + b"--XbX\r\n\r\n") as url, pytest.raises(SourceError, match="given up: it took longer"):
        site.dicomweb(url, timeout_s=30).fetch("1.2.3", ["1.2.4"], bounds(0.5))
    with dripping(HEAD[:30]) as url, pytest.raises(SourceError, match="given up: it took longer"):
        site.dicomweb(url, timeout_s=30).fetch("1.2.3", ["1.2.4"], bounds(0.5))


def test_a_search_that_drips_is_cut_off_too(site: Site) -> None:
    with dripping(HEAD) as url, pytest.raises(SourceError, match=r"no answer within 0\.5 s"):
        site.dicomweb(url, timeout_s=0.5).series("1.2.3")
