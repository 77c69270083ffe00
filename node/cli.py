"""`cmbnode`: which commands are there, and how do they report errors?

Exit status 0: success; 2: a usage or input error, with one line on stderr; 1: any other error.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer

from node.commands.output import CommandFailed, say
from node.processes.file_modes import UMASK
from pipeline.command_help import PlainCommand
from pipeline.errors import CmbError

from .commands import audit, backup, correct, demo, detect, doctor, erase, init, jobs, network, pull, qa, serve, users

app = typer.Typer(
    name="cmbnode",
    help="Find cerebral microbleeds in susceptibility-weighted MR images and send the results to the PACS. "
    "Research use only; not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_NODE, _STUDIES, _QUEUE, _NETWORK = "the node", "one study, no server", "the node's work", "DICOM network"
_COMMANDS: tuple[tuple[str, Any], ...] = (
    (_NODE, serve.up),
    (_NODE, serve.receiver),
    (_NODE, serve.worker),
    (_NODE, serve.worklist),
    (_NODE, serve.sweep),
    (_NODE, doctor.doctor),
    (_NODE, init.init),
    (_STUDIES, detect.detect),
    (_STUDIES, detect.route),
    (_STUDIES, detect.profiles),
    (_QUEUE, jobs.jobs),
    (_QUEUE, jobs.show),
    (_QUEUE, jobs.retry),
    (_QUEUE, jobs.reroute),
    (_QUEUE, correct.correct),
    (_NODE, audit.audit),
    (_NODE, backup.backup),
    (_NODE, backup.restore),
    (_NODE, erase.erase),
    (_NETWORK, network.send),
    (_NETWORK, network.echo),
    (_NODE, demo.demo),
)
for _panel, _command in _COMMANDS:
    app.command(cls=PlainCommand)(_command)
app.add_typer(users.users, name="users")
app.add_typer(qa.qa, name="qa")
app.add_typer(pull.pull, name="pull")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cmbnode {installed_version('cmb-node')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Options before the command."""
    context.obj = {"debug": debug, "main": main}
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    os.umask(UMASK)
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        status = app(words, prog_name="cmbnode", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except typer.TyperException as error:  # wrong usage: a missing argument, an unknown option
        return _complain(f"{error.format_message()} (see cmbnode --help)", 2)
    except CmbError as error:
        return _complain(str(error), error.exit_status)
    except CommandFailed as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # `cmbnode jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        what = error.strerror or str(error) or type(error).__name__
        return _complain(f"{error.filename}: {what}" if error.filename else what, 1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; `cmbnode --debug …` shows the traceback"
        return _complain(f"unexpected {type(error).__name__}: {error}{hint}", 1)


def _complain(text: str, status: int) -> int:
    say("cmbnode: " + " ".join(text.split()))
    return status


if __name__ == "__main__":
    sys.exit(main())
