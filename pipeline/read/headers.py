"""What does a DICOM file say about itself, without its pixels?

One :class:`Instance` per file, one :class:`Frame` per image in it, and for each frame the :class:`Facts` that the
recognition rules test. Nothing here decodes pixel data, and nothing here raises for a file that is not DICOM: it
becomes an :class:`Unreadable` with the reason.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from pipeline.errors import InputError, type_and_place

from .elements import flatten, integer, number, text, values

MAX_INFLATED_BYTES = 1 << 30
"""A deflated file that grows beyond this is refused before pydicom inflates it in one piece."""

Vector = tuple[float, ...]

VENDORS = {
    "siemens": r"siemens",
    "ge": r"^ge\b|general electric|gems",
    "philips": r"philips",
    "uih": r"\buih\b|united.?imaging",
    "canon": r"canon|toshiba",
    "hitachi": r"hitachi|fujifilm",
}

# Fields of the rules that DICOM spreads over several attributes (classic and enhanced objects name them differently).
ALIASES: dict[str, tuple[str, ...]] = {
    "EchoTime": ("EchoTime", "EffectiveEchoTime"),
    "SequenceName": ("SequenceName", "PulseSequenceName"),
    "text": ("SeriesDescription", "ProtocolName"),
}
DERIVED = {"vendor", "tokens", "value3", "value4", "component"}
SIEMENS_IMAGE_TYPE = Tag(0x0021, 0x1175)

_ATTRIBUTES = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "MRAcquisitionType",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "Manufacturer",
    "EchoTime",
    "EffectiveEchoTime",
    "RepetitionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True)
class Facts:
    """What the rules can test of a frame: values by field name, as text. Hashable: each distinct set is judged once."""

    items: tuple[tuple[str, tuple[str, ...]], ...]

    @cached_property
    def _by_name(self) -> dict[str, tuple[str, ...]]:
        return dict(self.items)

    def get(self, field: str) -> tuple[str, ...]:
        """Values of `field`; empty when the header does not have it."""
        return self._by_name.get(field, ())

    def extended(self, extra: Mapping[str, tuple[str, ...]]) -> Facts:
        """Copy these facts and add fields."""
        return Facts((*self.items, *extra.items()))


@dataclass(frozen=True)
class Frame:
    """One image. `number` counts from 1 within a multi-frame object and is ``None`` in a single-frame one."""

    number: int | None
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    step_mm: float | None  # Spacing Between Slices
    thickness_mm: float | None
    echo_time_ms: float | None
    facts: Facts


@dataclass(frozen=True)
class Instance:
    """One file. `frames` may be a part of its frames where a series holds several kinds of image."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    instance_number: int | None
    rows: int
    columns: int
    number_of_frames: int
    acquisition_number: int | None
    acquisition_time: float | None
    series_number: int | None
    description: str
    modality: str
    vendor: str
    acquisition_type: str  # 2D or 3D
    field_strength_t: float | None
    repetition_time_ms: float | None
    flip_angle: float | None
    image_type: tuple[str, ...]
    frames: tuple[Frame, ...]

    @property
    def position(self) -> Vector | None:
        """Image Position (Patient) of the first frame, mm."""
        return self.frames[0].position if self.frames else None

    @property
    def orientation(self) -> Vector | None:
        """Image Orientation (Patient) of the first frame."""
        return self.frames[0].orientation if self.frames else None

    @property
    def spacing(self) -> Vector | None:
        """Pixel Spacing (row, column) of the first frame, mm."""
        return self.frames[0].spacing if self.frames else None


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read as a DICOM instance, and why."""

    path: Path
    why: str


def vendor_of(manufacturer: str) -> str:
    """Short name of the manufacturer (``siemens``, ``ge``, …), or the lower-case Manufacturer otherwise."""
    name = manufacturer.strip().lower()
    return next((vendor for vendor, pattern in VENDORS.items() if re.search(pattern, name)), name)


def read_instance(path: Path, fields: Iterable[str] = ()) -> Instance | Unreadable | None:
    """Read the header of one file.

    Parameters
    ----------
    path : Path
        Any file.
    fields : iterable of str
        Fields the rules ask for: DICOM keywords, ``"(gggg,eeee)"``, or a name in `ALIASES` or `DERIVED`.

    Returns
    -------
    Instance, Unreadable or None
        ``None`` for a DICOMDIR, which is not an image.
    """
    try:
        return _describe(path, read_attributes(path, fields), tuple(fields))
    except InvalidDicomError:
        return Unreadable(path, "not a DICOM file")
    except OSError as error:
        return Unreadable(path, f"cannot be read ({error.strerror or error})")
    except InputError as error:
        return Unreadable(path, f"damaged DICOM file ({error.what})")
    except Exception as error:  # a hostile header may raise anything from the parser; the file is reported and skipped
        return Unreadable(path, f"damaged DICOM header ({type_and_place(error)})")


def _describe(path: Path, ds: pydicom.FileDataset, fields: tuple[str, ...]) -> Instance | Unreadable | None:
    if text(ds.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not text(ds, keyword):
            return Unreadable(path, f"no {keyword} (truncated, or not a DICOM instance)")
    return _instance(path, ds, fields)


def read_attributes(path: Path, fields: Iterable[str]) -> pydicom.FileDataset:
    """Read a file's header as far as `fields` and the pipeline need it; raises what pydicom raises.

    Raises
    ------
    InputError
        If it is deflated and grows beyond all measure.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    no_preamble = start[128:132] != b"DICM" and start[:2] in (b"\x08\x00", b"\x02\x00")
    if DeflatedExplicitVRLittleEndian.encode() in start:
        _check_inflated_size(path)
    tags = _wanted(tuple(fields))
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags), force=no_preamble)


