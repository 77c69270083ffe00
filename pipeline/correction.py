"""How is a result corrected by a reader? The same images are measured again; no network is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.reader_click import SPHERE_MM, in_brain, measure_marked
from pipeline.measure.region import MeasureParameters
from pipeline.read.pairing import SeriesSelection
from pipeline.read.volume import read_acquisition
from pipeline.results.seg.reader import read_segments

from . import __version__
from .anatomy import locate
from .brain import extract_brain
from .detect import Detection, Stopwatch, keep_usable, with_locations
from .errors import InputError
from .findings import Certainty, Findings, Lesion, LesionOrigin, Point, RejectedLesion, Verification
from .geometry import Acquisition
from .profile import Profile
from .uids import derive_uid

PLACE_UNKNOWN = "the brain could not be registered to the atlas again"

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class AddedLesion:
    """A microbleed that the detector missed: its centre in LPS millimetres, and how certain the reader is."""

    centroid_lps_mm: Point
    certainty: Certainty = Certainty.DEFINITE


@dataclass(frozen=True, eq=False)
class CorrectedResult:
    """A result that a correction is based on; `segmentation` is its SEG, ``None`` if it has no microbleed."""

    findings: Findings
    segmentation: Path | None


@dataclass(frozen=True)
class ReaderCorrection:
    """What a reader says of a result. Microbleeds that neither set names are kept.

    Parameters
    ----------
    rejected, accepted : frozenset of str
        Tracking UIDs of findings that are not microbleeds, and of those that are (an earlier rejection is undone).
    added : tuple of AddedLesion
        Microbleeds that were missed.
    certainties : mapping of str to Certainty
        How certain the reader is of findings, by tracking UID, where this differs from the result.
    verification : Verification
        Who says so, and when.
    """

    rejected: frozenset[str]
    accepted: frozenset[str]
    added: tuple[AddedLesion, ...]
    verification: Verification
    certainties: Mapping[str, Certainty] = field(default_factory=dict)


def correct(
    pick: SeriesSelection,
    profile: Profile,
    earlier: Sequence[CorrectedResult],
    reader_correction: ReaderCorrection,
    *,
    key: str,
    watch: Stopwatch,
) -> Detection:
    """Apply a reader's correction.

    Microbleeds that are kept retain their number, tracking UID, voxels and measurements. An added one gets the next
    number and is grown from its point by the code that measures candidates.

    Parameters
    ----------
    pick : SeriesSelection
        The images of the result.
    profile : Profile
        How microbleeds are measured.
    earlier : sequence of CorrectedResult
        The result to correct, then the results that it corrected in turn, back to the detector's own.
    reader_correction : ReaderCorrection
        What the reader says.
    key : str
        What the UIDs of added microbleeds derive from.
    watch : Stopwatch
        Times the stages.

    Returns
    -------
    Detection
        In the form of the detector's own result, not yet compared with a prior study.

    Raises
    ------
    InputError
        If the images or a segmentation have changed or cannot be read.
    """
    with watch("read"):
        acquisition = keep_usable(read_acquisition(pick))
    with watch("correction"):
        lesions, rejected = _judge(earlier, reader_correction)
        labels = _label(lesions, earlier, acquisition)
        changed = list(_changed(lesions, earlier, reader_correction.certainties))
    added: list[Lesion] = []
    remarks: list[str] = []
    brain = None
    if reader_correction.added:
        with watch("brain"):
            brain = extract_brain(acquisition.magnitude or acquisition.swi, profile.brain)
        with watch("added microbleeds"):
            highest = max((lesion.id for result in earlier for lesion in result.findings.lesions), default=0)
            added, remarks = _add(reader_correction.added, highest, labels, acquisition, brain, profile.measure, key)
        placement = earlier[0].findings.placement
        if placement is not None and placement.assessed:
            with watch("location"):
                _, places = locate(acquisition, brain, [a.centroid_lps_mm for a in added], profile.location)
            added = with_locations(added, places)
            remarks += [f"{_named(a.id)}has no location: {PLACE_UNKNOWN}" for a in added if not places]
    before = earlier[0].findings
    findings = replace(
        before,
        software=__version__,
        lesions=(*lesions, *added),
        rejected=tuple(rejected),
        warnings=(*_still_true(before.warnings, lesions), *changed, *remarks),
        change=None,
        verification=reader_correction.verification,
        timing_s=watch.seconds,
    )
    return Detection(findings, labels, acquisition, brain)


def _judge(
    earlier: Sequence[CorrectedResult], reader_correction: ReaderCorrection
) -> tuple[list[Lesion], list[RejectedLesion]]:
    """Which microbleeds are kept and which are rejected, each in the order of their numbers."""
    current = earlier[0].findings
    known = {lesion.tracking_uid: lesion for result in reversed(earlier) for lesion in result.findings.lesions}
    stay = {lesion.tracking_uid for lesion in current.lesions} | reader_correction.accepted
    stay -= reader_correction.rejected
    rejected = {lesion.tracking_uid: lesion for lesion in current.rejected if lesion.tracking_uid not in stay}
    rejected |= {
        uid: _rejected(known[uid]) for uid in reader_correction.rejected if uid in known and uid not in rejected
    }
    # An added microbleed that is withdrawn was never a finding of the detector.
    own = [lesion for lesion in rejected.values() if known[lesion.tracking_uid].origin is LesionOrigin.DETECTED]
    certainties = reader_correction.certainties
    kept = [
        replace(known[uid], trend=None, prior_tracking_uid=None, certainty=certainties.get(uid, known[uid].certainty))
        for uid in stay
        if uid in known
    ]
    return sorted(kept, key=lambda lesion: lesion.id), sorted(own, key=lambda lesion: lesion.id)


def _rejected(lesion: Lesion) -> RejectedLesion:
    return RejectedLesion(**{name: getattr(lesion, name) for name in RejectedLesion.__dataclass_fields__})


def _changed(
    lesions: Sequence[Lesion], earlier: Sequence[CorrectedResult], certainties: Mapping[str, Certainty]
) -> Iterator[str]:
    """Say of which microbleeds the reader is more or less certain than the result was."""
    was = {one.tracking_uid: one.certainty for one in earlier[0].findings.lesions}
    was |= {one.tracking_uid: one.certainty for one in earlier[0].findings.rejected}
    for lesion in lesions:
        before = was.get(lesion.tracking_uid, lesion.certainty)
        if lesion.tracking_uid in certainties and lesion.certainty != before:
            yield f"{_named(lesion.id)}was changed from {before} to {lesion.certainty} by the reader"


def _label(lesions: Sequence[Lesion], earlier: Sequence[CorrectedResult], acquisition: Acquisition) -> Labels:
    """Label the voxels of the microbleeds that are kept, from the newest segmentation that has them."""
    labels = np.zeros(acquisition.swi.array.shape, np.uint16)
    missing = {lesion.tracking_uid: lesion for lesion in lesions}
    for result in earlier:
        if not missing:
            break
        if result.segmentation is None:
            continue
        for uid, voxels in read_segments(result.segmentation, acquisition.swi).items():
            lesion = missing.pop(uid, None)
            if lesion is not None:
                labels[voxels] = lesion.id
    if missing:
        ids = ", ".join(str(lesion.id) for lesion in missing.values())
        raise InputError(f"no segmentation has the voxels of microbleed {ids}", do="analyse the study again")
    return labels


def _add(
    additions: Sequence[AddedLesion],
    number: int,
    labels: Labels,
    acquisition: Acquisition,
    brain: Mask,
    parameters: MeasureParameters,
    key: str,
) -> tuple[list[Lesion], list[str]]:
    """Grow the added microbleeds into `labels`, numbered from `number` on; also return remarks about them."""
    added: list[Lesion] = []
    remarks: list[str] = []
    for addition in additions:
        if not in_brain(_index(addition, acquisition), brain, acquisition.swi.geometry.spacing):
            remarks.append(f"nothing was added at {_millimetres(addition)}: the point lies outside the brain")
            continue
        grown = _grow(addition.centroid_lps_mm, labels, acquisition, brain, parameters)
        if grown is None:
            remarks.append(
                f"nothing was added at {_millimetres(addition)}: "
                "the point lies outside the images or in an existing microbleed"
            )
            continue
        number += 1
        labels[grown.voxels] = number
        added.append(_lesion(number, addition, grown, acquisition, derive_uid(key, "added", number)))
        if not grown.measured:
            remarks.append(
                f"{_named(number)}was added where no dark region could be measured: "
                f"it is reported as possible, as a sphere of {SPHERE_MM:g} mm"
            )
    return added, remarks


def _index(addition: AddedLesion, acquisition: Acquisition) -> tuple[float, float, float]:
    i, j, k = acquisition.swi.geometry.to_ijk(addition.centroid_lps_mm).tolist()
    return i, j, k


def _millimetres(addition: AddedLesion) -> str:
    return f"{', '.join(f'{v:.1f}' for v in addition.centroid_lps_mm)} mm (LPS)"


@dataclass(frozen=True, eq=False)
class _Grown:
    voxels: Mask
    centroid_ijk: tuple[float, float, float]
    diameter_mm: float
    measured: bool


def _grow(
    point: Point, labels: Labels, acquisition: Acquisition, brain: Mask, parameters: MeasureParameters
) -> _Grown | None:
    """Voxels of the microbleed at `point`: the dark region there, or else a sphere; ``None`` if there is no room."""
    swi = acquisition.swi
    at = swi.geometry.to_ijk(point)
    nearest = tuple(int(v) for v in np.rint(at[::-1]))
    if any(not 0 <= v < n for v, n in zip(nearest, labels.shape, strict=True)) or labels[nearest]:
        return None
    i, j, k = (float(v) for v in at)
    region = measure_marked((i, j, k), swi, brain, parameters)
    if region is not None and not labels[region.voxels].any():
        voxels = np.zeros(labels.shape, bool)
        voxels[region.voxels] = True
        return _Grown(voxels, region.centroid_ijk, region.diameter_mm, True)
    axes = np.ogrid[tuple(slice(n) for n in labels.shape)]
    distance = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, at[::-1], swi.geometry.spacing[::-1], strict=True))
    sphere = np.asarray(distance <= (SPHERE_MM / 2) ** 2)
    sphere[nearest] = True
    return _Grown(sphere & (labels == 0), (i, j, k), SPHERE_MM, False)


def _lesion(number: int, addition: AddedLesion, grown: _Grown, acquisition: Acquisition, uid: str) -> Lesion:
    swi = acquisition.swi
    x, y, z = swi.geometry.to_lps(grown.centroid_ijk).round(3).tolist()
    i, j, k = (round(v) for v in grown.centroid_ijk)
    return Lesion(
        id=number,
        tracking_uid=uid,
        centroid_lps_mm=(x, y, z),
        voxel_ijk=(i, j, k),
        slice_sop_instance_uid=swi.frames[k].sop_instance_uid,
        diameter_mm=round(grown.diameter_mm, 2),
        volume_mm3=round(float(grown.voxels.sum()) * swi.geometry.voxel_volume, 2),
        probability=1.0,
        certainty=addition.certainty if grown.measured else Certainty.POSSIBLE,
        origin=LesionOrigin.ADDED,
    )


def _named(number: int) -> str:
    return f"microbleed {number} "


def _still_true(warnings: Sequence[str], lesions: Sequence[Lesion]) -> list[str]:
    """Leave out warnings about a microbleed that is no longer reported."""
    there = {_named(lesion.id) for lesion in lesions}
    return [w for w in warnings if not w.startswith("microbleed ") or any(w.startswith(name) for name in there)]
