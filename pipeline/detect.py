"""The complete pipeline: from the images of one study and a profile to findings and a label map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.candidate_regions import DescribedRegion, find_regions
from pipeline.measure.region import Region
from pipeline.measure.shape import rate
from pipeline.read.pairing import SeriesSelection
from pipeline.read.volume import read_acquisition

from . import __version__
from .anatomy import AtlasRegion, name_places, register_to_atlas
from .brain import extract_brain, implausible, require_usable
from .classifiers import Scores
from .errors import GeometryError, InputError
from .findings import Certainty, Findings, Lesion, Point, ScoredCandidate, SeriesUsed
from .geometry import Acquisition, Geometry, Volume
from .profile import Profile
from .quality import assess
from .uids import derive_uid

if TYPE_CHECKING:
    from .anatomy.registration import Alignment

Mask = NDArray[np.bool_]
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class RegisteredPrior:
    """The SWI of the prior study (NIfTI), and the map from present to prior patient coordinates, shape (4, 4)."""

    swi: bytes
    to_prior: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Detection:
    """The findings, and the images that they were found in.

    `labels` has the shape of the SWI; a voxel holds the id of its lesion, or 0. `brain` is the brain mask on the same
    grid, if there is one, `alignment` its registration to the atlas, and `prior` the study that it was compared with.
    """

    findings: Findings
    labels: NDArray[np.uint16]
    acquisition: Acquisition
    brain: Mask | None = None
    alignment: Alignment | None = None
    prior: RegisteredPrior | None = None


class ScoredRegion(NamedTuple):
    """A region with the probability that it is a microbleed, and the log odds of the classifier alone."""

    region: Region
    probability: float
    odds: float | None = None


def detect(
    pick: SeriesSelection,
    profile: Profile,
    *,
    key: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Detection:
    """Find the microbleeds of one study.

    Parameters
    ----------
    pick : SeriesSelection
        The series to analyse, from :func:`pipeline.read.study.select_series`.
    profile : Profile
        The methods, their parameters and their weights.
    key : str, optional
        What the lesions' UIDs derive from; by default :func:`pipeline.uids.job_key` of the images and the profile.
    device : str
        ``auto``, ``cpu`` or ``cuda``, for methods that can use it.
    progress : callable, optional
        Called with the name of each stage when it starts.

    Returns
    -------
    Detection
        Lesions slice by slice, numbered from 1.

    Raises
    ------
    InputError
        The images cannot be used; the message says why.
    ProfileError
        The profile's weights are missing or are not those that it names.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pipeline.findings import wording
    >>> from pipeline.profile import load_profile
    >>> from pipeline.read.study import find_files, read_studies, select_series
    >>> (study,), _ = read_studies(find_files(Path("node/demo/study")))
    >>> detection = detect(select_series(study), load_profile("default"), device="cpu")
    >>> print(wording.impression(detection.findings))
    6 cerebral microbleeds: 6 definite, 0 possible. Pattern: mixed (lobar and deep or infratentorial).
    >>> for lesion in detection.findings.lesions[:2]:  # doctest: +ELLIPSIS
    ...     print(wording.lesion_line(lesion))
    left cerebellum (infratentorial), definite, 4.2 mm, probability 0.9...
    right temporal (lobar), definite, 2.7 mm, probability 0.9...
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
    """Find the microbleeds of images that have been read; see :func:`detect`.

    `brain` is given for images without a skull; otherwise it is extracted.
    """
    profile.require_trained()
    watch = watch or Stopwatch()
    acquisition = keep_usable(acquisition)
    swi = acquisition.swi
    with watch("brain"):
        head = acquisition.magnitude or swi
        brain = extract_brain(head, profile.brain) if brain is None else brain
    with ThreadPoolExecutor(1, "location") as beside:  # one core's work, while the networks use the others
        registration = beside.submit(register_to_atlas, acquisition, brain, profile.location)
        with watch("candidates"):
            candidates = profile.candidates.call("propose", acquisition, brain, device=device)
        with watch("regions"):
            regions = find_regions(candidates, acquisition, brain, profile)
        with watch("scores"):
            scored = suppress_overlaps(score(regions, acquisition, brain, profile, device), swi.array.shape)
        with watch("lesions"):
            lesions, labels = make_lesions(scored, acquisition, profile, key)
        with watch("location"):
            placement, alignment = registration.result()
            lesions = with_locations(lesions, name_places(alignment, [one.centroid_lps_mm for one in lesions]))
    with watch("quality"):
        quality, remarks = assess(acquisition, brain, profile, placement.coverage)
    warnings = [*acquisition.warnings, *remarks, *profile.caveats]
    if not placement.assessed:
        warnings.append(f"location not assessed: {placement.why}")
    if odd := implausible(brain, head, profile.brain):
        warnings.append(odd)
    if not candidates:
        warnings.append("no candidate was found at all: check the images")
    if (found := sum(s.probability >= profile.thresholds.possible for s in scored)) > len(lesions):
        warnings.append(f"only the {len(lesions)} most probable of {found} microbleeds are reported")
    findings = Findings(
        profile=profile.name,
        weights=profile.weights,
        software=__version__,
        study_instance_uid=study,
        series=_series(acquisition),
        lesions=tuple(lesions),
        candidates=tuple(_scored_candidate(s, swi.geometry) for s in scored),
        warnings=tuple(dict.fromkeys(warnings)),
        phase=acquisition.phase_record,
        timing_s=watch.seconds,
        placement=placement,
        image_quality=quality,
    )
    return Detection(findings, labels, acquisition, brain, alignment)


