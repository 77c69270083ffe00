"""`cmbnode demo`: the main job on the bundled study, start to finish."""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands.output import CommandFailed, print_table, say

if TYPE_CHECKING:
    from node.demo.running import Outcome


def demo(
    data: Annotated[
        Path | None, typer.Option("--data", help="Where a folder for this run is made (default: the temporary folder).")
    ] = None,
) -> None:
    """Show the main job on the bundled study. A whole node and a PACS are started, used and stopped."""
    from node.demo.running import DemoFailed, run_demo

    started = time.monotonic()
    folder = _new_folder(data)
    try:
        outcome = run_demo(folder, lambda text: _tell(text, time.monotonic() - started))
    except DemoFailed as error:
        raise CommandFailed(f"demo: {error}") from error
    _tell("done", time.monotonic() - started)
    _report(outcome, time.monotonic() - started)


def _new_folder(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="cmbnode-demo-"))
    data.expanduser().mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-", dir=data.expanduser().absolute()))


def _tell(text: str, seconds: float) -> None:
    """A step, with the time since the start: on the terminal and in a log alike."""
    say(f"{seconds:5.1f} s  {text}")


def _report(outcome: Outcome, total_s: float) -> None:
    """Print found against planted, the times, and where to look."""
    score, lesions = outcome.score, {lesion["id"]: lesion for lesion in outcome.findings["lesions"]}
    rows = []
    for number, match in enumerate(score.matches, start=1):
        lesion = lesions.get(match.lesion_id or 0)
        rows.append(
            [
                number,
                " ".join(f"{value:6.1f}" for value in match.bleed.centre_lps_mm),
                f"{2 * match.bleed.radius_mm:.1f}",
                "" if match.bleed.visible else "hardly visible",
                "missed" if lesion is None else f"found as {match.lesion_id}, {lesion['certainty']}",
                "" if match.distance_mm is None else f"{match.distance_mm:.1f}",
            ]
        )
    print()
    print_table(["planted", "LPS mm", "Ø mm", "", "answer", "off by mm"], rows)
    print(f"found {score.found}, missed {score.missed}, false {len(score.false_ids)} (simulated images)")
    for warning in outcome.findings["quality"]["warnings"]:
        print(f"note: {warning}")
    print()
    print_table(["step", "seconds"], [[step, f"{value:.1f}"] for step, value in outcome.seconds.items()])
    print(f"the whole demo: {total_s:.1f} s")
    print()
    print("what the PACS received, and the picture in it:")
    for path in outcome.results.values():
        print(f"  {path}")
    print("Research use only; not a medical device.")
    sys.stdout.flush()
