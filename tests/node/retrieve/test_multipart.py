"""The parts of a WADO-RS answer, whole and broken, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from node.archive import Archive
from node.ledger import Ledger
from node.receive.ingest import Ingest
from node.receive.multipart import PartsError
from node.retrieve.multipart import MultipartReader, ReceivedParts
from tests.dicom_factory import encode
from tests.node.priors.site import study

TYPE = 'multipart/related; type="application/dicom"; boundary=XbX'
IMAGES = study("wado", "20240503")[:3]
SERIES = str(IMAGES[0].SeriesInstanceUID)


def as_file(dataset: Dataset, syntax: str = "explicit") -> bytes:
    buffer = BytesIO()
    encode(dataset, syntax).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes, end: bytes = b"\r\n--XbX--\r\n") -> bytes:
    head = b"--XbX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"\r\n".join(head + part for part in parts) + end


@pytest.fixture
def ingest(tmp_path: Path, sqlite_template: bytes) -> Iterator[Ingest]:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(sqlite_template)
    ledger = Ledger(f"sqlite:///{path}")
    yield Ingest(ledger, Archive(tmp_path), 10_000_000)
    ledger.close()


def read(ingest: Ingest, content: bytes, pieces: int = 1000) -> ReceivedParts:
    transfer = ingest.begin("wado-rs", SERIES)
    with MultipartReader(TYPE, ingest, "http://pacs.example/dicom-web", transfer=transfer) as reader:
        for start in range(0, len(content), pieces):
            reader.write(content[start : start + pieces])
        reader.end()
        return reader.delivered


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated", "big-endian", "jpeg-ls"])
def test_parts_are_filed_as_they_are(ingest: Ingest, syntax: str) -> None:
    assert read(ingest, body(*(as_file(image, syntax) for image in IMAGES))) == ReceivedParts(stored=3)
    rows = ingest.ledger.instances(SERIES)
    assert {row.sop_instance_uid for row in rows} == {image.SOPInstanceUID for image in IMAGES}
    stored = [ingest.archive.path(row.path).read_bytes() for row in rows]
    assert all(any(file.endswith(as_file(image, syntax)[-200:]) for file in stored) for image in IMAGES)
    (series,) = ingest.ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (0, True)


def test_a_transfer_that_a_killed_process_began_does_not_hold_up_the_series(ingest: Ingest) -> None:
    def of_a_killed_process(series_uid: str) -> MultipartReader:
        transfer = ingest.begin("wado-rs", series_uid)
        return MultipartReader(TYPE, ingest, "http://pacs.example", transfer=transfer)

    lost = of_a_killed_process(SERIES)
    lost.write(body(*map(as_file, IMAGES[:2])))
    assert ingest.ledger.series_receiving()[0].open_associations == 1
    of_a_killed_process("1.2.3")
    assert ingest.ledger.series_receiving()[0].open_associations == 1
    assert read(ingest, body(*map(as_file, IMAGES))).stored == 3
    (series,) = ingest.ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (0, True)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.integers(1, 5000))
def test_pieces_of_any_size_make_the_same_files(pieces: int, sqlite_template: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        path.write_bytes(sqlite_template)
        ledger = Ledger(f"sqlite:///{path}")
        try:
            assert read(Ingest(ledger, Archive(Path(folder)), 10**7), body(as_file(IMAGES[0])), pieces).stored == 1
            assert not list((Path(folder) / "incoming").iterdir())
        finally:
            ledger.close()


def test_the_same_part_again_is_stored_once(ingest: Ingest) -> None:
    content = body(as_file(IMAGES[0]))
    assert read(ingest, content) == read(ingest, content) == ReceivedParts(stored=1)
    assert len(ingest.ledger.instances(str(IMAGES[0].SeriesInstanceUID))) == 1


def test_a_part_with_other_content_under_a_known_uid_is_kept_aside(ingest: Ingest) -> None:
    read(ingest, body(as_file(IMAGES[0])))
    assert read(ingest, body(as_file(IMAGES[0], "implicit"))) == ReceivedParts(stored=1)  # the same image
    other = deepcopy(IMAGES[0])
    other.PixelData = bytes(len(other.PixelData))
    assert read(ingest, body(as_file(other))) == ReceivedParts(conflicts=1)
    assert len(ingest.ledger.quarantined()) == 1


@pytest.mark.parametrize(
    "part",
    [b"", b"no DICOM at all", b"\0" * 5000, as_file(IMAGES[0])[:200], as_file(IMAGES[0])[:-20],
     b"\0" * 128 + b"DICM" + b"\xff" * 300],
    ids=["empty", "text", "zeros", "cut in the meta information", "cut in the pixels", "noise"],
)  # fmt: skip
def test_a_broken_part_is_counted_and_the_others_are_filed(ingest: Ingest, part: bytes) -> None:
    assert read(ingest, body(as_file(IMAGES[0]), part, as_file(IMAGES[1]))) == ReceivedParts(stored=2, refused=1)
    assert not list((ingest.archive.root / "incoming").iterdir())


def test_a_part_that_is_too_large_is_not_kept(tmp_path: Path, ingest: Ingest) -> None:
    small = Ingest(ingest.ledger, ingest.archive, 1000)
    assert read(small, body(as_file(IMAGES[0]))) == ReceivedParts(refused=1)
    assert not list((ingest.archive.root / "incoming").iterdir())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body(as_file(IMAGES[0]))[:-400], "truncated"),
        (body(as_file(IMAGES[0]), end=b""), "truncated"),
        (b"<html>sign in first</html>", "malformed"),
    ],
)
def test_an_answer_that_is_cut_off_or_none_is_an_error_and_leaves_nothing_half_done(
    ingest: Ingest, content: bytes, why: str
) -> None:
    with pytest.raises(PartsError, match=why):
        read(ingest, content)
    assert not list((ingest.archive.root / "incoming").iterdir())


@pytest.mark.parametrize("content_type", ["", "text/html", "multipart/related", "application/dicom"])
def test_an_answer_of_another_type_is_an_error(ingest: Ingest, content_type: str) -> None:
    with pytest.raises(PartsError, match=r"instead of multipart/related|no boundary"):
        MultipartReader(content_type, ingest, "http://pacs.example", transfer="wado-rs/1")
