"""What are findings made of? Lesions, how certain they are, where they lie, and what is known about the images."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Certainty(StrEnum):
    """How certain the finding is, by MARS (Gregoire 2009)."""

    DEFINITE = "definite"
    POSSIBLE = "possible"


class Trend(StrEnum):
    """How a microbleed changed since the prior study."""

    NEW = "new"
    STABLE = "stable"


class LesionOrigin(StrEnum):
    """Who found the microbleed: the detector or a reader."""

    DETECTED = "detected"
    ADDED = "added"


Point = tuple[float, float, float]


@dataclass(frozen=True)
class Lesion:
    """One microbleed. Millimetres are DICOM patient coordinates (LPS); `voxel_ijk` is the nearest voxel of the SWI.

    A microbleed that a reader added has no probability: its `probability` is 1 and is not reported. `border_mm` is the
    distance to the nearest place of another main region of the atlas, which `beyond` names; both are ``None`` farther
    than 10 mm away, or if the location was not assessed.
    """

    id: int
    tracking_uid: str
    centroid_lps_mm: Point
    voxel_ijk: tuple[int, int, int]
    slice_sop_instance_uid: str
    diameter_mm: float
    volume_mm3: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None
    trend: Trend | None = None
    prior_tracking_uid: str | None = None
    origin: LesionOrigin = LesionOrigin.DETECTED
    border_mm: float | None = None
    beyond: str | None = None


@dataclass(frozen=True)
class RejectedLesion:
    """A finding of the detector that a reader rejected. `id` is its number in the detector's own result."""

    id: int
    tracking_uid: str
    centroid_lps_mm: Point
    diameter_mm: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class Verification:
    """Who verified the result, for which organisation, when (`at` has a time zone), and with which comment."""

    observer: str
    organisation: str
    at: datetime
    comment: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("the time of a verification must name its time zone")
        if not self.observer.strip():
            raise ValueError("a verification must name its observer")


@dataclass(frozen=True)
class ScoredCandidate:
    """Any candidate that was scored, reported or not, so that a FROC curve can be drawn.

    Parameters
    ----------
    centroid_lps_mm : tuple of float
        Its centre.
    probability : float
        That it is a microbleed, by both stages together.
    candidate_score : float or None
        Score of the first stage alone.
    classifier_odds : float or None
        Log odds of the second stage's network alone, not calibrated; None where there is none.
    """

    centroid_lps_mm: Point
    probability: float
    candidate_score: float | None = None
    classifier_odds: float | None = None


@dataclass(frozen=True)
class SeriesUsed:
    """Series Instance UIDs of the images that were analysed."""

    swi: str
    phase: str | None = None
    magnitude: str | None = None


@dataclass(frozen=True)
class Placement:
    """How the brain was registered to the atlas. `fit` is the Dice overlap of the brain with the atlas, 0 to 1.

    `coverage` is the share of the atlas's brain inside the slices. If the location was not assessed, no lesion has a
    region, and `why` gives the reason.
    """

    assessed: bool
    why: str = ""
    fit: float | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class ImageQuality:
    """What was measured of the images; ``None`` is what could not be measured.

    `coverage` is the share of the brain, as the atlas expects it, inside the slices; `snr` the brain's median over the
    noise, which was measured in `snr_from` (``air`` or ``brain``); `motion` the energy of ghosts beside the head over
    that of its background, 1 without any.
    """

    in_plane_mm: float | None = None
    slice_mm: float | None = None
    coverage: float | None = None
    snr: float | None = None
    snr_from: str | None = None
    motion: float | None = None


@dataclass(frozen=True)
class PriorLesion:
    """A microbleed of the prior study, in the coordinates of the present one."""

    tracking_uid: str
    centroid_lps_mm: Point
    diameter_mm: float
    probability: float
    certainty: Certainty
    region: str | None = None
    location: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class ChangeOverTime:
    """The comparison with a prior study of the same patient.

    `new` and `stable` count microbleeds of this study. One that is neither has no trend and is listed in `undecided`:
    the prior images do not show its location, or show something there that was not counted. `unclear` lists prior
    microbleeds that are, for such a reason, neither stable nor no longer seen.

    `aria_h` is the radiographic grade of new microbleeds (none, mild, moderate, severe), ``None`` if not assessed;
    `flags` are the thresholds passed ("more than 4 microbleeds"); `fit` is the agreement of the registered images.
    """

    prior_study_instance_uid: str
    prior_study_date: str
    prior_sr_sop_instance_uid: str | None
    assessed: bool
    why: str = ""
    new: int = 0
    stable: int = 0
    no_longer_seen: tuple[PriorLesion, ...] = ()
    aria_h: str | None = None
    flags: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    fit: float | None = None
    undecided: tuple[int, ...] = ()
    unclear: tuple[PriorLesion, ...] = ()
    prior_sr_series_instance_uid: str | None = None
