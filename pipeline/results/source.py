"""What do the results need to know of the images they were made from?

Reads headers only. Classic and enhanced images get the same form, one header per slice, so that nothing else has
to distinguish them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.uid import MRImageStorage

from pipeline.errors import InputError, type_and_place
from pipeline.geometry import Acquisition, FrameReference, Volume
from pipeline.read.elements import integer, values

# (functional group, attribute) of an enhanced image; a classic image has the attribute at its root.
_PLANE: Final = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
    ("PixelMeasuresSequence", "SliceThickness"),
    ("PixelMeasuresSequence", "SpacingBetweenSlices"),
)
_SLICE_TAGS: Final = ["SOPInstanceUID", "InstanceNumber", "SharedFunctionalGroupsSequence"] + [
    keyword for _, keyword in _PLANE
]


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """The position of one slice, as in its header, and the number that a PACS shows for it."""

    frame: FrameReference
    number: int
    attributes: Dataset


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The images behind a result.

    Parameters
    ----------
    header : Dataset
        Of the first SWI slice, as received: patient, study and frame of reference come from here.
    planes : tuple of ImagePlane
        One per SWI slice, in slice order.
    series : tuple of Volume
        SWI, then phase and magnitude where the analysis used them. (An SWI that was computed has the frames of the
        magnitude, which are referenced once.)
    """

    header: Dataset
    planes: tuple[ImagePlane, ...]
    series: tuple[Volume, ...]

    @property
    def study_instance_uid(self) -> str:
        """Study that the results belong to."""
        return str(self.header.StudyInstanceUID)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number that a PACS shows for each SWI slice."""
        return tuple(plane.number for plane in self.planes)

    @cached_property
    def stand_ins(self) -> tuple[Dataset, ...]:
        """One single-frame MR header per slice, in the form highdicom asks for.

        highdicom needs one multi-frame object with shared orientation and no repeated position, or single frames with
        a frame of reference; real enhanced images often have neither. Their UIDs are placeholders, see :meth:`frame`.
        """
        slices, rows, columns = self.series[0].geometry.shape
        spacing = self.series[0].geometry.spacing[2]
        datasets = []
        for k in range(slices):
            ds = self.blank()
            ds.update(self.planes[k].attributes)
            ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, f"2.25.{k + 1}"
            ds.FrameOfReferenceUID = next(iter(values(self.header, "FrameOfReferenceUID")), "2.25.0")
            ds.PositionReferenceIndicator = self.header.get("PositionReferenceIndicator", "")
            ds.Rows, ds.Columns = rows, columns
            ds.SpacingBetweenSlices = ds.get("SpacingBetweenSlices") or round(spacing, 6)
            ds.SliceThickness = ds.get("SliceThickness") or round(spacing, 6)
            datasets.append(ds)
        return tuple(datasets)

    def frame(self, placeholder: str) -> FrameReference:
        """The frame that a stand-in with SOP Instance UID `placeholder` stands for."""
        return self.planes[int(placeholder.rpartition(".")[2]) - 1].frame

    def blank(self) -> Dataset:
        """A header with the study and series of the SWI and the patient left empty.

        The patient is copied afterwards unchanged, because highdicom would refuse values that occur in real archives.
        """
        ds = Dataset()
        ds.StudyInstanceUID = self.study_instance_uid
        ds.SeriesInstanceUID = self.series[0].series_instance_uid
        ds.Modality = "MR"
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(ds, keyword, "")
        ds.StudyDate = ds.StudyTime = None
        return ds

    def instances(self) -> Iterator[Dataset]:
        """Each instance of each series once, as far as a reference needs it."""
        seen: set[str] = set()
        for volume in self.series:
            for frame in volume.frames:
                if frame.sop_instance_uid not in seen:
                    seen.add(frame.sop_instance_uid)
                    ds = self.blank()
                    ds.SeriesInstanceUID = volume.series_instance_uid
                    ds.SOPClassUID, ds.SOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
                    yield ds


def read_source(acquisition: Acquisition) -> SourceImages:
    """Read the headers behind `acquisition`.

    Raises
    ------
    InputError
        If a file can no longer be read or holds another instance.
    """
    swi = acquisition.swi
    header = _read(swi.frames[0])
    if not header.get("StudyInstanceUID"):
        raise InputError("no Study Instance UID", where=swi.frames[0].path)
    used = {v.frames: v for v in (acquisition.magnitude, acquisition.phase, swi) if v is not None}
    return SourceImages(header=header, planes=read_planes(swi), series=tuple(reversed(used.values())))


def read_planes(volume: Volume) -> tuple[ImagePlane, ...]:
    """Read position and number of every slice of `volume`."""
    planes = []
    headers: dict[str, Dataset] = {}
    for frame in volume.frames:
        if frame.path not in headers:
            headers[frame.path] = _read(frame, None if frame.frame_number else _SLICE_TAGS)
        planes.append(_plane(headers[frame.path], frame))
    numbers = [plane.number for plane in planes]
    if len(set(numbers)) < len(numbers) or min(numbers) < 1:  # of no use to a person: count from the bottom
        planes = [ImagePlane(plane.frame, k, plane.attributes) for k, plane in enumerate(planes, start=1)]
    return tuple(planes)


def _read(frame: FrameReference, tags: list[str] | None = None) -> Dataset:
    try:
        header = dcmread(frame.path, stop_before_pixels=True, specific_tags=tags)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})", where=frame.path, do="send the study again"
        ) from error
    except Exception as error:  # a hostile header may raise anything from the parser
        raise InputError(
            f"cannot be read ({type_and_place(error)})", where=frame.path, do="send the study again"
        ) from error
    if header.get("SOPInstanceUID") != frame.sop_instance_uid:
        raise InputError(f"is not instance {frame.sop_instance_uid}", where=frame.path, do="send the study again")
    return header


def _plane(header: Dataset, frame: FrameReference) -> ImagePlane:
    attributes = Dataset()
    for group, keyword in _PLANE:
        value = _value(header, frame.frame_number, group, keyword)
        if value not in (None, ""):
            setattr(attributes, keyword, list(value) if isinstance(value, MultiValue) else value)
    number = frame.frame_number or integer(header, "InstanceNumber") or 0
    return ImagePlane(frame, number, attributes)


def _value(header: Dataset, frame_number: int | None, group: str, keyword: str) -> object:
    """An attribute of one slice; ``None`` if it is absent or not all of its values are finite numbers."""
    if frame_number is None:
        return _numbers(header, keyword)
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for item in (header.PerFrameFunctionalGroupsSequence[frame_number - 1], shared[0]):
        macro = item.get(group)
        if macro and keyword in macro[0]:
            return _numbers(macro[0], keyword)
    return None


def _numbers(ds: Dataset, keyword: str) -> object:
    texts = values(ds, keyword)
    try:
        finite = all(isfinite(float(text)) for text in texts)
    except ValueError:
        return None
    return ds[keyword].value if texts and finite else None
