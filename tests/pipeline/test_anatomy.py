"""Where a bleed lies: the brain is laid on the atlas from any pose, in slabs too, and a poor fit names nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.anatomy import AtlasRegion, locate
from pipeline.anatomy.atlas import BORDER_REACH_MM, load_atlas
from pipeline.anatomy.registration import align, correlation_ratio
from pipeline.detect import analyse
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.parameters import LocationParameters
from pipeline.profile import load_profile
from tests.heads import SHAPE, SPACING, small_head

pytestmark = pytest.mark.slow

QUICK = LocationParameters(grid_mm=6.0, start_rounds=25, rounds=50)
PLACES = {
    (40.0, -20.0, 35.0): AtlasRegion("lobar", "frontal", "left"),
    (-40.0, 55.0, 45.0): AtlasRegion("lobar", "parietal", "right"),
    (-55.0, 25.0, -10.0): AtlasRegion("lobar", "temporal", "right"),
    (20.0, 90.0, 5.0): AtlasRegion("lobar", "occipital", "left"),
    (27.0, -2.0, 1.0): AtlasRegion("deep", "basal ganglia", "left"),
    (-13.0, 19.0, 8.0): AtlasRegion("deep", "thalamus", "right"),
    (0.0, 28.0, -32.0): AtlasRegion("infratentorial", "brainstem", "midline"),
    (-30.0, 62.0, -38.0): AtlasRegion("infratentorial", "cerebellum", "right"),
}
"""Points in the middle of regions, LPS-oriented MNI millimetres."""


class Subject:
    """A brain in the scanner: the atlas with another contrast, turned, shifted and scaled."""

    def __init__(self, turn=(0, 0, 0), scale=(0.95, 0.9, 1.0), slice_mm=3.0, slab=(-78.0, 84.0)):
        atlas = load_atlas()
        self.forward = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(scale)  # MNI to patient
        self.shift = np.array([6.0, -11.0, 14.0])
        low, high = slab
        n = int((high - low) / slice_mm)
        affine = np.diag([3.0, 3.0, slice_mm, 1.0])
        affine[:3, 3] = np.array([-105.0, -120.0, low]) + self.shift
        self.geometry = Geometry((n, 88, 70), affine)
        back = sitk.AffineTransform(3)
        back.SetMatrix(np.linalg.inv(self.forward).ravel().tolist())
        back.SetTranslation((-np.linalg.inv(self.forward) @ self.shift).tolist())
        t1, brain = (self._sample(a.astype(np.float32), back) for a in (atlas.t1, atlas.brain))
        noise = np.random.default_rng(3).normal(0, 8, t1.shape)
        self.brain = brain > 0.5
        image = np.where(self.brain, 900 - 8 * t1 + noise, np.abs(noise))  # fluid bright, as in a T2*-weighted image
        self.volume = Volume(image.astype(np.float32), self.geometry, ())

    def _sample(self, array, back):
        atlas = load_atlas()
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(atlas.geometry.spacing)
        image.SetOrigin(atlas.geometry.affine[:3, 3].tolist())
        k, j, i = self.geometry.shape
        grid = (i, j, k), back, sitk.sitkLinear, self.geometry.affine[:3, 3].tolist(), self.geometry.spacing
        return sitk.GetArrayFromImage(sitk.Resample(image, *grid))

    def at(self, mni):
        """The patient coordinates of points in MNI space."""
        return np.asarray(mni) @ self.forward.T + self.shift

    def locate(self, parameters=QUICK):
        points = [tuple(p) for p in self.at(list(PLACES)).tolist()]
        return locate(Acquisition(self.volume), self.brain, points, parameters)

    def error_mm(self, alignment):
        """Mean distance from the truth, in the brain inside the slices."""
        lps = self.geometry.to_lps(np.argwhere(self.brain)[::50, ::-1])
        truth = (lps - self.shift) @ np.linalg.inv(self.forward).T
        return np.linalg.norm(alignment.to_mni(lps) - truth, axis=1).mean()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"turn": (28, -10, 5)},
        {"turn": (-20, 8, -25), "scale": (1.1, 1.12, 1.05)},
        {"slice_mm": 6.0, "turn": (5, 0, 12)},
    ],
    ids=["straight", "nodding", "turned and small", "thick slices"],
)
def test_places_are_named_from_any_pose(how) -> None:
    placement, places = Subject(**how).locate()
    assert placement.assessed, placement.why
    assert placement.fit > 0.93
    assert placement.coverage > 0.95
    assert [replace(place, border_mm=np.inf, beyond="") for place in places] == list(PLACES.values())
    assert all(place.border_mm > 3 for place in places)  # each lies in the middle of its region


@pytest.mark.parametrize(("slab", "share"), [((14.0, 84.0), 0.5), ((-36.0, 34.0), 0.55)], ids=["upper", "middle"])
def test_a_slab_finds_its_height(slab, share) -> None:
    subject = Subject(slab=slab)
    alignment = align(subject.volume, subject.brain, load_atlas(), QUICK)
    assert subject.error_mm(alignment) < 4
    assert alignment.coverage == pytest.approx(share, abs=0.12)


def test_the_same_images_give_the_same_matrix_to_the_last_bit() -> None:
    subject = Subject(turn=(5, 3, -4))
    one, other = (align(subject.volume, subject.brain, load_atlas(), QUICK) for _ in range(2))
    assert one.matrix.tobytes() == other.matrix.tobytes()
    assert subject.error_mm(one) < 3


def test_what_is_shaped_like_a_brain_but_empty_is_not_named() -> None:
    subject = Subject()
    noise = np.random.default_rng(1).normal(500, 30, subject.volume.array.shape).astype(np.float32)
    placement, places = locate(
        Acquisition(replace(subject.volume, array=noise)), subject.brain, [(0.0, 0.0, 0.0)], QUICK
    )
    assert not placement.assessed
    assert "inside of the brain" in placement.why
    assert places == []


def test_half_a_brain_is_not_named() -> None:
    subject = Subject()
    half = subject.brain & (np.arange(subject.brain.shape[1]) > 55)[:, None]
    placement, places = locate(Acquisition(subject.volume), half, [(0.0, 0.0, 0.0)], QUICK)
    assert not placement.assessed
    assert places == []


def test_next_to_no_brain_is_not_registered() -> None:
    subject = Subject()
    placement, places = locate(Acquisition(subject.volume), np.zeros_like(subject.brain), [(0.0, 0.0, 0.0)])
    assert (placement.assessed, placement.why, places) == (False, "only 0 ml of brain was found", [])


def test_an_analysis_says_that_location_was_not_assessed() -> None:
    image, phase = small_head()
    affine = np.diag([*SPACING, 1.0])
    swi, turned = (Volume(np.asarray(a, np.float32), Geometry(SHAPE, affine), _frames()) for a in (image, phase))
    findings = analyse(Acquisition(swi, turned, swi), load_profile("frst"), key="k").findings
    assert findings.lesions
    assert findings.placement is not None
    assert not findings.placement.assessed
    assert f"location not assessed: {findings.placement.why}" in findings.warnings
    assert {(one.region, one.location, one.side) for one in findings.lesions} == {(None, None, None)}


def _frames():
    from pipeline.geometry import FrameReference

    return tuple(FrameReference(f"1.{k}", "1", "") for k in range(SHAPE[0]))


@pytest.mark.parametrize(
    ("mni", "place"), PLACES.items(), ids=lambda v: v.location if isinstance(v, AtlasRegion) else ""
)
def test_the_atlas_knows_its_places(mni, place) -> None:
    found = load_atlas().place(mni)
    assert (found.region, found.location, found.side) == (place.region, place.location, place.side)


@given(st.tuples(st.floats(-70, 70), st.floats(-100, 70), st.floats(-60, 80)), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_no_place_of_another_main_region_is_nearer_than_the_border(mni, seed) -> None:
    atlas, point = load_atlas(), np.array(mni)
    here = atlas.place(point)
    offsets = np.random.default_rng(seed).normal(size=(200, 3))
    offsets *= (min(here.border_mm, BORDER_REACH_MM) - 0.01) / np.linalg.norm(offsets, axis=1, keepdims=True)
    voxels = np.round(atlas.geometry.to_ijk(point + offsets)[:, ::-1]).astype(int)
    inside = ((voxels >= 0) & (voxels < atlas.parcel.shape)).all(axis=1)
    if here.border_mm > 0.01:
        assert {atlas.names[n][0] for n in atlas.parcel[tuple(voxels[inside].T)]} <= {here.region}
    assert (here.beyond == "") == np.isinf(here.border_mm)
    assert here.beyond != here.region


@given(st.tuples(st.floats(-300, 300), st.floats(-300, 300), st.floats(-300, 300)))
def test_every_point_has_a_name_and_its_mirror_image_the_other_side(mni) -> None:
    atlas = load_atlas()
    one, other = atlas.place(mni), atlas.place((-mni[0], *mni[1:]))
    assert (one.region, one.location) in atlas.names
    assert {one.side, other.side} in ({"left", "right"}, {"midline"})
    assert (one.side == "left") == (mni[0] >= 2.5)


def test_the_atlas_is_symmetric() -> None:
    """Half a voxel off at most: no side is favoured."""
    atlas = load_atlas()
    inside = np.argwhere(atlas.brain)[::31, ::-1]
    points = atlas.geometry.to_lps(inside)
    same = [atlas.place(p).location == atlas.place(p * (-1, 1, 1)).location for p in points]
    assert np.mean(same) > 0.97


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.0, 5.0))
def test_the_correlation_ratio_is_the_share_explained(seed, noise) -> None:
    rng = np.random.default_rng(seed)
    given_ = rng.uniform(0, 1, 4000)
    values = (given_ - 0.5) ** 2 + noise * 0.0745 * rng.standard_normal(
        4000
    )  # any mapping will do, also no monotone one
    share = correlation_ratio(values, given_)
    assert 0 <= share <= 1
    assert share == pytest.approx(1 / (1 + noise**2), abs=0.06)


def test_a_flat_image_is_not_explained() -> None:
    assert correlation_ratio(np.ones(500), np.arange(500)) == 0
