"""Who looked at what and who changed what is in the audit, and no request can keep itself out of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from node.ledger import Ledger
from node.ledger.access_records import AuditAction
from node.roles import UserRole
from node.settings import load_settings
from node.web.app import create_app
from node.web.auth import LOCAL, POLL
from tests.node.conftest import Clock
from tests.node.people import add, browser, settings_for, sign_in
from tests.node.seeded import Seeder


def test_who_looked_and_who_changed_is_written_down_once(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    uid = seeder.receive("one", "Hopper^Grace", "P-1001")
    add(seeder.ledger, "root", UserRole.ADMINISTRATOR)
    with browser(create_app(settings_for(fast_folder / "node"), seeder.ledger)) as web:
        sign_in(web, "root", "not the password")
        sign_in(web, "hunter2 by mistake", "root")
        sign_in(web, "root")
        web.get("/?q=Hopper")
        web.get("/?q=Hopper", headers={POLL: "1"})
        web.get(f"/studies/{uid}")
        web.get(f"/studies/{uid}", headers={POLL: "1"})
        web.get("/studies/1.2.3")
        page = web.get("/audit", params={"q": "hopper"}).text
        whole = web.get("/audit").text
        web.post("/sign-out")
    expected = [
        ("root", AuditAction.REFUSAL),
        ("?", AuditAction.REFUSAL),
        ("root", AuditAction.SIGN_IN),
        ("root", AuditAction.LIST),
        ("root", AuditAction.STUDY),
        ("root", AuditAction.AUDIT),
        ("root", AuditAction.AUDIT),
        ("root", AuditAction.SIGN_OUT),
    ]
    entries = seeder.ledger.audit()
    seeder.ledger.close()
    assert actions_of(entries) == expected
    assert "hunter2" not in " ".join(f"{entry.user_name}{entry.detail}" for entry in entries)
    assert "Grace Hopper" in page
    assert "sign-in refused</b>" not in page
    assert "sign-in refused</b>" in whole


def actions_of(entries: list) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(entry.user_name, entry.action) for entry in reversed(entries) if entry.user_name != "test"]


@pytest.mark.parametrize("path", ["/?q=Hopper", "/studies/{uid}"])
def test_a_header_hides_no_look_from_the_audit(fast_folder: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    seeder = Seeder(fast_folder / "node")
    uid = seeder.receive("one", "Hopper^Grace", "P-1001")
    for name in ("ada", "grace"):
        add(seeder.ledger, name)
    path = path.replace("{uid}", uid)

    def looks(web: TestClient, path: str) -> int:
        """How many rows a page that says that it reloads itself adds to the audit."""
        before = len(seeder.ledger.audit(limit=1000))
        assert web.get(path, headers={POLL: "1"}).status_code == 200
        return len(seeder.ledger.audit(limit=1000)) - before

    app = create_app(settings_for(fast_folder / "node"), seeder.ledger)
    with browser(app) as here, browser(app) as there:
        sign_in(here, "ada")
        sign_in(there, "ada")
        assert looks(here, path) == 1  # it has not looked before
        assert [looks(here, path) for _ in range(3)] == [0, 0, 0]
        assert looks(there, path) == 1  # another session
        assert looks(here, "/?q=other") == 1  # another list
        monkeypatch.setattr("node.web.audit.REPEAT_S", 0.0)
        assert looks(here, path) == 1  # the page has stayed open for long
    seeder.ledger.close()


def test_only_a_page_that_reloads_itself_goes_without_a_record(web: TestClient, ledger: Ledger) -> None:
    sign_in(web, "root")
    for _ in range(2):
        for path in ("/api/jobs", "/audit"):
            assert web.get(path, headers={POLL: "1"}).status_code == 200
    assert [entry.action for entry in ledger.audit(limit=4)] == [AuditAction.AUDIT, AuditAction.LIST] * 2


def test_where_sign_in_is_switched_off_the_audit_says_so(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    uid = seeder.receive("one", "Hopper^Grace", "P-1001")
    settings = load_settings(None, data_dir=fast_folder / "node", worklist={"sign_in": False})
    with browser(create_app(settings, seeder.ledger)) as web:
        page = web.get(f"/studies/{uid}")
        assert web.get("/account").status_code == 404
        assert web.get("/sign-in").status_code == 303
        assert web.get("/audit").status_code == 200
    assert actions_of(seeder.ledger.audit()) == [(LOCAL.name, AuditAction.STUDY), (LOCAL.name, AuditAction.AUDIT)]
    seeder.ledger.close()
    assert "Sign out" not in page.text


def test_the_audit_is_kept_as_long_as_set(ledger: Ledger, clock: Clock) -> None:
    ledger.record_access("ada", AuditAction.STUDY, "1.2.3")
    clock.forward(86_400)
    ledger.record_access("ada", AuditAction.STUDY, "1.2.4")
    assert ledger.forget_audit(clock() - timedelta(hours=1)) > 0
    assert [entry.study_instance_uid for entry in ledger.audit()] == ["1.2.4"]
