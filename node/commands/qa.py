"""`cmbnode qa`: does the node still find what it found before? A phantom through the running node, and the trend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command_help import PlainCommand

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import CommandFailed, print_json, print_table, say

if TYPE_CHECKING:
    from node.archive.qa_runs import QaRun

qa = typer.Typer(help="Site QA with a phantom of known microbleeds.", rich_markup_mode=None, no_args_is_help=True)

_COLUMNS = (
    *("time", "result", "found", "false", "volumes mm³", "analysis s", "total s", "software", "profile"),
    *("weights", "reason"),
)


@qa.command(cls=PlainCommand)
def run(
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept the differences: later runs are compared with this one.")
    ] = False,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Folder with your own phantom and its truth.json (default: the bundled one)."),
    ] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Send a phantom through the running node and judge the results. The exit status is 1 if something is wrong."""
    from node.archive import Archive
    from node.demo.run import STUDY
    from node.qa.run import run_qa

    settings = settings_of(data, config)
    with open_ledger(settings) as ledger:
        done = run_qa(settings, ledger, Archive(settings.data_dir), study or STUDY, say, actor=actor(), accept=accept)
    if json:
        print_json(done.to_json())
    else:
        print_table(_COLUMNS, [_row(done)])
    if done.alarm:
        raise CommandFailed(f"qa: {done.alarm}")


@qa.command(cls=PlainCommand)
def show(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of runs.")] = 50,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the trend: what each run found, how long it took, and what differed; the oldest run first."""
    import sys
    from csv import writer

    from node.archive.qa_runs import read_runs

    runs = read_runs(settings_of(data, config).data_dir)[-limit:]
    if json:
        print_json({"runs": [one.to_json() for one in runs]})
    elif csv:
        table = writer(sys.stdout, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows(map(_row, runs))
    else:
        print_table(_COLUMNS, list(map(_row, runs)))


def _row(run: QaRun) -> list[object]:
    from node.web.labels import clock

    return [
        clock(run.at),
        ("accepted" if run.differences else "good") if run.good else "ALARM",
        f"{len(run.found)} of {run.planted}",
        run.false,
        " ".join(f"{one.number}:{one.volume_mm3:g}" for one in run.found),
        run.seconds.get("analysis", ""),
        run.seconds.get("total", ""),
        run.software,
        f"{run.profile} {run.profile_digest[:8]}".strip(),
        " ".join(f"{name}:{sha256[:8]}" for name, sha256 in run.weights.items()) or "none",
        "; ".join((*run.faults, *run.differences)),
    ]
