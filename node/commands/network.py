"""`cmbnode send` and `cmbnode echo`: for the administrator, to a DICOM node or to a destination of the settings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands.options import ConfigOption, DataOption, FolderArgument, PeerArgument, settings_of
from node.commands.output import CommandFailed, counting, printable, say

if TYPE_CHECKING:
    from pathlib import Path

    from node.destination_settings import DestinationSettings
    from node.destinations import Sent

CallingOption = Annotated[str, typer.Option("--from", metavar="AET", help="The AE title to call from.")]


def send(
    folder: FolderArgument,
    peer: PeerArgument,
    calling: CallingOption = "CMBNODE",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Send a folder to a DICOM node (C-STORE or STOW-RS). Every DICOM file in it, as it is."""
    from node.destinations import Unreachable, open_destination
    from node.destinations.scu import read_outgoing
    from pipeline.errors import InputError
    from pipeline.study import find_files

    settings = _destination(peer, data, config)
    if not settings.TAKES_DICOM:
        raise InputError("this destination takes no DICOM objects", where=peer, do="name one of kind dicom or stow")
    paths = find_files(folder)
    files = [path for path in paths if read_outgoing(path) is not None]
    if not files:
        raise InputError("no DICOM file in it", where=str(folder))
    if len(files) < len(paths):
        say(f"{len(paths) - len(files)} other files are left out: not DICOM files")
    answers: list[Sent] = []
    try:
        with counting(f"send to {settings.address}", len(files)) as advance:

            def record(sent: Sent) -> None:
                answers.append(sent)
                advance()

            open_destination(settings, calling).send(files, record)
    except Unreachable as error:
        raise CommandFailed(str(error)) from error
    _summarise(answers)


def _summarise(answers: list[Sent]) -> None:
    """Print what was accepted; refusals are counted by reason, with one file as an example."""
    refused = [answer for answer in answers if not answer.accepted]
    for reason, times in Counter(answer.answer for answer in refused).items():
        example = next(answer.path for answer in refused if answer.answer == reason)
        say(f"{times} x {printable(reason)}, as {example}")
    print(f"{len(answers) - len(refused)} accepted, {len(refused)} refused")
    if refused:
        raise typer.Exit(1)


def echo(
    peer: PeerArgument, calling: CallingOption = "CMBNODE", data: DataOption = None, config: ConfigOption = None
) -> None:
    """Ask a DICOM node or a destination whether it answers (C-ECHO, QIDO-RS, a connection, FHIR's capabilities)."""
    import time

    from node.destinations import Unreachable, open_destination

    settings = _destination(peer, data, config)
    started = time.perf_counter()
    try:
        said = open_destination(settings, calling).check()
    except Unreachable as error:
        raise CommandFailed(printable(str(error))) from error
    print(f"{settings.address} {printable(said)} ({(time.perf_counter() - started) * 1000:.0f} ms)")


def _destination(peer: str, data: Path | None, config: Path | None) -> DestinationSettings:
    """The destination that the settings call so, or the DICOM node of this address.

    Raises
    ------
    InputError
        If it is neither.
    """
    from node.destination_settings import DicomDestination
    from node.destinations.scu import parse_peer
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
            do="name one of these, or write AET@HOST:PORT, as in ORTHANC@127.0.0.1:4242",
        )
    return destinations[peer]
