"""`cmbnode detect`, `route` and `profiles`: the pipeline on a folder, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.text import printable

from .options import ConfigOption, DataOption, FolderArgument, JsonOption, RulesOption, settings_of
from .output import print_json, print_table, say, stages

if TYPE_CHECKING:
    from pipeline.findings import Findings


class DeviceChoice(StrEnum):
    """Device that the networks run on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


StudyOption = Annotated[
    str | None, typer.Option("--study", metavar="UID", help="Study Instance UID, if the folder holds several studies.")
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Profile to analyse with (`cmbnode profiles` lists them)."),
]

PriorOption = Annotated[
    Path | None,
    typer.Option("--prior", metavar="DICOM_DIR", help="A prior study of the same patient to compare with."),
]


def detect(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    profile: ProfileOption = None,
    device: Annotated[
        DeviceChoice, typer.Option("--device", help="Device that the networks run on.")
    ] = DeviceChoice.AUTO,
    study: StudyOption = None,
    rules: RulesOption = None,
    prior: PriorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Find the microbleeds of one study. Writes findings.json, seg.dcm (if there are any), sr.dcm, capture.dcm."""
    from .detect_folder import detect_folder

    change = settings_of(None, config).change.parameters
    with stages("detect") as progress:
        detected = detect_folder(folder, out, profile, device.value, study, progress, rules, prior, change)
    if json:
        print_json(detected.findings.to_json())
        return
    print_findings(detected.findings, detected.slice_numbers)
    for path in detected.written:
        print(path)


def print_findings(findings: Findings, slice_numbers: Sequence[int]) -> None:
    """Print a result for a person; `slice_numbers` are what a PACS calls each slice."""
    from pipeline.findings import wording

    change = findings.change
    compared = change is not None and change.assessed
    print(wording.impression(findings))
    if findings.lesions:
        rows = [
            [
                lesion.id,
                lesion.certainty,
                wording.probability(lesion),
                f"{lesion.diameter_mm:.1f}",
                f"{lesion.volume_mm3:.1f}",
                " ".join(f"{value:.1f}" for value in lesion.centroid_lps_mm),
                slice_numbers[lesion.voxel_ijk[2]],
                wording.place(lesion),
                *([wording.trend(lesion, change)] if compared else []),
            ]
            for lesion in findings.lesions
        ]
        columns = ["no.", "certainty", "probability", "diameter mm", "volume mm³", "LPS mm", "slice", "location"]
        print_table([*columns, *(["change"] if compared else [])], rows)
    for remark in wording.remarks(findings):
        print(printable(remark))


def route(
    folder: FolderArgument,
    data: DataOption = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    json: JsonOption = False,
) -> None:
    """Explain how each series is recognised. Names the rule, and what the node would do with the series."""
    from .explain_routing import explain

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
    """List the profiles, and whether each is ready to run."""
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
