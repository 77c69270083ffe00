"""A reader's correction of a result: what stays, what goes, what is added, and what is measured again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.correction import SPHERE_MM, AddedLesion, CorrectedResult, ReaderCorrection, correct
from pipeline.detect import Detection, Stopwatch, detect
from pipeline.errors import InputError
from pipeline.findings import (
    Certainty,
    ChangeOverTime,
    Findings,
    Lesion,
    LesionOrigin,
    Placement,
    RejectedLesion,
    ScoredCandidate,
    Verification,
    read_findings,
)
from pipeline.profile import Profile, load_profile
from pipeline.read.pairing import SeriesSelection
from pipeline.read.study import read_studies, select_series
from pipeline.results import ReplacedResult, make_results, write_results
from pipeline.results.seg.reader import read_segments
from tests import dicom_factory
from tests.classical import quick_profile
from tests.heads import BLEEDS, SPACING, small_head
from tests.pipeline.results.studies import simulate

from . import phantom

pytestmark = pytest.mark.slow

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
READER = Verification("Reader^Ada", "General Hospital", AT)
BRIGHT = (30, 48, 8)
"""A voxel of plain brain."""


@pytest.fixture(scope="module")
def profile() -> Profile:
    return quick_profile()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SeriesSelection:
    swi, _ = small_head()
    datasets = dicom_factory.siemens_swi(swi, matrix=dicom_factory.affine(SPACING))
    paths = dicom_factory.write(datasets, tmp_path_factory.mktemp("images"))
    (study,), _ = read_studies(paths)
    return select_series(study)


@pytest.fixture(scope="module")
def detector(
    images: SeriesSelection, profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Detection, CorrectedResult]:
    """The detector's own result: what it found, and what lies in the outbox."""
    detection = detect(images, profile, key="k")
    assert len(detection.findings.lesions) >= len(BLEEDS)
    return detection, stored(detection, tmp_path_factory.mktemp("outbox"), "k")


def stored(detection: Detection, folder: Path, key: str) -> CorrectedResult:
    """Write a result, and read it back as a worker does: the document from the database, the SEG from its file."""
    objects = make_results(detection, key=key, created=AT)
    written = write_results(objects, folder)
    document = json.loads(json.dumps(detection.findings.to_json()))
    return CorrectedResult(read_findings(document), written.get("seg"))


def amend(
    rejected: Iterable[str] = (), accepted: Iterable[str] = (), added: tuple[AddedLesion, ...] = (), by: Any = READER
) -> ReaderCorrection:
    return ReaderCorrection(frozenset(rejected), frozenset(accepted), added, by)


