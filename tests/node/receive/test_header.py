"""Reading the header of an object that nobody vouches for."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
)

from node.receive.header import KEYWORDS, Header, NotUnderstoodError, read_header

LIMIT = 2**26
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def an_image() -> Dataset:
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = "1.2.3.4.5"
    image.StudyInstanceUID = "1.2.3"
    image.SeriesInstanceUID = "1.2.3.4"
    image.PatientName = "Müller^Zoë"
    image.PatientID = "42"
    image.SeriesNumber = 7
    image.ImagePositionPatient = [1.5, -2, 3]
    inner = Dataset()
    inner.SeriesInstanceUID = "9.9.9"
    outer = Dataset()
    outer.ReferencedSeriesSequence = Sequence([inner])
    image.ReferencedStudySequence = Sequence([outer, outer])
    image.PixelData = bytes(1000)
    image["PixelData"].VR = "OW"
    return image


def encoded(image: Dataset, syntax: UID, *, undefined: bool = False) -> bytes:
    if undefined:
        for element in image.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, image)
    return buffer.getvalue()


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", PLAIN)
def test_the_header_is_read_in_every_encoding(syntax: UID, undefined: bool) -> None:
    header = read_header(io.BytesIO(b"meta" + encoded(an_image(), syntax, undefined=undefined)), 4, syntax, LIMIT)
    assert header.text("SOPInstanceUID") == "1.2.3.4.5"
    assert header.text("SeriesInstanceUID") == "1.2.3.4"  # not the one in the nested sequence
    assert header.text("PatientName") == "Müller^Zoë"
    assert header.integer("SeriesNumber") == 7
    assert header.numbers("ImagePositionPatient") == (1.5, -2.0, 3.0)
    assert (header.text("Manufacturer"), header.integer("NumberOfFrames")) == ("", None)
    assert header.numbers("ImageOrientationPatient") is None


@settings(max_examples=60)
@given(name=st.text(max_size=40), identity=st.text(max_size=10), character_set=st.sampled_from(["", "ISO_IR 100"]))
def test_values_are_the_same_together_as_one_by_one(name: str, identity: str, character_set: str) -> None:
    raw = {
        0x00080005: ("CS", character_set.encode()),
        0x00100010: (None, name.encode()),
        0x00100020: ("LO", identity.encode()),
        0x0020000D: ("UI", b"1.2.3\0"),
    }
    for _ in range(2):  # the second time from memory
        header = Header({tag: value for tag, value in raw.items() if value[1]}, implicit=False, little=True)
        assert header.texts(KEYWORDS) == tuple(map(header.text, KEYWORDS))


def test_a_deflated_header_is_read() -> None:
    data = deflated(encoded(an_image(), ExplicitVRLittleEndian))
    assert read_header(io.BytesIO(data), 0, DeflatedExplicitVRLittleEndian, LIMIT).text("PatientID") == "42"


def test_encapsulated_pixel_data_is_stepped_over() -> None:
    image = an_image()
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    image.PixelData = struct.pack("<HHLHHL4s", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, 4, b"abcd")
    data = encoded(image, ExplicitVRLittleEndian)
    assert read_header(io.BytesIO(data), 0, JPEGLSLossless, LIMIT).text("PatientID") == "42"
    with pytest.raises(NotUnderstoodError, match="truncated"):
        read_header(io.BytesIO(data[:-8]), 0, JPEGLSLossless, LIMIT)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", PLAIN)
def test_wherever_it_is_cut_off_it_is_noticed(syntax: UID, undefined: bool) -> None:
    data = encoded(an_image(), syntax, undefined=undefined)
    whole = 0
    for length in range(len(data) - 1020, len(data)):
        try:
            read_header(io.BytesIO(data[:length]), 0, syntax, LIMIT)
            whole += 1  # only a cut just before the last element leaves a data set
        except NotUnderstoodError:
            pass
    assert whole <= 1


def test_a_cut_deflated_stream_and_a_false_one_are_noticed() -> None:
    data = deflated(encoded(an_image(), ExplicitVRLittleEndian))
    for wrong in (data[:-3], b"", b"\xff" * 100):
        with pytest.raises(NotUnderstoodError):
            read_header(io.BytesIO(wrong), 0, DeflatedExplicitVRLittleEndian, LIMIT)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda image: image.__delitem__("SOPInstanceUID"), "SOPInstanceUID is missing"),
        (lambda image: setattr(image, "StudyInstanceUID", ""), "StudyInstanceUID is missing"),
        (lambda image: setattr(image, "SeriesInstanceUID", "../../etc"), "SeriesInstanceUID is malformed"),
        (lambda image: setattr(image, "StudyInstanceUID", ["1.2", "1.3"]), "StudyInstanceUID is malformed"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Invalid value for VR UI.*:UserWarning")
def test_an_object_without_usable_uids_is_refused_by_name(change: Callable[[Dataset], None], why: str) -> None:
    image = an_image()
    change(image)
    with pytest.raises(NotUnderstoodError, match=why):
        read_header(io.BytesIO(encoded(image, ExplicitVRLittleEndian)), 0, ExplicitVRLittleEndian, LIMIT)


def peak_while_refusing(data: bytes, syntax: UID, limit: int) -> int:
    file = io.BytesIO(data)
    tracemalloc.start()
    try:
        with pytest.raises(NotUnderstoodError):
            read_header(file, 0, syntax, limit)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_deflate_bomb_is_refused_with_little_memory() -> None:
    bomb = deflated(bytes(200_000_000))
    assert len(bomb) < 300_000
    assert peak_while_refusing(bomb, DeflatedExplicitVRLittleEndian, 10_000_000) < 15_000_000


def test_a_data_set_may_not_inflate_to_hundred_times_its_size() -> None:
    bomb = deflated(bytes(80_000_000))
    with pytest.raises(NotUnderstoodError, match=f"more than {64 * 2**20} bytes"):
        read_header(io.BytesIO(bomb), 0, DeflatedExplicitVRLittleEndian, 2**31)


def test_endless_nesting_and_a_million_items_are_refused_with_little_memory() -> None:
    opening = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    assert peak_while_refusing(opening * 10_000, ImplicitVRLittleEndian, LIMIT) < 1_000_000
    items = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 200_000
    assert peak_while_refusing(items, ImplicitVRLittleEndian, LIMIT) < 1_000_000


def test_a_value_that_claims_gigabytes_is_not_believed() -> None:
    claim = struct.pack("<HHL", 0x0010, 0x0010, 0xFFFFFFF0) + b"Doe^John"
    assert peak_while_refusing(claim, ImplicitVRLittleEndian, LIMIT) < 1_000_000


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(PLAIN))
@example(struct.pack("<HHL", 0xFFFE, 0xE00D, 0), ImplicitVRLittleEndian)
@example(b"\x08\x00\x18\x00UN", ExplicitVRLittleEndian)
def test_any_bytes_are_a_header_or_not_understood(data: bytes, syntax: UID) -> None:
    with pytest.raises(NotUnderstoodError):
        read_header(io.BytesIO(data), 0, syntax, LIMIT)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=8), st.sampled_from(PLAIN))
def test_a_damaged_object_gives_text_without_control_characters_or_is_not_understood(
    changes: list[tuple[int, int]], syntax: UID
) -> None:
    data = bytearray(encoded(an_image(), syntax))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        header = read_header(io.BytesIO(bytes(data)), 0, syntax, LIMIT)
    except NotUnderstoodError:
        return
    for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "Modality"):
        assert header.text(keyword).isprintable()
    header.integer("SeriesNumber")
    header.numbers("ImagePositionPatient")
