"""How many microbleeds does a first stage find at a given number of false candidates, ranked by its own scores?

    python -m benchmarks.first_stage COHORT --profile al-masni-2020 --at 52.18 155.5
    python -m benchmarks.first_stage COHORT --profile afzal-2021-alexnet --set clusters=3 --filtered --split validation

COHORT is a folder of simulated studies with DICOM, as `cmbtrain evaluate` takes it. Candidates are matched as there,
within 5 mm, the highest score first. ``--set`` changes parameters of the first stage; ``--filtered`` counts only what
is left after the profile's filter by size and shape.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from pipeline.brain import extract_brain
from pipeline.detect import keep_usable
from pipeline.measure.candidate_regions import find_regions
from pipeline.profile import Profile, load_profile
from training.evaluation.bootstrap import Resamples
from training.evaluation.cases import Case, read_cohort
from training.evaluation.froc import CountedCandidates, Froc
from training.evaluation.run import images_of


def propose(case: Case, profile: Profile, *, filtered: bool) -> CountedCandidates:
    """The candidates of one study, judged."""
    images = keep_usable(images_of(case))
    brain = extract_brain(images.magnitude or images.swi, profile.brain)
    found = profile.candidates.call("propose", images, brain, device="auto")
    if filtered:
        found = [region.candidate for region, _ in find_regions(found, images, brain, profile)]
    ijk = np.array([c.ijk for c in found], np.float64).reshape(-1, 3)
    scores = np.array([c.score for c in found], np.float64)
    bleeds = case.truth.bleeds
    centres = np.array([b.centre_lps_mm for b in bleeds], np.float64).reshape(-1, 3)
    visible = np.array([b.visible for b in bleeds], bool)
    return CountedCandidates.of(images.swi.geometry.to_lps(ijk), scores, centres, visible)


def changed(profile: Profile, settings: list[str]) -> Profile:
    """The profile with other parameters of its first stage, such as ``clusters=3``."""
    document = profile.model_dump()
    document["candidates"]["parameters"] |= {k: json.loads(v) for k, _, v in (one.partition("=") for one in settings)}
    return Profile.model_validate(document)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--profile", default="al-masni-2020")
    parser.add_argument("--at", type=float, nargs="+", default=[52.18, 155.5], help="false candidates a study")
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", nargs="+", default=[], help="parameters of the first stage, such as clusters=3")
    parser.add_argument("--filtered", action="store_true", help="after the filter by size and shape")
    given = parser.parse_args()
    cases = read_cohort(given.cohort, 0, given.split)
    profile = changed(load_profile(given.profile), given.set)
    studies = []
    for n, case in enumerate(cases, start=1):
        studies.append(propose(case, profile, filtered=given.filtered))
        print(f"{n}/{len(cases)} {case.name}: {len(studies[-1].scores)} candidates", file=sys.stderr)
    curve = Froc(studies)
    estimates = Resamples([case.subject for case in cases]).estimates(
        lambda weights: curve.sensitivity_at(given.at, weights)
    )
    bleeds = sum(s.visible for s in studies)
    print(f"\nfirst stage of {given.profile}, {len(cases)} studies, {bleeds} visible microbleeds, simulated images\n")
    print("| false candidates a study | sensitivity, % (95 % interval) |\n|---:|---:|")
    for rate, one in zip(given.at, estimates, strict=True):
        low, high = (100 * (v or 0) for v in (one.low, one.high))
        print(f"| {rate:g} | {100 * (one.value or 0):.1f} ({low:.1f}–{high:.1f}) |")
    false, found, _ = curve.curve()
    print(f"| {false[-1]:.0f} (all) | {100 * found[-1]:.1f} |")


if __name__ == "__main__":
    main()
