"""``cmbtrain``: offline work — simulation, training, evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import CmbError, InputError

app = typer.Typer(
    help="Simulate, train and evaluate. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _root() -> None:
    """Keep `simulate` a command even while it is the only one."""


@app.command()
def simulate(
    demo: Annotated[Path | None, typer.Option(help="Write the node's demo study to this folder and stop.")] = None,
) -> None:
    """Simulate SWI studies with known bleeds and mimics."""
    if demo is not None:
        from training.simulation.demo import make_demo

        study = make_demo(demo)
        typer.echo(f"{demo}: {len(study.truth.entries)} inclusions")
        return
    raise InputError("nothing to simulate", do="give --demo DIR")


def main() -> None:
    """Entry point; input errors end with status 2 and one line."""
    try:
        app()
    except InputError as error:
        print(f"cmbtrain: {error}", file=sys.stderr)
        sys.exit(2)
    except CmbError as error:
        print(f"cmbtrain: {error}", file=sys.stderr)
        sys.exit(1)
