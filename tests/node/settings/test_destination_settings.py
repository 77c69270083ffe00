"""Destinations in the settings: old files stay valid, mistakes are named, secrets stay secret."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import node.deliver
from node.deliver import SendResult, open_destination, send_all
from node.settings import ConfigError, Settings, load_settings
from node.settings.destinations import (
    KINDS,
    REPORT,
    DicomDestination,
    FhirDestination,
    Hl7Destination,
    StowDestination,
)

ALL = """
[destinations.pacs]
ae_title = "PACS"
host = "pacs.example"
port = 104

[destinations.vna]
kind = "stow"
url = "https://vna.example/dicom-web/"

[destinations.ris]
kind = "hl7"
host = "::1"
port = 2575
tls = true

[destinations.ehr]
kind = "fhir"
url = "https://ehr.example/fhir"
"""


def load(folder: Path, text: str) -> Settings:
    (folder / "node.toml").write_text(text)
    return load_settings(folder / "node.toml", data_dir=folder)


def test_a_destination_without_a_kind_is_a_dicom_node(tmp_path: Path) -> None:
    destinations = load(tmp_path, ALL).destinations
    assert [type(one) for one in destinations.values()] == [
        DicomDestination,
        StowDestination,
        Hl7Destination,
        FhirDestination,
    ]
    assert [one.address for one in destinations.values()] == [
        "PACS@pacs.example:104",
        "https://vna.example/dicom-web",
        "mllps://[::1]:2575",
        "https://ehr.example/fhir",
    ]


def test_a_destination_can_go_without_rejection_notes() -> None:
    pacs = DicomDestination(ae_title="PACS", host="pacs", port=104)
    assert pacs.takes("rejection")
    without = pacs.model_copy(update={"rejection_notes": False})
    assert (without.takes("rejection"), without.takes("sr")) == (False, True)


def test_each_kind_takes_dicom_objects_or_the_report(tmp_path: Path) -> None:
    takes = {name: (one.takes("sr"), one.takes(REPORT)) for name, one in load(tmp_path, ALL).destinations.items()}
    assert takes == {"pacs": (True, False), "vna": (True, False), "ris": (False, True), "ehr": (False, True)}


def test_each_kind_can_be_opened(tmp_path: Path) -> None:
    opened = [open_destination(one, "CMBNODE") for one in load(tmp_path, ALL).destinations.values()]
    assert [one.address for one in opened] == [one.address for one in load(tmp_path, ALL).destinations.values()]
    assert len({type(one) for one in opened}) == len(KINDS)


def test_a_secret_comes_from_the_environment_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBNODE_DESTINATIONS__VNA__TOKEN", "s3cret")
    settings = load(tmp_path, ALL)
    vna = settings.destinations["vna"]
    assert isinstance(vna, StowDestination)
    assert vna.token is not None
    assert vna.token.get_secret_value() == "s3cret"
    assert "s3cret" not in f"{settings} {settings!r} {settings.model_dump_json()}"


MISTAKES = [
    ('kind = "ftp"', "destinations.x: unknown kind"),
    ("kind = 7", "destinations.x: unknown kind"),
    ('host = "h"\nport = 104', "destinations.x.ae_title: this setting is required"),
    ('kind = "hl7"\nhost = "h"\nport = 99999', "destinations.x.port"),
    ('kind = "hl7"\nhost = "h"\nport = 1\nassigning_authority = "A|B"', "destinations.x.assigning_authority"),
    ('kind = "stow"\nurl = "ftp://h/"', "destinations.x.url: write an address as https://"),
    ('kind = "stow"\nurl = "https://h:99999/"', "destinations.x.url: write an address"),
    ('kind = "stow"\nurl = "https://user:s3cret@h/"', "user name and password have settings of their own"),
    ('kind = "stow"\nurl = "https://h/studies?x=1"', "without ? or #"),
    ('kind = "fhir"\nurl = "https://h/"\nport = 443', "destinations.x.port: there is no such setting"),
    ('kind = "fhir"\nurl = "https://h/"\nusername = "u"', "username and password go together"),
    ('kind = "fhir"\nurl = "https://h/"\nusername = "u"\npassword = "s3cret"\ntoken = "s3cret"', "either a token or"),
    ('kind = "fhir"\nurl = "https://h/"\nca_file = "/none"', "destinations.x.ca_file: no such file"),
    (
        'kind = "fhir"\nurl = "https://h/"\ncertificate_key = "node.toml"',
        "destinations.x.certificate_key: no such file",
    ),
    ('kind = "fhir"\nurl = "https://h/"\ntoken = ["s3cret"]', "destinations.x.token"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_is_named_in_one_line_without_secrets(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, f"[destinations.x]\n{text}\n")
    message = str(raised.value)
    assert words in message
    assert "node.toml" in message
    assert "\n" not in message
    assert "s3cret" not in f"{message} {raised.value.__cause__}"


FOLDER = '''
"""A destination that copies results into a folder."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from node.deliver.base import SendResult
from node.settings.destinations import DestinationSettings


class FolderDestination(DestinationSettings):
    MODULE: ClassVar[str] = __name__
    TAKES_DICOM: ClassVar[bool] = True

    kind: Literal["folder"]
    path: Path

    @property
    def address(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Folder:
    settings: FolderDestination

    @property
    def address(self) -> str:
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        for path in paths:
            shutil.copy(path, self.settings.path)
            record(SendResult(path, True, 0, "copied"))

    def check(self) -> str:
        return "is there"


def open_destination(settings: FolderDestination, _calling_ae_title: str) -> Folder:
    return Folder(settings)
'''


@pytest.fixture
def folder_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file of a new kind of destination lies among those of the node."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "folder.py").write_text(FOLDER)
    monkeypatch.setattr(node.deliver, "__path__", [*node.deliver.__path__, str(plugins)])
    yield
    KINDS.pop("folder", None)
    sys.modules.pop("node.deliver.folder", None)


@pytest.mark.usefixtures("folder_kind")
def test_a_new_kind_of_destination_is_one_file(tmp_path: Path) -> None:
    settings = load(tmp_path, f'[destinations.share]\nkind = "folder"\npath = "{tmp_path / "share"}"\n')
    (tmp_path / "share").mkdir()
    (tmp_path / "sr.dcm").write_bytes(b"report")
    answers: list[SendResult] = []
    share = open_destination(settings.destinations["share"], "CMBNODE")
    send_all(share, [tmp_path / "sr.dcm"], answers.append)
    assert [answer.answer for answer in answers] == ["copied"]
    assert (tmp_path / "share" / "sr.dcm").read_bytes() == b"report"
    assert json.loads(settings.model_dump_json())["destinations"]["share"]["path"] == str(tmp_path / "share")
    with pytest.raises(ConfigError, match=r"destinations\.share\.path: this setting is required"):
        load(tmp_path, '[destinations.share]\nkind = "folder"\n')


def test_settings_load_no_network_library() -> None:
    code = (
        "import sys; from node.settings import Settings; "
        "Settings(destinations={'vna': {'kind': 'stow', 'url': 'https://h'}}); "
        "print([name for name in ('httpx', 'pynetdicom', 'hl7', 'node.deliver') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
