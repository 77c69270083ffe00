"""`cmbnode send` and `cmbnode echo`: try a DICOM node or a destination of the settings from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.text import printable

from .options import ConfigOption, DataOption, FolderArgument, PeerArgument, settings_of
from .output import CommandFailed, counting, say

if TYPE_CHECKING:
    from pathlib import Path

    from node.deliver import SendResult
    from node.settings.destinations import DestinationSettings

CallingOption = Annotated[str, typer.Option("--from", metavar="AET", help="The AE title to call from.")]


def send(
    folder: FolderArgument,
    peer: PeerArgument,
    calling: CallingOption = "CMBNODE",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Send DICOM files to a node or destination. Every file in the folder, unchanged, by C-STORE or STOW-RS."""
    from node.deliver import SendResult, Unreachable, open_destination, send_all
    from node.deliver.scu import read_outgoing
    from node.receive.header import truncation
    from pipeline.errors import InputError
    from pipeline.read.study import find_files

    settings = _destination(peer, data, config)
    if not settings.TAKES_DICOM:
        raise InputError("this destination accepts no DICOM objects", where=peer, do="name one of kind dicom or stow")
    paths = find_files(folder)
    files = [path for path in paths if read_outgoing(path) is not None]
    if not files:
        raise InputError("it contains no DICOM file", where=str(folder))
    if len(files) < len(paths):
        other = len(paths) - len(files)
        say("1 file is not sent: it is not DICOM" if other == 1 else f"{other} files are not sent: they are not DICOM")
    answers = [SendResult(path, False, None, why) for path in files if (why := truncation(path))]
    truncated = {answer.path for answer in answers}
    files = [path for path in files if path not in truncated]
    try:
        with counting(f"send to {settings.address}", len(files)) as advance:

            def record(sent: SendResult) -> None:
                answers.append(sent)
                advance()

            send_all(open_destination(settings, calling), files, record)
    except Unreachable as error:
        raise CommandFailed(printable(str(error))) from error
    _summarise(answers)


def _summarise(answers: list[SendResult]) -> None:
    """Print each file that was not accepted, and the totals."""
    refused = [answer for answer in answers if not answer.accepted]
    for answer in refused:
        say(f"{answer.path}: {printable(answer.answer)}")
    print(f"{len(answers) - len(refused)} accepted, {len(refused)} refused")
    if refused:
        raise typer.Exit(1)


def echo(
    peer: PeerArgument, calling: CallingOption = "CMBNODE", data: DataOption = None, config: ConfigOption = None
) -> None:
    """Check that a node or destination answers. By C-ECHO, QIDO-RS, a connection or the FHIR capabilities."""
    import time

    from node.deliver import Unreachable, open_destination

    settings = _destination(peer, data, config)
    started = time.perf_counter()
    try:
        said = open_destination(settings, calling).check()
    except Unreachable as error:
        raise CommandFailed(printable(str(error))) from error
    print(f"{settings.address} {printable(said)} ({(time.perf_counter() - started) * 1000:.0f} ms)")


def _destination(peer: str, data: Path | None, config: Path | None) -> DestinationSettings:
    """Find the destination of this name in the settings, or make one from an address.

    Raises
    ------
    InputError
        If it is neither.
    """
    from node.deliver.scu import parse_peer
    from node.settings.destinations import DicomDestination
    from pipeline.errors import InputError

    if "@" in peer:
        to = parse_peer(peer)
        return DicomDestination(ae_title=to.ae_title, host=to.host, port=to.port)
    destinations = settings_of(data, config).destinations
    if peer not in destinations:
        known = ", ".join(sorted(destinations)) or "none"
        raise InputError(
            f"no such destination in the settings; there is {known}",
            where=repr(peer),
            do="name one of these, or AET@HOST:PORT, for example ORTHANC@127.0.0.1:4242",
        )
    return destinations[peer]
