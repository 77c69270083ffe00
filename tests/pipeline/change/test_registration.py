"""One scan is laid on another to less than a millimetre; where that cannot be done, it is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.change import ChangeParameters, ReferenceImage, register
from pipeline.errors import InputError

from .heads import box, cut, demo_reference, laid, rigid

pytestmark = pytest.mark.slow

DEFAULT = ChangeParameters()
angles = st.floats(-15, 15)
shifts = st.floats(-20 / np.sqrt(3), 20 / np.sqrt(3))


def brain_points(reference: ReferenceImage) -> np.ndarray:
    return reference.geometry.to_lps(np.argwhere(reference.brain)[::997, ::-1])


@pytest.mark.timeout(900)
@settings(max_examples=3, derandomize=True)
@given(
    turn=st.tuples(angles, angles, angles),
    shift=st.tuples(shifts, shifts, shifts),
    step=st.sampled_from([(1.5, 1.5, 2.0), (1.8, 1.8, 3.0), (1.6, 1.6, 1.6)]),
    seed=st.integers(0, 1000),
)
def test_a_pose_is_found_to_less_than_a_millimetre(
    turn: tuple[float, float, float],
    shift: tuple[float, float, float],
    step: tuple[float, float, float],
    seed: int,
) -> None:
    prior, pose = demo_reference(), rigid(turn, shift)
    found = register(laid(prior, pose, seed=seed, spacing=step), prior)
    points = brain_points(prior)
    true = points @ pose[:3, :3].T + pose[:3, 3]
    assert np.linalg.norm(found.to_present(points) - true, axis=1).max() < 1.0
    assert found.to_prior(found.to_present(points)) == pytest.approx(points, abs=1e-6)
    assert Rotation.from_matrix(found.matrix[:3, :3]).magnitude() < np.deg2rad(30)
    assert found.objection(DEFAULT) == ""


def test_the_same_two_images_give_the_same_pose() -> None:
    prior = demo_reference()
    present = laid(prior, rigid((5, 0, 0), (0, 3, 0)), seed=1, spacing=(1.8, 1.8, 3.0))
    one, other = register(present, prior), register(present, ReferenceImage.from_bytes(prior.to_bytes()))
    assert np.array_equal(one.matrix, other.matrix)
    assert (one.fit, one.discord_mm, one.common) == (other.fit, other.discord_mm, other.common)


def test_what_shows_no_common_brain_is_not_compared() -> None:
    prior = demo_reference()
    middle = prior.image.shape[0] // 2
    pose = register(cut(prior, slice(middle + 2, None)), cut(prior, slice(0, middle - 2)))
    assert pose.objection(DEFAULT) != ""


def test_another_head_does_not_fit() -> None:
    prior = demo_reference()
    rng = np.random.default_rng(0)
    coarse = rng.normal(120, 40, tuple(-(-n // 6) for n in prior.image.shape))
    blobs = np.kron(coarse, np.ones((6, 6, 6)))[tuple(slice(n) for n in prior.image.shape)]
    other = replace(prior, image=np.where(prior.image > 0, np.clip(blobs, 1, 255), 0).astype(np.uint8))
    assert "do not match" in register(other, prior).objection(DEFAULT)


def test_a_reference_comes_back_as_it_was() -> None:
    reference = demo_reference()
    packed = reference.to_bytes()
    back = ReferenceImage.from_bytes(packed)
    assert np.array_equal(back.image, reference.image)
    assert np.array_equal(back.brain, reference.brain)
    assert np.array_equal(back.affine, reference.affine)
    assert back.scan == reference.scan
    assert back.to_bytes() == packed
    assert len(packed) < 1_000_000


def test_a_reference_shows_the_brain_and_nothing_far_from_it() -> None:
    reference = demo_reference()
    outside = np.argwhere(reference.image > 0)
    distance = reference.geometry.to_lps(outside[:, ::-1])
    assert reference.shows(distance, 12.0).all()
    assert reference.image[reference.brain].mean() > 80


def test_a_place_is_shown_within_the_slices_and_about_the_brain() -> None:
    reference = box(below_mm=-10.0)
    places = np.array([[0, 0, 0], [0, 0, -20], [41, 0, 0], [48, 0, 0], [0, 0, 200]], float)
    assert reference.shows(places, 3.0).tolist() == [True, False, True, False, False]
    assert reference.shows(np.empty((0, 3)), 3.0).shape == (0,)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x93NUMPY", box().to_bytes()[:-40]])
def test_what_is_no_reference_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(InputError, match="reference image cannot be read"):
        ReferenceImage.from_bytes(content)
