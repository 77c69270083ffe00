"""The parts of a WADO-RS answer, whole and broken, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from node.archive import Archive
from node.filing import Filing
from node.ledger import Ledger
from node.priors.parts import Delivered, PartsError, Reader
from tests.dicom_factory import encode
from tests.node.priors.site import study

TYPE = 'multipart/related; type="application/dicom"; boundary=XbX'
IMAGES = study("wado", "20240503")[:3]


def as_file(dataset: Dataset, syntax: str = "explicit") -> bytes:
    buffer = BytesIO()
    encode(dataset, syntax).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes, end: bytes = b"\r\n--XbX--\r\n") -> bytes:
    head = b"--XbX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"\r\n".join(head + part for part in parts) + end


@pytest.fixture
def filing(tmp_path: Path, sqlite_template: bytes) -> Iterator[Filing]:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(sqlite_template)
    ledger = Ledger(f"sqlite:///{path}")
    yield Filing(ledger, Archive(tmp_path), 10_000_000)
    ledger.close()


def read(filing: Filing, content: bytes, pieces: int = 1000) -> Delivered:
    with Reader(TYPE, filing, "http://pacs.example/dicom-web") as reader:
        for start in range(0, len(content), pieces):
            reader.write(content[start : start + pieces])
        reader.end()
        return reader.delivered


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated", "big-endian", "jpeg-ls"])
def test_parts_are_filed_as_they_are(filing: Filing, syntax: str) -> None:
    assert read(filing, body(*(as_file(image, syntax) for image in IMAGES))) == Delivered(filed=3)
    rows = filing.ledger.instances(str(IMAGES[0].SeriesInstanceUID))
    assert {row.sop_instance_uid for row in rows} == {image.SOPInstanceUID for image in IMAGES}
    stored = [filing.archive.path(row.path).read_bytes() for row in rows]
    assert all(any(file.endswith(as_file(image, syntax)[-200:]) for file in stored) for image in IMAGES)
    (series,) = filing.ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (0, True)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.integers(1, 5000))
def test_pieces_of_any_size_make_the_same_files(pieces: int, sqlite_template: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        path.write_bytes(sqlite_template)
        ledger = Ledger(f"sqlite:///{path}")
        try:
            assert read(Filing(ledger, Archive(Path(folder)), 10**7), body(as_file(IMAGES[0])), pieces).filed == 1
            assert not list((Path(folder) / "incoming").iterdir())
        finally:
            ledger.close()


def test_the_same_part_again_is_stored_once(filing: Filing) -> None:
    content = body(as_file(IMAGES[0]))
    assert read(filing, content) == read(filing, content) == Delivered(filed=1)
    assert len(filing.ledger.instances(str(IMAGES[0].SeriesInstanceUID))) == 1


def test_a_part_with_other_content_under_a_known_uid_is_kept_aside(filing: Filing) -> None:
    read(filing, body(as_file(IMAGES[0])))
    assert read(filing, body(as_file(IMAGES[0], "implicit"))) == Delivered(aside=1)
    assert len(filing.ledger.quarantined()) == 1


@pytest.mark.parametrize(
    "part",
    [b"", b"no DICOM at all", b"\0" * 5000, as_file(IMAGES[0])[:200], as_file(IMAGES[0])[:-20],
     b"\0" * 128 + b"DICM" + b"\xff" * 300],
    ids=["empty", "text", "zeros", "cut in the meta information", "cut in the pixels", "noise"],
)  # fmt: skip
def test_a_broken_part_is_counted_and_the_others_are_filed(filing: Filing, part: bytes) -> None:
    assert read(filing, body(as_file(IMAGES[0]), part, as_file(IMAGES[1]))) == Delivered(filed=2, refused=1)
    assert not list((filing.archive.root / "incoming").iterdir())


def test_a_part_that_is_too_large_is_not_kept(tmp_path: Path, filing: Filing) -> None:
    small = Filing(filing.ledger, filing.archive, 1000)
    assert read(small, body(as_file(IMAGES[0]))) == Delivered(refused=1)
    assert not list((filing.archive.root / "incoming").iterdir())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body(as_file(IMAGES[0]))[:-400], "cut off"),
        (body(as_file(IMAGES[0]), end=b""), "cut off"),
        (b"<html>sign in first</html>", "malformed"),
    ],
)
def test_an_answer_that_is_cut_off_or_none_is_an_error_and_leaves_nothing_half_done(
    filing: Filing, content: bytes, why: str
) -> None:
    with pytest.raises(PartsError, match=why):
        read(filing, content)
    assert not list((filing.archive.root / "incoming").iterdir())


@pytest.mark.parametrize("content_type", ["", "text/html", "multipart/related", "application/dicom"])
def test_an_answer_of_another_type_is_an_error(filing: Filing, content_type: str) -> None:
    with pytest.raises(PartsError, match="instead of multipart/related"):
        Reader(content_type, filing, "http://pacs.example")
