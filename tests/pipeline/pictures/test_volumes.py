"""The volumes of the viewer are upright, keep the place of every voxel, and are small."""

from __future__ import annotations

import itertools
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.anatomy.atlas import load_atlas
from pipeline.detect import RegisteredPrior
from pipeline.errors import InputError
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.measure.region import MeasureParameters
from pipeline.pictures import VOLUMES, PictureArchive
from pipeline.pictures.marking import THUMBNAIL, StoredVolumes
from pipeline.pictures.nifti import from_nifti, to_nifti
from pipeline.pictures.volumes import make_volumes

SHAPE = (14, 44, 48)  # slices, rows, columns
SPACING = (1.5, 1.2, 3.0)


def acquired(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> Geometry:
    """A grid whose i, j and k run along the axes x, y, z (0 to 2) of the patient, with these signs, a little tilted."""
    turn = np.eye(3)[:, list(axes)] * signs
    tilt = np.array([[1, 0.1, 0.0], [-0.1, 1, 0.05], [0, -0.05, 1]])
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(tilt)[0] * np.sign(np.diag(np.linalg.qr(tilt)[1])) @ turn * SPACING
    affine[:3, 3] = (-10, 20, 30)
    return Geometry(SHAPE, affine)


def detection(geometry: Geometry, at: tuple[int, int, int], *, phase: bool = True) -> Any:
    """A bright head with one dark voxel at (i, j, k)."""
    swi = np.full(SHAPE, 100, np.float32)
    swi[at[::-1]] = 5
    radians = np.zeros(SHAPE, np.float32)
    radians[at[::-1]] = 2
    brain = np.zeros(SHAPE, bool)
    brain[:, 9:12, 10:14] = True
    made = Acquisition(Volume(swi, geometry, ()), Volume(radians, geometry, ()) if phase else None)
    return SimpleNamespace(acquisition=made, brain=brain, alignment=None, prior=None)


def unpack(folder: Path, content: bytes) -> PictureArchive:
    (folder / VOLUMES).write_bytes(content)
    return PictureArchive(folder / VOLUMES)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_a_voxel_is_where_it_was_in_the_patient_and_its_slice_keeps_its_number(
    tmp_path: Path, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    geometry, at = acquired(axes, signs), (11, 10, 3)
    numbers = tuple(range(201, 201 + SHAPE[0]))
    with unpack(tmp_path, make_volumes(detection(geometry, at), numbers)) as book:
        assert book.index["volumes"] == ["swi", "phase", "mip"]
        file = tmp_path / "swi.nii.gz"
        file.write_bytes(book.picture("swi.nii.gz") or b"")
        stored = nibabel.load(file)
        assert nibabel.aff2axcodes(stored.affine) == ("R", "A", "S")
        values = np.asarray(stored.dataobj)
        x, y, z = np.unravel_index(np.argmin(values), values.shape)
        lps = nibabel.affines.apply_affine(stored.affine, (x, y, z)) * (-1, -1, 1)
        assert lps == pytest.approx(geometry.to_lps(at), abs=1e-3)
        grid = Geometry(tuple(book.index["shape"]), np.array(book.index["affine"]))
        assert grid.to_lps((x, y, z)) == pytest.approx(geometry.to_lps(at), abs=1e-6)
        assert book.index["numbers"][(x, y, z)[book.index["across"]]] == numbers[at[2]]
        assert len(book.index["numbers"]) == SHAPE[0]
        assert values.size < np.prod(SHAPE)  # air is cut off
        radians, _ = from_nifti(book.picture("phase.nii.gz") or b"")
        assert radians[z, y, x] == radians.max() == round((2 + np.pi) * 255 / (2 * np.pi))
        brain, _ = from_nifti(book.picture("brain.nii.gz") or b"")
        assert int(brain.sum()) == SHAPE[0] * 12


def test_a_projection_is_the_darkest_within_five_millimetres(tmp_path: Path) -> None:
    geometry = acquired((0, 1, 2), (1, 1, 1))
    with unpack(tmp_path, make_volumes(detection(geometry, (11, 10, 6), phase=False), tuple(range(14)))) as book:
        assert book.index["volumes"] == ["swi", "mip"]
        mip, _ = from_nifti(book.picture("mip.nii.gz") or b"")
        dark = np.argwhere(mip == mip.min())
        assert sorted({int(z) for z, _, _ in dark}) == [4, 5, 6, 7, 8]  # 2 slices of 3 mm on each side


def test_the_prior_lies_on_the_grid_of_this_study_where_it_was_registered(tmp_path: Path) -> None:
    present, before = acquired((0, 1, 2), (1, 1, 1)), acquired((1, 0, 2), (1, -1, 1))
    at, then = (11, 10, 6), (20, 16, 7)
    with unpack(tmp_path, make_volumes(detection(before, then), tuple(range(14)))) as book:
        packed = book.picture("swi.nii.gz") or b""
    to_prior = np.eye(4)  # a shift that lays the one dark voxel on the other
    to_prior[:3, 3] = before.to_lps(then) - present.to_lps(at)
    here = detection(present, at)
    here.prior = RegisteredPrior(packed, to_prior)
    with unpack(tmp_path, make_volumes(here, tuple(range(14)))) as book:
        assert book.index["volumes"] == ["swi", "phase", "mip", "prior"]
        prior, grid = from_nifti(book.picture("prior.nii.gz") or b"")
        x, y, z = np.rint(grid.to_ijk(present.to_lps(at))).astype(int)
        assert prior[z, y, x] < 10
        assert prior[z, y, x - 3] > 190
        assert prior[z, y + 3, x] > 190


def test_a_place_of_the_atlas_is_found_between_the_points_that_are_kept(tmp_path: Path) -> None:
    made = detection(acquired((0, 1, 2), (1, 1, 1)), (11, 10, 6))
    made.brain[:] = True
    made.alignment = SimpleNamespace(to_mni=lambda lps: np.asarray(lps) * 0.9 + (1, 2, 3))
    unpack(tmp_path, make_volumes(made, tuple(range(14))))
    volumes = StoredVolumes(tmp_path / VOLUMES)
    for ijk in ((3, 4, 5), (30.3, 20.2, 9.9)):
        lps = made.acquisition.swi.geometry.to_lps(ijk)
        x, y, z = lps.tolist()
        found = volumes.preview((x, y, z), MeasureParameters())
        wanted = load_atlas().place(lps * 0.9 + (1, 2, 3))
        assert found.where == (wanted.region, wanted.location, wanted.side)
        assert Image.open(BytesIO(volumes.thumbnail((x, y, z)))).size == (THUMBNAIL, THUMBNAIL)
    dark = volumes.preview(tuple(made.acquisition.swi.geometry.to_lps((11, 10, 6)).tolist()), MeasureParameters())
    assert dark.measured


def test_the_same_volume_gives_the_same_bytes_and_anything_else_is_refused() -> None:
    values, grid = np.arange(60, dtype=np.uint8).reshape(3, 4, 5), Geometry((3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
    packed = to_nifti(values, grid, (3, 200))
    assert packed == to_nifti(values, grid, (3, 200))
    again, geometry = from_nifti(packed)
    assert np.array_equal(again, values)
    assert geometry.matches(grid, 1e-6)
    for broken in (b"", b"no", packed[:40], packed[:-12]):
        with pytest.raises(InputError, match="the volume"):
            from_nifti(broken)


@settings(max_examples=20)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    import gzip

    with pytest.raises(InputError):
        from_nifti(gzip.compress(content))
