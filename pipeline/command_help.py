"""How does the help of a command name what an option takes? ``--user USER``, ``--since DATE``, ``--limit N``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_WORDS = {"int": "N", "int range": "N", "float": "X", "float range": "X", "path": "PATH", "file": "FILE", "dir": "DIR"}


class PlainCommand(TyperCommand):
    """A command whose help shows words instead of the types of the program, such as ``<str>``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of arguments and options."""
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            params = [one for one in self.get_params(ctx) if one.param_type_name == kind]
            lines = [
                (one.opts[-1].lstrip("-"), record) for one in params if (record := one.get_help_record(ctx)) is not None
            ]
            if lines:
                with formatter.section(title):
                    formatter.write_dl([(plain(record[0], name, kind), record[1]) for name, record in lines])


def plain(shown: str, name: str, kind: str) -> str:
    """Replace the type in a line of help.

    >>> plain("--since <%Y-%m-%d|%Y-%m-%dT%H:%M>", "since", "option")
    '--since DATE'
    >>> plain("--role <viewer|reader>", "role", "option")
    '--role viewer|reader'
    >>> plain("--user <str>", "user", "option")
    '--user USER'
    >>> plain("JOB <int>", "job", "argument")
    'JOB'
    """

    def word(found: re.Match[str]) -> str:
        told = re.sub(r"^list\[(.*)\]$", r"\1", found[1])
        if told.startswith("%"):
            return " DATE"
        if "|" in told:
            return f" {told}"
        return " " + _WORDS.get(told.lower(), name.upper().replace("_", "-"))

    return re.sub(r" <(.*)>", "" if kind == "argument" else word, shown)
