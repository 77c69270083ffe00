"""How does Philips write SWI as enhanced multi-frame objects? Two kinds of frame in each, told apart by type.

One object holds the frames of two kinds, told apart by Frame Type (PS3.3 C.8.13.5): ``SW_M_FFE`` and ``SW_P_FFE`` in
the SWIp series, ``M_FFE`` and ``PHASE MAP`` in its delayed reconstruction; phase is in milliradians with slope 1.53455.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, EnhancedMRImageStorage

from pipeline.geometry import Geometry
from training.simulation.protocol import Protocol, Sequence
from training.simulation.study import SimulatedStudy

from .classic import file_dataset, mip_geometry, patient_and_study
from .identity import SIMULATED, StudyIdentity
from .scaling import MILLIRADIANS_INTERCEPT, MILLIRADIANS_SLOPE, intensity, milliradians

UInt16 = NDArray[np.uint16]
SCAN_SECONDS = 300.0
Plan = tuple[str, int, str, tuple["FrameGroup", ...], Geometry, float]
"""Name, series number, description, parts, geometry and slice thickness of one object."""


@dataclass(frozen=True, eq=False)
class FrameGroup:
    """Frames of one kind.

    `token` is value 3 of Frame Type, `component` the Complex Image Component; `slope` and `intercept` the modality
    rescale.
    """

    token: str
    component: str
    stored: UInt16
    slope: float = 1.0
    intercept: float = 0.0
    unit: str = "normalized"


def _item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _one(ds: Dataset) -> DicomSequence:
    return DicomSequence([ds])


def _frame(
    part: FrameGroup, geometry: Geometry, k: int, thickness_mm: float, protocol: Protocol, number: int, moment: str
) -> Dataset:
    """Functional groups of one frame."""
    x, y, z = (round(float(v), 6) for v in geometry.to_lps([0, 0, k]))
    columns = geometry.direction
    letter = "P" if part.component == "PHASE" else "M"
    frame_type = ["ORIGINAL", "PRIMARY", part.token, letter, "FFE"]
    echo = _item(EffectiveEchoTime=float(protocol.echo_time_ms))
    stack = _item(
        StackID="1",
        InStackPositionNumber=k + 1,
        DimensionIndexValues=[1, k + 1, number + 1],
        TemporalPositionIndex=1,
        FrameAcquisitionNumber=1,
        FrameAcquisitionDateTime=moment,
        FrameReferenceDateTime=moment,
        FrameAcquisitionDuration=SCAN_SECONDS * 1000,
    )
    return _item(
        FrameContentSequence=_one(stack),
        PlanePositionSequence=_one(_item(ImagePositionPatient=[x, y, z])),
        PlaneOrientationSequence=_one(
            _item(ImageOrientationPatient=[round(float(v), 8) for v in (*columns[:, 0], *columns[:, 1])])
        ),
        PixelMeasuresSequence=_one(
            _item(
                PixelSpacing=[round(geometry.spacing[1], 6), round(geometry.spacing[0], 6)],
                SliceThickness=round(thickness_mm, 4),
                SpacingBetweenSlices=round(geometry.spacing[2], 4),
            )
        ),
        MRImageFrameTypeSequence=_one(
            _item(
                FrameType=frame_type,
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent=part.component,
                AcquisitionContrast="T2_STAR",
            )
        ),
        MREchoSequence=_one(echo),
        PixelValueTransformationSequence=_one(
            _item(RescaleSlope=part.slope, RescaleIntercept=part.intercept, RescaleType=part.unit)
        ),
    )


def _code(value: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)


def _sampling(geometry: Geometry) -> Dataset:
    """MR FOV/Geometry macro."""
    _, rows, columns = geometry.shape
    return _item(
        InPlanePhaseEncodingDirection="COLUMN",
        MRAcquisitionFrequencyEncodingSteps=columns,
        MRAcquisitionPhaseEncodingStepsInPlane=rows,
        PercentSampling=100.0,
        PercentPhaseFieldOfView=100.0,
    )


def _shared(protocol: Protocol, geometry: Geometry) -> Dataset:
    """Functional groups that all frames share (PS3.3 A.36.2.3 and C.8.13.5)."""
    timing = _item(
        RepetitionTime=float(protocol.repetition_time_ms),
        FlipAngle=float(protocol.flip_angle_deg),
        EchoTrainLength=1,
        RFEchoTrainLength=0,
        GradientEchoTrainLength=1,
        SpecificAbsorptionRateSequence=_one(
            _item(SpecificAbsorptionRateDefinition="IEC_HEAD", SpecificAbsorptionRateValue=0.1)
        ),
        GradientOutputType="DB_DT",
        GradientOutput=0.0,
        OperatingModeSequence=_one(_item(OperatingModeType="RF", OperatingMode="IEC_NORMAL")),
    )
    coil = {"MultiCoilElementName": "SENSE", "MultiCoilElementUsed": "YES"}
    receive = _item(
        ReceiveCoilName="SENSE-Head",
        ReceiveCoilManufacturerName="",
        ReceiveCoilType="MULTICOIL",
        QuadratureReceiveCoil="YES",
        MultiCoilDefinitionSequence=_one(_item(**coil)),
    )
    modifier = _item(
        InversionRecovery="NO", FlowCompensation="ACQUISITION", FlowCompensationDirection="PHASE_AND_FREQ",
        Spoiling="RF",
        T2Preparation="NO", SpectrallySelectedExcitation="NONE", SpatialPresaturation="NONE", PartialFourier="NO",
        ParallelAcquisition="NO",
    )  # fmt: skip
    imaging = _item(
        MagnetizationTransfer="NONE", BloodSignalNulling="NO", Tagging="NONE",
        TransmitterFrequency=42.577 * protocol.field_strength_t, PixelBandwidth=120.0,
    )  # fmt: skip
    anatomy = _item(FrameLaterality="U", AnatomicRegionSequence=_one(_code("12738006", "Brain")))
    transmit = _item(TransmitCoilName="Body", TransmitCoilManufacturerName="", TransmitCoilType="BODY")
    return _item(
        MRTimingAndRelatedParametersSequence=_one(timing),
        FrameAnatomySequence=_one(anatomy),
        MRAveragesSequence=_one(_item(NumberOfAverages=1.0)),
        MRModifierSequence=_one(modifier),
        MRImagingModifierSequence=_one(imaging),
        MRReceiveCoilSequence=_one(receive),
        MRTransmitCoilSequence=_one(transmit),
        MRFOVGeometrySequence=_one(_sampling(geometry)),
    )


def _dimensions(ds: Dataset, identity: StudyIdentity, name: str) -> None:
    """Frames are indexed by stack, position and kind."""
    uid = identity.uid(name, "dimensions")
    ds.DimensionOrganizationSequence = _one(_item(DimensionOrganizationUID=uid))
    pointers = ((0x00209056, 0x00209111), (0x00209057, 0x00209111), (0x00089007, 0x00189226))
    ds.DimensionIndexSequence = DicomSequence(
        [_item(DimensionOrganizationUID=uid, DimensionIndexPointer=a, FunctionalGroupPointer=b) for a, b in pointers]
    )


def _object(
    name: str,
    number: int,
    description: str,
    parts: tuple[FrameGroup, ...],
    geometry: Geometry,
    thickness_mm: float,
    study: SimulatedStudy,
    identity: StudyIdentity,
) -> Dataset:
    """One enhanced MR object of one or two kinds of frame."""
    protocol = study.protocol
    ds = patient_and_study(identity)
    ds.SOPClassUID, ds.SOPInstanceUID = UID(EnhancedMRImageStorage), identity.uid(name, 0)
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "MR", identity.uid(name), number
    ds.SeriesDescription, ds.InstanceNumber, ds.ImageComments = description, 1, SIMULATED
    ds.Manufacturer, ds.ManufacturerModelName = "Philips Medical Systems", "Ingenia"
    ds.SoftwareVersions, ds.DeviceSerialNumber, ds.ProtocolName = "5.6.1", "0", protocol.name
    mixed = len(parts) > 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "T1" if mixed else parts[0].token, "MIXED" if mixed else "NONE"]
    ds.ComplexImageComponent = "MIXED" if mixed else parts[0].component
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique, ds.AcquisitionContrast = "NONE", "T2_STAR"
    ds.MRAcquisitionType = "2D" if protocol.sequence is Sequence.T2STAR_2D else "3D"
    ds.PulseSequenceName, ds.EchoPulseSequence, ds.MagneticFieldStrength = "FFE", "GRADIENT", protocol.field_strength_t
    ds.AcquisitionDateTime, ds.ResonantNucleus = identity.date + identity.time, "1H"
    ds.ContentQualification, ds.BurnedInAnnotation, ds.LossyImageCompression = "RESEARCH", "NO", "00"
    ds.PresentationLUTShape, ds.SamplesPerPixel, ds.PhotometricInterpretation = "IDENTITY", 1, "MONOCHROME2"
    ds.AcquisitionContextSequence = DicomSequence()
    _pulse_sequence(ds, protocol)
    _dimensions(ds, identity, name)
    order = [(k, n) for k in range(geometry.shape[0]) for n in range(len(parts))]
    ds.SharedFunctionalGroupsSequence = _one(_shared(protocol, geometry))
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_frame(parts[n], geometry, k, thickness_mm, protocol, n, identity.date + identity.time) for k, n in order]
    )
    stack = np.stack([parts[n].stored[k] for k, n in order])
    ds.NumberOfFrames, ds.Rows, ds.Columns = stack.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = stack.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _pulse_sequence(ds: Dataset, protocol: Protocol) -> None:
    """MR pulse sequence and acquisition attributes of an original image (PS3.3 C.8.13.4 and C.8.13.2)."""
    volume = protocol.sequence is not Sequence.T2STAR_2D
    ds.KSpaceFiltering, ds.MagneticFieldStrength = "NONE", protocol.field_strength_t
    ds.ApplicableSafetyStandardAgency, ds.AcquisitionDuration = "IEC", SCAN_SECONDS
    ds.AcquisitionNumber, ds.MultiPlanarExcitation, ds.PhaseContrast, ds.TimeOfFlightContrast = 1, "NO", "NO", "NO"
    ds.SteadyStatePulseSequence, ds.EchoPlanarPulseSequence, ds.SaturationRecovery = "NONE", "NO", "NO"
    ds.SpectrallySelectedSuppression, ds.OversamplingPhase = "NONE", "NONE"
    ds.GeometryOfKSpaceTraversal, ds.SegmentedKSpaceTraversal = "RECTILINEAR", "SINGLE"
    ds.RectilinearPhaseEncodeReordering, ds.NumberOfKSpaceTrajectories = "LINEAR", 1
    if volume:
        ds.CoverageOfKSpace = "FULL"


def _phase_part(token: str, phase: NDArray[np.float32]) -> FrameGroup:
    return FrameGroup(token, "PHASE", milliradians(phase), MILLIRADIANS_SLOPE, MILLIRADIANS_INTERCEPT, "mrad")


def write_philips(
    study: SimulatedStudy, identity: StudyIdentity, folder: Path, white_level: float, *, compress: str | None = None
) -> list[Path]:
    """Write a study as Philips enhanced multi-frame objects, one file each."""
    images = study.images
    folder.mkdir(parents=True, exist_ok=True)
    mm = images.geometry.spacing[2]
    magnitude = FrameGroup("M_FFE", "MAGNITUDE", intensity(images.magnitude, white_level))
    if study.protocol.sequence is Sequence.T2STAR_2D:
        plans: list[Plan] = [("t2star", 501, "T2W_FFE", (magnitude,), images.geometry, mm)]
    else:
        swi = FrameGroup("SW_M_FFE", "MAGNITUDE", intensity(images.swi, white_level))
        low = FrameGroup("MIN_IP", "MAGNITUDE", intensity(images.mip, white_level))
        raw = _phase_part("PHASE MAP", images.raw_phase)
        plans = [
            ("swip", 1001, "SWIp SENSE", (swi, _phase_part("SW_P_FFE", images.phase)), images.geometry, mm),
            ("delrec", 1002, "DelRec - SWIp SENSE", (magnitude, raw), images.geometry, mm),
            ("mip", 1101, "mIP SWIp", (low,), mip_geometry(images), mm * images.mip_slices),
        ]
    written = []
    for name, number, description, parts, geometry, thickness in plans:
        ds = _object(name, number, description, parts, geometry, thickness, study, identity)
        path = folder / f"{name}.dcm"
        file = file_dataset(ds, path)
        if compress:
            file.compress(compress, generate_instance_uid=False)
        file.save_as(path, enforce_file_format=True)
        written.append(path)
    return written