class Stopwatch:
    """Times the stages of one analysis and reports the start of each."""

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


def keep_usable(acquisition: Acquisition) -> Acquisition:
    """Refuse an SWI that cannot be analysed; leave out an unusable phase or magnitude with a warning."""
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
            warnings.append(f"the {kind} was not used: {error}")
    return replace(acquisition, phase=kept["phase"], magnitude=kept["magnitude"], warnings=tuple(warnings))


def score(
    regions: list[DescribedRegion], acquisition: Acquisition, brain: Mask, profile: Profile, device: str
) -> list[ScoredRegion]:
    """Give each region its probability, by the profile's classifier or else from its shape."""
    if profile.classifier is None:
        if profile.rating is None:  # the profile's own check forbids it
            raise AssertionError("a profile has either a classifier or a rating")
        return [ScoredRegion(region, rate(shape, profile.rating)) for region, shape in regions]
    candidates = [region.candidate for region, _ in regions]
    scores: Scores = profile.classifier.call("score", acquisition, brain, candidates, device=device)
    odds = [None] * len(regions) if scores.odds is None else scores.odds.tolist()
    each = zip(regions, scores.probability.tolist(), odds, strict=True)
    return [ScoredRegion(region, probability, own) for (region, _), probability, own in each]


def _scored_candidate(scored: ScoredRegion, geometry: Geometry) -> ScoredCandidate:
    own = None if scored.odds is None else round(scored.odds, 4)
    first = round(scored.region.candidate.score, 6)
    return ScoredCandidate(_lps(scored.region, geometry), scored.probability, first, own)


def suppress_overlaps(scored: list[ScoredRegion], shape: tuple[int, ...]) -> list[ScoredRegion]:
    """Keep the most probable of regions that overlap; most probable first."""
    taken = np.zeros(shape, bool)
    kept = []
    for one in sorted(scored, key=lambda s: (-s.probability, -s.region.candidate.score, s.region.candidate.ijk)):
        if not taken[one.region.voxels].any():
            taken[one.region.voxels] = True
            kept.append(one)
    return kept


def make_lesions(
    scored: list[ScoredRegion], acquisition: Acquisition, profile: Profile, key: str
) -> tuple[list[Lesion], NDArray[np.uint16]]:
    """Make lesions and their label map of the scored regions that reach the thresholds.

    They are numbered upwards through the slices, as a person reads them.
    """
    swi = acquisition.swi
    labels = np.zeros(swi.array.shape, np.uint16)
    lesions = []
    enough = [s for s in scored if s.probability >= profile.thresholds.possible][: profile.max_lesions]
    for number, one in enumerate(sorted(enough, key=_by_slice), start=1):
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


def _by_slice(scored: ScoredRegion) -> tuple[float, ...]:
    i, j, k = scored.region.centroid_ijk
    return round(k), j, i


def with_locations(lesions: list[Lesion], places: list[AtlasRegion]) -> list[Lesion]:
    """Add region, location and side to lesions; unchanged if the location was not assessed."""
    if not places:
        return lesions
    return [
        replace(
            lesion,
            region=place.region,
            location=place.location,
            side=place.side,
            border_mm=round(place.border_mm, 1) if place.beyond else None,
            beyond=place.beyond or None,
        )
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
