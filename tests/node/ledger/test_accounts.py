"""Accounts, sessions, attempts and the audit in the ledger; passwords; and the commands that manage them."""

from __future__ import annotations

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli import main
from node.commands.options import actor
from node.ledger import Ledger
from node.ledger.access_records import AuditAction, AuditFilters
from node.roles import SessionKind, UserRole
from node.run.retention import forget_old
from node.settings import WorklistSettings
from node.web import passwords
from node.web.auth import token_hash
from node.web.passwords import check_new_password, hash_password, needs_rehash, user_name, verify_password
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.ledger_factory import receive, uid
from tests.node.people import CHEAP, HASH, PASSWORD, add
from tests.node.seeded import Seeder

pytestmark = pytest.mark.slow


def test_a_session_makes_its_holder_known(ledger: Ledger, clock: Clock) -> None:
    add(ledger, "ada", UserRole.READER, "Ada Lovelace")
    ledger.open_session("a" * 64, "ada", SessionKind.BROWSER, 100)
    found = ledger.session_account("a" * 64, 50)
    assert found is not None
    assert (found.name, found.display_name, found.role) == ("ada", "Ada Lovelace", UserRole.READER)
    assert ledger.session_account("b" * 64, 50) is None
    clock.forward(49)
    assert ledger.session_account("a" * 64, 50) is not None
    clock.forward(49)
    assert ledger.session_account("a" * 64, 50) is not None  # it was used
    clock.forward(3)
    assert ledger.session_account("a" * 64, 50) is None  # its longest time is over


@pytest.mark.parametrize("change", ["disable", "password", "close"])
def test_a_session_ends_with_the_account_or_its_password(ledger: Ledger, change: str) -> None:
    for name in ("ada", "grace"):
        add(ledger, name)
        ledger.open_session(name * 2, name, SessionKind.BROWSER, 1000)
        ledger.open_session(name * 3, name, SessionKind.PROGRAM, 1000)
    if change == "disable":
        ledger.disable_account("ada", actor="test")
    elif change == "password":
        ledger.set_password("ada", "other", actor="test")
    else:
        for kind in SessionKind:
            assert ledger.close_sessions("ada", kind=kind, actor="test") == 1
    assert [ledger.session_account("ada" * n, 100) for n in (2, 3)] == [None, None]
    assert ledger.session_account("grace" * 2, 100) is not None
    assert (ledger.count_sessions("ada"), ledger.count_sessions("grace")) == (0, 2)


def test_someone_disabled_has_no_password_until_enabled_again(ledger: Ledger) -> None:
    add(ledger, "ada")
    assert ledger.has_accounts()
    ledger.disable_account("ada", actor="test")
    assert ledger.password_hash("ada") is None
    assert not ledger.has_accounts()
    ledger.disable_account("ada", actor="test", disabled=False)
    assert ledger.password_hash("ada") == HASH


def test_a_name_is_taken_once_and_an_unknown_one_is_an_error(ledger: Ledger) -> None:
    add(ledger, "ada")
    with pytest.raises(InputError, match="taken"):
        add(ledger, "ada", UserRole.ADMINISTRATOR)
    assert ledger.account("ada").role is UserRole.VIEWER
    for change in (
        lambda: ledger.set_role("bob", UserRole.READER, actor="test"),
        lambda: ledger.set_password("bob", "x", actor="test"),
        lambda: ledger.account("bob"),
    ):
        with pytest.raises(InputError, match="no such user"):
            change()


def test_every_change_of_an_account_is_in_the_audit(ledger: Ledger) -> None:
    add(ledger, "ada")
    ledger.set_role("ada", UserRole.READER, actor="root")
    ledger.set_password("ada", "x", actor="root")
    ledger.disable_account("ada", actor="root")
    assert [(entry.user_name, entry.action, entry.detail) for entry in reversed(ledger.audit())] == [
        ("test", AuditAction.USER, "ada added as viewer"),
        ("root", AuditAction.USER, "ada: role reader"),
        ("root", AuditAction.PASSWORD, "password of ada"),
        ("root", AuditAction.USER, "ada disabled"),
    ]


def test_many_at_once_get_no_more_attempts_than_one_after_the_other(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: ledger.try_after_s("k", 5, 60), range(16)))
    assert waits.count(0) == 5
    assert ledger.count_attempts("k", 60) == 5
    assert ledger.count_attempts("other", 60) == 0


def test_attempts_are_forgotten_one_by_one_as_their_time_passes(ledger: Ledger, clock: Clock) -> None:
    for _ in range(3):
        assert ledger.try_after_s("k", 3, 60) == 0
        clock.forward(10)
    assert ledger.try_after_s("k", 3, 60) == 30
    clock.forward(29.5)
    assert ledger.try_after_s("k", 3, 60) == 1
    clock.forward(1.5)
    assert ledger.try_after_s("k", 3, 60) == 0
    assert ledger.try_after_s("k", 3, 60) == 9
    ledger.take_back_attempt("k")
    assert ledger.count_attempts("k", 60) == 2
    ledger.clear_attempts("k")
    assert ledger.count_attempts("k", 60) == 0


