"""`cmbnode doctor`: check everything that the node needs, and say in plain lines what is wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from node.text import printable

from .options import ConfigOption, DataOption, JsonOption, settings_of
from .output import print_json

if TYPE_CHECKING:
    from node.doctor import Checkup


def doctor(data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check the node and what it works with. The exit status is 1 if something is wrong."""
    from node.doctor import Verdict, examine
    from node.doctor.verdict import ok, wrong_because
    from pipeline.errors import CmbError

    outcomes: list[Checkup] = []

    def report(one: Checkup) -> None:
        outcomes.append(one)
        if not json:
            _print(one)

    try:
        settings = settings_of(data, config)
    except CmbError as error:
        report(wrong_because("settings", error))
    else:
        report(ok("settings", str(config or "no configuration file: defaults and environment variables")))
        for one in examine(settings):
            report(one)
    failed = [one for one in outcomes if one.verdict is Verdict.WRONG]
    if json:
        print_json({"status": "wrong" if failed else "ok", "checks": [vars(one) for one in outcomes]})
    elif failed:
        print(f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(one.subject for one in failed)}")
    else:
        print("nothing is wrong")
    if failed:
        raise typer.Exit(1)


def _print(one: Checkup) -> None:
    print(printable(f"{one.verdict.value:<6} {one.subject}: {one.what}"), flush=True)
    if one.do:
        print(printable(f"       → {one.do}"), flush=True)
