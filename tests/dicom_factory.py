"""Synthetic MR series as DICOM: any orientation, spacing, vendor tags, pixel encoding and transfer syntax.

Everything is deterministic: the same arguments give the same UIDs. Arrays hold *stored* values,
``[slice, row, column]``.

>>> volume = np.zeros((3, 8, 8), dtype=np.uint16)
>>> paths = write(classic(volume, series_number=4, tags={"EchoTime": 20.0}), folder)   # doctest: +SKIP
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from pipeline.uids import derive_uid

TRANSFER_SYNTAXES: dict[str, UID] = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "rle": RLELossless,
}
PRIVATE_VR = {0x0043102F: "SS", 0x0051100F: "LO", 0x00211175: "CS", 0x0019109C: "LO", 0x00511016: "LO"}
PRIVATE_CREATOR = {
    0x0043: "GEMS_PARM_01",
    0x0051: "SIEMENS MR HEADER",
    0x0021: "SIEMENS MR SDI 02",
    0x0019: "GEMS_ACQU_01",
}


def affine(
    spacing: Sequence[float] = (0.5, 0.5, 2.0), origin: Sequence[float] = (-10.0, -12.0, 5.0), rotation: Any = None
) -> NDArray[np.float64]:
    """Voxel (i, j, k) to LPS millimetres; the columns of `rotation` are the directions of i, j and k."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else np.asarray(rotation)) * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


@dataclass(frozen=True)
class Patient:
    """What all series of one study share."""

    seed: str = "study"
    name: str = "Test^Brain"
    patient_id: str = "TEST-1"
    vendor: str = "SIEMENS"
    model: str = "Prisma"
    field_strength: float = 3.0
    frame_of_reference: bool = True
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def study_uid(self) -> str:
        return derive_uid(self.seed, "study")

    @property
    def frame_uid(self) -> str:
        return derive_uid(self.seed, "frame")


@dataclass(frozen=True)
class Part:
    """A stack of frames of one kind within a multi-frame object."""

    array: NDArray[Any]
    frame_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "M", "NONE")
    component: str | None = None
    echo_time: float = 20.0
    slope: float = 1.0
    intercept: float = 0.0
    real_world: tuple[float, float, str] | None = None  # slope, intercept, UCUM unit


def classic(
    array: NDArray[Any],
    *,
    patient: Patient | None = None,
    matrix: NDArray[np.float64] | None = None,
    series_number: int = 1,
    description: str = "SWI_Images",
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "M", "SWI", "NORM"),
    slope: float | None = None,
    intercept: float | None = None,
    bits_stored: int = 16,
    photometric: str = "MONOCHROME2",
    order: Iterable[int] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> list[Dataset]:
    """One MR Image Storage dataset per slice.

    `order` lists the slices in the order in which Instance Numbers are given (and datasets returned). Signed arrays
    give signed pixels. `tags` are keywords or ``"(gggg,eeee)"``; a value of ``None`` removes the attribute.
    """
    patient = patient or Patient()
    matrix = affine() if matrix is None else matrix
    datasets = []
    for number, k in enumerate(range(len(array)) if order is None else order, start=1):
        ds = _common(patient, series_number, description, MRImageStorage, f"slice-{number}")
        ds.ImageType = list(image_type)
        ds.InstanceNumber = number
        ds.EchoTime, ds.RepetitionTime, ds.FlipAngle, ds.EchoNumbers = 20.0, 28.0, 15.0, 1
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "FC", "3D"
        ds.EchoTrainLength = 1
        ds.PositionReferenceIndicator = ""
        plane = _plane(matrix, k)
        ds.ImagePositionPatient, ds.ImageOrientationPatient = plane.position, plane.orientation
        ds.PixelSpacing, ds.SliceThickness = plane.spacing, _ds(plane.thickness)
        if slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept or 0.0, "US"
        _pixels(ds, array[k], bits_stored, photometric)
        _apply(ds, {**patient.tags, **(tags or {})})
        datasets.append(ds)
    return datasets


