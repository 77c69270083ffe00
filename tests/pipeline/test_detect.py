"""The whole pipeline: the demo study end to end, what its answer holds, and what happens with images it cannot use."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pipeline.detect import Detection, analyse, detect
from pipeline.errors import InputError
from pipeline.geometry import Acquisition
from pipeline.read.study import find_files, read_studies, select_series
from pipeline.uids import derive_uid
from tests.classical import quick_profile

from . import phantom

pytestmark = pytest.mark.slow

KEY = "12" * 32


@cache
def _head() -> Detection:
    return analyse(phantom.acquisition(), quick_profile(), key=KEY)


def test_every_planted_bleed_of_the_demo_study_is_found_with_few_others() -> None:
    findings = phantom.demo_detection().findings
    planted = [lesion["centre_lps_mm"] for lesion in json.loads((phantom.DEMO / "truth.json").read_text())["lesions"]]
    found = np.array([lesion.centroid_lps_mm for lesion in findings.lesions])
    distance = np.linalg.norm(found[:, None] - np.array(planted), axis=-1)
    assert (distance.min(0) < 1.5).all()
    assert len(found) <= len(planted) + 3


def test_the_demo_study_is_answered_with_all_that_is_needed_to_trust_it() -> None:
    detection = phantom.demo_detection()
    findings = detection.findings
    assert findings.profile == "frst"
    assert findings.weights == {}
    assert findings.series.phase
    assert findings.series.magnitude
    assert {"read", "brain", "candidates", "regions", "scores", "lesions", "location", "quality"} == set(
        findings.timing_s
    )
    assert any("uncalibrated" in warning for warning in findings.warnings)
    assert len(findings.candidates) >= len(findings.lesions)
    frames = {frame.sop_instance_uid: k for k, frame in enumerate(detection.acquisition.swi.frames)}
    for lesion in findings.lesions:
        i, j, k = lesion.voxel_ijk
        assert detection.labels[k, j, i] == lesion.id
        assert frames[lesion.slice_sop_instance_uid] == k
        here = detection.acquisition.swi.geometry.to_lps(lesion.voxel_ijk)
        assert np.abs(here - lesion.centroid_lps_mm).max() < 1.5


def test_the_bleeds_of_a_head_without_phase_or_magnitude_are_found() -> None:
    found = [np.array(lesion.voxel_ijk) for lesion in _head().findings.lesions]
    for bleed in phantom.BLEEDS:
        assert min(np.linalg.norm(f - phantom.to_ijk(bleed)) for f in found) < 2
    assert len(found) == len(phantom.BLEEDS)


def test_lesions_are_numbered_through_the_slices_and_named_after_the_key() -> None:
    lesions = _head().findings.lesions
    assert [lesion.id for lesion in lesions] == list(range(1, len(lesions) + 1))
    assert [lesion.voxel_ijk[2] for lesion in lesions] == sorted(lesion.voxel_ijk[2] for lesion in lesions)
    assert lesions[0].voxel_ijk[2] < lesions[-1].voxel_ijk[2]
    assert [lesion.tracking_uid for lesion in lesions] == [derive_uid(KEY, "lesion", le.id) for le in lesions]


def test_the_label_map_has_each_lesions_volume() -> None:
    detection = _head()
    assert detection.labels.dtype == np.uint16
    counts = np.bincount(detection.labels.ravel())
    voxel = detection.acquisition.swi.geometry.voxel_volume
    assert [lesion.volume_mm3 for lesion in detection.findings.lesions] == pytest.approx((counts[1:] * voxel).tolist())


def test_the_same_images_give_the_same_answer() -> None:
    again = analyse(phantom.acquisition(), quick_profile(), key=KEY)
    assert replace(again.findings, timing_s={}) == replace(_head().findings, timing_s={})
    assert np.array_equal(again.labels, _head().labels)


def test_the_thresholds_of_the_profile_decide_what_is_reported() -> None:
    strict = quick_profile(thresholds={"possible": 1.0, "definite": 1.0})
    loose = quick_profile(thresholds={"possible": 0.0, "definite": 0.0}, max_lesions=5)
    none, many = (analyse(phantom.acquisition(), p, key=KEY, brain=_head().brain).findings for p in (strict, loose))
    assert none.lesions == ()
    assert none.candidates == many.candidates
    assert all(c.candidate_score is not None and c.classifier_odds is None for c in many.candidates), "no classifier"
    assert len(many.lesions) == 5
    assert many.counts["definite"] == 5
    assert any("only the 5 most probable of" in warning for warning in many.warnings)


def test_k_means_is_another_profile_and_nothing_else() -> None:
    rating = {"offset": -26.0, "weights": {"contrast": 5.0, "isolation": 15.0, "circularity": 12.0}}
    profile = quick_profile(candidates={"method": "kmeans"}, rating=rating)
    detection = analyse(phantom.acquisition(), profile, key=KEY, brain=_head().brain)
    found = [lesion.voxel_ijk for lesion in detection.findings.lesions]
    for bleed in phantom.BLEEDS:
        assert min(np.linalg.norm(np.subtract(f, phantom.to_ijk(bleed))) for f in found) < 2


def test_a_vessel_makes_no_definite_finding() -> None:
    """The ends of a thick straight one may still be called possible, its course may not."""
    tubes = (((-40.0, -20.0, 12.0, 1.0), (50.0, 30.0, 0.0)), ((20.0, -40.0, -25.0, 1.2), (3.0, 2.0, 40.0)))
    image, _ = phantom.head(tubes=tubes)
    findings = analyse(Acquisition(phantom.volume(image)), quick_profile(), key=KEY).findings
    for lesion in findings.lesions:
        nearest = min(np.linalg.norm(np.subtract(lesion.voxel_ijk, phantom.to_ijk(b))) for b in phantom.BLEEDS)
        if nearest >= 2:
            assert lesion.certainty == "possible"
            assert min(abs(np.subtract(lesion.centroid_lps_mm, phantom.MIDDLE)[2] - end) for end in (-25, 15)) < 6


def test_thick_slices_are_analysed_with_a_warning() -> None:
    spacing = (1.0, 1.0, 5.0)
    image, _ = phantom.head(shape=(28, *phantom.SHAPE[1:]), spacing=spacing)
    findings = analyse(Acquisition(phantom.volume(image, spacing)), quick_profile(), key=KEY).findings
    assert any("slice step 5.00 mm is outside the range of 0.8 to 3 mm" in warning for warning in findings.warnings)
    assert findings.candidates


def test_a_phase_that_cannot_be_used_is_left_out_with_a_warning() -> None:
    good = phantom.acquisition()
    blank = replace(good, phase=phantom.volume(np.zeros(phantom.SHAPE, np.float32), uid="1.2.4"))
    findings = analyse(blank, quick_profile(), key=KEY, brain=_head().brain).findings
    assert findings.series.phase is None
    assert any("the phase was not used: series 1.2.4" in warning for warning in findings.warnings)
    assert len(findings.lesions) == len(phantom.BLEEDS)


@pytest.mark.parametrize("value", [0.0, np.nan], ids=["zero", "nan"])
def test_an_swi_that_cannot_be_used_is_refused(value: float) -> None:
    image = phantom.volume(np.full((20, 64, 64), value, np.float32))
    with pytest.raises(InputError, match=r"series 1\.2\.3: "):
        analyse(Acquisition(image), quick_profile(), key=KEY)


def test_progress_names_each_stage_once() -> None:
    told: list[str] = []
    (study,), _ = read_studies(p for p in find_files(phantom.DEMO) if p.suffix == ".dcm" and "swi" in p.name)
    chosen = select_series(study)
    broken = replace(
        chosen, phase=None, magnitude=None, swi=chosen.swi and replace(chosen.swi, instances=chosen.swi.instances[:2])
    )
    with pytest.raises(InputError):
        detect(broken, quick_profile(), progress=told.append)
    assert told == ["read"]