def test_the_audit_is_narrowed_by_user_action_study_text_and_time(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    ledger.record_access("ada", AuditAction.STUDY, uid("study"), address="10.0.0.7")
    clock.forward(3600)
    ledger.record_access("grace", AuditAction.LIST, detail="q=100%")
    ledger.record_access("ada", AuditAction.LIST, detail="q=1000")

    def users(**narrowed: object) -> list[str]:
        return [f"{entry.user_name} {entry.action}" for entry in ledger.audit(AuditFilters(**narrowed))]  # type: ignore[arg-type]

    assert users(user_name="ada") == ["ada looked at the list", "ada looked at a study"]
    assert users(action=AuditAction.STUDY) == users(study_uid=uid("study")) == ["ada looked at a study"]
    assert users(text="100%") == ["grace looked at the list"]
    assert users(text="10.0.0") == ["ada looked at a study"]
    assert users(since=clock()) == ["ada looked at the list", "grace looked at the list"]
    assert users(until=clock()) == ["ada looked at a study"]
    patient = ledger.study(uid("study")).patient_name
    assert ledger.audit(AuditFilters(text=patient.lower()))[0].patient_name == patient
    assert len(ledger.audit(limit=2)) == 2
    assert [entry.user_name for entry in ledger.audit(limit=2, offset=2)] == ["ada"]


def test_the_same_look_is_written_down_once(ledger: Ledger, clock: Clock) -> None:
    assert ledger.record_access("ada", AuditAction.STUDY, "1.2", once_within_s=60)
    assert not ledger.record_access("ada", AuditAction.STUDY, "1.2", once_within_s=60)
    assert ledger.record_access("ada", AuditAction.STUDY, "1.3", once_within_s=60)
    assert ledger.record_access("grace", AuditAction.STUDY, "1.2", once_within_s=60)
    clock.forward(61)
    assert ledger.record_access("ada", AuditAction.STUDY, "1.2", once_within_s=60)


def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)  # its clock stands two hours back
    settings = WorklistSettings(audit_days=1)
    add(seeder.ledger, "ada")
    seeder.ledger.open_session("live", "ada", SessionKind.BROWSER, 86_400)
    seeder.now -= timedelta(days=3)
    seeder.ledger.open_session("over", "ada", SessionKind.BROWSER, 60)
    seeder.ledger.record_access("ada", AuditAction.LIST)
    seeder.ledger.try_after_s("k", 5, 60)
    forget_old(seeder.ledger, settings)
    kept = [entry.detail for entry in seeder.ledger.audit()]
    attempts = seeder.ledger.count_attempts("k", 60)
    seeder.now += timedelta(days=3)
    assert seeder.ledger.session_account("live", 86_400) is not None
    seeder.ledger.close()
    assert "ada added as viewer" in kept
    assert len(kept) == 2
    assert attempts == 0


def test_a_password_is_known_by_its_hash_alone() -> None:
    kept = hash_password(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert kept != hash_password(PASSWORD)
    assert verify_password(kept, PASSWORD)
    assert not verify_password(kept, PASSWORD + " ")
    assert not verify_password(None, PASSWORD)
    assert not verify_password("no hash at all", PASSWORD)
    assert needs_rehash(HASH)
    assert not needs_rehash(kept)


@given(st.text(max_size=300), st.text(max_size=300))
def test_only_the_very_password_fits(one: str, other: str) -> None:
    before, passwords._hasher = passwords._hasher, CHEAP
    try:
        assert verify_password(CHEAP.hash(one[:256]), other) is (one[:256] == other)
    finally:
        passwords._hasher = before


@pytest.mark.parametrize("password", ["", "short", "x" * 40, "ada.lovelace", "y" * 300])
def test_a_password_that_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(InputError):
        check_new_password(password, "ada.lovelace")


@pytest.mark.parametrize("name", ["", " ", "a b", "<b>", "ä", "x" * 65, "-x", "a\nb", "a/b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a valid user name"):
        user_name(name)


@given(st.sampled_from(list(UserRole)), st.sampled_from(list(UserRole)))
def test_each_role_may_do_what_those_before_it_may(role: UserRole, wanted: UserRole) -> None:
    assert role.may_act_as(wanted) is (list(UserRole).index(role) >= list(UserRole).index(wanted))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(passwords, "_hasher", CHEAP)
    Seeder(tmp_path).ledger.close()
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, data: Path, *words: str, stdin: str = "") -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    return main([*words, "--data", str(data)])


def test_people_are_managed_on_the_command_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str, stdin: str = "") -> int:
        return command(monkeypatch, data, "users", *words, stdin=stdin)

    assert run("add", "Root", "--role", "administrator", stdin=f"{PASSWORD}\n") == 0
    assert run("add", "ada", "--display-name", "Ada <Lovelace>", stdin=f"{PASSWORD}\r\n") == 0
    assert run("add", "ada", stdin=f"{PASSWORD}\n") == 2
    assert run("add", "short", stdin="short\n") == 2
    assert run("add", "nothing", stdin="") == 2
    assert run("set-role", "ada", "reader") == 0
    assert run("disable", "root") == 2
    assert run("add", "other", "--role", "administrator", stdin=f"{PASSWORD}\n") == 0
    assert run("disable", "root") == 0
    assert run("disable", "nobody") == 2
    assert run("reset-password", "ada", stdin="another sentence of words\n") == 0
    said = capsys.readouterr()
    assert "taken" in said.err
    assert "fewer than 12" in said.err
    assert "last administrator; make another user administrator first" in said.err
    assert PASSWORD not in said.out + said.err
    assert run("list", "--json") == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["users"]}
    assert {name: (one["role"], one["disabled"] is None) for name, one in listed.items()} == {
        "ada": ("reader", True),
        "other": ("administrator", True),
        "root": ("administrator", False),
    }
    assert run("list") == 0
    assert "Ada <Lovelace>" in capsys.readouterr().out
    ledger = Ledger(f"sqlite:///{data / 'ledger.sqlite3'}")
    assert verify_password(ledger.password_hash("ada"), "another sentence of words")
    ledger.close()