def enhanced(
    parts: Sequence[Part],
    *,
    patient: Patient | None = None,
    matrix: NDArray[np.float64] | None = None,
    series_number: int = 1,
    description: str = "SWI",
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "T2_STAR", "MIXED"),
    legacy: bool = False,
    order: Sequence[int] | None = None,
    bits_stored: int = 16,
    photometric: str = "MONOCHROME2",
    tags: Mapping[str, Any] | None = None,
) -> Dataset:
    """One Enhanced (or Legacy Converted Enhanced) MR object; `order` permutes all frames of all parts."""
    patient = patient or Patient()
    matrix = affine() if matrix is None else matrix
    sop_class = LegacyConvertedEnhancedMRImageStorage if legacy else EnhancedMRImageStorage
    ds = _common(patient, series_number, description, sop_class, "multi-frame")
    ds.ImageType, ds.InstanceNumber, ds.MRAcquisitionType = list(image_type), 1, "3D"
    frames = [(part, k) for part in parts for k in range(len(part.array))]
    if order is not None:
        frames = [frames[n] for n in order]
    _pixels(ds, np.stack([part.array[k] for part, k in frames]), bits_stored, photometric)
    ds.NumberOfFrames = len(frames)
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    ds.PerFrameFunctionalGroupsSequence = [_groups(part, k, matrix) for part, k in frames]
    _apply(ds, {**patient.tags, **(tags or {})})
    return ds


