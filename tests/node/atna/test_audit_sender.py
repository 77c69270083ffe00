"""An audit repository gets everything, in order and once, also after it was down; what is wrong is said in one line."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from structlog.testing import capture_logs

from node.atna import AuditSender, syslog
from node.atna.syslog import NotReceivedError, SyslogRepository
from node.doctor.services import check_audit_repository
from node.doctor.verdict import Verdict
from node.ledger.access_records import AuditAction
from node.roles import UserRole
from node.settings import DicomDestination, Settings
from node.settings.audit_repository import AuditRepositorySettings
from tests.audit_repository import check_schema, run_repository
from tests.certificates import DAY, Authority, Identity, server
from tests.node.people import add, local_app
from tests.node.seeded import MR_IMAGE, Seeder
from tests.ports import free_port

pytestmark = pytest.mark.slow

TRANSFERRED, ACCESSED, USER, START, STOP = "110104", "110103", "110113/110137", "110100/110120", "110100/110121"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Identity:
    return authority.issue("node", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    """Of a repository that requires a certificate."""
    return server(authority, authority.issue("repository", "localhost", "127.0.0.1"))


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[Seeder]:
    made = Seeder(tmp_path)
    yield made
    made.ledger.close()


def settings_of(seeder: Seeder, port: int, authority: Authority, node: Identity, **given: Any) -> Settings:
    values: dict[str, Any] = {"host": "127.0.0.1", "port": port, "timeout_s": 5}
    if given.get("transport", "tls") == "tls":
        values |= {"ca_file": authority.ca_file, **node.settings}
    repository = AuditRepositorySettings(**{**values, **given})
    pacs = DicomDestination(ae_title="PACS", host="10.0.0.7", port=104)
    return Settings(data_dir=seeder.data_dir, destinations={"pacs": pacs}, audit_repository=repository)


def later(seeder: Seeder, sender: AuditSender, hours: float = 1) -> int:
    """Time passes, so that what was postponed is due; what is due is sent."""
    seeder.now += timedelta(hours=hours)
    return sender.send()


def a_study(seeder: Seeder, key: str) -> None:
    """A study arrives, is analysed, and its results go to the PACS."""
    seeder.receive(key, "Hopper^Grace", "P-1001")
    seeder.settle(key)
    seeder.open(key)
    seeder.analyse(key, 2)
    seeder.deliver(key)


def test_what_happens_is_told_in_order_and_once(
    seeder: Seeder, authority: Authority, node: Identity, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    add(seeder.ledger, "before")
    with run_repository(tls) as repository:
        sender = AuditSender(settings_of(seeder, repository.port, authority, node), seeder.ledger)
        sender.start()
        a_study(seeder, "one")
        seeder.now += timedelta(seconds=1)
        seeder.ledger.record_access("ada", AuditAction.STUDY, seeder.studies["one"])
        add(seeder.ledger, "ada", UserRole.READER)
        assert sender.send() == 9
        assert repository.codes == [START, *[TRANSFERRED] * 6, ACCESSED, USER]  # 3 series in, 3 results out
        assert [event.action for event in repository.events][1:7] == list("CCCRRR")
        assert sender.send() == 0
        sender.stop()
        assert repository.codes[9:] == [STOP]
        check_schema(repository.events, tmp_path)
        assert "Hopper" not in b"".join(repository.messages).decode()
        assert sum(event.sop_classes.get(MR_IMAGE, 0) for event in repository.events) == 9
    header, _, rest = repository.messages[0].partition(b"\xef\xbb\xbf")
    pri, _, host, app, _, kind, data = header.decode().split(" ")[:7]
    assert (pri, host, app, kind, data) == ("<85>1", socket.gethostname(), "cmb-node", "DICOM+RFC3881", "-")
    assert rest.startswith(b"<?xml")
    noted = [entry.action for entry in seeder.ledger.audit() if entry.user_name == "node:CMBNODE"]
    assert noted == [AuditAction.STOP, AuditAction.START]


def test_a_repository_that_was_down_is_told_everything_afterwards(
    seeder: Seeder, authority: Authority, node: Identity, tls: ssl.SSLContext
) -> None:
    """More than one batch waits, of people's actions and of studies, across a restart of the node."""
    port = free_port()
    sender = AuditSender(settings_of(seeder, port, authority, node), seeder.ledger)
    sender.start()
    with capture_logs() as logs:
        for number in range(3):
            a_study(seeder, f"study-{number}")
            for look in range(90):
                seeder.now += timedelta(seconds=1)
                seeder.ledger.record_access(f"user-{number}-{look}", AuditAction.SIGN_IN)
            assert later(seeder, sender, hours=number + 1) == 0
    assert [line["event"] for line in logs] == ["audit messages are not sent now; they are kept and sent later"]
    sender.stop()
    state = seeder.ledger.feed_state()
    assert state is not None
    assert state.waiting == 290  # of three studies 18, of people 270, a start and a stop
    with run_repository(tls, port) as repository, capture_logs() as logs:
        again = AuditSender(settings_of(seeder, port, authority, node), seeder.ledger)
        again.start()
        assert later(seeder, again) == 291
        assert later(seeder, again) == 0
        times = [event.root.find("EventIdentification").get("EventDateTime") for event in repository.events]  # type: ignore[union-attr]
        assert len(repository.messages) == len(set(repository.messages)) == 291
        assert times == sorted(times)  # type: ignore[type-var]
    users = [event.participants["user"] for event in repository.events if event.code == "110114/110122"]
    assert users == [f"user-{number}-{look}" for number in range(3) for look in range(90)]
    state = seeder.ledger.feed_state()
    assert state is not None
    assert (state.waiting, state.why) == (0, "")


