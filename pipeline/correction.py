"""What becomes of a result that a reader corrects? The same images measured again, and not one network is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.anatomy import locate
from pipeline.brain import extract_brain
from pipeline.candidates import Candidate
from pipeline.detect import Detection, Stopwatch, placed, usable
from pipeline.errors import InputError
from pipeline.findings import Certainty, Findings, Lesion, Origin, Point, RejectedLesion, Verification
from pipeline.geometry import Acquisition, Volume
from pipeline.identity import derive_uid
from pipeline.measure import MeasureParameters, Region, grow
from pipeline.pairing import Pick
from pipeline.profile import Profile
from pipeline.results.reading import read_segments
from pipeline.volume import read_acquisition

SPHERE_MM = 4.0
"""Diameter of the sphere that stands for an added bleed that cannot be measured."""
CLEAR = 2.0
"""So many times the noise must a dark place stand out to be measured."""
WIDER = 1.5
"""So much further than the largest bleed is looked, for the seed may lie at its edge."""
PLACE_UNKNOWN = "the brain could not be laid on the atlas again"

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class Addition:
    """A bleed that the detector missed; its centre in LPS millimetres, and how sure the reader is."""

    centroid_lps_mm: Point
    certainty: Certainty = Certainty.DEFINITE


@dataclass(frozen=True, eq=False)
class Earlier:
    """A result that a correction rests on; `segmentation` is its SEG, which there is if it has a bleed."""

    findings: Findings
    segmentation: Path | None


@dataclass(frozen=True)
class Amendment:
    """What a reader says of a result. Bleeds named in neither set stay what they are.

    Parameters
    ----------
    rejected, accepted : frozenset of str
        Tracking UIDs of bleeds that are none, and of bleeds that are (one rejected earlier comes back).
    added : tuple of Addition
        Bleeds that were missed.
    verification : Verification
        Who says so, when.
    """

    rejected: frozenset[str]
    accepted: frozenset[str]
    added: tuple[Addition, ...]
    verification: Verification


def correct(
    pick: Pick, profile: Profile, earlier: Sequence[Earlier], amendment: Amendment, *, key: str, watch: Stopwatch
) -> Detection:
    """Apply a reader's correction.

    Bleeds that stay keep number, tracking UID, voxels and measures; an added one gets the next number, and is grown
    from its point by the code that measures candidates.

    Parameters
    ----------
    pick : Pick
        The images of the result.
    profile : Profile
        Its measuring is used.
    earlier : sequence of Earlier
        The result that is corrected, then those that it corrects in turn, down to the detector's own.
    amendment : Amendment
        What the reader says.
    key : str
        What UIDs of added bleeds derive from.
    watch : Stopwatch
        Times the stages.

    Returns
    -------
    Detection
        As the detector's own, not yet compared with an earlier scan.

    Raises
    ------
    InputError
        If images or a segmentation are not what they were, or cannot be read.
    """
    with watch("read"):
        acquisition = usable(read_acquisition(pick))
    with watch("correction"):
        lesions, rejected = _judge(earlier, amendment)
        labels = _label(lesions, earlier, acquisition)
    added: list[Lesion] = []
    remarks: list[str] = []
    brain = None
    if amendment.added:
        with watch("brain"):
            brain = extract_brain(acquisition.magnitude or acquisition.swi, profile.brain)
        with watch("added bleeds"):
            highest = max((lesion.id for result in earlier for lesion in result.findings.lesions), default=0)
            added, remarks = _add(amendment.added, highest, labels, acquisition, brain, profile.measure, key)
        placement = earlier[0].findings.placement
        if placement is not None and placement.assessed:
            with watch("location"):
                _, places = locate(acquisition, brain, [a.centroid_lps_mm for a in added], profile.location)
            added = placed(added, places)
            remarks += [f"{_named(a.id)}has no location: {PLACE_UNKNOWN}" for a in added if not places]
    before = earlier[0].findings
    findings = replace(
        before,
        software=__version__,
        lesions=(*lesions, *added),
        rejected=tuple(rejected),
        warnings=(*_still_true(before.warnings, lesions), *remarks),
        change=None,
        verification=amendment.verification,
        timing_s=watch.seconds,
    )
    return Detection(findings, labels, acquisition, brain)


def _judge(earlier: Sequence[Earlier], amendment: Amendment) -> tuple[list[Lesion], list[RejectedLesion]]:
    """Which bleeds stay, and which are rejected, each in the order of their numbers."""
    current = earlier[0].findings
    known = {lesion.tracking_uid: lesion for result in reversed(earlier) for lesion in result.findings.lesions}
    stay = {lesion.tracking_uid for lesion in current.lesions} | amendment.accepted
    stay -= amendment.rejected
    rejected = {lesion.tracking_uid: lesion for lesion in current.rejected if lesion.tracking_uid not in stay}
    rejected |= {uid: _rejected(known[uid]) for uid in amendment.rejected if uid in known and uid not in rejected}
    # An added bleed that is taken back was never the detector's.
    own = [lesion for lesion in rejected.values() if known[lesion.tracking_uid].origin is Origin.DETECTED]
    kept = [replace(known[uid], trend=None, prior_tracking_uid=None) for uid in stay if uid in known]
    return sorted(kept, key=lambda lesion: lesion.id), sorted(own, key=lambda lesion: lesion.id)


def _rejected(lesion: Lesion) -> RejectedLesion:
    return RejectedLesion(**{name: getattr(lesion, name) for name in RejectedLesion.__dataclass_fields__})


def _label(lesions: Sequence[Lesion], earlier: Sequence[Earlier], acquisition: Acquisition) -> Labels:
    """Lay the voxels of the bleeds that stay, from the newest segmentation that has them."""
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
    additions: Sequence[Addition],
    number: int,
    labels: Labels,
    acquisition: Acquisition,
    brain: Mask,
    parameters: MeasureParameters,
    key: str,
) -> tuple[list[Lesion], list[str]]:
    """Grow the added bleeds into `labels`, numbered on from `number`; also what to know about them."""
    added: list[Lesion] = []
    remarks: list[str] = []
    for addition in additions:
        grown = _grow(addition.centroid_lps_mm, labels, acquisition, brain, parameters)
        if grown is None:
            place = ", ".join(f"{v:.1f}" for v in addition.centroid_lps_mm)
            remarks.append(f"nothing was added at {place} mm (LPS): outside the images, or in a bleed that is there")
            continue
        number += 1
        labels[grown.voxels] = number
        added.append(_lesion(number, addition, grown, acquisition, derive_uid(key, "added", number)))
        if not grown.measured:
            remarks.append(
                f"{_named(number)}was added where no dark region of its own could be measured: "
                f"it stands as a sphere of {SPHERE_MM:g} mm"
            )
    return added, remarks


@dataclass(frozen=True, eq=False)
class _Grown:
    voxels: Mask
    centroid_ijk: tuple[float, float, float]
    diameter_mm: float
    measured: bool


def _grow(
    point: Point, labels: Labels, acquisition: Acquisition, brain: Mask, parameters: MeasureParameters
) -> _Grown | None:
    """Voxels of the bleed at `point`: the dark region there, or else a sphere; none where there is no room."""
    swi = acquisition.swi
    at = swi.geometry.to_ijk(point)
    nearest = tuple(int(v) for v in np.rint(at[::-1]))
    if any(not 0 <= v < n for v, n in zip(nearest, labels.shape, strict=True)) or labels[nearest]:
        return None
    i, j, k = (float(v) for v in at)
    region = _dark_region((i, j, k), swi, brain, parameters)
    if region is not None and not labels[region.voxels].any():
        voxels = np.zeros(labels.shape, bool)
        voxels[region.voxels] = True
        return _Grown(voxels, region.centroid_ijk, region.diameter_mm, True)
    axes = np.ogrid[tuple(slice(n) for n in labels.shape)]
    distance = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, at[::-1], swi.geometry.spacing[::-1], strict=True))
    sphere = np.asarray(distance <= (SPHERE_MM / 2) ** 2)
    sphere[nearest] = True
    return _Grown(sphere & (labels == 0), (i, j, k), SPHERE_MM, False)


def _dark_region(
    at: tuple[float, float, float], swi: Volume, brain: Mask, parameters: MeasureParameters
) -> Region | None:
    """Grow from a click, and again from the middle of what it met: a click need not be central.

    None if that is no region that stands out of the noise, ends by itself, and is as small as a microbleed.
    """
    wide = parameters.model_copy(update={"largest_mm": WIDER * parameters.largest_mm})
    region = None
    for _ in range(2):
        region = grow(Candidate(at, 1.0), swi, brain, wide)
        if region is None or region.contrast < CLEAR * region.noise:
            return None
        at = region.centroid_ijk
    fits = region is not None and region.bounded and region.diameter_mm <= parameters.largest_mm
    return region if fits else None


def _lesion(number: int, addition: Addition, grown: _Grown, acquisition: Acquisition, uid: str) -> Lesion:
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
        certainty=addition.certainty,
        origin=Origin.ADDED,
    )


def _named(number: int) -> str:
    return f"microbleed {number} "


def _still_true(warnings: Sequence[str], lesions: Sequence[Lesion]) -> list[str]:
    """Leave out what was said of a bleed that is not there any more."""
    there = {_named(lesion.id) for lesion in lesions}
    return [w for w in warnings if not w.startswith("microbleed ") or any(w.startswith(name) for name in there)]
