"""What is measured of a candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.candidates import Candidate
from pipeline.classifiers.features import NAMES, OF_MAGNITUDE, OF_PHASE, measure
from pipeline.geometry import Acquisition
from pipeline.measure.region import MeasureParameters
from tests.pipeline import phantom

MEASURE = MeasureParameters()


def _column(features: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(features[:, NAMES.index(name)])


def _candidates() -> list[Candidate]:
    places = [phantom.to_ijk(bleed) for bleed in phantom.BLEEDS] + [np.array([60.0, 60.0, 30.0])]
    return [Candidate(tuple(p.tolist()), 1.0 + n) for n, p in enumerate(places)]


def _full() -> Acquisition:
    """The head with a phase that is positive in the bleeds, and a magnitude."""
    image, brain = phantom.head()
    phase = np.where(brain & (image < 150), 0.8, 0.0).astype(np.float32)
    return Acquisition(phantom.volume(image), phantom.volume(phase), phantom.volume(np.sqrt(image)))


def test_a_bleed_is_dark_alone_and_round_and_tissue_is_not() -> None:
    _, brain = phantom.head()
    features = measure(phantom.acquisition(), brain, _candidates(), MEASURE)
    assert features.shape == (5, len(NAMES))
    assert features.dtype == np.float32
    depth, wide = _column(features, "depth_0_1"), _column(features, "depth_3_5")
    assert (depth[:4] > 0.5).all()
    assert depth[4] < 0.1
    assert (np.abs(wide) < 0.15).all()
    assert _column(features, "score").tolist() == [1, 2, 3, 4, 5]
    assert (_column(features, "object_circularity")[:4] > 0.8).all()


def test_what_has_no_image_is_not_a_number() -> None:
    _, brain = phantom.head()
    full = _full()
    all_of_it = measure(full, brain, _candidates(), MEASURE)
    assert np.isfinite(all_of_it[:4]).all()
    without_phase = measure(replace(full, phase=None), brain, _candidates(), MEASURE)
    assert set(np.flatnonzero(np.isnan(without_phase[0]))) == set(OF_PHASE)
    without_magnitude = measure(replace(full, magnitude=None), brain, _candidates(), MEASURE)
    assert set(np.flatnonzero(np.isnan(without_magnitude[0]))) == set(OF_MAGNITUDE)
    others = [n for n in range(len(NAMES)) if n not in OF_PHASE]
    assert np.array_equal(all_of_it[:4, others], without_phase[:4, others])


def test_phase_is_positive_in_a_bleed() -> None:
    _, brain = phantom.head()
    features = measure(_full(), brain, _candidates(), MEASURE)
    assert (_column(features, "phase_core")[:4] > 0.3).all()
    assert abs(_column(features, "phase_core")[4]) < 0.05


def test_the_unit_of_the_grey_values_does_not_matter() -> None:
    image, brain = phantom.head()
    one = measure(Acquisition(phantom.volume(image)), brain, _candidates(), MEASURE)
    other = measure(Acquisition(phantom.volume(np.asarray(image * 8, np.float32))), brain, _candidates(), MEASURE)
    assert np.allclose(one, other, atol=1e-3, equal_nan=True)


def test_no_candidate_no_row() -> None:
    _, brain = phantom.head()
    assert measure(phantom.acquisition(), brain, [], MEASURE).shape == (0, len(NAMES))