def test_a_program_gets_a_token_that_is_shown_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, data, "users", "add", "ris", stdin=f"{PASSWORD}\n")
    capsys.readouterr()
    assert command(monkeypatch, data, "users", "token", "ris", "--days", "30") == 0
    token = capsys.readouterr().out.strip()
    ledger = Ledger(f"sqlite:///{data / 'ledger.sqlite3'}")
    found = ledger.session_account(token_hash(token), 1)
    assert found is not None
    assert found.name == "ris"
    assert token.encode() not in (data / "ledger.sqlite3").read_bytes()
    assert command(monkeypatch, data, "users", "token", "ris", "--revoke") == 0
    assert ledger.session_account(token_hash(token), 1) is None
    assert command(monkeypatch, data, "users", "disable", "ris") == 0
    assert command(monkeypatch, data, "users", "token", "ris") == 2
    ledger.close()


def test_the_audit_is_listed_and_narrowed_on_the_command_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, data, "users", "add", "ada", stdin=f"{PASSWORD}\n")
    ledger = Ledger(f"sqlite:///{data / 'ledger.sqlite3'}")
    ledger.record_access("ada", AuditAction.REFUSAL, detail="wrong password\x1b[31m", address="10.0.0.7")
    ledger.close()
    capsys.readouterr()
    assert command(monkeypatch, data, "audit", "--json") == 0
    entries = json.loads(capsys.readouterr().out)["audit"]
    assert [entry["action"] for entry in entries] == ["sign-in refused", "changed a user"]
    assert entries[1]["user_name"] == actor()
    assert command(monkeypatch, data, "audit", "--user", "ada", "--since", "2020-01-01") == 0
    table = capsys.readouterr().out
    assert "sign-in refused" in table
    assert "changed a user" not in table
    assert "\x1b" not in table
    assert command(monkeypatch, data, "audit", "--until", "2020-01-01", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"audit": []}
    assert command(monkeypatch, data, "audit", "--since", "yesterday") == 2


def test_jobs_says_why_a_result_is_not_delivered_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeder = Seeder(tmp_path)
    seeder.receive("one", "Hopper^Grace", "P-1001")
    seeder.settle("one")
    seeder.open("one")
    seeder.analyse("one", 2)
    seeder.deliver("one", refused="PACS@10.0.0.7:104 does not answer")
    seeder.ledger.close()
    assert main(["jobs", "--data", str(tmp_path)]) == 0
    assert "pacs: PACS@10.0.0.7:104 does not answer; next attempt" in capsys.readouterr().out
    assert main(["jobs", "--json", "--data", str(tmp_path)]) == 0
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert job["why"].startswith("pacs: PACS@10.0.0.7:104 does not answer")
    assert main(["show", str(job["id"]), "--data", str(tmp_path)]) == 0
    assert "does not answer; next attempt" in capsys.readouterr().out


def test_one_administrator_always_remains(ledger: Ledger) -> None:
    for name in ("ada", "grace"):
        add(ledger, name, UserRole.ADMINISTRATOR)

    def disable(name: str) -> str:
        try:
            ledger.disable_account(name, actor="other")
        except InputError as error:
            return error.what
        return ""

    with ThreadPoolExecutor(2) as pool:  # each disables the other at the same time
        assert sorted(pool.map(disable, ("ada", "grace"))) == ["", "this is the last administrator"]
    (left,) = [account.name for account in ledger.accounts() if account.disabled_at is None]
    with pytest.raises(InputError, match="last administrator"):
        ledger.set_role(left, UserRole.READER, actor="test")
    assert ledger.account(left).role is UserRole.ADMINISTRATOR
