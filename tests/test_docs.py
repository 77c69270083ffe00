"""The documentation says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from node.config import Settings, load_settings
from node.destination_settings import Hl7Destination
from node.destinations.oru import oru
from node.rules import load_table
from pipeline.recognition import load_rules
from tests.node.reports import longitudinal, report

ROOT = Path(__file__).parents[1]


def test_the_settings_page_lists_every_setting_as_the_code_has_it() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["reference"]()
    assert (ROOT / "docs" / "settings.md").read_text() == reference, "run: python docs/make_settings.py"


def examples(kind: str) -> list[str]:
    """TOML blocks of the page on PACS whose first line says that they are of this kind."""
    page = (ROOT / "docs" / "connect-a-pacs.md").read_text()
    return [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if block.startswith(f"# {kind}: ")]


def test_the_recognition_rules_on_the_page_are_taken(tmp_path: Path) -> None:
    assert len(examples("recognition")) == 2
    for number, text in enumerate(examples("recognition")):
        (tmp_path / f"{number}.toml").write_text(text)
        own, shipped = load_rules(tmp_path / f"{number}.toml"), load_rules()
        assert len(own.rule) > len(shipped.rule)


def blocks(page: str, kind: str) -> list[str]:
    """Code blocks of one kind on a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_the_destinations_on_the_pages_are_taken_and_the_message_is_what_the_node_sends(tmp_path: Path) -> None:
    (ris, ehr), (vna,) = blocks("connect-a-ris.md", "toml"), examples("destination")
    (tmp_path / "node.toml").write_text(ris + ehr + vna)
    destinations = load_settings(tmp_path / "node.toml").destinations
    assert {name: way.kind for name, way in destinations.items()} == {"ris": "hl7", "ehr": "fhir", "vna": "stow"}
    assert isinstance(destinations["ris"], Hl7Destination)
    message = str(oru(report(longitudinal()), destinations["ris"]))
    assert blocks("connect-a-ris.md", "hl7") == [message.replace("\r", "\n")]


def test_the_routing_rules_on_the_page_are_taken(tmp_path: Path) -> None:
    (text,) = examples("routing")
    (tmp_path / "routing.toml").write_text(text)
    table = load_table(Settings(data_dir=tmp_path, routing_file=tmp_path / "routing.toml"))
    assert [rule.action for rule in table.rule] == ["analyse", "ignore", "analyse", "ignore"]


def test_the_ways_to_earlier_studies_on_the_page_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom, web = examples("priors")
    (tmp_path / "dicom.toml").write_text(dicom)
    (tmp_path / "web.toml").write_text(web)
    assert load_settings(tmp_path / "dicom.toml").priors.dicom is not None
    monkeypatch.setenv("CMBNODE_PRIORS__DICOMWEB__PASSWORD", "secret")
    asked = load_settings(tmp_path / "web.toml").priors.dicomweb
    assert asked is not None
    assert asked.password is not None
    assert asked.password.get_secret_value() == "secret"
