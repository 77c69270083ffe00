"""`cmbnode demo`: the main job on the bundled study, start to finish."""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.roles import FIRST_ACCOUNT

from .output import CommandFailed, print_table, say

if TYPE_CHECKING:
    from node.demo.run import DemoResult
    from node.demo.score import Match


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder in which this run creates its own (default: the temporary folder)."),
    ] = None,
) -> None:
    """Try the node on the bundled study. Starts a node and a test PACS, sends the study, and stops both."""
    from node.demo.run import DemoFailed, run_demo

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


def _report(outcome: DemoResult, total_s: float) -> None:
    """Print found against planted, the times, and where to look."""
    score = outcome.score
    print()
    rows = [_row(outcome, match) for match in (*score.matches, *score.mimics)]
    print_table(["planted", "LPS mm", "Ø mm", "answer", "off by mm", "region"], rows)
    print(
        f"found {score.found}, missed {score.missed}, false {len(score.false_ids)}; "
        f"main region right for {score.right_regions} of {score.found} (simulated images)"
    )
    for warning in outcome.findings["quality"]["warnings"]:
        print(f"note: {warning}")
    print()
    print_table(["step", "seconds"], [[step, f"{value:.1f}"] for step, value in outcome.seconds.items()])
    print(f"the whole demo: {total_s:.1f} s")
    print()
    print("what the PACS received, and the picture in it:")
    for path in outcome.results.values():
        print(f"  {path}")
    print()
    print(f"Your own node, `cmbnode up`, needs an account for its worklist: {FIRST_ACCOUNT}")
    print("Research use only; not a medical device.")
    sys.stdout.flush()


def _row(outcome: DemoResult, match: Match) -> list[object]:
    """A line of the table; a mimic that is marked is one of the false answers."""
    planted = match.planted
    is_microbleed = planted.kind == "bleed"
    if match.lesion_id is None:
        answer = "missed" if is_microbleed else "not marked"
    else:
        lesion = next(one for one in outcome.findings["lesions"] if one["id"] == match.lesion_id)
        answer = f"{'found' if is_microbleed else 'false: marked'} as {match.lesion_id}, {lesion['certainty']}"
    region = planted.region
    if is_microbleed and match.region is not None and not match.right_region:
        border = lesion["border_mm"]
        region += f"; answer: {match.region}" + (f", {border:.1f} mm from the border" if border is not None else "")
    return [
        ("microbleed" if is_microbleed else planted.kind) + ("" if planted.visible else ", hardly visible"),
        " ".join(f"{value:6.1f}" for value in planted.centre_lps_mm),
        f"{2 * planted.radius_mm:.1f}",
        answer,
        "" if match.distance_mm is None else f"{match.distance_mm:.1f}",
        region,
    ]
