"""The whole pipeline, top to bottom: the images of one study and a profile to findings and a label map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.anatomy import Place, locate
from pipeline.brain import extract_brain, implausible, require_usable
from pipeline.errors import GeometryError, InputError
from pipeline.findings import Certainty, Findings, Lesion, Point, ScoredCandidate, SeriesUsed
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.identity import derive_uid
from pipeline.measure import Region
from pipeline.pairing import Pick
from pipeline.profile import Profile
from pipeline.quality import assess
from pipeline.regions import Described, find_regions
from pipeline.shape import rate
from pipeline.volume import read_acquisition

Mask = NDArray[np.bool_]
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Detection:
    """The findings with what they were found in.

    `labels` has the shape of the SWI; a voxel holds the id of its lesion, or 0. So has `brain`, the brain mask, where
    one was made.
    """

    findings: Findings
    labels: NDArray[np.uint16]
    acquisition: Acquisition
    brain: Mask | None = None


class Scored(NamedTuple):
    """A region with the probability that it is a bleed."""

    region: Region
    probability: float


def detect(
    pick: Pick, profile: Profile, *, key: str | None = None, device: str = "auto", progress: Progress | None = None
) -> Detection:
    """Find the microbleeds of one study.

    Parameters
    ----------
    pick : Pick
        The series to analyse, from :func:`pipeline.study.pick`.
    profile : Profile
        The recipe.
    key : str, optional
        What the lesions' UIDs derive from; by default :func:`pipeline.identity.job_key` of the images and the profile.
    device : str
        ``auto``, ``cpu`` or ``cuda``, for methods that can use it.
    progress : callable, optional
        Told the name of each stage when it starts.

    Returns
    -------
    Detection
        Lesions in order of probability, numbered from 1.

    Raises
    ------
    InputError
        The images cannot be used; the message says why.
    ProfileError
        The profile's weights are missing or not the right ones.
    """
    profile.require_trained()
    watch = Stopwatch(progress)
    with watch("read"):
        acquisition = read_acquisition(pick)
    key = key or pick.key(profile.digest)
    return analyse(acquisition, profile, key=key, study=pick.used[0].study_instance_uid, device=device, watch=watch)


def analyse(
    acquisition: Acquisition,
    profile: Profile,
    *,
    key: str,
    study: str = "",
    brain: Mask | None = None,
    device: str = "auto",
    watch: Stopwatch | None = None,
) -> Detection:
    """Find the microbleeds of images that have been read; :func:`detect` says the rest.

    `brain` is given where the images come without their skull, and extracted otherwise.
    """
    profile.require_trained()
    watch = watch or Stopwatch()
    acquisition = usable(acquisition)
    swi = acquisition.swi
    with watch("brain"):
        head = acquisition.magnitude or swi
        brain = extract_brain(head, profile.brain) if brain is None else brain
    with watch("candidates"):
        candidates = profile.candidates.call("propose", acquisition, brain, device=device)
    with watch("regions"):
        regions = find_regions(candidates, acquisition, brain, profile)
    with watch("scores"):
        scored = once_each(score(regions, acquisition, brain, profile, device), swi.array.shape)
    with watch("lesions"):
        lesions, labels = name_lesions(scored, acquisition, profile, key)
    with watch("location"):
        placement, places = locate(acquisition, brain, [one.centroid_lps_mm for one in lesions], profile.location)
        lesions = placed(lesions, places)
    with watch("quality"):
        quality, remarks = assess(acquisition, brain, profile, placement.coverage)
    warnings = [*acquisition.warnings, *remarks, *profile.caveats]
    if not placement.assessed:
        warnings.append(f"location not assessed: {placement.why}")
    if odd := implausible(brain, head, profile.brain):
        warnings.append(odd)
    if not candidates:
        warnings.append("not one candidate was found: look at the images")
    if (found := sum(s.probability >= profile.thresholds.possible for s in scored)) > len(lesions):
        warnings.append(f"only the {len(lesions)} most probable of {found} lesions are reported")
    findings = Findings(
        profile=profile.name,
        weights=profile.weights,
        software=__version__,
        study_instance_uid=study,
        series=_series(acquisition),
        lesions=tuple(lesions),
        candidates=tuple(ScoredCandidate(_lps(s.region, swi.geometry), s.probability) for s in scored),
        warnings=tuple(dict.fromkeys(warnings)),
        phase=acquisition.phase_record,
        timing_s=watch.seconds,
        placement=placement,
        image_quality=quality,
    )
    return Detection(findings, labels, acquisition, brain)


class Stopwatch:
    """Times the stages of one analysis, and tells who asked when one starts."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        if self._progress:
            self._progress(stage)
        start = perf_counter()
        yield
        self.seconds[stage] = round(perf_counter() - start, 3)


