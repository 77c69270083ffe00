"""``cmbtrain``: simulation, training and evaluation, away from the clinic."""

from __future__ import annotations

import sys

import typer

from pipeline.command_help import PlainCommand
from pipeline.errors import CmbError, InputError, ProfileError
from training.commands.evaluation import calibrate, crossval, evaluate
from training.commands.fitting import cache, check, export, fit, fit_forest
from training.commands.simulation import insert, simulate

app = typer.Typer(
    name="cmbtrain",
    help="Simulate, train and evaluate. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
_COMMANDS = (simulate, insert, check, cache, fit, export, fit_forest, evaluate, crossval, calibrate)
for _command in _COMMANDS:
    app.command(cls=PlainCommand)(_command)


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
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("training", "pipeline"):
            raise
        return _complain(f"this needs the package {error.name}: pip install 'cmb-node[training]'", 2)
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        return _complain(f"{error.filename}: {what}" if error.filename else what, 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped; the same command continues where it left off", 130)


def _complain(message: str, status: int) -> int:
    print(f"cmbtrain: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
