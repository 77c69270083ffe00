"""What is each series taken for, and which are chosen?"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.data import get_testdata_file

from pipeline.errors import InputError
from pipeline.read.pairing import SeriesSelection
from pipeline.read.study import Series, SeriesRole, Study, find_files, read_studies, select_series
from tests.dicom_factory import Part, Patient, affine, classic, enhanced, siemens_swi, write

SLICES = 3
BLANK = np.zeros((SLICES, 8, 8), dtype=np.uint16)
CASES = json.loads((Path(__file__).parents[1] / "data" / "swi_cases.json").read_text())["cases"]
NUMBERS = ("swi", "phase", "magnitude", "mip")


def images(case: dict[str, Any], spec: dict[str, Any]) -> list[Dataset]:
    """Headers of one series of a worked case."""
    tags = dict(spec["tags"])
    number, description, image_type = (tags.pop(k) for k in ("SeriesNumber", "SeriesDescription", "ImageType"))
    patient = Patient(seed=case["name"], vendor=tags.pop("Manufacturer"), model=tags.pop("ManufacturerModelName"))
    common: dict[str, Any] = {"patient": patient, "series_number": number, "description": description}
    tags.pop("BitsStored", None)
    tags.pop("PixelRepresentation", None)
    if "frames" in spec:
        tags.pop("SOPClassUID")
        frames = spec["frames"]
        slope, intercept = frames["real_world"]
        parts = [
            Part(BLANK, frame_type=kind, echo_time=echo, real_world=(slope, intercept, "mrad"))
            for kind, echo in product(frames["types"], frames["echo_times"])
        ]
        return [enhanced(parts, image_type=image_type, tags=tags, **common)]
    datasets = []
    varied = spec.get("vary", {})
    for values in product(*varied.values()):
        own_type, own_tags = list(image_type), {"SequenceName": None, "EchoTime": None, **tags}
        for field, value in zip(varied, values, strict=True):
            if field == "ImageType[2]":
                own_type[2] = value
            else:
                own_tags[field] = value
        datasets += classic(BLANK, image_type=own_type, tags=own_tags, **common)
    for n, ds in enumerate(datasets, start=1):
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID[:50]}.{n}"
        ds.InstanceNumber = n
    return datasets


def study_of(datasets: list[Dataset], folder: Path) -> Study:
    studies, unreadable = read_studies(write(datasets, folder, names="{series}-{n}.dcm"))
    assert not unreadable
    assert len(studies) == 1
    return studies[0]


def numbers(chosen: SeriesSelection) -> dict[str, int | None]:
    return {name: s.series_number if (s := getattr(chosen, name)) else None for name in NUMBERS}


def only(study: Study) -> Series:
    assert len(study.series) == 1
    return study.series[0]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_series_of_a_worked_case_is_taken_for_what_it_is(case: dict[str, Any], tmp_path: Path) -> None:
    study = study_of([ds for spec in case["series"] for ds in images(case, spec)], tmp_path)
    expected = {spec["tags"]["SeriesNumber"]: spec["role"] for spec in case["series"]}
    assert {series.series_number: str(series.role) for series in study.series} == expected
    assert numbers(select_series(study)) == case["pick"]
    assert all(series.why and series.rule for series in study.series)


def test_magnitude_and_phase_in_one_series_are_told_apart(tmp_path: Path) -> None:
    case = next(case for case in CASES if case["name"] == "philips-classic-swip-delrec")
    study = study_of([ds for spec in case["series"] for ds in images(case, spec)], tmp_path)
    chosen = select_series(study)
    assert chosen.swi is not None
    assert chosen.phase is not None
    assert chosen.magnitude is not None
    assert {frame.facts.get("value3") for _, frame in chosen.swi.frames} == {("SW_M_FFE",)}
    assert {frame.facts.get("value3") for _, frame in chosen.phase.frames} == {("SW_P_FFE",)}
    assert chosen.magnitude.echo_time_ms == chosen.swi.echo_time_ms
    assert len(chosen.magnitude.frames) == SLICES


def test_the_frames_of_an_enhanced_object_are_told_apart(tmp_path: Path) -> None:
    parts = [
        Part(BLANK, ("ORIGINAL", "PRIMARY", kind, "NONE"), component, echo)
        for (kind, component), echo in product((("M", "MAGNITUDE"), ("P", "PHASE")), (10.0, 20.0))
    ]
    tags = {"PulseSequenceName": "*swi3d2r", "ComplexImageComponent": "MIXED"}
    study = study_of([enhanced(parts, tags=tags)], tmp_path)
    assert only(study).role == SeriesRole.MIXED_COMPLEX
    chosen = select_series(study)
    assert chosen.phase is not None
    assert chosen.magnitude is not None
    assert chosen.phase.echo_time_ms == chosen.magnitude.echo_time_ms == 20.0
    assert [frame.number for _, frame in chosen.phase.frames] == [10, 11, 12]


@pytest.mark.parametrize(
    ("vendor", "description", "image_type", "tags", "role"),
    [
        ("", "", "ORIGINAL PRIMARY SWI NONE", {}, SeriesRole.SWI),
        ("", "", "DERIVED PRIMARY SWI MINIMUM", {}, SeriesRole.MIP),
        ("SIEMENS", "", "ORIGINAL PRIMARY M SWI DIS3D NORM FM5_1 FIL MFSPLIT", {}, SeriesRole.SWI),
        ("SIEMENS", "", "DERIVED PRIMARY MNIP DIS3D NORM", {"SequenceName": "*swi3d1r"}, SeriesRole.MIP),
        ("SIEMENS", "", "ORIGINAL PRIMARY P DIS3D MFSPLIT", {"SequenceName": "*swiW3d1r"}, SeriesRole.PHASE),
        ("SIEMENS", "SWI", "DERIVED SECONDARY MPR CSA\u00a0MPR M SWI NORM", {}, SeriesRole.OTHER),
        ("SIEMENS", "SWI_MPR", "DERIVED SECONDARY CSA\u00a0MIP SWI", {}, SeriesRole.OTHER),
        ("GE MEDICAL SYSTEMS", "OAx SWAN Out of Phase", "ORIGINAL PRIMARY OTHER", {"(0043,102F)": 0}, SeriesRole.SWI),
        ("GE MEDICAL SYSTEMS", "", "ORIGINAL PRIMARY OTHER", {"(0043,102F)": 0, "(0019,109C)": "swan"}, SeriesRole.SWI),
        ("GE MEDICAL SYSTEMS", "Ax SWAN", "ORIGINAL PRIMARY OTHER", {"(0043,102F)": 2}, SeriesRole.OTHER),
        ("GE MEDICAL SYSTEMS", "FILT_PHA: Ax SWAN", "DERIVED SECONDARY OTHER", {}, SeriesRole.PHASE),
        ("UIH", "gre_swi_3d", "ORIGINAL PRIMARY PHASE NONE", {}, SeriesRole.PHASE),
        ("UIH", "gre_swi_3d", "ORIGINAL PRIMARY M NONE", {}, SeriesRole.MAGNITUDE),
        ("Hitachi Medical Corporation", "BSI", "ORIGINAL PRIMARY PHASE\u00a0MAP", {}, SeriesRole.PHASE),
        ("Hitachi Medical Corporation", "BSI", "ORIGINAL PRIMARY OTHER", {}, SeriesRole.MAGNITUDE),
        ("CANON_MEC", "FSBB 3D", "ORIGINAL PRIMARY OTHER", {}, SeriesRole.SWI),
        ("CANON_MEC", "FSBB 3D", "ORIGINAL PRIMARY M", {}, SeriesRole.MAGNITUDE),
        ("CANON_MEC", "FSBB 3D", "ORIGINAL PRIMARY P", {}, SeriesRole.PHASE),
        ("CANON_MEC", "FSBB MinIP", "DERIVED SECONDARY OTHER", {}, SeriesRole.MIP),
        ("UIH", "swi_tra_SWI", "DERIVED PRIMARY OTHER", {}, SeriesRole.SWI),
        ("UIH", "swi_tra_SWI", "DERIVED PRIMARY MPR", {}, SeriesRole.OTHER),
        ("UIH", "swi_tra_PHA", "DERIVED PRIMARY OTHER", {}, SeriesRole.PHASE),
        ("UIH", "swi_tra_mIP", "DERIVED PRIMARY MINIP", {}, SeriesRole.MIP),
        ("FUJIFILM Healthcare", "BSI", "DERIVED PRIMARY OTHER", {}, SeriesRole.MAGNITUDE),
        ("FUJIFILM Healthcare", "BSI", "DERIVED PRIMARY AVERAGE", {}, SeriesRole.SWI),
        ("SIEMENS", "SWI", "DERIVED PRIMARY OTHER", {}, SeriesRole.OTHER),
        ("Philips", "SWIp", "ORIGINAL PRIMARY M_FFE M FFE", {}, SeriesRole.MAGNITUDE),
        ("Philips", "sSWIp mIP", "DERIVED PRIMARY PROJECTION\u00a0IMAGE M FFE", {}, SeriesRole.MIP),
        ("SIEMENS", "SWIFT_zeroTE", "ORIGINAL PRIMARY M ND", {"EchoTime": 0.05}, SeriesRole.OTHER),
        ("Philips", "QSM with real SWI", "ORIGINAL PRIMARY SW_M_FFE M FFE", {}, SeriesRole.SWI),
        ("SIEMENS", "SWI", "ORIGINAL PRIMARY P RETRO", {}, SeriesRole.OTHER),
        ("SIEMENS", "ep2d SWI", "ORIGINAL PRIMARY M SWI", {"ScanningSequence": "EP"}, SeriesRole.OTHER),
        ("SIEMENS", "t2_fl2d_tra_hemo", "ORIGINAL PRIMARY M NORM", {"EchoTime": 20.0}, SeriesRole.OTHER),
        ("GE MEDICAL SYSTEMS", "Ax T2* GRE", "ORIGINAL PRIMARY OTHER", {"EchoTime": 20.0}, SeriesRole.T2STAR),
        ("Philips", "T2W_FFE", "ORIGINAL PRIMARY M_FFE M FFE", {"EchoTime": 23.0}, SeriesRole.T2STAR),
        ("Philips", "T2_FFE", "ORIGINAL PRIMARY M_FFE M FFE", {"EchoTime": 4.6}, SeriesRole.OTHER),
        ("UIH", "gre_t2star_tra", "ORIGINAL PRIMARY M", {"EchoTime": 20.0}, SeriesRole.T2STAR),
        ("SIEMENS", "gre_t2star_map", "ORIGINAL PRIMARY M", {"EchoTime": 20.0}, SeriesRole.OTHER),
        ("Philips", "T2W_TSE", "ORIGINAL PRIMARY M_SE M SE", {"EchoTime": 80.0}, SeriesRole.OTHER),
        (
            "SIEMENS",
            "T2* axial",
            "ORIGINAL PRIMARY M NORM",
            {"EchoTime": 20.0, "MRAcquisitionType": "2D"},
            SeriesRole.T2STAR,
        ),
        ("SIEMENS", "SWI", "ORIGINAL PRIMARY M SWI", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, SeriesRole.OTHER),
        ("SIEMENS", "SWI", "ORIGINAL PRIMARY OTHER", {}, SeriesRole.OTHER),
    ],
)  # fmt: skip
def test_labels_of_other_makers(
    vendor: str, description: str, image_type: str, tags: dict[str, Any], role: SeriesRole, tmp_path: Path
) -> None:
    kinds = [value.replace("\u00a0", " ") for value in image_type.split(" ")]
    datasets = classic(BLANK, patient=Patient(vendor=vendor), description=description, image_type=kinds, tags=tags)
    assert only(study_of(datasets, tmp_path)).role == role


def test_siemens_private_image_type_is_read_before_a_generic_public_one(tmp_path: Path) -> None:
    datasets = classic(
        BLANK, description="", image_type=["ORIGINAL", "PRIMARY", "OTHER", "NONE"],
        tags={"(0021,1175)": ["ORIGINAL", "PRIMARY", "M", "SWI", "NORM"]},
    )  # fmt: skip
    assert only(study_of(datasets, tmp_path)).role == SeriesRole.SWI
    implicit = write(datasets, tmp_path / "implicit", "implicit")
    assert only(read_studies(implicit)[0][0]).role == SeriesRole.SWI


@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit"])
def test_siemens_private_frame_type_of_an_enhanced_object_is_read(transfer_syntax: str, tmp_path: Path) -> None:
    ds = enhanced([Part(BLANK, ["ORIGINAL", "PRIMARY", "OTHER", "NONE"])], description="")
    for groups in ds.PerFrameFunctionalGroupsSequence:
        detail = Dataset()
        detail.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
        detail.add_new(0x00211175, "CS", ["ORIGINAL", "PRIMARY", "M", "SWI", "NORM"])
        groups.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
        groups.add_new(0x002111FE, "SQ", [detail])
    studies, _ = read_studies(write(ds, tmp_path, transfer_syntax))
    assert only(studies[0]).role == SeriesRole.SWI


def test_a_localiser_in_the_series_is_set_apart(tmp_path: Path) -> None:
    localiser = classic(BLANK, image_type=["ORIGINAL", "PRIMARY", "LOCALIZER"])[0]
    localiser.SOPInstanceUID += ".9"
    localiser.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    chosen = select_series(study_of([*classic(BLANK), localiser], tmp_path))
    assert chosen.swi is not None
    assert len(chosen.swi.frames) == SLICES


def test_without_names_phase_and_magnitude_are_known_by_their_swi(tmp_path: Path) -> None:
    volume = np.zeros((9, 8, 8), dtype=np.uint16)
    datasets = siemens_swi(volume, np.zeros((9, 8, 8)), volume)
    for ds in datasets:
        ds.SeriesDescription = ds.ProtocolName = ds.SequenceName = ""
    study = study_of(datasets, tmp_path)
    assert {series.series_number: series.role for series in study.series} == {
        8: SeriesRole.MAGNITUDE, 9: SeriesRole.PHASE, 10: SeriesRole.MIP, 11: SeriesRole.SWI,
    }  # fmt: skip
    assert not any(series.needs_confirmation for series in study.series)
    lonely = [ds for ds in datasets if ds.SeriesNumber in (8, 9)]
    assert {series.role for series in study_of(lonely, tmp_path / "lonely").series} == {SeriesRole.OTHER}


def test_what_rests_on_a_name_alone_needs_confirmation(tmp_path: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "M", "ND"]
    named = only(study_of(classic(BLANK, description="SWI_3mm", image_type=kind), tmp_path / "a"))
    marked = only(
        study_of(classic(BLANK, description="x", image_type=kind, tags={"SequenceName": "*swi3d1r"}), tmp_path / "b")
    )
    assert (named.role, named.needs_confirmation) == (SeriesRole.MAGNITUDE, True)
    assert (marked.role, marked.needs_confirmation) == (SeriesRole.MAGNITUDE, False)


def repeated(numbers_: tuple[int, int, int], time: str, seed: str = "study", **options: Any) -> list[Dataset]:
    """Magnitude, phase and SWI of one acquisition, with series numbers of their own."""
    datasets = siemens_swi(BLANK, np.zeros(BLANK.shape), BLANK, patient=Patient(seed=seed), **options)
    renumber = dict(zip((8, 9, 11), numbers_, strict=True))
    for ds in datasets:
        ds.SeriesNumber = renumber[ds.SeriesNumber]
        ds.SeriesInstanceUID += f".{ds.SeriesNumber}"
        ds.SOPInstanceUID += f".{ds.SeriesNumber}"
        ds.AcquisitionTime = time
    return datasets


def test_of_two_acquisitions_the_last_complete_one_is_taken_and_never_mixed(tmp_path: Path) -> None:
    first, second = repeated((8, 9, 11), "100000"), repeated((12, 13, 15), "101500")
    assert numbers(select_series(study_of(first + second, tmp_path / "both"))) == {
        "swi": 15,
        "phase": 13,
        "magnitude": 12,
        "mip": None,
    }
    aborted = [ds for ds in second if ds.InstanceNumber != 2 or ds.SeriesNumber != 15]
    chosen = select_series(study_of(first + aborted, tmp_path / "aborted"))
    assert numbers(chosen) == {"swi": 11, "phase": 9, "magnitude": 8, "mip": None}
    assert "series 15" in chosen.why


def test_phase_of_another_grid_or_frame_of_reference_is_not_taken(tmp_path: Path) -> None:
    swi = classic(BLANK, series_number=3)
    kind = ["ORIGINAL", "PRIMARY", "P", "ND"]
    tags = {"SequenceName": "*swi3d1r"}
    shifted = classic(
        BLANK, series_number=2, description="Pha", image_type=kind, tags=tags, matrix=affine(origin=(0, 0, 0))
    )
    chosen = select_series(study_of(swi + shifted, tmp_path / "shifted"))
    assert chosen.swi is not None
    assert chosen.phase is None
    assert "another position" in chosen.why
    elsewhere = classic(
        BLANK, series_number=2, description="Pha", image_type=kind, tags={**tags, "FrameOfReferenceUID": "1.2.3"}
    )
    chosen = select_series(study_of(swi + elsewhere, tmp_path / "elsewhere"))
    assert chosen.phase is None
    assert "frame of reference" in chosen.why


def test_a_projection_is_never_analysed_and_the_reason_is_given(tmp_path: Path) -> None:
    kind = ["DERIVED", "PRIMARY", "MNIP", "NORM"]
    study = study_of(
        classic(BLANK, description="mIP_Images(SW)", image_type=kind, tags={"SequenceName": "*swi3d1r"}), tmp_path
    )
    chosen = select_series(study)
    assert only(study).role == SeriesRole.MIP
    assert "never analysed" in only(study).why
    assert not chosen.analysable
    assert "projection" in chosen.why


def test_two_acquisitions_in_one_series_are_split(tmp_path: Path) -> None:
    one, two = (classic(BLANK, tags={"AcquisitionNumber": n}) for n in (1, 2))
    for ds in two:
        ds.SOPInstanceUID += ".2"
    series = only(study_of(one + two, tmp_path))
    assert series.role == SeriesRole.SWI
    assert [len(part.frames) for part in series.parts] == [SLICES, SLICES]


def test_result_objects_of_the_study_are_other(tmp_path: Path) -> None:
    path = Path(get_testdata_file("reportsi.dcm"))
    studies, unreadable = read_studies([path])
    assert not unreadable
    assert [series.role for series in studies[0].series] == [SeriesRole.OTHER]


def test_files_that_are_not_dicom_are_named_and_left_aside(tmp_path: Path) -> None:
    good = write(classic(BLANK), tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(good[0].read_bytes()[:300])
    (tmp_path / "zip.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)
    studies, unreadable = read_studies(find_files(tmp_path))
    assert {bad.path.name for bad in unreadable} == {"notes.txt", "empty", "cut.dcm", "zip.dcm"}
    assert all(bad.why for bad in unreadable)
    assert len(only(studies[0]).instances) == SLICES


def test_a_dicomdir_is_an_index_not_an_image() -> None:
    assert read_studies([Path(get_testdata_file("DICOMDIR"))]) == ([], [])


def test_a_deflated_bomb_is_refused_without_being_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(classic(np.zeros((1, 512, 512), dtype=np.uint16)), tmp_path, "deflated")
    assert not read_studies(paths)[1]
    monkeypatch.setattr("pipeline.read.headers.MAX_INFLATED_BYTES", 100_000)
    assert "inflates" in read_studies(paths)[1][0].why


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    ds = classic(BLANK)[0]
    dcmwrite(tmp_path / "bare", ds, implicit_vr=True, little_endian=True)
    studies, unreadable = read_studies([tmp_path / "bare"])
    assert not unreadable
    assert only(studies[0]).role == SeriesRole.SWI


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    paths = write(classic(BLANK), tmp_path / "a") + write(classic(BLANK), tmp_path / "b")
    assert len(only(read_studies(paths)[0][0]).instances) == SLICES


def test_a_folder_without_files_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        find_files(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_files(tmp_path / "missing")


def test_files_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    paths = write(classic(BLANK), tmp_path / "a" / "b")
    assert find_files(tmp_path) == paths