@lru_cache(maxsize=8)
def _wanted(fields: tuple[str, ...]) -> tuple[BaseTag, ...]:
    return tuple(sorted({tag for name in (*_ATTRIBUTES, *fields) for tag in _tags(name)} | {SIEMENS_IMAGE_TYPE}))


def _check_inflated_size(path: Path) -> None:
    """Refuse a decompression bomb: inflate in bounded pieces and count, keeping nothing."""
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return
    with path.open("rb") as file:
        file.seek(144 + int(meta.FileMetaInformationGroupLength))
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while block := file.read(1 << 16):
            while block:
                size += len(inflate.decompress(block, 1 << 20))
                block = inflate.unconsumed_tail
                if size > MAX_INFLATED_BYTES:
                    raise InputError(f"inflates to more than {MAX_INFLATED_BYTES >> 20} MiB")


@cache
def _tags(field: str) -> tuple[BaseTag, ...]:
    if field in DERIVED:
        return ()
    if field.startswith("("):
        return (Tag(int(field[1:5], 16), int(field[6:10], 16)),)
    return tuple(Tag(name) for name in ALIASES.get(field, (field,)))


def _instance(path: Path, ds: pydicom.FileDataset, fields: tuple[str, ...]) -> Instance:
    vendor = vendor_of(text(ds, "Manufacturer"))
    return Instance(
        path=path,
        sop_instance_uid=text(ds, "SOPInstanceUID"),
        sop_class_uid=text(ds, "SOPClassUID"),
        series_instance_uid=text(ds, "SeriesInstanceUID"),
        study_instance_uid=text(ds, "StudyInstanceUID"),
        frame_of_reference_uid=text(ds, "FrameOfReferenceUID"),
        instance_number=integer(ds, "InstanceNumber"),
        rows=integer(ds, "Rows") or 0,
        columns=integer(ds, "Columns") or 0,
        number_of_frames=max(1, integer(ds, "NumberOfFrames") or 1),
        acquisition_number=integer(ds, "AcquisitionNumber"),
        acquisition_time=_acquisition_time(ds),
        series_number=integer(ds, "SeriesNumber"),
        description=text(ds, "SeriesDescription"),
        modality=text(ds, "Modality"),
        vendor=vendor,
        acquisition_type=text(ds, "MRAcquisitionType"),
        field_strength_t=number(ds, "MagneticFieldStrength"),
        repetition_time_ms=_timing(ds, "RepetitionTime"),
        flip_angle=_timing(ds, "FlipAngle"),
        image_type=values(ds, "ImageType"),
        frames=_frames(ds, vendor, fields),
    )


