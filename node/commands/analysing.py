"""`cmbnode detect`, `route` and `profiles`: the pipeline on a folder, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.commands.options import ConfigOption, DataOption, FolderArgument, JsonOption, RulesOption, settings_of
from node.commands.output import print_json, print_table, say, stages

if TYPE_CHECKING:
    from pipeline.findings import ChangeOverTime, Findings


class Device(StrEnum):
    """Where networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


StudyOption = Annotated[str | None, typer.Option("--study", metavar="UID", help="Which study, if there are several.")]
ProfileOption = Annotated[str | None, typer.Option("--profile", metavar="NAME", help="Which recipe (see `profiles`).")]

PriorOption = Annotated[
    Path | None,
    typer.Option("--prior", metavar="DICOM_DIR", help="An earlier study of the same patient to compare with."),
]


def detect(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")],
    profile: ProfileOption = None,
    device: Annotated[Device, typer.Option("--device", help="Where networks run.")] = Device.AUTO,
    study: StudyOption = None,
    rules: RulesOption = None,
    prior: PriorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Find the microbleeds of one study. Writes findings.json, seg.dcm (if any lesion), sr.dcm and capture.dcm."""
    from node.commands.detecting import detect_folder

    change = settings_of(None, config).change.parameters
    with stages("detect") as progress:
        detected = detect_folder(folder, out, profile, device.value, study, progress, rules, prior, change)
    if json:
        print_json(detected.findings.to_json())
        return
    _print_findings(detected.findings, detected.slice_numbers)
    for path in detected.written:
        print(path)


def _print_findings(findings: Findings, slice_numbers: Sequence[int]) -> None:
    counts = findings.counts
    print(f"{counts['total']} microbleeds: {counts['definite']} definite, {counts['possible']} possible")
    compared = findings.change is not None and findings.change.assessed
    if findings.lesions:
        rows = [
            [
                lesion.id,
                lesion.certainty,
                f"{lesion.probability:.2f}",
                f"{lesion.diameter_mm:.1f}",
                f"{lesion.volume_mm3:.1f}",
                " ".join(f"{value:.1f}" for value in lesion.centroid_lps_mm),
                slice_numbers[lesion.voxel_ijk[2]],
                " ".join(filter(None, (lesion.side, lesion.location or lesion.region))) or "not assessed",
                *([lesion.trend or "undecided"] if compared else []),
            ]
            for lesion in findings.lesions
        ]
        columns = ["no.", "certainty", "probability", "diameter mm", "volume mm³", "LPS mm", "slice", "location"]
        print_table([*columns, *(["change"] if compared else [])], rows)
    if findings.change is not None:
        _print_change(findings.change)
    for note in (findings.phase, *findings.warnings):
        if note:
            print(f"note: {note}")
    print("Research use only; not a medical device.")


def _print_change(change: ChangeOverTime) -> None:
    since = f"since {change.prior_study_date or 'the earlier study'}"
    if not change.assessed:
        print(f"{since}: not compared, {change.why}")
        return
    print(f"{since}: {change.new} new, {change.stable} stable, {len(change.no_longer_seen)} no longer seen")
    print(f"ARIA-H by new microbleeds: {change.aria_h or 'not graded'}")
    for line in (*change.flags, *(f"note: {caveat}" for caveat in change.caveats)):
        print(line)


def route(
    folder: FolderArgument,
    data: DataOption = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    json: JsonOption = False,
) -> None:
    """Explain what each series is taken for. And by which rule, and what the node would do with it."""
    from node.commands.explaining import explain

    explanation = explain(folder, settings_of(data, config, rules))
    if json:
        print_json(explanation)
        return
    rows = [
        [_label(series), series["role"], series["action"], series["rule"], series["why"]]
        for series in explanation["series"]
    ]
    print_table(["series", "role", "action", "rule", "why"], rows)
    for chosen in explanation["studies"]:
        print(f"study {chosen['study_instance_uid']}: {chosen['would']}")
    for unreadable in explanation["unreadable"]:
        say(f"left out: {unreadable['path']}: {unreadable['why']}")


def _label(series: dict[str, Any]) -> str:
    number = series["series_number"]
    return f"{'' if number is None else number} {series['description'] or series['series_instance_uid']}".strip()


def profiles(json: JsonOption = False) -> None:
    """List the recipes, and whether each is ready to run."""
    from pipeline.profile import available_profiles

    listed = available_profiles()
    if json:
        print_json(
            [
                {"name": p.name, "description": p.description, "digest": p.digest, "untrained": list(p.untrained)}
                for p in listed
            ]
        )
        return
    rows = [[p.name, p.digest[:12], "not trained" if p.untrained else "ready", p.description] for p in listed]
    print_table(["profile", "digest", "state", "description"], rows)