def usable(acquisition: Acquisition) -> Acquisition:
    """Refuse an SWI that cannot be analysed; leave out, with a warning, a phase or magnitude that cannot."""
    require_usable(acquisition.swi)
    kept: dict[str, Volume | None] = {"phase": acquisition.phase, "magnitude": acquisition.magnitude}
    warnings = list(acquisition.warnings)
    for kind, volume in kept.items():
        if volume is None:
            continue
        try:
            require_usable(volume)
            if volume.array.shape != acquisition.swi.array.shape:
                raise GeometryError("it is not on the grid of the SWI")
        except InputError as error:
            kept[kind] = None
            warnings.append(f"the {kind} was left out: {error}")
    return replace(acquisition, phase=kept["phase"], magnitude=kept["magnitude"], warnings=tuple(warnings))


def score(
    regions: list[Described], acquisition: Acquisition, brain: Mask, profile: Profile, device: str
) -> list[Scored]:
    """Give each region its probability, by the profile's classifier or else from its shape."""
    if profile.classifier is None:
        if profile.rating is None:  # the profile's own check forbids it
            raise AssertionError("a profile has either a classifier or a rating")
        return [Scored(region, rate(shape, profile.rating)) for region, shape in regions]
    candidates = [region.candidate for region, _ in regions]
    values = profile.classifier.call("score", acquisition, brain, candidates, device=device)
    return [Scored(region, float(value)) for (region, _), value in zip(regions, values, strict=True)]


def once_each(scored: list[Scored], shape: tuple[int, ...]) -> list[Scored]:
    """Of regions that overlap keep the most probable; most probable first."""
    taken = np.zeros(shape, bool)
    kept = []
    for one in sorted(scored, key=lambda s: (-s.probability, -s.region.candidate.score, s.region.candidate.ijk)):
        if not taken[one.region.voxels].any():
            taken[one.region.voxels] = True
            kept.append(one)
    return kept


def name_lesions(
    scored: list[Scored], acquisition: Acquisition, profile: Profile, key: str
) -> tuple[list[Lesion], NDArray[np.uint16]]:
    """Make lesions and their label map of the scored regions that reach the thresholds."""
    swi = acquisition.swi
    labels = np.zeros(swi.array.shape, np.uint16)
    lesions = []
    enough = [s for s in scored if s.probability >= profile.thresholds.possible][: profile.max_lesions]
    for number, one in enumerate(enough, start=1):
        labels[one.region.voxels] = number
        i, j, k = (round(x) for x in one.region.centroid_ijk)
        lesions.append(
            Lesion(
                id=number,
                tracking_uid=derive_uid(key, "lesion", number),
                centroid_lps_mm=_lps(one.region, swi.geometry),
                voxel_ijk=(i, j, k),
                slice_sop_instance_uid=swi.frames[k].sop_instance_uid if swi.frames else "",
                diameter_mm=round(one.region.diameter_mm, 2),
                volume_mm3=round(one.region.volume_mm3, 2),
                probability=one.probability,
                certainty=Certainty.DEFINITE if one.probability >= profile.thresholds.definite else Certainty.POSSIBLE,
            )
        )
    return lesions, labels


def placed(lesions: list[Lesion], places: list[Place]) -> list[Lesion]:
    """Lesions with the names of their places; as they are when location was not assessed and there are none."""
    if not places:
        return lesions
    return [
        replace(lesion, region=place.region, location=place.location, side=place.side)
        for lesion, place in zip(lesions, places, strict=True)
    ]


def _lps(region: Region, geometry: Geometry) -> Point:
    x, y, z = geometry.to_lps(region.centroid_ijk).round(3).tolist()
    return x, y, z


def _series(acquisition: Acquisition) -> SeriesUsed:
    phase, magnitude = acquisition.phase, acquisition.magnitude
    return SeriesUsed(
        acquisition.swi.series_instance_uid,
        phase.series_instance_uid if phase else None,
        magnitude.series_instance_uid if magnitude else None,
    )
