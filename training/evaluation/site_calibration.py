"""Which probabilities and thresholds fit a site's own scans? A trained profile is adjusted to its labelled studies.

The networks stay as they are. Platt's line through the log odds of all scored candidates corrects the probabilities,
and the thresholds are set to the false positives per study that the site accepts. The new profile names its weights by
hash, as every profile does, so a result says which one made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, ProfileError
from pipeline.networks.loading import CALIBRATION
from pipeline.profile import Profile, Thresholds, load_profile
from training.fit.calibration import fit_line
from training.fit.profile_files import weights_of, write_profile
from training.text import numbered

from .bootstrap import Estimate, Resamples
from .froc import Froc
from .metrics import DetectionCounts, StudyResult, froc_of
from .outcomes import MarkOutcome

Floats = NDArray[np.float64]
FEWEST_SUBJECTS = 10
FEWEST_FOUND = 20
"""Microbleeds among the scored candidates; with fewer the line is a guess."""
NARROW_SHARE = 0.05
NARROW_RATE = 0.25
"""Half widths of the 95 % intervals that are worth quoting: of sensitivity, and of false positives per study."""
STRICTER = 5
"""How many times fewer false positives the threshold of a definite microbleed allows."""
FURTHEST = 1e-6


@dataclass(frozen=True)
class SiteCalibration:
    """What a site's studies say.

    Parameters
    ----------
    offset, slope : float
        Of the line that corrects log odds.
    possible, definite : float
        Thresholds of the corrected probability.
    subjects, studies, found, visible : int
        What it was measured on: `found` of the visible microbleeds are among the scored candidates.
    sensitivity, fp_per_study : Estimate
        At the threshold *possible*, on the same studies.
    wanted : int
        Studies like these that would make both intervals narrow.
    """

    offset: float
    slope: float
    possible: float
    definite: float
    subjects: int
    studies: int
    found: int
    visible: int
    sensitivity: Estimate
    fp_per_study: Estimate
    wanted: int


def calibrate_to(results: Sequence[StudyResult], rate: float, draws: int = 1000) -> SiteCalibration:
    """Fit probabilities and thresholds to judged answers.

    Parameters
    ----------
    results : sequence of StudyResult
        The site's studies.
    rate : float
        False positives per study at the threshold *possible*.
    draws : int
        Bootstrap resamples for the intervals.

    Raises
    ------
    InputError
        When there are too few subjects or microbleeds.
    """
    subjects = len({r.case.subject for r in results})
    counted = [j for r in results for j in r.candidates if j.verdict is not MarkOutcome.NOT_COUNTED]
    truth = np.array([j.verdict is MarkOutcome.HIT for j in counted], bool)
    visible = sum(len(r.case.truth.visible) for r in results)
    if subjects < FEWEST_SUBJECTS or truth.sum() < FEWEST_FOUND:
        raise InputError(
            f"too few cases to calibrate: {numbered(subjects, 'subject')}, "
            f"{numbered(int(truth.sum()), 'microbleed')} among the candidates",
            do=f"label at least {FEWEST_SUBJECTS} subjects with {FEWEST_FOUND} microbleeds that the profile scores",
        )
    offset, slope = fit_line(log_odds(np.array([j.mark.probability for j in counted])), truth)
    curve = froc_of(results)
    possible = _threshold(curve, rate, offset, slope)
    definite = max(possible, _threshold(curve, rate / STRICTER, offset, slope), 0.5)
    metrics = DetectionCounts.of([_at(r, possible, offset, slope) for r in results]).metrics()
    resamples = Resamples([r.case.subject for r in results], draws)
    sensitivity, wrong = (resamples.estimate(metrics[name]) for name in ("sensitivity", "fp_per_study"))
    wanted = max(_wanted(sensitivity, NARROW_SHARE, len(results)), _wanted(wrong, NARROW_RATE, len(results)))
    return SiteCalibration(
        offset, slope, possible, definite, subjects, len(results), int(truth.sum()), visible, sensitivity, wrong, wanted
    )  # fmt: skip


def log_odds(probability: Floats) -> Floats:
    """Log odds, of probabilities held off 0 and 1."""
    held = np.clip(probability, FURTHEST, 1 - FURTHEST)
    return np.asarray(np.log(held / (1 - held)))


def _corrected(probability: float, offset: float, slope: float) -> float:
    return float(1 / (1 + np.exp(-(offset + slope * log_odds(np.array([probability]))[0]))))


def _threshold(curve: Froc, rate: float, offset: float, slope: float) -> float:
    """Threshold of the corrected probability at `rate` false positives per study, rounded down to four digits."""
    score = min(1.0, curve.threshold_at(rate))
    return float(np.floor(_corrected(score, offset, slope) * 1e4) / 1e4)


def _at(result: StudyResult, threshold: float, offset: float, slope: float) -> StudyResult:
    """The answer as it would be at another threshold: what is judged of a mark does not depend on weaker ones."""
    kept = tuple(j for j in result.candidates if _corrected(j.mark.probability, offset, slope) >= threshold)
    return StudyResult(result.case, kept, result.candidates, result.answer, result.refused)


def _wanted(estimate: Estimate, half_width: float, studies: int) -> int:
    """Studies that make an interval narrow: its width falls with the square root of their number."""
    if estimate.low is None or estimate.high is None:
        return studies
    return max(studies, int(np.ceil(studies * ((estimate.high - estimate.low) / 2 / half_width) ** 2)))


def write_calibrated(profile: Profile, found: SiteCalibration, out: Path, name: str) -> Profile:
    """Write the profile with its new calibration and thresholds; returns it as it is read back.

    Raises
    ------
    ProfileError
        When its classifier keeps no calibration with its weights.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    stage = profile.classifier
    weights = None if stage is None else stage.weights
    tensors = {} if weights is None else load_file(weights.file)
    if stage is None or weights is None or CALIBRATION not in tensors:
        raise ProfileError(f"profile {profile.name} has no calibration to set", do="use one with a trained network")
    offset, own, candidate = tensors[CALIBRATION].tolist()
    line = (found.offset + found.slope * offset, found.slope * own, found.slope * candidate)
    tensors[CALIBRATION] = np.array(line, np.float64)
    with safe_open(weights.file, "np") as opened:
        about = opened.metadata()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{stage.method}.safetensors"
    save_file(tensors, path, metadata=about)
    made = profile.model_copy(
        update={
            "name": name,
            "description": f"{profile.description}; calibrated to {found.studies} studies of a site",
            "classifier": stage.model_copy(update={"weights": weights_of(path, path.stem)}),
            "thresholds": Thresholds(possible=found.possible, definite=found.definite),
        }
    )
    return load_profile(str(write_profile(made, out / f"{name}.toml")))
