"""Whoever made the scanner, and in whatever form and encoding it comes: the same images give the same lesions.

The images are those of the bundled simulated study (some of its slices). Each maker's names, tags and phase scale, each
kind of object and each transfer syntax are combined.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames

from pipeline.detect import Detection, analyse
from pipeline.geometry import Acquisition
from pipeline.read.pairing import SeriesSelection, select_series
from pipeline.read.study import read_studies
from pipeline.read.volume import read_acquisition
from tests.classical import quick_profile
from tests.dicom_factory import TRANSFER_SYNTAXES, Part, Patient, classic, encode, enhanced, siemens_phase
from tests.pipeline import phantom

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_decoders")]

SLICES = slice(18, 27)
FORMS = ("classic", "enhanced", "legacy")
VENDORS = ("siemens", "ge", "philips", "uih")
NEAR_MM = 0.5


@cache
def source() -> Acquisition:
    return phantom.demo()


def stored(kind: str, vendor: str = "siemens") -> NDArray[Any]:
    """Stored values of the SWI or magnitude, or of the phase as a maker scales it."""
    acquisition = source()
    if kind == "phase":
        assert acquisition.phase is not None
        radians = acquisition.phase.array[SLICES]
        return {
            "siemens": siemens_phase,
            "ge": lambda x: np.rint(-x * 3142 / np.pi).astype(np.int16),
            "philips": lambda x: np.rint((x * 1000 + 3142) / 1.53455).astype(np.uint16),
            "uih": lambda x: np.rint((x / np.pi + 1) / 2 * 4095).astype(np.uint16),
        }[vendor](radians)
    volume = acquisition.swi if kind == "swi" else acquisition.magnitude
    assert volume is not None
    return volume.array[SLICES].astype(np.uint16)


class Named:
    """One series of a maker: its names and tags."""

    def __init__(self, kind: str, number: int, description: str, image_type: str, **more: Any) -> None:
        self.kind, self.number, self.description = kind, number, description
        self.image_type = image_type.split("\\")
        self.tags: dict[str, Any] = more.pop("tags", {})
        self.scale = (more.pop("slope", 1.0), more.pop("intercept", 0.0))


def series_of(vendor: str) -> tuple[Patient, list[Named]]:
    """What each maker writes, as seen in real headers."""
    if vendor == "siemens":
        tags = {"SequenceName": "*swi3d1r"}
        return Patient(vendor="SIEMENS"), [
            Named("magnitude", 8, "Mag_Images", "ORIGINAL\\PRIMARY\\M\\NORM\\DIS2D", tags=tags),
            Named("phase", 9, "Pha_Images", "ORIGINAL\\PRIMARY\\P\\DIS2D", tags=tags, slope=2.0, intercept=-4096.0),
            Named("swi", 11, "SWI_Images", "ORIGINAL\\PRIMARY\\M\\SWI\\NORM\\DIS2D", tags=tags),
        ]
    if vendor == "ge":
        swan = {"(0043,102F)": 0, "(0019,109C)": "swan"}
        filtered = {"(0043,102F)": 1, "(0019,109C)": "swan", "LargestImagePixelValue": 3142}
        return Patient(vendor="GE MEDICAL SYSTEMS"), [
            Named("swi", 7, "3D Ax SWAN", "ORIGINAL\\PRIMARY\\OTHER", tags=swan),
            Named("phase", 700, "FILT_PHA: 3D Ax SWAN", "DERIVED\\SECONDARY\\OTHER", tags=filtered),
        ]
    if vendor == "philips":
        return Patient(vendor="Philips Medical Systems"), [
            Named("magnitude", 1002, "DelRec - SWIp SENSE", "ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE"),
            Named("phase", 1003, "SWIp SENSE", "ORIGINAL\\PRIMARY\\SW_P_FFE\\P\\FFE", slope=1.53455, intercept=-3142.0),
            Named("swi", 1001, "SWIp SENSE", "ORIGINAL\\PRIMARY\\SW_M_FFE\\M\\FFE"),
        ]
    tags = {"SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095}
    return Patient(vendor="UIH"), [
        Named("magnitude", 301, "swi_tra_MAG", "ORIGINAL\\PRIMARY\\M"),
        Named("phase", 302, "swi_tra_PHA", "ORIGINAL\\PRIMARY\\P", tags=tags),
        Named("swi", 303, "swi_tra_SWI", "DERIVED\\PRIMARY\\SWI"),
    ]


@cache
def datasets(vendor: str, form: str) -> list[tuple[str, Dataset]]:
    """Every object of a study with the kind of its images, uncompressed."""
    return list(_datasets(vendor, form))


def _datasets(vendor: str, form: str) -> Iterator[tuple[str, Dataset]]:
    patient, named = series_of(vendor)
    affine = source().swi.geometry.affine.copy()
    affine[:3, 3] = source().swi.geometry.to_lps([0, 0, SLICES.start])
    for one in named:
        array = stored(one.kind, vendor)
        common: dict[str, Any] = {"patient": patient, "matrix": affine, "series_number": one.number}
        common |= {"description": one.description, "tags": one.tags}
        slope, intercept = one.scale
        if form == "classic":
            for ds in classic(array, image_type=one.image_type, slope=slope, intercept=intercept, **common):
                yield one.kind, ds
        else:
            part = Part(array, one.image_type, slope=slope, intercept=intercept)
            ds = enhanced([part], image_type=one.image_type, legacy=form == "legacy", **common)
            timing = Dataset()
            timing.RepetitionTime, timing.FlipAngle = 28.0, 15.0
            ds.SharedFunctionalGroupsSequence[0].MRTimingAndRelatedParametersSequence = [timing]
            yield one.kind, ds


_codestreams: dict[tuple[bytes, str], bytes] = {}


def encoded(ds: Dataset, transfer_syntax: str) -> Dataset:
    """`ds` in a transfer syntax; equal frames are compressed once for all makers and forms."""
    if not TRANSFER_SYNTAXES[transfer_syntax].is_encapsulated:
        return encode(ds, transfer_syntax)
    size = ds.Rows * ds.Columns * 2
    frames = [ds.PixelData[at : at + size] for at in range(0, len(ds.PixelData), size)]
    for frame in frames:
        key = (hashlib.sha256(frame + bytes([ds.PixelRepresentation])).digest(), transfer_syntax)
        if key not in _codestreams:
            alone = deepcopy(ds)
            for keyword in ("NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
                alone.pop(keyword, None)
            alone.PixelData = frame
            compressed = encode(alone, transfer_syntax)
            _codestreams[key] = next(generate_frames(compressed.PixelData, number_of_frames=1))
    copy = encode(ds, "explicit")
    keys = ((hashlib.sha256(f + bytes([ds.PixelRepresentation])).digest(), transfer_syntax) for f in frames)
    copy.PixelData = encapsulate([_codestreams[key] for key in keys])
    copy["PixelData"].is_undefined_length = True
    copy.file_meta.TransferSyntaxUID = TRANSFER_SYNTAXES[transfer_syntax]
    return copy


def written(vendor: str, form: str, transfer_syntax: str, folder: Path) -> dict[str, list[Path]]:
    """Write a study; its files by kind."""
    folder.mkdir()
    paths: dict[str, list[Path]] = {}
    for number, (kind, ds) in enumerate(datasets(vendor, form)):
        path = folder / f"{number:04d}.dcm"
        encoded(ds, transfer_syntax).save_as(path, enforce_file_format=True)
        paths.setdefault(kind, []).append(path)
    return paths


def picked(paths: dict[str, list[Path]], *left_out: str) -> SeriesSelection:
    """Read the headers of a study without some kinds of image."""
    (study,), unreadable = read_studies(path for kind in paths if kind not in left_out for path in paths[kind])
    assert not unreadable
    return select_series(study)


_detections: dict[bytes, Detection] = {}


def detected(acquisition: Acquisition) -> Detection:
    """The answer to an acquisition; equal ones are analysed once."""
    volumes = (acquisition.swi, acquisition.phase, acquisition.magnitude)
    digest = hashlib.sha256(np.round(acquisition.swi.geometry.affine, 4).tobytes())
    for volume in volumes:
        digest.update(b"none" if volume is None else volume.array.tobytes())
    key = digest.digest()
    if key not in _detections:
        _detections[key] = analyse(acquisition, quick_profile(), key="matrix")
    return _detections[key]


def places(detection: Detection) -> NDArray[np.float64]:
    return np.array([lesion.centroid_lps_mm for lesion in detection.findings.lesions])


Plain = dict[tuple[str, ...], NDArray[np.float64]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """Lesions of the plainest study (Siemens, one file a slice, uncompressed), by what is left out of it."""
    paths = written("siemens", "classic", "explicit", tmp_path_factory.mktemp("plain") / "study")
    found: Plain = {}
    for left_out in ((), ("phase",), ("magnitude",), ("magnitude", "phase")):
        found[left_out] = places(detected(read_acquisition(picked(paths, *left_out))))
    truth = json.loads((phantom.DEMO / "truth.json").read_text())["lesions"]
    z = [source().swi.geometry.to_lps([0, 0, k])[2] for k in (SLICES.start, SLICES.stop)]
    seen = [np.array(one["centre_lps_mm"]) for one in truth if min(z) + 4 < one["centre_lps_mm"][2] < max(z) - 4]
    assert len(seen) >= 3
    assert all(np.linalg.norm(found[()] - one, axis=1).min() < 1.5 for one in seen)
    return found


@pytest.mark.parametrize(("vendor", "form"), list(product(VENDORS, FORMS)))
def test_every_encoding_of_every_form_of_every_maker_gives_the_same_lesions(
    vendor: str, form: str, plain: Plain, tmp_path: Path
) -> None:
    no_magnitude = () if "magnitude" in {one.kind for one in series_of(vendor)[1]} else ("magnitude",)
    for number, transfer_syntax in enumerate(TRANSFER_SYNTAXES):
        paths = written(vendor, form, transfer_syntax, tmp_path / str(number))
        for no_phase in ((), ("phase",)):
            chosen = picked(paths, *no_phase)
            assert chosen.swi is not None
            assert (chosen.phase is None) == bool(no_phase), chosen.why
            assert (chosen.magnitude is None) == bool(no_magnitude), chosen.why
            acquisition = read_acquisition(chosen)
            np.testing.assert_array_equal(acquisition.swi.array, stored("swi"))
            check_phase(acquisition)
            found, expected = places(detected(acquisition)), plain[no_magnitude + no_phase]
            assert len(found) == len(expected), (transfer_syntax, no_phase)
            assert np.linalg.norm(found[:, None] - expected, axis=-1).min(axis=0).max() < NEAR_MM, transfer_syntax


def check_phase(acquisition: Acquisition) -> None:
    """In radians, paramagnetic positive, whoever scaled it."""
    if acquisition.phase is None:
        return
    assert acquisition.phase_record is not None
    assert acquisition.phase_record.settled_by == "veins"
    expected = source().phase
    assert expected is not None
    assert np.abs(acquisition.phase.array - expected.array[SLICES]).max() < 0.002
