"""Of several images of a kind, the one is chosen that belongs to the acquisition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from pipeline.read.pairing import Layout, SeriesSelection, select_series
from pipeline.read.study import read_studies
from tests.dicom_factory import Patient, affine, classic, write

SWI = ("ORIGINAL", "PRIMARY", "M", "SWI", "NORM")
PHASE = ("ORIGINAL", "PRIMARY", "P", "ND")
MAGNITUDE = ("ORIGINAL", "PRIMARY", "M", "ND")
TAGS = {"SequenceName": "*swi3d1r"}


def stack(
    number: int, image_type: tuple[str, ...], *, slices: int = 4, tags: Any = None, **options: Any
) -> list[Dataset]:
    description = options.pop("description", f"series {number}")
    blank = np.zeros((slices, 8, 8), dtype=np.uint16)
    return classic(
        blank,
        series_number=number,
        image_type=image_type,
        description=description,
        tags={**TAGS, **(tags or {})},
        **options,
    )


def chosen(folder: Path, *series: list[Dataset]) -> SeriesSelection:
    studies, _ = read_studies(write([ds for one in series for ds in one], folder, names="{series}-{n}.dcm"))
    return select_series(studies[0])


def numbers(found: SeriesSelection) -> tuple[int | None, ...]:
    return tuple(s.series_number if s else None for s in (found.swi, found.phase, found.magnitude, found.mip))


def test_the_echo_that_suits_the_field_strength_is_taken(tmp_path: Path) -> None:
    echoes = [(PHASE, 1), (MAGNITUDE, 2)]
    for field, best in ((1.5, 40.0), (3.0, 20.0), (7.0, 8.0)):
        patient = Patient(seed=str(field), field_strength=field)
        series = [
            stack(number + 10 * n, kind, patient=patient, tags={"EchoTime": time})
            for kind, number in echoes
            for n, time in enumerate((8.0, 20.0, 40.0))
        ]
        found = chosen(tmp_path / str(field), *series)
        assert found.swi is None
        assert found.phase is not None
        assert found.magnitude is not None
        assert found.phase.echo_time_ms == found.magnitude.echo_time_ms == best


def test_the_echo_combined_swi_is_preferred(tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(3, (*SWI[:4], "MEAN")), stack(4, SWI), stack(5, SWI))
    assert numbers(found)[0] == 3
    assert "series 5" in found.why


def test_of_equal_series_the_last_is_taken_and_the_other_named(tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(3, SWI), stack(7, SWI))
    assert numbers(found)[0] == 7
    assert "series 3" in found.why


def test_a_series_broken_off_is_not_taken_for_the_last(tmp_path: Path) -> None:
    assert numbers(chosen(tmp_path, stack(3, SWI, slices=20), stack(7, SWI, slices=6)))[0] == 3


def test_the_normalised_magnitude_is_preferred(tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(5, SWI), stack(4, MAGNITUDE), stack(2, ("ORIGINAL", "PRIMARY", "M", "NORM")))
    assert numbers(found) == (5, None, 2, None)


def test_phase_acquired_at_another_time_is_not_taken(tmp_path: Path) -> None:
    later = stack(4, PHASE, tags={"AcquisitionTime": "104500"})
    found = chosen(tmp_path, stack(5, SWI), later)
    assert found.phase is None
    assert "1500 s apart" in found.why


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slices": 5}, "5 slices, not 4"),
        ({"matrix": affine(spacing=(0.6, 0.6, 2.0))}, "another pixel spacing"),
        ({"matrix": affine(spacing=(0.5, 0.5, 2.5))}, "another position"),
        ({"matrix": affine(rotation=[[0, 1, 0], [1, 0, 0], [0, 0, 1]])}, "another orientation"),
    ],
)
def test_why_a_phase_was_not_taken_is_told(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(5, SWI), stack(4, PHASE, **change))
    assert found.phase is None
    assert reason in found.why


def test_without_frame_of_reference_the_grid_decides(tmp_path: Path) -> None:
    patient = Patient(frame_of_reference=False)
    mip = stack(6, ("DERIVED", "PRIMARY", "MNIP"), patient=patient)
    found = chosen(tmp_path, stack(5, SWI, patient=patient), stack(4, PHASE, patient=patient), mip)
    assert numbers(found) == (5, 4, None, 6)


def test_phase_alone_is_reported_but_cannot_be_analysed(tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(4, PHASE))
    assert numbers(found) == (None, 4, None, None)
    assert not found.analysable
    assert "has no magnitude" in found.why


def test_a_t2star_series_is_offered_to_profiles_that_accept_one(tmp_path: Path) -> None:
    found = chosen(tmp_path, stack(4, MAGNITUDE, description="T2* axial", tags={"SequenceName": "*fl2d1"}))
    assert not found.analysable
    assert found.t2star is not None
    assert "T2*" in found.why


def test_slices_in_any_order_have_the_same_layout(tmp_path: Path) -> None:
    layouts = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        studies, _ = read_studies(write(stack(5, SWI, order=order), tmp_path / str(order[0])))
        layouts.append(Layout.of(studies[0].series[0]))
    assert layouts[0] == layouts[1]
    assert layouts[0].even
