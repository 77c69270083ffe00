"""Which options do the commands share, and how do they become settings?"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from node.ledger import Ledger
    from node.settings import Settings

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of all data (default: the user's data folder).", file_okay=False)
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings.", envvar="CMBNODE_CONFIG")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DICOM_DIR", help="Searched recursively for DICOM files.")]
RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="Your own recognition rules (TOML), read first.", dir_okay=False),
]
PeerArgument = Annotated[
    str,
    typer.Argument(metavar="AET@HOST:PORT|NAME", help="A DICOM node, or a destination by its name in the settings."),
]


def settings_of(data: Path | None, config: Path | None, rules: Path | None = None) -> Settings:
    """Read the settings; the options `data` and `rules` win over file and environment."""
    from node.settings import load_settings

    data_dir = data.expanduser().absolute() if data else None
    return load_settings(config, data_dir=data_dir, recognition_file=rules)


def actor() -> str:
    """Who runs the command, for the ledger's history and the audit: the user that the operating system knows.

    Environment variables such as ``USER`` are ignored: anyone can set them. No account of the worklist can have a name
    with a colon.
    """
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container's user without a name
        return f"os:{os.getuid()}"


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """Open the ledger of a node, and close it at the end.

    Raises
    ------
    InputError
        If there is none. A mistyped folder must not get an empty one.
    """
    from node.ledger import Ledger
    from pipeline.errors import InputError

    if settings.database_url is None and not (settings.data_dir / "ledger.sqlite3").is_file():
        raise InputError(
            "no node has run here yet",
            where=str(settings.data_dir),
            do="give its configuration with --config or in CMBNODE_CONFIG, or its folder with --data; "
            "`cmbnode up` starts a new node",
        )
    ledger = Ledger(settings.ledger_url)
    try:
        yield ledger
    finally:
        ledger.close()
