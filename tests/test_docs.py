"""The documentation says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from node.atna import events
from node.atna.message import Code
from node.deliver.oru import oru
from node.ledger import StudyState
from node.route.rules import load_table
from node.settings import ConfigError, Settings, load_settings
from node.settings.destinations import DicomDestination, Hl7Destination
from node.settings.secrets import SECRETS_DIR
from node.web.labels import state_words
from pipeline.read.recognition import load_rules
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


def test_the_notices_on_the_page_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block for block in blocks("operate.md", "toml") if block.startswith("# notices")]
    (tmp_path / "node.toml").write_text(text)
    (tmp_path / "secrets").mkdir()
    for name in ("notices__webhook__secret", "notices__email__password"):
        assert name in (ROOT / "docs" / "operate.md").read_text()
        (tmp_path / "secrets" / name).write_text("a secret of sixteen or more\n")
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path / "secrets"))
    notices = load_settings(tmp_path / "node.toml").notices
    assert notices.channels == ("webhook", "email")
    assert notices.webhook is not None
    assert notices.webhook.secret is not None
    assert notices.webhook.secret.get_secret_value() == "a secret of sixteen or more"


def test_the_audit_repository_on_the_page_is_taken(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("operate.md", "toml") if block.startswith("# audit repository")]
    for name in ("cmbnode.pem", "cmbnode.key", "ca.pem"):
        (tmp_path / name).touch()
    (tmp_path / "node.toml").write_text(text.replace("/etc/cmb-node", str(tmp_path)))
    repository = load_settings(tmp_path / "node.toml").audit_repository
    assert repository is not None
    assert repository.address == "syslog+tls://arr.hospital.example:6514"


def test_the_conformance_statement_names_every_audit_event_that_the_node_sends() -> None:
    statement = (ROOT / "docs" / "conformance.md").read_text()
    codes = [value for value in vars(events).values() if isinstance(value, Code) and value.value.startswith("1101")]
    assert len(codes) > 15
    assert [f"{code.value} {code.meaning}" for code in codes if f"{code.value} {code.meaning}" not in statement] == []


def test_the_routing_rules_on_the_page_are_taken(tmp_path: Path) -> None:
    (text,) = examples("routing")
    (tmp_path / "routing.toml").write_text(text)
    table = load_table(Settings(data_dir=tmp_path, routing_file=tmp_path / "routing.toml"))
    assert [rule.action for rule in table.rule] == ["analyse", "ignore", "analyse", "ignore"]


def test_the_routing_rules_for_one_scanner_are_taken(tmp_path: Path) -> None:
    (text,), destination = blocks("tune.md", "toml"), DicomDestination(ae_title="PACS", host="pacs", port=104)
    (tmp_path / "routing.toml").write_text(text)
    settings = Settings(data_dir=tmp_path, routing_file=tmp_path / "routing.toml", destinations={"pacs": destination})
    assert [rule.profile for rule in load_table(settings).rule] == ["default", "default", None]


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


def test_the_ways_to_new_studies_on_the_page_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom, web = examples("pull")
    (tmp_path / "dicom.toml").write_text(dicom)
    (tmp_path / "web.toml").write_text(web)
    pacs = load_settings(tmp_path / "dicom.toml").pull["archive"]
    assert (pacs.address, pacs.sends_to_receiver) == ("PACS@pacs.hospital.example:104", None)
    (tmp_path / "dicom.toml").write_text(dicom.replace('"c-get"          #', '"c-move" #'))
    with pytest.raises(
        ConfigError, match=r"receiver.host: pacs.hospital.example is asked to send studies \(pull.archive"
    ):
        load_settings(tmp_path / "dicom.toml")
    monkeypatch.setenv("CMBNODE_PULL__ARCHIVE__DICOMWEB__PASSWORD", "secret")
    assert load_settings(tmp_path / "web.toml").pull["archive"].address == "https://pacs.hospital.example/dicom-web"


def test_the_certificates_on_the_page_are_taken(tmp_path: Path) -> None:
    (text,) = examples("tls")
    for name in ("cmbnode.pem", "cmbnode.key", "ca.pem"):
        (tmp_path / name).touch()
    (tmp_path / "node.toml").write_text(text.replace("/etc/cmb-node", str(tmp_path)))
    settings = load_settings(tmp_path / "node.toml")
    pacs, priors = settings.destinations["pacs"], settings.priors.dicom
    assert settings.receiver.ports == (11112, 2762)
    assert isinstance(pacs, DicomDestination)
    assert priors is not None
    assert (pacs.tls, priors.tls) == (True, True)


def test_the_commitment_on_the_page_is_taken(tmp_path: Path) -> None:
    requested, reported = examples("commitment")
    (tmp_path / "node.toml").write_text(requested + reported)
    settings = load_settings(tmp_path / "node.toml")
    pacs = settings.destinations["pacs"]
    assert isinstance(pacs, DicomDestination)
    assert pacs.commit_within_s == 3600
    assert set(settings.dicom_peers) == {"PACS", "MR1"}


def test_the_worklist_manager_on_the_page_is_taken(tmp_path: Path) -> None:
    (text,) = examples("work items")
    (tmp_path / "node.toml").write_text(text)
    manager = load_settings(tmp_path / "node.toml").work_items
    assert manager is not None
    assert manager.station("CMBNODE") == ("CMB1", "Microbleed detector", "99HOSPITAL")
    assert manager.image_service.address == "https://pacs.hospital.example/dicom-web"


def test_the_dicomweb_clients_on_the_page_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = examples("dicomweb")
    (tmp_path / "node.toml").write_text(text)
    monkeypatch.setenv("CMBNODE_SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    for name in ("mr1", "viewer"):
        (tmp_path / "secrets" / f"dicomweb__clients__{name}__token").write_text(f"{name:x<32}\n")
    clients = load_settings(tmp_path / "node.toml").dicomweb.clients
    assert {name: (c.ae_title, c.store, c.retrieve) for name, c in clients.items()} == {
        "mr1": ("MR1", True, False),
        "viewer": ("VIEWER", False, True),
    }


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in link:
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            assert target.is_file(), link
            assert not heading or heading in anchors(target), link


def test_every_state_that_the_page_shows_is_explained() -> None:
    rows = (ROOT / "docs" / "operate.md").read_text().splitlines()
    for state in StudyState:
        assert any(row.startswith(f"| {state_words(state, None)} | `{state.value}` |") for row in rows), state
