"""An administrator sees how destinations do and tests them, tries the routing rules, and adds and disables users."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from node.ledger import Ledger
from node.ledger.access_records import AuditAction
from node.roles import UserRole
from node.settings import load_settings
from node.web import administration
from node.web.app import create_app
from tests.certificates import DAY, Authority
from tests.node.conftest import Clock
from tests.node.doctor.test_doctor import answering_echo
from tests.node.ledger_factory import analyse, deliver, job_of_new_study
from tests.node.people import browser, sign_in
from tests.web_server import PATIENCE_S

ROUTES = ("/administration", "/administration/dry-run")
CHANGES = (
    "/administration/destinations/pacs/test",
    "/administration/users",
    "/administration/users/ada/role",
    "/administration/users/ada/disable",
    "/administration/users/ada/enable",
)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A socket that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def destinations(fast_folder: Path, silent: socket.socket) -> dict[str, Any]:
    port = silent.getsockname()[1]
    own = Authority(fast_folder).issue("node", valid=20 * DAY)
    return {
        "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": port},
        "ris": {"kind": "hl7", "host": "127.0.0.1", "port": port, "tls": True, **own.settings},
        "vna": {"kind": "stow", "url": "http://127.0.0.1:1/dicom-web", "token": "a-secret-token"},
    }  # fmt: skip


@pytest.fixture
def root(ledger: Ledger, fast_folder: Path, destinations: dict[str, Any]) -> Iterator[TestClient]:
    """The browser of an administrator."""
    settings = load_settings(
        None, data_dir=fast_folder / "node", worklist={"host": "0.0.0.0"}, destinations=destinations
    )
    with browser(create_app(settings, ledger)) as client:
        sign_in(client, "root")
        yield client


def done(ledger: Ledger, *actions: AuditAction) -> list[tuple[str, str]]:
    """What is in the audit of these actions, the oldest first."""
    return [(one.user_name, one.detail) for one in reversed(ledger.audit()) if one.action in actions]


def test_nobody_but_an_administrator_sees_it(root: TestClient, web: TestClient, ledger: Ledger) -> None:
    for name in ("ada", "grace"):
        sign_in(web, name)
        assert "/administration" not in web.get("/").text
        assert {web.get(path).status_code for path in ROUTES} == {403}
        assert {web.post(path, data={"role": "reader"}).status_code for path in CHANGES} == {403}
    assert ledger.account("ada").role is UserRole.VIEWER
    assert 'href="/administration"' in root.get("/").text
    assert {root.get(path).status_code for path in ROUTES} == {200}
    assert done(ledger, AuditAction.ADMINISTRATION, AuditAction.DRY_RUN) == [("root", ""), ("root", "5 studies")]


@pytest.mark.parametrize("path", CHANGES)
def test_a_page_of_another_site_changes_nothing(root: TestClient, ledger: Ledger, path: str) -> None:
    answer = root.post(path, data={"role": "administrator", "name": "eve"}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert [(one.name, one.role.value, one.disabled_at) for one in ledger.accounts()] == [
        ("ada", "viewer", None),
        ("grace", "reader", None),
        ("root", "administrator", None),
    ]


def test_each_destination_says_how_it_does(root: TestClient, ledger: Ledger, clock: Clock) -> None:
    for study in ("first", "second", "third"):
        analyse(ledger, job_of_new_study(ledger, clock(), study), "sr")
        if study == "first":
            deliver(ledger)
        clock.forward(60)
    (claimed,) = ledger.claim_deliveries("pacs", "sender", 30, 1)
    ledger.delivery_failed(claimed.id, "sender", "0xA700 out of <resources>", clock() + timedelta(hours=1))
    (claimed,) = ledger.claim_deliveries("pacs", "sender", 30, 1)
    clock.forward(60)
    ledger.release_deliveries("sender")  # no failure of the destination
    record = ledger.destination_records()["pacs"]
    assert (record.accepted_at, record.failed_at) == (clock.forward(-240), clock.forward(180))
    assert (record.waiting, record.failed, record.failure) == (2, 0, "0xA700 out of <resources>")
    page = root.get("/administration").text
    lines = dict(re.findall(r'<tr id="destination-\d">\s*<td><b>(\w+)</b>(.*?)</tr>', page, re.DOTALL))
    assert [text in lines["pacs"] for text in ("Failing", "0xA700 out of &lt;resources&gt;", "no TLS")] == [True] * 3
    assert "TLS; certificate expires in 19 days" in lines["ris"]
    assert "Nothing sent yet" in lines["vna"]
    assert "http://127.0.0.1:1/dicom-web" in lines["vna"]
    assert "a-secret-token" not in page


def test_a_destination_that_answers_is_told(ledger: Ledger, fast_folder: Path, destinations: dict[str, Any]) -> None:
    with answering_echo() as port:
        pacs = {**destinations["pacs"], "port": port}
        settings = load_settings(None, data_dir=fast_folder, worklist={"sign_in": False}, destinations={"pacs": pacs})
        with browser(create_app(settings, ledger)) as web:
            page = web.post("/administration/destinations/pacs/test").text
    assert f'<p class="notice good" role="status">PACS@127.0.0.1:{port} answers C-ECHO (' in page


def test_a_test_answers_in_one_line_and_is_in_the_audit(root: TestClient, ledger: Ledger) -> None:
    page = root.post("/administration/destinations/vna/test").text
    (line,) = re.findall(r'<p class="notice bad" role="status">(.*?)</p>', page)
    assert line.startswith("http://127.0.0.1:1/dicom-web cannot be reached")
    assert line.endswith("Check address, firewall, and that the other side knows this node.")
    ((who, detail),) = done(ledger, AuditAction.TEST)
    assert who == "root"
    assert detail.startswith("vna: http://127.0.0.1:1/dicom-web cannot be reached")
    assert root.post("/administration/destinations/nowhere/test").status_code == 404


def test_a_destination_that_says_nothing_holds_nobody_up(
    root: TestClient, ledger: Ledger, silent: socket.socket
) -> None:
    answers: list[str] = []

    def test() -> None:
        answers.append(root.post("/administration/destinations/pacs/test").text)

    waiting = threading.Thread(target=test)
    waiting.start()
    while not any(name.endswith("pacs") and lock.locked() for name, lock in _under_way(root).items()):
        assert waiting.is_alive()
        time.sleep(0.01)
    assert root.get("/administration").status_code == 200
    assert "A test of this destination is already running" in root.post("/administration/destinations/pacs/test").text
    silent.close()
    waiting.join(PATIENCE_S)
    assert "does not answer" in answers[0]
    assert len(done(ledger, AuditAction.TEST)) == 2


def test_a_test_ends_in_time_whatever_the_destination_does(
    root: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administration, "TEST_LIMIT_S", 0.2)
    assert "No answer within 0.2 s." in root.post("/administration/destinations/pacs/test").text
    assert done(ledger, AuditAction.TEST) == [("root", "pacs: No answer within 0.2 s.")]


def _under_way(client: TestClient) -> dict[str, threading.Lock]:
    under_way: dict[str, threading.Lock] = client.app.state.context.under_way  # type: ignore[attr-defined]
    return under_way


def test_the_rules_are_shown_as_the_file_has_them(
    ledger: Ledger, fast_folder: Path, destinations: dict[str, Any]
) -> None:
    file = fast_folder / "rules.toml"
    file.write_text(
        '[[rule]]\nname = "stroke unit"\nrole = "swi"\ncalling_ae = ["STROKE", "ER"]\n'
        'study_description = "stroke|tia"\naction = "analyse"\nprofile = "default"\n'
        'priority = "stat"\ndestinations = ["pacs"]\n'
        '[[rule]]\nname = "rest"\naction = "ignore"\nwhy = "not <wanted>"\n'
    )
    settings = load_settings(
        None, data_dir=fast_folder, worklist={"sign_in": False}, destinations=destinations, routing_file=file
    )
    with browser(create_app(settings, ledger)) as web:
        page = web.get("/administration").text
        assert "role swi; calling AE title STROKE or ER; study description matches stroke|tia" in page
        assert "profile default; priority stat; to pacs" in page
        assert "not &lt;wanted&gt;" in page
        file.write_text('[[rule]]\nname = "stroke unit"\naction = "analyse"\n')
        broken = web.get("/administration").text
        assert "rules.toml: rule 1 (stroke unit): profile: missing" in broken
        assert web.get("/administration/dry-run").status_code == 409


def test_someone_who_was_added_signs_in_with_the_password_that_was_shown_once(
    root: TestClient, web: TestClient, ledger: Ledger
) -> None:
    form = {"name": " Joan ", "display_name": "Joan <Clarke>", "role": "reader"}
    page = root.post("/administration/users", data=form).text
    (password,) = re.findall(r"only now: <code>(.*?)</code>", page)
    assert password not in root.get("/administration").text
    assert sign_in(web, "joan", password).status_code == 303
    assert (ledger.account("joan").display_name, ledger.account("joan").role) == ("Joan <Clarke>", UserRole.READER)
    assert done(ledger, AuditAction.USER)[-1] == ("root", "joan added as reader")
    assert [one.address for one in ledger.audit() if one.detail == "joan added as reader"] == ["testclient"]
    for name, why in (("joan", "This name is taken."), ("not a name", "Not a valid user name.")):
        answer = root.post("/administration/users", data={**form, "name": name})
        assert (answer.status_code, why in answer.text) == (422, True)
        assert "only now" not in answer.text


def test_a_disabled_user_is_out_at_once_and_an_enabled_one_signs_in_again(
    root: TestClient, web: TestClient, ledger: Ledger
) -> None:
    sign_in(web, "ada")
    assert root.post("/administration/users/ada/role", data={"role": "reader"}).status_code == 303
    assert web.get("/").status_code == 200
    assert root.post("/administration/users/ada/disable").headers["location"] == "/administration#user-ada"
    assert web.get("/").status_code == 303
    assert sign_in(web, "ada").status_code == 401
    assert root.post("/administration/users/ada/enable").status_code == 303
    assert web.get("/").status_code == 303  # the old session stays ended
    assert sign_in(web, "ada").status_code == 303
    assert done(ledger, AuditAction.USER)[-3:] == [
        ("root", "ada: role reader"),
        ("root", "ada disabled"),
        ("root", "ada enabled"),
    ]
    assert root.post("/administration/users/nobody/disable").status_code == 409


def test_nobody_disables_themselves_or_the_last_administrator(root: TestClient, ledger: Ledger) -> None:
    for path, form in (("disable", {}), ("role", {"role": "viewer"})):
        assert root.post(f"/administration/users/root/{path}", data=form).status_code == 409
    assert "/administration/users/root/" not in root.get("/administration").text
    ledger.set_role("grace", UserRole.ADMINISTRATOR, actor="test")
    assert root.post("/administration/users/grace/disable").status_code == 303
    assert ledger.account("root").disabled_at is None