def test_a_repository_that_closes_without_reading_is_told_again(
    seeder: Seeder, authority: Authority, node: Identity, tls: ssl.SSLContext
) -> None:
    port = free_port()
    sender = AuditSender(settings_of(seeder, port, authority, node), seeder.ledger)
    sender.start()
    with socket.create_server(("127.0.0.1", port)) as listener:

        def hang_up() -> None:
            plain, _ = listener.accept()
            secure = tls.wrap_socket(plain, server_side=True)
            secure.read(1)  # the first octet, so that the messages are on their way
            secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            secure.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert sender.send() == 0
        thread.join()
    with run_repository(tls, port) as repository:
        assert later(seeder, sender) == 1
        assert repository.codes == [START]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("other authority", "its certificate is not from an authority in ca_file"),
        ("expired", "its certificate has expired"),
        ("other name", "its certificate names another address"),
        (
            "node not trusted",
            "it does not trust the authority of this node's certificate (audit_repository.certificate)",
        ),
        ("node shows none", "it requires a certificate from this node; set audit_repository.certificate"),
        ("plain", "does it use TLS on this port?"),
    ],
)
def test_a_wrong_certificate_is_one_line_in_the_log_and_for_the_doctor(
    case: str,
    why: str,
    seeder: Seeder,
    authority: Authority,
    node: Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syslog, "REFUSAL_S", 30)  # the machine may be slow
    other = Authority(tmp_path / "other", "Other CA")
    there = authority.issue("there", "localhost", "127.0.0.1")
    given: dict[str, Any] = {}
    if case == "other authority":
        there = other.issue("there", "127.0.0.1")
    elif case == "expired":
        there = authority.issue("there", "127.0.0.1", valid=-DAY)
    elif case == "other name":
        there = authority.issue("there", "192.0.2.1")
    elif case == "node not trusted":
        given = other.issue("node", "127.0.0.1").settings
    elif case == "node shows none":
        given = {"mutual": False, "certificate": None, "certificate_key": None}
    with run_repository(None if case == "plain" else server(authority, there)) as repository:
        settings = settings_of(seeder, repository.port, authority, node, **given)
        sender = AuditSender(settings, seeder.ledger)
        sender.start()
        with capture_logs() as logs:
            assert [later(seeder, sender) for _ in range(3)] == [0, 0, 0]
        (line,) = logs
        assert why in line["why"]
        checks = list(check_audit_repository(settings))
        assert [check.verdict for check in checks] == [Verdict.WRONG, Verdict.NOTE]
        assert why in checks[0].what
        assert checks[1].what.startswith("1 audit messages have waited since ")
        assert repository.messages == []


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_without_tls_messages_are_sent_only_if_the_settings_say_so(
    transport: str, seeder: Seeder, authority: Authority, node: Identity
) -> None:
    with run_repository(None) as repository, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", repository.port))
        datagrams.settimeout(30)
        settings = settings_of(seeder, repository.port, authority, node, transport=transport)
        sender = AuditSender(settings, seeder.ledger)
        sender.start()
        assert sender.send() == 1
        message = repository.messages[0] if transport == "tcp" else datagrams.recv(65_536)
        assert message.startswith(b"<85>1 ")
        assert [check.verdict for check in check_audit_repository(settings)] == [Verdict.OK]


def test_the_settings_ask_for_certificates_with_tls_and_refuse_them_without(node: Identity) -> None:
    with pytest.raises(ValidationError, match="TLS needs the node's certificate"):
        AuditRepositorySettings(host="arr")
    with pytest.raises(ValidationError, match="certificates are named, but TLS is not used"):
        AuditRepositorySettings(host="arr", transport="udp", **node.settings)


def test_a_connection_that_fails_once_does_not_keep_the_stop_from_the_repository(
    seeder: Seeder, authority: Authority, node: Identity, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_repository(tls) as repository:
        sender = AuditSender(settings_of(seeder, repository.port, authority, node), seeder.ledger)
        sender.start()
        connect, tries = SyslogRepository._connect, iter([False, True])

        def once_in_vain(self: SyslogRepository) -> Any:
            if next(tries):
                return connect(self)
            raise NotReceivedError("no TLS connection: it closed the connection")

        monkeypatch.setattr(SyslogRepository, "_connect", once_in_vain)
        sender.stop()
        assert repository.codes == [START, STOP]


def test_without_a_repository_nothing_is_recorded_for_one(seeder: Seeder) -> None:
    sender = AuditSender(Settings(data_dir=seeder.data_dir), seeder.ledger)
    sender.start()
    sender.start_sending()
    sender.stop()
    assert seeder.ledger.feed_state() is None
    assert seeder.ledger.audit() == []


def test_the_metrics_show_what_waits(seeder: Seeder, authority: Authority, node: Identity) -> None:
    settings = settings_of(seeder, free_port(), authority, node)
    sender = AuditSender(settings, seeder.ledger)
    sender.start()
    sender.send()
    app = local_app(seeder.data_dir, seeder.ledger, audit_repository=settings.audit_repository)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        lines = client.get("/metrics").text.splitlines()
    assert "cmbnode_audit_waiting 1.0" in lines
    assert "cmbnode_audit_failing 1.0" in lines
