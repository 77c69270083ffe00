"""How is a stack of images written as classic MR Image objects, one file a slice?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from pipeline.geometry import Geometry
from training.simulation.protocol import Protocol, Sequence
from training.simulation.study import Images

from .identity import SIMULATED, StudyIdentity

Private = tuple[tuple[int, str, int, str, Any], ...]
"""Private elements: group, creator, element, VR, value."""
_IMPLEMENTATION_UID = UID("2.25.208193465128420312731021364820193746503")


@dataclass(frozen=True, eq=False)
class SeriesToWrite:
    """One series to be written.

    Parameters
    ----------
    name : str
        Names it within the study (UIDs, file names).
    number : int
        Series number.
    description : str
        Series description.
    image_type : tuple of str
        ImageType.
    stored : ndarray of uint16 or int16, shape (k, j, i)
        Stored values.
    geometry : Geometry
        Of the stack.
    slope, intercept : float or None
        Rescale; ``None`` leaves the tags out.
    tags : dict
        Further attributes, by keyword or tag; a callable gets the slice index.
    """

    name: str
    number: int
    description: str
    image_type: tuple[str, ...]
    stored: NDArray[np.generic]
    geometry: Geometry
    slope: float | None = None
    intercept: float | None = None
    bits: int = 12
    tags: dict[str, Any] = field(default_factory=dict)
    private: Private = ()

    @cached_property
    def window(self) -> tuple[float, float]:
        """Width and centre for display, of the whole stack."""
        slope, base = self.slope or 1.0, self.intercept or 0.0
        top = max(1.0, float(np.percentile(self.stored[:, ::4, ::4].astype(np.float32), 99.5))) * slope + base
        return round(top - base, 1), round((top + base) / 2, 1)


def mip_geometry(images: Images) -> Geometry:
    """Geometry of the minimum projections: as many slices fewer, half a slab further in."""
    geometry = images.geometry
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_lps([0, 0, (images.mip_slices - 1) / 2])
    return Geometry((images.mip.shape[0], geometry.shape[1], geometry.shape[2]), affine)


def patient_and_study(identity: StudyIdentity) -> Dataset:
    """Patient, study and equipment attributes that all objects share."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    patient = identity.patient
    ds.PatientName, ds.PatientID = patient.name, patient.id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = patient.birth_date, patient.sex, patient.age
    ds.StudyInstanceUID = identity.uid("study")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = identity.date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = identity.time
    ds.StudyID, ds.AccessionNumber = "1", identity.accession
    ds.StudyDescription, ds.ReferringPhysicianName = identity.description, ""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = identity.uid("frame of reference"), ""
    ds.BodyPartExamined, ds.PatientPosition = "BRAIN", "HFS"
    ds.InstitutionName = "Simulated"
    return ds


def scan_attributes(ds: Dataset, protocol: Protocol) -> None:
    """Attributes of the MR acquisition."""
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "GR", "SP", "FC"
    ds.MRAcquisitionType = "2D" if protocol.sequence is Sequence.T2STAR_2D else "3D"
    ds.EchoTime, ds.RepetitionTime = protocol.echo_time_ms, protocol.repetition_time_ms
    ds.FlipAngle, ds.MagneticFieldStrength = protocol.flip_angle_deg, protocol.field_strength_t
    ds.ImagingFrequency = round(42.577 * protocol.field_strength_t, 4)
    ds.ImagedNucleus, ds.NumberOfAverages, ds.EchoNumbers, ds.EchoTrainLength = "1H", 1, 1, 1
    ds.ProtocolName = protocol.name


def plane(ds: Dataset, geometry: Geometry, k: int) -> None:
    """Position, orientation and spacing of slice `k` (PS3.3 C.7.6.2)."""
    x, y, z = (round(float(v), 6) for v in geometry.to_lps([0, 0, k]))
    ds.ImagePositionPatient = [x, y, z]
    columns = geometry.direction
    ds.ImageOrientationPatient = [round(float(v), 8) for v in (*columns[:, 0], *columns[:, 1])]
    ds.PixelSpacing = [round(geometry.spacing[1], 6), round(geometry.spacing[0], 6)]
    ds.SliceLocation = round(float(geometry.direction[:, 2] @ geometry.to_lps([0, 0, k])), 4)


def pixels(ds: Dataset, stored: NDArray[np.generic], bits: int) -> None:
    """Image pixel module of one frame."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, bits, bits - 1
    ds.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    ds.PixelData = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"


def file_dataset(ds: Dataset, path: Path) -> FileDataset:
    """`ds` with file meta information, explicit VR little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(ExplicitVRLittleEndian), _IMPLEMENTATION_UID
    meta.ImplementationVersionName = "CMBTRAIN"
    return FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128)


def slice_dataset(
    stack: SeriesToWrite, k: int, identity: StudyIdentity, protocol: Protocol, slice_mm: float
) -> Dataset:
    """One slice of `stack` as an MR Image object."""
    ds = patient_and_study(identity)
    ds.SOPClassUID, ds.SOPInstanceUID = UID(MRImageStorage), identity.uid(stack.name, k)
    ds.Modality, ds.SeriesInstanceUID = "MR", identity.uid(stack.name)
    ds.SeriesNumber, ds.SeriesDescription = stack.number, stack.description
    ds.ImageType, ds.InstanceNumber, ds.AcquisitionNumber = list(stack.image_type), k + 1, 1
    ds.ImageComments = SIMULATED
    scan_attributes(ds, protocol)
    ds.SliceThickness, ds.SpacingBetweenSlices = round(slice_mm, 4), round(stack.geometry.spacing[2], 4)
    plane(ds, stack.geometry, k)
    pixels(ds, stack.stored[k], stack.bits)
    if stack.slope is not None and stack.intercept is not None:
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = stack.slope, stack.intercept, "US"
    if np.issubdtype(stack.stored.dtype, np.unsignedinteger):
        ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(stack.stored[k].min()), int(stack.stored[k].max())
    ds.WindowWidth, ds.WindowCenter = stack.window
    for keyword, value in stack.tags.items():
        setattr(ds, keyword, value(k) if callable(value) else value)
    for group, creator, element, vr, value in stack.private:
        ds.private_block(group, creator, create=True).add_new(element, vr, value)
    return ds


def write_stack(
    stack: SeriesToWrite,
    identity: StudyIdentity,
    protocol: Protocol,
    folder: Path,
    *,
    slice_mm: float,
    compress: str | None = None,
    number: Callable[[int], int] = lambda k: k,
) -> list[Path]:
    """Write one file a slice.

    Parameters
    ----------
    stack, identity, protocol
        What to write.
    folder : Path
        Where; made if missing.
    slice_mm : float
        Slice thickness.
    compress : str, optional
        Transfer syntax UID of a lossless compression.
    number : callable
        File and instance number (from 0) of slice k, for interleaved series.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for k in range(stack.stored.shape[0]):
        path = folder / f"{stack.name}-{number(k) + 1:04d}.dcm"
        ds = slice_dataset(stack, k, identity, protocol, slice_mm)
        ds.InstanceNumber = number(k) + 1
        file = file_dataset(ds, path)
        if compress:
            file.compress(compress, generate_instance_uid=False)
        file.save_as(path, enforce_file_format=True)
        written.append(path)
    return written
