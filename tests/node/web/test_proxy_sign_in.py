"""A trusted proxy says who the user is; nobody else can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from node.ledger import Ledger
from node.ledger.access_records import AuditAction
from node.roles import SessionKind, UserRole
from node.settings import ConfigError
from node.web.app import create_app
from node.web.auth import token_hash
from tests.node.people import ADDRESS, settings_for, sign_in

PROXY = {"addresses": ["10.1.2.7", "fd00::/64"], "roles": {"radiology": "reader", "pacs team": "administrator"}}
JANE = {"remote-user": "Jane", "remote-name": "Dr. Jané Doe".encode(), "remote-groups": "staff, radiology"}


def client(ledger: Ledger, folder: Path, peer: str = "10.1.2.7", **proxy: Any) -> TestClient:
    """A browser behind the connection of `peer`; :data:`JANE`'s headers are the caller's to send."""
    app = create_app(settings_for(folder, proxy_sign_in={**PROXY, **proxy}), ledger)
    web = TestClient(app, base_url=ADDRESS, client=(peer, 5000), follow_redirects=False)
    web.headers.update({"origin": ADDRESS, "accept": "text/html"})
    return web


def sign_ins(ledger: Ledger) -> list[tuple[str, str, str, str]]:
    actions = (AuditAction.SIGN_IN, AuditAction.REFUSAL, AuditAction.SIGN_OUT)
    entries = (entry for entry in reversed(ledger.audit()) if entry.action in actions)
    return [(entry.user_name, entry.action, entry.detail, entry.address) for entry in entries]


@pytest.mark.parametrize("peer", ["10.1.2.7", "fd00::1"])
def test_the_proxy_names_the_user_and_the_audit_the_person(ledger: Ledger, fast_folder: Path, peer: str) -> None:
    web = client(ledger, fast_folder, peer)
    web.headers["x-forwarded-for"] = "192.0.2.7"
    page = web.get("/", headers=JANE)
    assert (page.status_code, "Dr. Jané Doe" in page.text, "set-cookie" in page.headers) == (200, True, False)
    assert web.get("/?q=Hopper", headers=JANE).status_code == 200
    assert [(entry.user_name, entry.action, entry.address) for entry in ledger.audit(limit=3)] == [
        ("jane", AuditAction.LIST, "192.0.2.7"),
        ("jane", AuditAction.LIST, "192.0.2.7"),
        ("jane", AuditAction.SIGN_IN, "192.0.2.7"),
    ]
    assert web.get("/").status_code == 303  # a request without the header has no user


def test_a_user_of_the_proxy_has_no_password_to_change(ledger: Ledger, fast_folder: Path) -> None:
    web = client(ledger, fast_folder)
    assert "<input" not in web.get("/account", headers=JANE).text
    assert web.post("/account", headers=JANE, data={"password": "x"}).status_code == 403


@pytest.mark.parametrize("peer", ["10.1.2.8", "127.0.0.1", "fd01::1", "testclient", ""])
def test_from_any_other_address_the_header_is_ignored_and_logged(ledger: Ledger, fast_folder: Path, peer: str) -> None:
    web = client(ledger, fast_folder, peer)
    forged = {**JANE, "x-forwarded-for": "10.1.2.7", "x-real-ip": "10.1.2.7", "forwarded": "for=10.1.2.7"}
    with capture_logs() as lines:
        answers = [web.get("/", headers=forged) for _ in range(3)]
    assert {(one.status_code, one.headers["location"]) for one in answers} == {(303, "/sign-in")}
    said = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["event"], line["peer"]) for line in said] == [
        ("a user header is ignored: its sender is no trusted proxy", peer)
    ]
    assert sign_in(web, "ada").status_code == 303  # passwords work beside it
    assert "Jan" not in web.get("/", headers=forged).text
    assert sign_ins(ledger)[-1][:2] == ("ada", AuditAction.SIGN_IN)


def test_without_the_setting_the_header_means_nothing(web: TestClient) -> None:
    assert web.get("/", headers=JANE).status_code == 303


@pytest.mark.parametrize(
    ("groups", "default", "role"),
    [
        ("radiology", None, UserRole.READER),
        ("pacs team , radiology", None, UserRole.ADMINISTRATOR),
        ("nurses", "viewer", UserRole.VIEWER),
        ("radiology", "viewer", UserRole.READER),
        ("Radiology", None, None),
        ("", None, None),
    ],
)
def test_the_groups_decide_the_role(
    ledger: Ledger, fast_folder: Path, groups: str, default: str | None, role: UserRole | None
) -> None:
    web = client(ledger, fast_folder, default_role=default)
    page = web.get("/account", headers={**JANE, "remote-groups": groups})
    if role is not None:
        assert f"Signed in as jane ({role})." in page.text
        assert web.get("/administration", headers={**JANE, "remote-groups": groups}).status_code == (
            200 if role is UserRole.ADMINISTRATOR else 403
        )
        return
    assert page.status_code == 403
    assert "none of the groups" in page.text
    assert [entry[:2] for entry in sign_ins(ledger)] == [("jane", AuditAction.REFUSAL)]
    assert web.get("/sign-in", headers={**JANE, "remote-groups": groups}).status_code == 403  # and it leads nowhere


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([("remote-user", "not signed in")], "not a valid user name"),
        ([("remote-user", "<b>eve</b>")], "not a valid user name"),
        ([("remote-user", "jane"), ("remote-user", "root")], "remote-user more than once"),
        ([("remote-user", ""), ("remote-user", "root")], "remote-user more than once"),
        ([("remote-user", "jane"), ("remote-groups", "pacs team")], "remote-groups more than once"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(
    ledger: Ledger, fast_folder: Path, headers: list[tuple[str, str]], why: str
) -> None:
    web = client(ledger, fast_folder)
    page = web.get("/", headers=[*headers, ("remote-groups", "radiology"), ("accept", "text/html")])
    assert page.status_code == 403
    assert why in page.text.lower()


def test_a_disabled_account_closes_the_way_through_the_proxy(ledger: Ledger, fast_folder: Path) -> None:
    web = client(ledger, fast_folder)
    ada = {**JANE, "remote-user": "ada"}
    assert web.get("/", headers=ada).status_code == 200
    ledger.disable_account("ada", actor="root")
    assert "this user is disabled" in web.get("/", headers=ada).text
    assert web.get("/", headers=JANE).status_code == 200


def test_a_token_that_the_proxy_passes_on_is_no_leave_to_forge_requests(ledger: Ledger, fast_folder: Path) -> None:
    web = client(ledger, fast_folder)
    passed_on = {**JANE, "remote-groups": "pacs team", "authorization": "Bearer of-the-identity-provider"}
    form = {"name": "eve", "role": "administrator"}
    forged = {**passed_on, "origin": "https://evil.example"}
    assert web.post("/administration/users", data=form, headers=forged).status_code == 403
    assert [account.name for account in ledger.accounts()] == ["ada", "grace", "root"]
    assert web.post("/administration/users", data=form, headers=passed_on).status_code == 200
    page = web.get("/administration", headers=passed_on).text
    assert "radiology (reader), pacs team (administrator), everybody else (no access)." in page


def test_passwords_can_be_switched_off(ledger: Ledger, fast_folder: Path) -> None:
    for kind in SessionKind:
        ledger.open_session(token_hash(kind), "ada", kind, 1000)
    web = client(ledger, fast_folder, passwords=False)
    assert 'type="password"' not in web.get("/sign-in").text
    assert sign_in(web, "ada").status_code == 403
    web.cookies.set("cmbnode", SessionKind.BROWSER)
    assert web.get("/").status_code == 303
    assert web.get("/api/jobs", headers={"authorization": f"Bearer {SessionKind.PROGRAM}"}).status_code == 200
    assert web.get("/", headers=JANE).status_code == 200


@pytest.mark.parametrize("url", ["https://auth.example/logout?rd=1", "/oauth2/sign_out"])
def test_signing_out_leads_where_the_proxy_signs_out(ledger: Ledger, fast_folder: Path, url: str) -> None:
    web = client(ledger, fast_folder, sign_out_url=url)
    page = web.get("/", headers=JANE)
    assert "Sign out" in page.text
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["form-action"] == ("'self' https://auth.example" if url.startswith("https") else "'self'")
    answer = web.post("/sign-out", headers=JANE)
    assert (answer.status_code, answer.headers["location"]) == (303, url)
    assert sign_ins(ledger)[-1][:2] == ("jane", AuditAction.SIGN_OUT)
    sign_in(web, "ada")
    assert web.post("/sign-out").headers["location"] == "/sign-in"


def test_without_such_an_address_there_is_no_sign_out(ledger: Ledger, fast_folder: Path) -> None:
    web = client(ledger, fast_folder)
    assert "Sign out" not in web.get("/", headers=JANE).text
    sign_in(web, "ada")
    assert "Sign out" in web.get("/").text


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"roles": {"a": "reader"}}, r"proxy_sign_in\.addresses: this setting is required"),
        ({"addresses": [], "roles": {"a": "reader"}}, r"proxy_sign_in\.addresses"),
        ({"addresses": ["0.0.0.0/0"], "roles": {"a": "reader"}}, "not every address"),
        ({"addresses": ["proxy.example"], "roles": {"a": "reader"}}, r"proxy_sign_in\.addresses"),
        ({"addresses": ["10.1.2.7"]}, "nobody has a role"),
        ({"addresses": ["10.1.2.7"], "roles": {"a": "root"}}, r"proxy_sign_in\.roles"),
        ({**PROXY, "user_header": "Remote User:"}, r"proxy_sign_in\.user_header"),
        ({**PROXY, "sign_out_url": "//evil.example"}, r"proxy_sign_in\.sign_out_url"),
        ({**PROXY, "sign_out_url": "javascript:alert(1)"}, r"proxy_sign_in\.sign_out_url"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(fast_folder: Path, setting: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings_for(fast_folder, proxy_sign_in=setting)


def test_sign_in_cannot_be_both_switched_off_and_the_proxys(fast_folder: Path) -> None:
    with pytest.raises(ConfigError, match="contradicts"):
        settings_for(fast_folder, host="127.0.0.1", sign_in=False, proxy_sign_in=PROXY)
