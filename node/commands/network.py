"""`cmbnode send` and `cmbnode echo`: a small DICOM SCU for the administrator."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands.options import FolderArgument, PeerArgument
from node.commands.output import CommandFailed, counting, say

if TYPE_CHECKING:
    from node.destinations.scu import Sent

CallingOption = Annotated[str, typer.Option("--from", metavar="AET", help="The AE title to call from.")]


def send(folder: FolderArgument, peer: PeerArgument, calling: CallingOption = "CMBNODE") -> None:
    """Send a folder to a DICOM node (C-STORE). Every DICOM file in it, as it is."""
    from node.destinations.scu import Unreachable, parse_peer, read_outgoing
    from node.destinations.scu import send as store
    from pipeline.errors import InputError
    from pipeline.study import find_files

    to = parse_peer(peer)
    paths = find_files(folder)
    files = [outgoing for path in paths if (outgoing := read_outgoing(path)) is not None]
    if not files:
        raise InputError("no DICOM file in it", where=str(folder))
    if len(files) < len(paths):
        say(f"{len(paths) - len(files)} other files are left out: not DICOM files")
    try:
        with counting(f"send to {to}", len(files)) as advance:
            answers = store(files, to, calling, on_sent=lambda _sent: advance())
    except Unreachable as error:
        raise CommandFailed(str(error)) from error
    _summarise(answers)


def _summarise(answers: list[Sent]) -> None:
    """Print what was accepted; refusals are counted by reason, with one file as an example."""
    refused = [answer for answer in answers if not answer.accepted]
    for reason, times in Counter(answer.answer for answer in refused).items():
        example = next(answer.path for answer in refused if answer.answer == reason)
        say(f"{times} x {reason}, as {example}")
    print(f"{len(answers) - len(refused)} accepted, {len(refused)} refused")
    if refused:
        raise typer.Exit(1)


def echo(peer: PeerArgument, calling: CallingOption = "CMBNODE") -> None:
    """Ask a DICOM node whether it answers (C-ECHO)."""
    import time

    from node.destinations.scu import Unreachable, parse_peer
    from node.destinations.scu import echo as ask

    to = parse_peer(peer)
    started = time.perf_counter()
    try:
        ask(to, calling)
    except Unreachable as error:
        raise CommandFailed(str(error)) from error
    print(f"{to} answers ({(time.perf_counter() - started) * 1000:.0f} ms)")
