"""Which series does each vendor write, under which names and scales?

Names, ImageType values, series order and phase scales follow what was seen in real headers; what was not seen is written plainly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.geometry import Geometry
from training.simulation.protocol import Sequence, Vendor
from training.simulation.study import Images, SimulatedStudy
from training.simulation.writers.classic import Stack, write_stack
from training.simulation.writers.identity import StudyIdentity
from training.simulation.writers.scaling import WHITE_LEVEL, intensity, siemens_phase, signed_phase


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


def mip_geometry(images: Images) -> Geometry:
    """Geometry of the minimum projections: as many slices fewer, half a slab further in."""
    geometry = images.geometry
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_lps([0, 0, (images.mip_slices - 1) / 2])
    return Geometry((images.mip.shape[0], geometry.shape[1], geometry.shape[2]), affine)


def _siemens(study: SimulatedStudy, packing: Packing) -> list[Stack]:
    images, p = study.images, study.protocol
    common = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Prisma", "SoftwareVersions": "syngo MR E11"}
    if p.sequence is Sequence.T2STAR_2D:
        tags = {**common, "SequenceName": "*fl2d1", "ProtocolName": "t2_fl2d_tra_hemo"}
        stored = intensity(images.magnitude, packing.white_level)
        return [
            Stack(
                "t2star",
                5,
                "t2_fl2d_tra_hemo",
                ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"),
                stored,
                images.geometry,
                tags=tags,
            )
        ]
    tags = {**common, "SequenceName": "*swi3d1r", "ProtocolName": "t2_swi3d_tra_p2"}
    g = images.geometry
    level = packing.white_level
    return [
        Stack("mag", 8, "Mag_Images", ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"), intensity(images.magnitude, level), g, tags=tags),
        Stack(
            "pha", 9, "Pha_Images", ("ORIGINAL", "PRIMARY", "P", "DIS2D"), siemens_phase(images.phase, packing.phase_step), g, 2.0, -4096.0, tags=tags
        ),
        Stack("mip", 10, "mIP_Images(SW)", ("DERIVED", "PRIMARY", "MNIP", "NORM", "DIS2D"), intensity(images.mip, level), mip_geometry(images), tags=tags),
        Stack("swi", 11, "SWI_Images", ("ORIGINAL", "PRIMARY", "M", "SWI", "NORM", "DIS2D"), intensity(images.swi, level), g, tags=tags),
    ]  # fmt: skip


def _ge(study: SimulatedStudy, packing: Packing) -> list[Stack]:
    """SWAN: the weighted image, its filtered phase with the opposite sign, and a minimum projection; no magnitude."""
    images = study.images
    common = {
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "SIGNA Pioneer",
        "SoftwareVersions": "29\\LX\\MR",
    }
    common["ScanOptions"] = ["EDR_GEMS", "FC", "FILTERED_GEMS"]  # type: ignore[assignment]
    g, level, name = images.geometry, packing.white_level, "3D Ax SWAN"

    def kind(number: int) -> tuple[tuple[int, str, int, str, int], ...]:
        return ((0x0043, "GEMS_PARM_01", 0x2F, "SS", number),)

    if study.protocol.sequence is Sequence.T2STAR_2D:
        stored = intensity(images.magnitude, level)
        return [
            Stack("t2star", 5, "Ax T2* GRE", ("ORIGINAL", "PRIMARY", "OTHER"), stored, g, tags=common, private=kind(0))
        ]
    mip = ("DERIVED", "SECONDARY", "REFORMATTED", "MIN IP")
    top = 3142
    return [
        Stack("swan", 7, name, ("ORIGINAL", "PRIMARY", "OTHER"), intensity(images.swi, level), g, tags=common, private=kind(0)),
        Stack(
            "filtpha", 700, f"FILT_PHA: {name}", ("DERIVED", "SECONDARY", "OTHER"), signed_phase(-images.phase, top), g, bits=16,
            tags={**common, "LargestImagePixelValue": top, "SmallestImagePixelValue": -top}, private=kind(1),
        ),
        Stack("minip", 701, "MPR Ob_Ax_I -> S_Min IP", mip, intensity(images.mip, level), mip_geometry(images), tags=common),
    ]  # fmt: skip


def _united_imaging(study: SimulatedStudy, packing: Packing) -> list[Stack]:
    """Magnitude, phase scaled over its own smallest…largest value, SWI and minimum projection."""
    images = study.images
    common = {"Manufacturer": "UIH", "ManufacturerModelName": "uMR 790", "SoftwareVersions": "V10"}
    g, level = images.geometry, packing.white_level
    if study.protocol.sequence is Sequence.T2STAR_2D:
        stored = intensity(images.magnitude, level)
        return [Stack("t2star", 5, "gre_t2star_tra", ("ORIGINAL", "PRIMARY", "M"), stored, g, tags=common)]
    phase = np.asarray(np.round((images.phase + np.pi) / (2 * np.pi) * 4095), dtype=np.uint16)
    tags = {**common, "SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095}
    return [
        Stack("mag", 301, "swi_tra_MAG", ("ORIGINAL", "PRIMARY", "M"), intensity(images.magnitude, level), g, tags=common),
        Stack("pha", 302, "swi_tra_PHA", ("ORIGINAL", "PRIMARY", "P"), phase, g, tags=tags),
        Stack("swi", 303, "swi_tra_SWI", ("DERIVED", "PRIMARY", "SWI"), intensity(images.swi, level), g, tags=common),
        Stack("mip", 304, "swi_tra_mIP", ("DERIVED", "PRIMARY", "MINIP"), intensity(images.mip, level), mip_geometry(images), tags=common),
    ]  # fmt: skip


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
        from training.simulation.writers.enhanced import write_philips

        return write_philips(study, identity, folder, packing.white_level)
    slice_mm = study.images.geometry.spacing[2]
    written = []
    for stack in _CLASSIC[vendor](study, packing):
        thickness = slice_mm * (study.images.mip_slices if "mip" in stack.name or stack.name == "minip" else 1)
        written += write_stack(stack, identity, study.protocol, folder, slice_mm=thickness, compress=packing.compress)
    return written
