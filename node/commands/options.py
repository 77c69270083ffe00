"""Which options do the commands share, and how do they become settings?"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from node.config import Settings
    from node.ledger import Ledger

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
    from node.config import load_settings

    data_dir = data.expanduser().absolute() if data else None
    return load_settings(config, data_dir=data_dir, recognition_file=rules)


def actor() -> str:
    """Who gives the command, for the ledger's history and the audit."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container's user without a name
        return "command line"


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger that a node has made.

    Raises
    ------
    InputError
        If there is none: a question must not create an empty one in a mistyped folder.
    """
    from node.ledger import Ledger
    from pipeline.errors import InputError

    if settings.database_url is None and not (settings.data_dir / "ledger.sqlite3").is_file():
        raise InputError(
            "no node has run here yet",
            where=str(settings.data_dir),
            do="name its folder with --data or start `cmbnode up`",
        )
    return Ledger(settings.ledger_url)