def write(
    datasets: Dataset | Iterable[Dataset],
    folder: Path,
    transfer_syntax: str = "explicit",
    names: str = "{series:04d}-{n:04d}.dcm",
) -> list[Path]:
    """Write datasets as files in `folder`, in a transfer syntax named in :data:`TRANSFER_SYNTAXES`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, ds in enumerate([datasets] if isinstance(datasets, Dataset) else datasets, start=1):
        path = folder / names.format(series=int(ds.get("SeriesNumber") or 0), n=n)
        encode(ds, transfer_syntax).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def encode(ds: Dataset, transfer_syntax: str = "explicit") -> Dataset:
    """Copy `ds` into another transfer syntax, file meta information included."""
    uid = TRANSFER_SYNTAXES[transfer_syntax]
    copy = deepcopy(ds)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    copy.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if uid in _GDCM:
        return _encode_with_gdcm(copy, uid)
    if uid.is_compressed and uid != DeflatedExplicitVRLittleEndian:
        copy.compress(uid, generate_instance_uid=False)
        return copy
    if uid == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        copy.PixelData = np.frombuffer(ds.PixelData, dtype="<u2").astype(">u2").tobytes()
    copy.file_meta.TransferSyntaxUID = uid
    return copy


def siemens_swi(
    swi: NDArray[Any], phase: NDArray[Any] | None = None, magnitude: NDArray[Any] | None = None, **options: Any
) -> list[Dataset]:
    """Slices of the neighbouring series of a Siemens protocol: magnitude 8, phase 9, mIP 10, SWI 11.

    `phase` is in radians (paramagnetic positive) and stored as 0…4095 with slope 2 and intercept −4096.
    """
    tags = {"SequenceName": "*swi3d1r", "ProtocolName": "t2_swi3d_tra_p2", **options.pop("tags", {})}
    kind = ("ORIGINAL", "PRIMARY")
    sets = []
    if magnitude is not None:
        sets.append(
            classic(
                magnitude,
                series_number=8,
                description="Mag_Images",
                image_type=(*kind, "M", "NORM"),
                tags=tags,
                **options,
            )
        )
    if phase is not None:
        stored = siemens_phase(phase)
        sets.append(
            classic(
                stored, series_number=9, description="Pha_Images", image_type=(*kind, "P", "ND"),
                slope=2, intercept=-4096, bits_stored=12, tags=tags, **options,
            )
        )  # fmt: skip
    if len(swi) > 7:
        sets.append(_siemens_mip(swi, tags, options))
    sets.append(classic(swi, series_number=11, description="SWI_Images", tags=tags, **options))
    return [ds for series in sets for ds in series]


def siemens_phase(phase: NDArray[Any]) -> NDArray[np.uint16]:
    """Radians to the stored values of a Siemens phase image."""
    return np.clip(np.rint((np.asarray(phase) / np.pi * 4096 + 4096) / 2), 0, 4095).astype(np.uint16)


def _siemens_mip(swi: NDArray[Any], tags: Mapping[str, Any], options: Mapping[str, Any]) -> list[Dataset]:
    projected = np.stack([swi[k : k + 8].min(axis=0) for k in range(len(swi) - 7)])
    matrix = np.array(options.get("matrix", affine()))
    matrix[:3, 3] += 3.5 * matrix[:3, 2]
    image_type = ("ORIGINAL", "PRIMARY", "MNIP", "NORM")
    return classic(
        projected, series_number=10, description="mIP_Images(SW)", image_type=image_type, tags=tags,
        **{**options, "matrix": matrix},
    )  # fmt: skip


@dataclass(frozen=True)
class _Plane:
    position: list[float]
    orientation: list[float]
    spacing: list[float]
    thickness: float


def _plane(matrix: NDArray[np.float64], k: int) -> _Plane:
    i_step, j_step, k_step = matrix[:3, :3].T
    di, dj, dk = np.linalg.norm(i_step), np.linalg.norm(j_step), np.linalg.norm(k_step)
    position = matrix[:3, :3] @ [0, 0, k] + matrix[:3, 3]
    orientation = [*(i_step / di), *(j_step / dj)]
    return _Plane([_ds(v) for v in position], [_ds(v) for v in orientation], [_ds(dj), _ds(di)], float(dk))


def _ds(value: float) -> float:
    """Round to what a Decimal String of 16 bytes can hold."""
    return float(f"{value:.9f}")


def _common(patient: Patient, series_number: int, description: str, sop_class: UID, name: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = derive_uid(patient.seed, series_number, description, name)
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = patient.study_uid, patient.frame_uid
    ds.SeriesInstanceUID = derive_uid(patient.seed, "series", series_number, description)
    if not patient.frame_of_reference:
        del ds.FrameOfReferenceUID
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = patient.name, patient.patient_id, "19500101", "F"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "A1", ""
    ds.StudyDate, ds.StudyTime, ds.SeriesDate, ds.SeriesTime = "20260102", "101500", "20260102", "102000"
    ds.AcquisitionDate, ds.AcquisitionTime, ds.ContentDate, ds.ContentTime = "20260102", "102000", "20260102", "102000"
    ds.StudyDescription = "MR Head"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", patient.vendor, patient.model
    ds.DeviceSerialNumber, ds.SoftwareVersions, ds.BodyPartExamined = "1", "1", "BRAIN"
    ds.PatientPosition, ds.PositionReferenceIndicator = "HFS", ""
    ds.SeriesNumber, ds.SeriesDescription = series_number, description
    ds.MagneticFieldStrength, ds.AcquisitionNumber = patient.field_strength, 1
    return ds


def _pixels(ds: Dataset, array: NDArray[Any], bits_stored: int, photometric: str) -> None:
    array = np.asarray(array)
    bits = 8 if array.dtype.itemsize == 1 else 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = array.shape[-2:]
    ds.BitsAllocated, ds.BitsStored = bits, min(bits_stored, bits)
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    ds.add_new(0x7FE00010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))


def _groups(part: Part, k: int, matrix: NDArray[np.float64]) -> Dataset:
    plane = _plane(matrix, k)
    groups = Dataset()
    groups.PlanePositionSequence = [_item(ImagePositionPatient=plane.position)]
    groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=plane.orientation)]
    groups.PixelMeasuresSequence = [_item(PixelSpacing=plane.spacing, SliceThickness=_ds(plane.thickness))]
    groups.PixelValueTransformationSequence = [
        _item(RescaleIntercept=part.intercept, RescaleSlope=part.slope, RescaleType="US")
    ]
    frame_type = _item(FrameType=list(part.frame_type))
    if part.component:
        frame_type.ComplexImageComponent = part.component
    groups.MRImageFrameTypeSequence = [frame_type]
    groups.MREchoSequence = [_item(EffectiveEchoTime=part.echo_time)]
    groups.FrameContentSequence = [_item(StackID="1", InStackPositionNumber=k + 1)]
    if part.real_world:
        slope, intercept, unit = part.real_world
        code = _item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
        groups.RealWorldValueMappingSequence = [
            _item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept, MeasurementUnitsCodeSequence=[code])
        ]
    return groups


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _apply(ds: Dataset, tags: Mapping[str, Any]) -> None:
    for name, value in tags.items():
        if not name.startswith("("):
            if value is None:
                ds.pop(Tag(name), None)
            else:
                setattr(
                    ds,
                    name,
                    DicomSequence(value)
                    if isinstance(value, list) and value and isinstance(value[0], Dataset)
                    else value,
                )
            continue
        tag = Tag(int(name[1:5], 16), int(name[6:10], 16))
        creator = Tag(tag.group, tag.element >> 8)
        ds[creator] = DataElement(creator, "LO", PRIVATE_CREATOR.get(tag.group, "TEST"))
        ds[tag] = DataElement(tag, PRIVATE_VR.get(int(tag), "LO"), value)


# pydicom cannot write JPEG Lossless, and its JPEG 2000 encoder refuses images of fewer than 32 columns; GDCM can.
_GDCM = {JPEGLosslessSV1: "JPEGLosslessProcess14_1", JPEG2000Lossless: "JPEG2000Lossless"}


def _encode_with_gdcm(ds: Dataset, uid: UID) -> Dataset:
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.dcm", Path(folder) / "packed.dcm"
        ds.save_as(plain, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        assert reader.Read(), plain
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, _GDCM[uid])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        encoded = dcmread(packed)
    result = deepcopy(ds)
    result.file_meta.TransferSyntaxUID = uid
    result[0x7FE00010] = encoded[0x7FE00010]
    return result