def place(detection: Detection, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = detection.acquisition.swi.geometry.to_lps(voxel).tolist()
    return x, y, z


def run(
    images: SeriesSelection,
    profile: Profile,
    earlier: list[CorrectedResult],
    amendment: ReaderCorrection,
    key: str = "c",
) -> Detection:
    return correct(images, profile, earlier, amendment, key=key, watch=Stopwatch())


def test_what_is_confirmed_stays_to_the_last_voxel(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    before, earlier = detector
    after = run(images, profile, [earlier], amend())
    assert np.array_equal(after.labels, before.labels)
    timing = after.findings.timing_s
    assert after.findings == replace(before.findings, verification=READER, timing_s=timing)
    assert set(timing) == {"read", "correction"}  # nothing was looked for again


def test_a_rejected_bleed_is_listed_as_such_and_has_no_voxel(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    before, earlier = detector
    first, *others = before.findings.lesions
    after = run(images, profile, [earlier], amend([first.tracking_uid]))
    assert after.findings.lesions == tuple(others)
    assert [(r.id, r.tracking_uid, r.centroid_lps_mm) for r in after.findings.rejected] == [
        (first.id, first.tracking_uid, first.centroid_lps_mm)
    ]
    assert np.array_equal(after.labels, np.where(before.labels == first.id, 0, before.labels))
    assert after.findings.counts["total"] == len(others)


def test_an_added_bleed_is_measured_as_the_detector_would(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    """The reader rejects one and adds it again by a click a voxel off: the same dark region is found."""
    before, earlier = detector
    gone = before.findings.lesions[0]
    i, j, k = gone.voxel_ijk
    added = AddedLesion(place(before, (i + 0.7, j - 0.4, k)), Certainty.POSSIBLE)
    after = run(images, profile, [earlier], amend([gone.tracking_uid], added=(added,)))
    new = after.findings.lesions[-1]
    highest = max(lesion.id for lesion in before.findings.lesions)
    assert (new.id, new.origin, new.certainty) == (highest + 1, LesionOrigin.ADDED, Certainty.POSSIBLE)
    assert new.tracking_uid not in {lesion.tracking_uid for lesion in before.findings.lesions}
    here, there = after.labels == new.id, before.labels == gone.id
    assert 2 * (here & there).sum() >= 0.9 * (here.sum() + there.sum())
    assert new.diameter_mm == pytest.approx(gone.diameter_mm, rel=0.1)
    assert np.linalg.norm(np.subtract(new.centroid_lps_mm, gone.centroid_lps_mm)) < 0.5
    assert not any(w.startswith("microbleed") for w in after.findings.warnings)


def test_an_added_bleed_that_cannot_be_measured_is_a_sphere_and_says_so(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    before, earlier = detector
    point = place(before, BRIGHT)
    swi = before.acquisition.swi
    k, j, i = BRIGHT[::-1]
    assert swi.array[k, j, i] > 500
    after = run(images, replace_measure(profile), [earlier], amend(added=(AddedLesion(point),)))
    new = after.findings.lesions[-1]
    assert new.diameter_mm == SPHERE_MM
    assert new.centroid_lps_mm == pytest.approx(point, abs=0.001)
    voxels = np.argwhere(after.labels == new.id)
    distance = np.linalg.norm((voxels - np.array(BRIGHT[::-1])) * np.array(SPACING[::-1]), axis=1)
    assert distance.max() <= SPHERE_MM / 2
    assert new.volume_mm3 == pytest.approx(len(voxels) * swi.geometry.voxel_volume, abs=0.01)
    (warning,) = [w for w in after.findings.warnings if w.startswith("microbleed")]
    assert new.certainty is Certainty.POSSIBLE  # though the reader said definite
    why = "was added where no dark region could be measured: it is reported as possible, as a sphere of 4 mm"
    assert warning == f"microbleed {new.id} {why}"


def replace_measure(profile: Profile) -> Profile:
    """Seeds are looked for nowhere but at the click itself."""
    return profile.model_copy(update={"measure": profile.measure.model_copy(update={"seed_mm": 0.0})})


def test_an_added_bleed_gets_the_place_that_the_detector_would_name(tmp_path: Path) -> None:
    before = phantom.demo_detection()
    assert before.findings.placement is not None
    assert before.findings.placement.assessed
    gone = max(before.findings.lesions, key=lambda lesion: lesion.probability)  # what a reader adds is definite
    amendment = amend([gone.tracking_uid], added=(AddedLesion(gone.centroid_lps_mm),))
    after = run(phantom.demo_pick(), load_profile("frst"), [stored(before, tmp_path, "demo")], amendment)
    new = after.findings.lesions[-1]
    assert new.region is not None
    assert (new.region, new.location, new.side) == (gone.region, gone.location, gone.side)
    assert after.findings.summary.to_json()["regions"] == before.findings.summary.to_json()["regions"]


def test_nothing_is_added_outside_the_images_or_where_a_bleed_is(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    before, earlier = detector
    inside = place(before, before.findings.lesions[0].voxel_ijk)
    after = run(
        images,
        profile,
        [earlier],
        amend(added=(AddedLesion((900.0, 0, 0)), AddedLesion(inside), AddedLesion(place(before, (1, 1, 12))))),
    )
    assert after.findings.lesions == before.findings.lesions
    remarks = [w for w in after.findings.warnings if w.startswith("nothing was added at")]
    assert len(remarks) == 3
    assert "900.0, 0.0, 0.0 mm" in remarks[0]
    assert remarks[2].endswith("the point lies outside the brain")


def test_a_reader_is_more_or_less_certain_than_the_detector(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult]
) -> None:
    before, earlier = detector
    first = before.findings.lesions[0]
    other = Certainty.POSSIBLE if first.certainty is Certainty.DEFINITE else Certainty.DEFINITE
    after = run(images, profile, [earlier], replace(amend(), certainties={first.tracking_uid: other}))
    assert after.findings.lesions[0] == replace(first, certainty=other)
    changed = f"microbleed {first.id} was changed from {first.certainty} to {other} by the reader"
    assert changed in after.findings.warnings


def test_a_correction_of_a_correction_takes_back_what_the_first_one_did(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult], tmp_path: Path
) -> None:
    before, earlier = detector
    first = before.findings.lesions[0]
    added = AddedLesion(place(before, BRIGHT))
    once = run(images, profile, [earlier], amend([first.tracking_uid], added=(added,)), "one")
    new = once.findings.lesions[-1]
    chain = [stored(once, tmp_path, "one"), earlier]
    back = amend([new.tracking_uid], [first.tracking_uid], by=Verification("Other", "Clinic", AT))
    twice = run(images, profile, chain, back, "two")
    assert twice.findings.lesions == before.findings.lesions
    assert twice.findings.rejected == ()  # what a reader added was never the detector's
    assert np.array_equal(twice.labels, before.labels)
    assert twice.findings.warnings == before.findings.warnings
    assert twice.findings.verification is not None
    assert twice.findings.verification.observer == "Other"
    again = run(images, profile, [stored(twice, tmp_path, "two"), *chain], amend(added=(added,)), "three")
    assert again.findings.lesions[-1].id == new.id + 1  # a number is never used twice
    assert again.findings.lesions[-1].tracking_uid != new.tracking_uid


def test_a_result_without_bleeds_is_corrected_too(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult], tmp_path: Path
) -> None:
    before, earlier = detector
    uids = [lesion.tracking_uid for lesion in before.findings.lesions]
    empty = run(images, profile, [earlier], amend(uids), "empty")
    assert empty.findings.lesions == ()
    assert not empty.labels.any()
    result = stored(empty, tmp_path, "empty")
    assert result.segmentation is None
    kept = run(images, profile, [result, earlier], amend(accepted=uids[:1]))
    assert kept.findings.lesions == before.findings.lesions[:1]


def test_the_same_correction_makes_the_same_bytes(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult], tmp_path: Path
) -> None:
    before, earlier = detector
    amendment = amend([before.findings.lesions[0].tracking_uid], added=(AddedLesion(place(before, BRIGHT)),))
    made = []
    for number in range(2):
        objects = make_results(
            run(images, profile, [earlier], amendment), key="c", created=AT, replaces=ReplacedResult("k")
        )
        written = write_results(objects, tmp_path / str(number))
        made.append({kind: path.read_bytes() for kind, path in written.items()})
    assert made[0] == made[1]
    assert {"seg", "sr", "capture"} <= set(made[0])


def test_a_segmentation_that_is_gone_or_of_other_images_is_refused(
    images: SeriesSelection, profile: Profile, detector: tuple[Detection, CorrectedResult], tmp_path: Path
) -> None:
    _, earlier = detector
    with pytest.raises(InputError, match=r"gone\.dcm: is not a segmentation of these images"):
        run(images, profile, [replace(earlier, segmentation=tmp_path / "gone.dcm")], amend())
    with pytest.raises(InputError, match="no segmentation has the voxels of microbleed 1"):
        run(images, profile, [replace(earlier, segmentation=None)], amend())
    other: Any = simulate(tmp_path / "other")
    written = write_results(make_results(other, key="o", created=AT), tmp_path / "seg")
    with pytest.raises(InputError, match="is not a segmentation of these images"):
        run(images, profile, [replace(earlier, segmentation=written["seg"])], amend())


@pytest.mark.parametrize(("kind", "bleeds"), [("classic", 4), ("classic", 1), ("enhanced", 3), ("interleaved", 1)])
def test_a_segmentation_is_read_back_to_the_last_voxel(kind: str, bleeds: int, tmp_path: Path) -> None:
    detection: Any = simulate(tmp_path / "images", bleeds, kind=kind)
    written = write_results(make_results(detection, key="k", created=AT), tmp_path)
    segments = read_segments(written["seg"], detection.acquisition.swi)
    assert set(segments) == {lesion.tracking_uid for lesion in detection.findings.lesions}
    for lesion in detection.findings.lesions:
        assert np.array_equal(segments[lesion.tracking_uid], detection.labels == lesion.id)


verifications = st.builds(
    Verification, observer=st.text(min_size=1).filter(str.strip), at=st.datetimes(timezones=st.just(UTC))
)
whole_findings = st.builds(
    Findings,
    lesions=st.lists(st.from_type(Lesion), max_size=3).map(tuple),
    rejected=st.lists(st.from_type(RejectedLesion), max_size=2).map(tuple),
    candidates=st.lists(st.from_type(ScoredCandidate), max_size=3).map(tuple),
    verification=st.none() | verifications,
    placement=st.none() | st.from_type(Placement),
    change=st.none() | st.from_type(ChangeOverTime),
    warnings=st.lists(st.text(), max_size=3).map(tuple),
)


@given(whole_findings)
@settings(max_examples=20)
def test_findings_survive_their_document(findings: Findings) -> None:
    document = json.dumps(findings.to_json())
    assert json.dumps(read_findings(json.loads(document)).to_json()) == document


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="of schema other/1, not cmb-findings/1"):
        read_findings({"schema": "other/1"})
    with pytest.raises(InputError, match="the findings cannot be read: profile: Field required"):
        read_findings({"schema": "cmb-findings/1"})
