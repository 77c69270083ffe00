"""Where does a command write? Results to stdout, progress and errors to stderr; with ``--json`` one document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from node.text import printable


class CommandFailed(Exception):  # noqa: N818 - an outcome, not an error of the program
    """The command failed although its input is valid: exit status 1, one line."""


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """Print one plain line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table on stdout: drawn on a terminal, aligned and never cut elsewhere."""
    cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, title)
        return
    if title:
        print(title)
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=escape(title) or None, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in cells:
        table.add_row(*map(escape, line))
    Console().print(table)


@contextmanager
def stages(title: str) -> Iterator[Callable[[str], None]]:
    """Show the current stage: a spinner on a terminal, otherwise one line per stage."""
    if not sys.stderr.isatty():
        yield lambda stage: say(f"{title}: {stage}")
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(title)) as status:
        yield lambda stage: status.update(escape(f"{title}: {stage}"))


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many items are done: a progress bar on a terminal, otherwise a line for every tenth."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        look: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*look, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            say(f"{title}: {done}/{total}")

    yield advance
