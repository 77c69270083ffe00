"""A click on a slice is the place in the patient that is seen there, and a place is ringed where it is."""

from __future__ import annotations

import json
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from node.web.viewer import LARGEST, MarkedPlace, ViewerSlices, slice_jpeg, viewer_state
from node.web.volumes import VolumeGrid, volumes_view
from pipeline.errors import InputError
from pipeline.findings import Findings
from pipeline.pictures import SLICES, PictureArchive
from tests.node.pictures import NUMBERS, SHAPE, write_pictures
from tests.node.seeded import make_findings

UPRIGHT = {
    "shape": [20, 64, 48],
    "affine": np.diag([1.0, 1.0, 2.0, 1.0]).tolist(),
    "numbers": list(range(20, 0, -1)),
    "views": ["swi"],
    "edges": ["R", "L", "A", "P"],
}


@st.composite
def grids(draw: st.DrawFn) -> ViewerSlices:
    """Slices of any size, spacing, tilt and place, numbered up or down."""
    shape = [draw(st.integers(2, 40)), draw(st.integers(16, 512)), draw(st.integers(16, 512))]
    spacing = [draw(st.floats(0.3, 1.5)), draw(st.floats(0.3, 1.5)), draw(st.floats(0.5, 5))]
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True)
    affine[:3, :3] = turn.as_matrix() * np.array(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    numbers = list(range(1, shape[0] + 1))[:: draw(st.sampled_from([1, -1]))]
    return ViewerSlices.of(
        {"shape": shape, "affine": affine.tolist(), "numbers": numbers, "views": ["swi"], "edges": ["R", "L", "A", "P"]}
    )


@given(slices=grids(), data=st.data())
def test_what_is_clicked_is_ringed_where_it_was_clicked(slices: ViewerSlices, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(slices.order) - 1))
    width, height = slices.size
    x, y = data.draw(st.floats(1, width - 1)), data.draw(st.floats(1, height - 1))
    place = slices.place(position, x, y)
    assert slices.position_of(place) == position
    (ring,) = slices.rings(position, [MarkedPlace(place, 3.0, "A1", "definite")])
    assert (ring.x, ring.y) == pytest.approx((x, y), abs=2)  # the page has whole pixels, the place two decimals


@given(slices=grids(), data=st.data())
def test_a_row_and_a_column_are_those_of_the_image(slices: ViewerSlices, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(slices.order) - 1))
    _, rows, columns = slices.geometry.shape
    row, column = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    i, j, k = slices.geometry.to_ijk(slices.voxel(position, row, column))
    assert (i + 1, j + 1) == pytest.approx((column, row), abs=0.05)
    assert slices.numbers[round(k)] == sorted(slices.numbers)[position]


@given(slices=grids())
def test_a_slice_is_shown_true_to_scale(slices: ViewerSlices) -> None:
    _, rows, columns = slices.geometry.shape
    di, dj, _ = slices.geometry.spacing
    width, height = slices.size
    assert max(width, height) == LARGEST
    assert width == pytest.approx(columns * di * slices.scale, abs=0.51)
    assert height == pytest.approx(rows * dj * slices.scale, abs=0.51)


@pytest.mark.parametrize(("x", "y"), [(-1, 5), (5, -1), (481, 5), (5, 641), (math.inf, 5)])
def test_beside_the_picture_there_is_no_place(x: float, y: float) -> None:
    with pytest.raises(InputError, match="64 rows and 48 columns"):
        ViewerSlices.of(UPRIGHT).place(3, x, y)


def test_slices_are_turned_in_the_order_of_the_pacs() -> None:
    slices = ViewerSlices.of(UPRIGHT)
    assert slices.order[0] == 19  # number 1 is the highest one
    assert slices.position_of((10.0, 10.0, 38.0)) == 0
    assert slices.position_of_number(20) == 19
    assert slices.position_of_number(-5) == 0
    assert viewer_state(slices, 99, "phase", (), "/p").number == 20
    assert viewer_state(slices, 99, "phase", (), "/p").view == "swi"


def test_a_ring_is_on_the_slices_that_the_bleed_crosses_and_on_no_other() -> None:
    slices = ViewerSlices.of(UPRIGHT)
    spot = MarkedPlace((20.0, 30.0, 20.0), 6.0, "1", "definite")  # slice k = 10 of 2 mm
    ringed = [slices.order[p] for p in range(20) if list(slices.rings(p, [spot]))]
    assert sorted(ringed) == [9, 10, 11]


@pytest.fixture
def book(tmp_path: Path, findings: Findings) -> Path:
    write_pictures(tmp_path, findings)
    return tmp_path / SLICES


@pytest.fixture
def findings() -> Findings:
    return make_findings("1.2.3", 3)


def test_a_projection_is_the_darkest_of_its_neighbours(book: Path) -> None:
    with PictureArchive(book) as slices:
        for k in (0, 1, 20, SHAPE[0] - 1):
            content = slice_jpeg(slices, "mip", k)
            assert content is not None
            image = Image.open(BytesIO(content))
            assert image.size == (SHAPE[2], SHAPE[1])
            assert image.getpixel((9, 9)) == pytest.approx(5 * max(0, k - 2), abs=1)  # 10 mm of 2 mm slices
        assert slice_jpeg(slices, "mip", SHAPE[0]) is None
        assert slice_jpeg(slices, "mip", -1) is None
        assert slice_jpeg(slices, "swi", SHAPE[0]) is None
    assert len(NUMBERS) == SHAPE[0]


def test_volumes_are_described_for_the_script_and_the_prior_is_named_by_its_date() -> None:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    index = {"shape": [4, 20, 30], "affine": affine.tolist(), "across": 2, "numbers": [9, 8, 7, 6],
        "volumes": ["swi", "prior"]}  # fmt: skip
    grid = VolumeGrid.of(index)
    assert grid.at((-10.0, -8.0, 6.0)) == "5.00 4.00 2.00"
    assert [grid.number_of((0, 0, z)) for z in (-50.0, 3.1, 90.0)] == [9, 8, 6]
    view = volumes_view(grid, "/p", {"prior": "Prior 2025-01-02"})
    assert [(one.title, one.url) for one in view.volumes] == [
        ("SWI", "/p/swi.nii"),
        ("Prior 2025-01-02", "/p/prior.nii"),
    ]
    assert json.loads(view.description)["size"] == [30, 20, 4]
