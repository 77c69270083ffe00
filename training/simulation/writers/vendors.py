"""Which series does each vendor write, under which names and scales?

Names, ImageType values, series order and phase scales follow what was seen in real headers; what was not seen is
written plainly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.simulation.protocol import Sequence, Vendor
from training.simulation.study import SimulatedStudy

from .classic import Private, SeriesToWrite, mip_geometry, write_stack
from .identity import StudyIdentity
from .scaling import WHITE_LEVEL, UInt16, intensity, siemens_phase, signed_phase


@dataclass(frozen=True)
class Packing:
    """How tightly to store.

    Parameters
    ----------
    compress : str, optional
        Transfer syntax UID of a lossless compression.
    white_level : float
        Stored value of white matter.
    phase_step : int
        Phase is stored in multiples of this (Siemens scale).
    """

    compress: str | None = None
    white_level: float = WHITE_LEVEL
    phase_step: int = 1


def _parts(study: SimulatedStudy, packing: Packing) -> dict[str, UInt16]:
    """Stored values of magnitude, SWI and minimum projection."""
    images, level = study.images, packing.white_level
    parts = {"mag": images.magnitude, "swi": images.swi, "mip": images.mip}
    return {name: intensity(image, level) for name, image in parts.items()}


def _siemens(study: SimulatedStudy, packing: Packing) -> list[SeriesToWrite]:
    """Magnitude, filtered phase, minimum projection and SWI, in this order; or one T2* series."""
    images, stored = study.images, _parts(study, packing)
    g, low = images.geometry, mip_geometry(images)
    common = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Prisma", "SoftwareVersions": "syngo MR E11"}
    m = ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")
    if study.protocol.sequence is Sequence.T2STAR_2D:
        tags = {**common, "SequenceName": "*fl2d1", "ProtocolName": "t2_fl2d_tra_hemo"}
        return [SeriesToWrite("t2star", 5, "t2_fl2d_tra_hemo", m, stored["mag"], g, tags=tags)]
    tags = {**common, "SequenceName": "*swi3d1r", "ProtocolName": "t2_swi3d_tra_p2"}
    phase = siemens_phase(images.phase, packing.phase_step)
    swi = ("ORIGINAL", "PRIMARY", "M", "SWI", "NORM", "DIS2D")
    mip = ("DERIVED", "PRIMARY", "MNIP", "NORM", "DIS2D")
    return [
        SeriesToWrite("mag", 8, "Mag_Images", m, stored["mag"], g, tags=tags),
        SeriesToWrite("pha", 9, "Pha_Images", ("ORIGINAL", "PRIMARY", "P", "DIS2D"), phase, g, 2.0, -4096.0, tags=tags),
        SeriesToWrite("mip", 10, "mIP_Images(SW)", mip, stored["mip"], low, tags=tags),
        SeriesToWrite("swi", 11, "SWI_Images", swi, stored["swi"], g, tags=tags),
    ]


def _ge_private(kind: int) -> Private:
    """What GE says of an image: 0 magnitude, 1 phase; and the name of its pulse sequence."""
    return ((0x0043, "GEMS_PARM_01", 0x2F, "SS", kind), (0x0019, "GEMS_ACQU_01", 0x9C, "LO", "swan"))


def _ge(study: SimulatedStudy, packing: Packing) -> list[SeriesToWrite]:
    """SWAN: the weighted image, its filtered phase with the opposite sign, and a minimum projection; no magnitude."""
    images, stored = study.images, _parts(study, packing)
    g, low = images.geometry, mip_geometry(images)
    common: dict[str, Any] = {"Manufacturer": "GE MEDICAL SYSTEMS", "ManufacturerModelName": "SIGNA Pioneer"}
    common |= {"SoftwareVersions": "29\\LX\\MR", "ScanOptions": ["EDR_GEMS", "FC", "FILTERED_GEMS"]}
    own = ("ORIGINAL", "PRIMARY", "OTHER")
    if study.protocol.sequence is Sequence.T2STAR_2D:
        return [
            SeriesToWrite("t2star", 5, "Ax T2* GRE", own, stored["mag"], g, tags=common, private=_ge_private(0)[:1])
        ]
    name, derived = "3D Ax SWAN", ("DERIVED", "SECONDARY", "OTHER")
    mip = ("DERIVED", "SECONDARY", "REFORMATTED", "MIN IP")
    top = 3142
    scale = {**common, "LargestImagePixelValue": top, "SmallestImagePixelValue": -top}
    phase = signed_phase(-images.phase, top)
    return [
        SeriesToWrite("swan", 7, name, own, stored["swi"], g, tags=common, private=_ge_private(0)),
        SeriesToWrite(
            "filtpha", 700, f"FILT_PHA: {name}", derived, phase, g, bits=16, tags=scale, private=_ge_private(1)
        ),
        SeriesToWrite("minip", 701, "MPR Ob_Ax_I -> S_Min IP", mip, stored["mip"], low, tags=common),
    ]


def _united_imaging(study: SimulatedStudy, packing: Packing) -> list[SeriesToWrite]:
    """Magnitude, phase scaled over its own smallest…largest value, SWI and minimum projection."""
    images, stored = study.images, _parts(study, packing)
    g, low = images.geometry, mip_geometry(images)
    common = {"Manufacturer": "UIH", "ManufacturerModelName": "uMR 790", "SoftwareVersions": "V10"}
    m = ("ORIGINAL", "PRIMARY", "M")
    if study.protocol.sequence is Sequence.T2STAR_2D:
        return [SeriesToWrite("t2star", 5, "gre_t2star_tra", m, stored["mag"], g, tags=common)]
    phase = np.asarray(np.round((images.phase + np.pi) / (2 * np.pi) * 4095), dtype=np.uint16)
    scale = {**common, "SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095}
    return [
        SeriesToWrite("mag", 301, "swi_tra_MAG", m, stored["mag"], g, tags=common),
        SeriesToWrite("pha", 302, "swi_tra_PHA", ("ORIGINAL", "PRIMARY", "P"), phase, g, tags=scale),
        SeriesToWrite("swi", 303, "swi_tra_SWI", ("DERIVED", "PRIMARY", "SWI"), stored["swi"], g, tags=common),
        SeriesToWrite("mip", 304, "swi_tra_mIP", ("DERIVED", "PRIMARY", "MINIP"), stored["mip"], low, tags=common),
    ]


_CLASSIC = {Vendor.SIEMENS: _siemens, Vendor.GE: _ge, Vendor.UNITED_IMAGING: _united_imaging}


def write_dicom(
    study: SimulatedStudy, identity: StudyIdentity, folder: Path, packing: Packing = Packing()
) -> list[Path]:
    """Write all series of a study as its protocol's vendor would.

    Returns
    -------
    list of Path
        Every file written, in order.
    """
    vendor = study.protocol.vendor
    if vendor is Vendor.PHILIPS:
        from .enhanced import write_philips

        return write_philips(study, identity, folder, packing.white_level, compress=packing.compress)
    slice_mm = study.images.geometry.spacing[2]
    written = []
    for stack in _CLASSIC[vendor](study, packing):
        thickness = slice_mm * (study.images.mip_slices if "mip" in stack.name or stack.name == "minip" else 1)
        written += write_stack(stack, identity, study.protocol, folder, slice_mm=thickness, compress=packing.compress)
    return written
