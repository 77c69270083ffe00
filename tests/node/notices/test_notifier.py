"""People are told by a real HTTP server and a real mail server: once, all of it, and no patient unless it is wanted."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import ValidationError
from structlog.testing import capture_logs

from node.archive import Archive, DiskSpace
from node.archive.qa_runs import QaRun, add_run
from node.doctor.services import check_notices
from node.doctor.verdict import Verdict
from node.ledger import Priority
from node.notices import Notifier, message
from node.run.sweep import Sweep
from node.settings import Settings
from node.settings.notices import EmailSettings, NoticeSettings, WebhookSettings
from tests.certificates import DAY, Authority
from tests.node.seeded import Seeder
from tests.node.web_service import Request, Response, Web, web
from tests.ports import free_port
from tests.waiting import wait_for

ROOM = DiskSpace(free_mb=100_000, required_mb=2048)
SECRET = "a secret of sixteen or more"
PATIENT = ("Hopper", "P-1001", "A10017")


@dataclass
class Mailbox:
    """The mails that a mail server took, and what it answers."""

    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    answer: str = "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.answer.startswith("250"):
            self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
            self.recipients.append(envelope.rcpt_tos)
        return self.answer

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _how: str, given: LoginPassword) -> AuthResult:
        self.logins.append(given.login.decode())
        return AuthResult(success=given.password == b"hush", handled=False)


@contextmanager
def mail_server(box: Mailbox, authority: Authority | None = None, port: int = 0) -> Iterator[int]:
    """A mail server; with an authority it requires STARTTLS and a password."""
    options: dict[str, Any] = {}
    if authority is not None:
        own = authority.issue("mail", "localhost", "127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(own.certificate, own.key)
        options = {"tls_context": context, "require_starttls": True, "authenticator": box.authenticate,
                   "auth_required": True}  # fmt: skip
    controller = Controller(box, hostname="127.0.0.1", port=port or free_port(), **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[Seeder]:
    made = Seeder(tmp_path)
    yield made
    made.ledger.close()


def taken(_: Request) -> Response:
    return Response(204)


def to(seeder: Seeder, **notices: Any) -> Notifier:
    """What tells, of a node whose ledger it has used before."""
    settings = Settings(data_dir=seeder.data_dir, notices=NoticeSettings(gather_s=0, **notices))
    notifier = Notifier(settings, seeder.ledger)
    notifier.note(seeder.now, ROOM)
    seeder.now += timedelta(seconds=1)
    return notifier


def a_stat_result(seeder: Seeder, key: str = "stat") -> None:
    seeder.receive(key, "Hopper^Grace", "P-1001")
    seeder.settle(key)
    seeder.open(key, Priority.STAT)
    seeder.analyse(key, 7)


def a_failure(seeder: Seeder, key: str, why: str = "series 4: slice 31 of 72 is missing") -> None:
    seeder.receive(key, "Hopper^Grace", "P-1001")
    seeder.settle(key)
    number = seeder.open(key).id
    seeder.ledger.claim_job(number, "worker-1", 30)
    seeder.ledger.fail_attempt(number, "worker-1", why, 3, permanent=True)


def documents(service: Web) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in service.requests]


def test_a_stat_result_comes_signed_and_without_the_patient(seeder: Seeder) -> None:
    with web(taken) as service:
        hook = WebhookSettings(url=f"{service.url}?sig=x", secret=SECRET)
        notifier = to(seeder, webhook=hook)
        a_stat_result(seeder)
        notifier.note(seeder.now, ROOM)
        assert notifier.send() == 1
        assert notifier.send() == 0
    (request,) = service.requests
    assert (request.method, request.path) == ("POST", "/api?sig=x")
    expected = hmac.new(SECRET.encode(), request.content, hashlib.sha256).hexdigest()
    assert request.headers["x-cmbnode-signature"] == f"sha256={expected}"
    document = json.loads(request.content)
    assert (document["schema"], document["node"], document["title"]) == ("cmb-notice/1", "CMBNODE", "1 STAT result")
    (notice,) = document["notices"]
    assert notice["microbleeds"] == {"total": 7, "definite": 4, "possible": 3}
    assert notice["study_instance_uid"] == seeder.studies["stat"]
    assert "7 microbleeds (4 definite, 3 possible)" in notice["text"]
    assert not [word for word in PATIENT if word.encode() in request.content]


@pytest.mark.parametrize(("identify_by", "said"), [("accession number", PATIENT[2:]), ("patient", PATIENT)])
def test_more_of_the_patient_is_said_only_if_it_is_wanted(
    seeder: Seeder, identify_by: Any, said: tuple[str, ...]
) -> None:
    with web(taken) as service:
        notifier = to(seeder, webhook=WebhookSettings(url=service.url), identify_by=identify_by)
        a_stat_result(seeder)
        notifier.note(seeder.now, ROOM)
        notifier.send()
    content = service.requests[0].content
    assert [word for word in PATIENT if word.encode() in content] == list(said)
    assert "x-cmbnode-signature" not in service.requests[0].headers


def test_a_storm_of_failures_is_one_message_with_their_number(seeder: Seeder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "MOST", 4)
    box = Mailbox()
    with web(taken) as service, mail_server(box) as port:
        mail = EmailSettings(
            host="127.0.0.1", port=port, encryption="none", sender="node@h.example", recipients=["a@h.example"]
        )
        notifier = to(seeder, webhook=WebhookSettings(url=service.url), email=mail)
        for number in range(6):
            a_failure(seeder, f"study {number}")
        notifier.note(seeder.now, ROOM)
        assert notifier.send() == 2
    (document,) = documents(service)
    assert (document["title"], document["number"], document["left_out"]) == ("6 failed jobs", 6, 2)
    assert len(document["notices"]) == 4
    (sent,) = box.mails
    assert sent["Subject"] == "[CMBNODE] 6 failed jobs"
    assert "and 2 more" in sent.get_content()  # type: ignore[attr-defined]
    assert "slice 31 of 72 is missing" in sent.get_content()  # type: ignore[attr-defined]


def test_a_webhook_that_refuses_is_tried_again_with_the_same_message(seeder: Seeder) -> None:
    answers = [Response(503), Response(302, headers={"Location": "/elsewhere"}), Response(200)]
    with web(lambda _: answers.pop(0)) as service:
        notifier = to(seeder, webhook=WebhookSettings(url=service.url))
        a_failure(seeder, "one")
        notifier.note(seeder.now, ROOM)
        with capture_logs() as log:
            assert [notifier.send(), notifier.send()] == [0, 0], "it pauses"
            seeder.now += timedelta(seconds=10)
            assert notifier.send() == 0
        assert [line["why"] for line in log] == ["answers 503 Service Unavailable", "answers 302 Found"]
        other = Notifier(notifier.settings, seeder.ledger)  # after a restart
        seeder.now += timedelta(seconds=20)
        assert other.send() == 1
    first, second, third = documents(service)
    assert first == second == third


def test_mail_goes_by_starttls_with_a_password(seeder: Seeder, authority: Authority) -> None:
    box = Mailbox()
    with mail_server(box, authority) as port:
        mail = EmailSettings(
            host="localhost", port=port, ca_file=authority.ca_file, username="node", password="hush",
            sender="node@h.example", recipients=["a@h.example", "b@h.example"],
        )  # fmt: skip
        notifier = to(seeder, email=mail)
        a_stat_result(seeder)
        notifier.note(seeder.now, ROOM)
        assert notifier.send() == 1
    (sent,) = box.mails
    assert box.recipients == [["a@h.example", "b@h.example"]]
    assert box.logins == ["node"]
    assert (sent["From"], sent["To"]) == ("node@h.example", "a@h.example, b@h.example")
    assert (sent["Auto-Submitted"], sent["Subject"]) == ("auto-generated", "[CMBNODE] 1 STAT result")
    assert sent["Message-ID"].endswith("@h.example>")
    assert not [word for word in PATIENT if word in sent.as_string()]


def test_a_wrong_password_and_an_unknown_certificate_say_so(seeder: Seeder, authority: Authority) -> None:
    box = Mailbox()
    with mail_server(box, authority) as port:
        given: dict[str, Any] = {"host": "localhost", "port": port, "sender": "n@h.example", "recipients": ["a@h.ex"]}
        wrong = EmailSettings(**given, ca_file=authority.ca_file, username="node", password="wrong")
        strange = EmailSettings(**given, username="node", password="hush")
        whys = []
        for mail in (wrong, strange):
            notifier = Notifier(Settings(data_dir=seeder.data_dir, notices=NoticeSettings(email=mail)), seeder.ledger)
            with pytest.raises(Exception, match=r"535|CERTIFICATE_VERIFY_FAILED") as error:
                notifier.channels["email"].check()
            whys.append(str(error.value))
        assert "535" in whys[0]
        assert "CERTIFICATE_VERIFY_FAILED" in whys[1]
    assert box.mails == []


def test_the_sweep_tells_of_a_destination_that_is_down_and_of_its_recovery(seeder: Seeder) -> None:
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    own = Authority(seeder.data_dir / "ca").issue("cmbnode", valid=3 * DAY)
    receiver = {"tls": {**own.settings, "mutual": False}}
    with web(taken) as service:
        notices = NoticeSettings(gather_s=0, webhook=WebhookSettings(url=service.url), destination_down_s=600)
        settings = Settings(
            data_dir=seeder.data_dir, notices=notices, destinations={"pacs": pacs}, receiver=receiver,  # type: ignore
            archive={"free_disk_mb": 10**9},  # type: ignore[arg-type]
        )  # fmt: skip
        sweep = Sweep(settings, seeder.ledger, Archive(seeder.data_dir, 10**9), None)  # type: ignore[arg-type]
        seeder.receive("one", "Hopper^Grace", "P-1001")
        seeder.settle("one")
        seeder.open("one")
        seeder.analyse("one", 2)
        seeder.deliver("one", refused="Hopper^Grace is not known here")
        sweep.send_notices()
        first = wait_for(lambda: documents(service))[0]
        assert "1 destination down" in first["title"]
        assert "1 certificate warning" in first["title"]
        assert "2 disk warnings" in first["title"]
        assert "Hopper" not in json.dumps(first), "what a PACS answers may quote the patient"
        sweep.send_notices()
        seeder.now = datetime.now(UTC)
        seeder.deliver("one")
        wait_for(lambda: not sweep.notifier._thread or not sweep.notifier._thread.is_alive())
        sweep.send_notices()
        second = wait_for(lambda: documents(service)[1:])[0]
        assert (second["title"], second["notices"][0]["over"]) == ("1 destination down (over)", True)


def test_a_qa_run_that_is_not_good_is_told_and_so_is_the_next_good_one(seeder: Seeder) -> None:
    run = QaRun(seeder.now, "1.2.3", "", 6, software="1.0", false=2, differences=("2 false positives instead of 1",))
    with web(taken) as service:
        notifier = to(seeder, webhook=WebhookSettings(url=service.url))
        add_run(seeder.data_dir, run)
        notifier.note(seeder.now, ROOM)
        notifier.send()
        seeder.now += timedelta(days=1)
        add_run(seeder.data_dir, replace(run, at=seeder.now, differences=()))
        notifier.note(seeder.now, ROOM)
        notifier.send()
    alarm, good = documents(service)
    assert alarm["title"] == "1 QA alarm"
    assert alarm["notices"][0]["text"].endswith(" was not good: 2 false positives instead of 1")
    assert (good["title"], good["notices"][0]["text"]) == ("1 QA alarm (over)", "site QA: the last run was good")


def test_without_channels_nothing_is_noted(seeder: Seeder) -> None:
    notifier = to(seeder)
    a_failure(seeder, "one")
    notifier.note(seeder.now, DiskSpace(3, 2048))
    assert seeder.ledger.next_message("webhook", 0) is None


def test_the_doctor_asks_both_and_tells_nobody(tmp_path: Path) -> None:
    box = Mailbox()
    with web(taken) as service, mail_server(box) as port:
        hook = WebhookSettings(url=f"{service.url}/secret-path")
        mail = EmailSettings(
            host="127.0.0.1", port=port, encryption="none", sender="n@h.example", recipients=["a@h.example"]
        )
        settings = Settings(data_dir=tmp_path, notices=NoticeSettings(webhook=hook, email=mail))
        answered = list(check_notices(settings))
    away = list(check_notices(settings))
    assert [(one.subject, one.verdict) for one in answered] == [
        ("notices by webhook", Verdict.OK), ("notices by email", Verdict.OK),
    ]  # fmt: skip
    assert "answers 501" in answered[0].what, "it is asked with OPTIONS"
    assert (service.requests, box.mails) == ([], [])
    assert [one.verdict for one in away] == [Verdict.WRONG] * 2
    assert all(one.do for one in away)
    assert "secret-path" not in "".join(one.what for one in (*answered, *away))


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (WebhookSettings, {"url": "alerts.example"}, "write an address as"),
        (WebhookSettings, {"url": "https://user:pw@alerts.example"}, "the receiver checks the signature"),
        (WebhookSettings, {"url": "https://alerts.example", "secret": "short"}, "at least 16"),
        (EmailSettings, {"recipients": ["A <a@h.example>"]}, "write an address as"),
        (EmailSettings, {"recipients": []}, "at least 1"),
        (EmailSettings, {"username": "node"}, "username and password go together"),
        (EmailSettings, {"username": "n", "password": "p", "encryption": "none"}, "a password needs encryption"),
        (NoticeSettings, {"about": ["everything"]}, "stat"),
    ],
)
def test_settings_that_make_no_sense_are_refused(model: Any, given: dict[str, Any], words: str) -> None:
    if model is EmailSettings:
        given = {"host": "mail.h.example", "sender": "n@h.example", "recipients": ["a@h.example"], **given}
    with pytest.raises(ValidationError, match=words):
        model(**given)


def test_the_addresses_of_the_log_hold_no_token() -> None:
    hook = WebhookSettings(url="https://alerts.example/services/T0/B0/token?sig=x")
    assert hook.address == "https://alerts.example"
