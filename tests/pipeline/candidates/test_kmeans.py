"""k-means candidates: the clusters are right, and the dark one holds the bleeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.cluster import KMeans

from pipeline.candidates import kmeans
from pipeline.geometry import Acquisition
from tests.pipeline import phantom


def test_the_limits_are_those_of_another_k_means() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(c, 12, n) for c, n in ((60, 300), (250, 3000), (400, 4000), (520, 900))])
    values = values.astype(np.float32)
    centres = np.sort(KMeans(4, n_init=10, random_state=0).fit(values[:, None]).cluster_centers_.ravel())
    limits = kmeans.cluster_limits(values, 4, 100)
    assert limits == pytest.approx((centres[1:] + centres[:-1]) / 2, abs=3)


def test_every_bleed_of_the_head_is_a_candidate() -> None:
    _, brain = phantom.head()
    found = kmeans.propose(phantom.acquisition(), brain, kmeans.Parameters())
    for bleed in phantom.BLEEDS:
        assert min(np.linalg.norm(np.subtract(c.ijk, phantom.to_ijk(bleed))) for c in found) < 1.0
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert all(0 <= c.score <= 1 for c in found)


def test_components_of_the_wrong_volume_are_left_out() -> None:
    _, brain = phantom.head()
    found = kmeans.propose(phantom.acquisition(), brain, kmeans.Parameters(volume_mm3=(60.0, 600.0)))
    largest = phantom.to_ijk(phantom.BLEEDS[3])
    smallest = phantom.to_ijk(phantom.BLEEDS[2])
    assert min(np.linalg.norm(np.subtract(c.ijk, largest)) for c in found) < 1.0
    assert min(np.linalg.norm(np.subtract(c.ijk, smallest)) for c in found) > 1.0


def test_the_same_image_gives_the_same_candidates() -> None:
    _, brain = phantom.head()
    once, twice = (kmeans.propose(phantom.acquisition(), brain, kmeans.Parameters()) for _ in range(2))
    assert once == twice


def test_where_there_is_nothing_there_are_no_candidates() -> None:
    flat = Acquisition(phantom.volume(np.ones((5, 32, 32), np.float32)))
    assert kmeans.propose(flat, np.zeros((5, 32, 32), bool), kmeans.Parameters()) == []
    assert kmeans.propose(flat, np.ones((5, 32, 32), bool), kmeans.Parameters()) == []


def test_not_every_cluster_can_be_kept() -> None:
    with pytest.raises(ValidationError, match="keep must be less than clusters"):
        kmeans.Parameters(clusters=3, keep=3)