def _timing(ds: Dataset, name: str) -> float | None:
    """Repetition time (ms) or flip angle (degrees), which all frames of an object share."""
    found = number(ds, name)
    return number(_shared(ds), name) if found is None else found


def _shared(ds: Dataset) -> Dataset:
    return flatten(next(iter(ds.get("SharedFunctionalGroupsSequence") or ()), None))


def _frames(ds: Dataset, vendor: str, fields: tuple[str, ...]) -> tuple[Frame, ...]:
    per_frame = ds.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        several = (integer(ds, "NumberOfFrames") or 1) > 1  # without functional groups their positions are unknown
        return (_frame(1 if several else None, [ds], vendor, fields),)
    shared = _shared(ds)
    return tuple(
        _frame(n, [flatten(groups), shared, ds], vendor, fields) for n, groups in enumerate(per_frame, start=1)
    )


def _frame(number_: int | None, levels: list[Dataset], vendor: str, fields: tuple[str, ...]) -> Frame:
    return Frame(
        number=number_,
        position=_vector(levels, "ImagePositionPatient", 3),
        orientation=_vector(levels, "ImageOrientationPatient", 6),
        spacing=_vector(levels, "PixelSpacing", 2),
        step_mm=_number(levels, "SpacingBetweenSlices"),
        thickness_mm=_number(levels, "SliceThickness"),
        echo_time_ms=_number(levels, *ALIASES["EchoTime"]),
        facts=_facts(levels, vendor, fields),
    )


def _number(levels: list[Dataset], *names: str) -> float | None:
    return next((value for name in names for level in levels if (value := number(level, name))), None)


def _facts(levels: list[Dataset], vendor: str, fields: tuple[str, ...]) -> Facts:
    tokens = _first(levels, SIEMENS_IMAGE_TYPE) or _first(levels, "FrameType") or _first(levels, "ImageType")
    derived = {
        "vendor": (vendor,),
        "tokens": tokens,
        "value3": tokens[2:3],
        "value4": tokens[3:4],
        "component": _first(levels, "ComplexImageComponent"),
    }
    found = []
    for field in sorted(set(fields) | DERIVED):
        if field in DERIVED:
            found.append((field, derived[field]))
        else:
            found.append((field, tuple(v for tag in _tags(field) for v in _first(levels, tag))))
    return Facts(tuple((name, got) for name, got in found if got))


def _first(levels: list[Dataset], name: str | BaseTag) -> tuple[str, ...]:
    return next((got for level in levels if (got := values(level, name))), ())


def _vector(levels: list[Dataset], name: str, length: int) -> Vector | None:
    raw = _first(levels, name)
    try:
        vector = tuple(float(v) for v in raw)
    except ValueError:
        return None
    return vector if len(vector) == length and all(abs(v) < 1e6 for v in vector) else None


def _acquisition_time(ds: Dataset) -> float | None:
    """Seconds on a continuous scale, for differences within a study; ``None`` if the header has no time."""
    date, time = text(ds, "AcquisitionDate") or "20000101", text(ds, "AcquisitionTime").replace(":", "")
    stamp = text(ds, "AcquisitionDateTime") or date + time
    match = re.match(r"(?:(\d{4})(\d{2})(\d{2}))(\d{2})(\d{2})?(\d{2}(?:\.\d+)?)?", stamp)
    if not match:
        return None
    year, month, day, hour, minute, second = (float(v or 0) for v in match.groups())
    return ((year * 372 + month * 31 + day) * 24 + hour) * 3600 + minute * 60 + second
