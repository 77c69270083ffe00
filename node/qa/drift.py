"""Is a run of site QA good? Its results against each other and the truth, and the run against the last good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.archive.qa_runs import FoundMicrobleed, QaRun
from node.demo.score import PlantedTruth, Score, score
from node.settings.qa import QaSettings
from pipeline.errors import InputError
from pipeline.results.readback import volumes_of_report, volumes_of_segmentation

_SAME_MM3 = 0.02  # findings and report are rounded to 0.01 mm³
_SLACK_S = 10.0
"""Seconds that any analysis may be slower: on a busy machine a short one easily takes twice as long."""

Findings = Mapping[str, Any]
"""As in ``findings.json``."""


def found_of(findings: Findings, truth: PlantedTruth) -> tuple[tuple[FoundMicrobleed, ...], Score]:
    """Which planted microbleeds were found, and what was measured of each."""
    scored = score(findings["lesions"], truth)
    lesions = {lesion["id"]: lesion for lesion in findings["lesions"]}
    found = []
    for number, match in enumerate(scored.matches, start=1):
        if match.lesion_id is not None:
            one = lesions[match.lesion_id]
            found.append(FoundMicrobleed(number, one["volume_mm3"], one["diameter_mm"], round(one["probability"], 4)))
    return tuple(found), scored


def sensitivity_faults(scored: Score, least: float) -> Iterator[str]:
    """Whether too few of the visible microbleeds were found, whatever earlier runs found."""
    visible = [match for match in scored.matches if match.planted.visible]
    found = sum(match.lesion_id is not None for match in visible)
    if found < least * len(visible):
        yield f"only {found} of {len(visible)} visible microbleeds found (qa.least_sensitivity is {least:g})"


def object_faults(findings: Findings, objects: Mapping[str, Path]) -> Iterator[str]:
    """What is wrong with the report and the segmentation: missing, unreadable, or not equal to the findings."""
    expected = {lesion["tracking_uid"]: float(lesion["volume_mm3"]) for lesion in findings["lesions"]}
    readers: dict[str, tuple[str, Callable[[Path], Mapping[str, float]]]] = {
        "sr": ("report (SR)", volumes_of_report),
        "seg": ("segmentation (SEG)", volumes_of_segmentation),
    }
    for kind, (name, read) in readers.items():
        if kind not in objects:
            if kind == "sr" or expected:  # without a microbleed there is no segment
                yield f"there is no {name}"
            continue
        try:
            volumes = read(objects[kind])
        except InputError as error:
            yield f"the {name} cannot be read: {error}"
            continue
        if set(volumes) != set(expected):
            yield f"the {name} has other microbleeds than the findings ({len(volumes)}, {len(expected)})"
        elif any(abs(volumes[uid] - volume) > _SAME_MM3 for uid, volume in expected.items()):
            yield f"the {name} has other volumes than the findings"


def last_good(runs: Sequence[QaRun], phantom: str) -> QaRun | None:
    """The run that the next one of this phantom is compared with."""
    return next((run for run in reversed(runs) if run.good and run.phantom == phantom), None)


def differences(run: QaRun, before: QaRun, settings: QaSettings) -> tuple[str, ...]:
    """What is worse or otherwise different than in the last good run; a microbleed found in addition is not."""
    now, then = ({one.number: one for one in each.found} for each in (run, before))
    said = []
    if lost := sorted(set(then) - set(now)):
        said.append(f"no longer found: microbleed {', '.join(map(str, lost))}")
    if run.false > before.false:
        said.append(f"{run.false} false positives instead of {before.false}")
    for number in sorted(set(now) & set(then)):
        for name, unit, of in (
            ("volume", "mm³", lambda one: one.volume_mm3),
            ("diameter", "mm", lambda one: one.diameter_mm),
        ):
            if abs(of(now[number]) - of(then[number])) > settings.most_change * of(then[number]):
                values = f"{of(now[number]):g} {unit} instead of {of(then[number]):g} {unit}"
                said.append(f"{name} of microbleed {number}: {values}")
    took, took_then = (each.seconds.get("analysis", 0.0) for each in (run, before))
    if took > settings.most_slowdown * took_then and took > took_then + _SLACK_S:
        said.append(f"the analysis took {took:.0f} s instead of {took_then:.0f} s")
    if said and (changed := tuple(_changed(run, before))):
        said.append(f"changed since then: {', '.join(changed)}")
    return tuple(said)


def _changed(run: QaRun, before: QaRun) -> Iterator[str]:
    """What an administrator or an upgrade changed since the last good run."""
    if run.software != before.software:
        yield f"software {before.software} → {run.software}"
    if run.profile != before.profile:
        yield f"profile {before.profile} → {run.profile}"
    elif run.profile_digest != before.profile_digest:
        yield "weights" if run.weights != before.weights else "the profile's parameters"
