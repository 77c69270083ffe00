"""``cmbtrain``: offline work — simulation, training, evaluation."""

from __future__ import annotations

import sys

import typer

from pipeline.errors import CmbError, InputError, ProfileError
from training.commands.evaluation import crossval, evaluate
from training.commands.fitting import cache, check, export, fit
from training.commands.forest import fit_forest
from training.commands.simulation import insert, simulate

app = typer.Typer(
    name="cmbtrain",
    help="Simulate, train and evaluate. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(simulate)
app.command()(insert)
for _command in (check, cache, fit, export):
    app.command()(_command)
app.command()(fit_forest)
app.command()(evaluate)
app.command()(crossval)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 2 a usage or input error in one line, 1 anything else."""
    try:
        status = app(sys.argv[1:] if arguments is None else arguments, prog_name="cmbtrain", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} (see cmbtrain --help)", 2)
    except (InputError, ProfileError) as error:
        return _complain(str(error), 2)
    except CmbError as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped; run the same command again to go on", 130)


def _complain(message: str, status: int) -> int:
    print(f"cmbtrain: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
