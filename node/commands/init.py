"""`cmbnode init`: write a commented configuration from the answers to five questions."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError

_TEMPLATE = """\
# Configuration of cmb-node, written by `cmbnode init`. docs/settings.md lists every setting.
# Use it with --config {file}, or once for all commands: export CMBNODE_CONFIG={file}

# Images, results, the ledger and the node's own Redis. Only the user that runs the node can read it.
data_dir = {data_dir}
# The node's own AE title: the PACS sends to it.
ae_title = {ae_title}
# Of the times in results.
{time_zone}

[receiver]
port = 11112
# Who may send. Without networks and AE titles only this machine can.
{peers}
{callers}

# Where results go. Add a table for each destination: DICOM, DICOMweb, HL7 or FHIR.
{destination}
# The PACS that priors are requested from (C-FIND and C-MOVE).
# [priors.dicom]
# ae_title = "MYPACS"
# host = "10.1.2.3"
# port = 104

# If the PACS cannot route: where new studies are looked for, and fetched from (C-FIND and C-GET).
# [pull.mypacs.dicom]
# ae_title = "MYPACS"
# host = "10.1.2.3"
# port = 104
# retrieve = "c-get"

[archive]
# Images are deleted this many days after their study is finished; results and findings stay.
keep_days = 14.0
# With less free disk space than this, in MB, images are refused; the sender keeps them.
free_disk_mb = 2048

# The page with all studies. It listens on this machine only; for others, put a proxy with TLS in front of it:
# [worklist]
# url = "https://cmb.hospital.example"
"""


@dataclass(frozen=True)
class Answers:
    """The answers to the five questions; the last three may be empty."""

    data_dir: str
    ae_title: str
    pacs: str
    networks: str
    time_zone: str


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration to write.")] = Path("cmb-node.toml"),
    data: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Folder of all data.")] = None,
    ae_title: Annotated[str | None, typer.Option("--ae-title", metavar="AET", help="The node's own AE title.")] = None,
    pacs: Annotated[
        str | None,
        typer.Option("--pacs", metavar="AET@HOST:PORT", help="The PACS that sends and gets the results; '' for none."),
    ] = None,
    networks: Annotated[
        str | None,
        typer.Option("--networks", metavar="CIDR,...", help="Networks that may connect; '' for no limit by network."),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", metavar="NAME", help="Time zone of results, such as Europe/Berlin.")
    ] = None,
) -> None:
    """Write a configuration with comments. Asks for what no option gives; without a terminal it takes the defaults."""
    from node.deliver.scu import parse_peer
    from node.settings import ConfigError, Settings, load_settings

    if file.exists():
        raise InputError("this file exists; nothing was written", where=str(file), do="name another file")
    default_data = str(Settings.model_fields["data_dir"].get_default(call_default_factory=True))
    folder = _ask("Folder of all data", data, default_data)
    own_title = _ask("AE title of this node", ae_title, "CMBNODE")
    peer = _ask("PACS that sends images and gets the results, as AET@HOST:PORT (empty: none yet)", pacs, "")
    host = parse_peer(peer).host if peer else ""
    may_connect = _ask("Networks that may connect, as 10.1.2.0/24, ... (empty: all)", networks, _network_of(host))
    zone = _ask("Time zone of the times in results (empty: this machine's)", time_zone, "")
    text = configuration(file, Answers(folder, own_title, peer, may_connect, zone))
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        try:
            load_settings(Path(draft.name))
        except ConfigError as error:
            where = error.where.removeprefix(f"{draft.name}: ")
            raise InputError(error.what, where=where, do="nothing was written; try again") from error
    with file.open("x", encoding="utf-8") as out:
        out.write(text)
    print(f"{file} is written. Next: cmbnode doctor --config {file}")


def _ask(question: str, given: str | None, default: str) -> str:
    """The option, or what a person answers; the default where there is nobody to ask."""
    if given is not None:
        return given.strip()
    if not sys.stdin.isatty():
        return default
    return str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()


def _network_of(host: str) -> str:
    """The PACS alone, if it is named by its address."""
    try:
        return str(ip_network(ip_address(host)))
    except ValueError:
        return ""


def configuration(file: Path, answers: Answers) -> str:
    """Write the configuration as text.

    Raises
    ------
    InputError
        If the PACS is not written as AET@HOST:PORT.
    """
    from node.deliver.scu import parse_peer

    peer = parse_peer(answers.pacs) if answers.pacs else None
    networks = [one.strip() for one in answers.networks.split(",") if one.strip()]
    callers = [peer.ae_title] if peer else []
    destination = (
        f"[destinations.pacs]\nae_title = {_quoted(peer.ae_title)}\nhost = {_quoted(peer.host)}\nport = {peer.port}\n"
        if peer
        else '# [destinations.pacs]\n# ae_title = "MYPACS"\n# host = "10.1.2.3"\n# port = 104\n'
    )
    zone = f"time_zone = {_quoted(answers.time_zone)}" if answers.time_zone else '# time_zone = "Europe/Berlin"'
    return _TEMPLATE.format(
        file=file.absolute(),
        data_dir=_quoted(str(Path(answers.data_dir).expanduser().absolute())),
        ae_title=_quoted(answers.ae_title),
        time_zone=zone,
        peers=f"peers = {json.dumps(networks)}" if networks else '# peers = ["10.1.2.0/24"]',
        callers=f"calling_ae_titles = {json.dumps(callers)}" if callers else '# calling_ae_titles = ["MYPACS"]',
        destination=destination,
    )


def _quoted(value: str) -> str:
    """A TOML string; JSON writes the same escapes."""
    return json.dumps(value, ensure_ascii=False)
