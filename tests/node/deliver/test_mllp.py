"""Sending to a RIS, against a real MLLP server that behaves in every way a RIS can."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.archive import Archive
from node.deliver import SendResult, Unreachable, open_destination
from node.deliver.base import Unanswered
from node.deliver.delivery import DeliveryRunner
from node.deliver.mllp import ANSWER_BYTES, judge
from node.deliver.oru import control_id
from node.deliver.report import ReportStore, read_report
from node.ledger import DeliveryState, JobState, Ledger
from node.settings.destinations import DicomDestination, Hl7Destination
from node.text import one_line
from tests.node.jobs import QUICK, findings_of, open_job
from tests.node.reports import write
from tests.node.ris import Behaviour, acknowledge, crawl, reply, ris
from tests.ports import free_port

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:hl7")


def settings(port: int, timeout_s: float = 5, **more: Any) -> Hl7Destination:
    return Hl7Destination(kind="hl7", host="127.0.0.1", port=port, timeout_s=timeout_s, **more)


def send(paths: list[Path], to: Hl7Destination) -> list[SendResult]:
    answers: list[SendResult] = []
    open_destination(to, "CMBNODE").send(paths, answers.append)
    return answers


def test_an_accepted_message_arrived_whole(tmp_path: Path) -> None:
    path = write(tmp_path)
    with ris() as far_side:
        (sent,) = send([path], settings(far_side.port))
    assert (sent.accepted, sent.answer) == (True, "AA (accepted)")
    (message,) = far_side.messages
    assert message.extract_field("MSH", 1, 10) == control_id(read_report(path))
    assert message.extract_field("PID", 1, 5, 1, 1) == "Müller"


def test_a_commit_accept_is_an_acceptance(tmp_path: Path) -> None:
    with ris(acknowledge("CA")) as far_side:
        assert send([write(tmp_path)], settings(far_side.port))[0].accepted


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR", "XX", ""])
def test_any_other_code_is_a_refusal_and_its_text_is_kept(tmp_path: Path, code: str) -> None:
    error = "ERR|||101^Required field missing|E||||no such order\r"
    with ris(acknowledge(code, text="unknown accession", error=error)) as far_side:
        (sent,) = send([write(tmp_path)], settings(far_side.port))
    assert not sent.accepted
    assert sent.answer.startswith(code)
    assert "unknown accession; 101 Required field missing no such order" in sent.answer


def test_an_acknowledgement_of_another_message_is_none_of_ours(tmp_path: Path) -> None:
    with ris(acknowledge("AA", control_id="OTHER")) as far_side:
        (sent,) = send([write(tmp_path)], settings(far_side.port))
    assert not sent.accepted
    assert "acknowledged another message ('OTHER'" in sent.answer


FAULTS: list[tuple[Behaviour, str]] = [
    (reply(b""), "no acknowledgement within 0.4 s"),
    (reply(b"\x0bMSH|^~\\&|RIS"), "no acknowledgement within 0.4 s"),
    (reply(b"", close=True), "closed the connection without"),
    (reply(b"\x0bMSH|^~\\&|RIS", close=True), "closed the connection in the middle"),
    (reply(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1c\r"), "not an MLLP block"),
    (reply(b"\x0b\xff\xfe\x00\x1c\r"), "not an HL7 acknowledgement"),
    (reply(b"\x0bMSH|^~\\&|RIS\rPID|1\r\x1c\r"), "not an HL7 acknowledgement"),
    (reply(b"\x0b\x1c\r"), "not an HL7 acknowledgement"),
    (reply(b"\x0b" + b"A" * (ANSWER_BYTES + 10)), "longer than"),
    (crawl, "no acknowledgement within 0.4 s"),
]


@pytest.mark.parametrize(("behaviour", "words"), FAULTS)
def test_without_a_valid_acknowledgement_it_is_not_accepted_and_the_wait_ends(
    tmp_path: Path, behaviour: Behaviour, words: str
) -> None:
    with ris(behaviour) as far_side:
        limit_s = 0.4 if "0.4 s" in words else 30
        (sent,) = send([write(tmp_path)], settings(far_side.port, limit_s))
    assert not sent.accepted
    assert words in sent.answer


def test_acknowledgements_with_line_feeds_are_understood(tmp_path: Path) -> None:
    async def answer(message: hl7.Message, writer: Any) -> None:
        writer.writeblock(str(message.create_ack("AA")).replace("\r", "\n").encode())

    with ris(answer) as far_side:
        assert send([write(tmp_path)], settings(far_side.port))[0].accepted


def test_a_dead_ris_costs_two_waits_however_much_is_to_be_sent(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"{n}.json", number=n) for n in range(1, 9)]
    answers: list[SendResult] = []
    with ris(reply(b"")) as far_side:
        to = open_destination(settings(far_side.port, timeout_s=0.3), "CMBNODE")
        with pytest.raises(Unreachable, match="no acknowledgement"):
            to.send(paths, answers.append)
        assert far_side.connections == 2
    assert [answer.path for answer in answers] == paths[:2]


def test_one_message_that_a_ris_chokes_on_does_not_hold_up_the_others(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"{n}.json", number=n, accession_number=f"A{n}") for n in range(1, 4)]

    async def answer(message: hl7.Message, writer: Any) -> None:
        if message.extract_field("OBR", 1, 18) == "A1":
            writer.close()
            return
        await acknowledge("AA")(message, writer)

    with ris(answer) as far_side:
        answers = send(paths, settings(far_side.port))
    assert [sent.accepted for sent in answers] == [False, True, True]
    assert far_side.accessions == ["A1", "A2", "A3"]


def test_nobody_there_is_unreachable_and_names_the_address(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=f"mllp://127.0.0.1:{port} cannot be reached"):
        send([write(tmp_path)], settings(port))
    with pytest.raises(Unreachable, match="cannot be reached"):
        open_destination(settings(port), "CMBNODE").check()


def test_a_listener_that_accepts_nothing_is_unanswered_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        (sent,) = send([write(tmp_path)], settings(deaf.getsockname()[1], timeout_s=0.3))
    assert "no acknowledgement within 0.3 s" in sent.answer


def test_a_vanished_report_is_reported_and_the_others_go(tmp_path: Path) -> None:
    paths = [tmp_path / "gone.json", write(tmp_path)]
    with ris() as far_side:
        answers = send(paths, settings(far_side.port))
        assert far_side.connections == 1
        assert "connections" in open_destination(settings(far_side.port), "CMBNODE").check()
    assert [sent.accepted for sent in answers] == [False, True]
    assert "cannot read its own report" in answers[0].answer


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\r\n\r\n"])
def test_lines_of_an_acknowledgement_may_end_otherwise_and_be_blank(end: str) -> None:
    block = end.join(["MSH|^~\\&|RIS", "MSA|AA|CONTROL", ""]).encode()
    assert judge(Path("x"), block, "CONTROL").accepted


@given(st.binary(max_size=200))
def test_whatever_a_stranger_answers_is_no_acceptance(block: bytes) -> None:
    try:
        accepted = judge(Path("x"), block, "CONTROL").accepted
    except Unanswered:
        accepted = False
    assert not accepted


@given(st.text(max_size=80))
@example("\r\r0")
def test_what_is_kept_of_an_acknowledgement_is_one_printable_line(text: str) -> None:
    block = f"MSH|^~\\&|RIS\rMSA|AE|CONTROL|{text}".encode("utf-8", "replace")
    answer = judge(Path("x"), block, "CONTROL").answer
    assert answer == one_line(answer)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subject = ["-subj", "/CN=ris", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    files = ["-keyout", path, "-out", path.with_suffix(".crt")]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_inside_tls_the_certificate_is_checked(tmp_path: Path, certificate: Path) -> None:
    with ris(tls=server_context(certificate)) as far_side:
        trusted = settings(far_side.port, tls=True, ca_file=certificate.with_suffix(".crt"))
        assert send([write(tmp_path)], trusted)[0].accepted
        assert send([write(tmp_path)], settings(far_side.port, tls=True, verify=False))[0].accepted
        with pytest.raises(Unreachable, match="certificate"):
            send([write(tmp_path)], settings(far_side.port, tls=True))
    assert len(far_side.messages) == 2


def test_a_client_certificate_is_shown_when_the_ris_asks_for_one(tmp_path: Path, certificate: Path) -> None:
    context = server_context(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate.with_suffix(".crt"))
    with ris(tls=context) as far_side:
        own = settings(far_side.port, tls=True, verify=False, certificate=certificate)
        assert send([write(tmp_path)], own)[0].accepted
        without = send([write(tmp_path)], settings(far_side.port, tls=True, verify=False))
        assert not without[0].accepted


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(Unreachable, match=r"ca\.pem: cannot be used"):
        send([write(tmp_path)], settings(free_port(), tls=True, ca_file=tmp_path / "ca.pem"))


# --- with the ledger -------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data")


@pytest.fixture
def ledger(archive: Archive) -> Any:
    ledger = Ledger(f"sqlite:///{archive.root / 'ledger.sqlite3'}")
    ledger.upgrade()
    yield ledger
    ledger.close()


def finish(ledger: Ledger, archive: Archive, to: Hl7Destination, name: str) -> int:
    """A job whose report is to go to a RIS; its number."""
    job = open_job(ledger, archive, name, destinations=("ris",))
    assert ledger.claim_job(job.id, "runner", 30)
    document, reports = findings_of(job).to_json(), ReportStore({"ris": to})
    files = reports.write(ledger, job, document, [], archive)
    assert ledger.finish_analysis(job.id, "runner", document, files, reports.takes)
    return job.id


def runner(ledger: Ledger, archive: Archive, to: Hl7Destination | DicomDestination) -> DeliveryRunner:
    return DeliveryRunner(ledger, archive, QUICK, "ris", open_destination(to, "CMBNODE"), owner="deliver@test")


def test_a_ris_that_was_down_gets_everything_once_when_it_is_up(ledger: Ledger, archive: Archive) -> None:
    to = settings(free_port())
    jobs = [finish(ledger, archive, to, f"study {n}") for n in range(3)]
    slow = QUICK.model_copy(update={"retry_first_s": 60.0, "retry_longest_s": 60.0})
    assert replace(runner(ledger, archive, to), queue=slow).deliver() == 0
    assert {d.state for job in jobs for d in ledger.deliveries(job)} == {DeliveryState.WAITING}
    assert "cannot be reached" in ledger.deliveries(jobs[0])[0].answer
    later = Ledger(str(ledger.engine.url), clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    with ris(port=to.port) as far_side:
        assert runner(later, archive, to).deliver() == 3
        assert runner(later, archive, to).deliver() == 0
    later.close()
    assert [ledger.job(job).state for job in jobs] == [JobState.DELIVERED] * 3
    assert len(far_side.messages) == 3


def test_a_ris_that_never_acknowledges_is_tried_once_and_left_alone(ledger: Ledger, archive: Archive) -> None:
    with ris(reply(b"")) as far_side:
        to = settings(far_side.port, timeout_s=0.2)
        job = finish(ledger, archive, to, "one")
        slow = QUICK.model_copy(update={"retry_first_s": 900.0, "retry_longest_s": 900.0})
        replace(runner(ledger, archive, to), queue=slow).deliver()
        assert far_side.connections == 1
    (delivery,) = ledger.deliveries(job)
    assert (delivery.state, delivery.attempts) == (DeliveryState.WAITING, 1)
    assert "no acknowledgement" in delivery.answer


def test_a_message_whose_acceptance_was_not_written_down_is_sent_again_as_the_same(
    ledger: Ledger, archive: Archive
) -> None:
    with ris() as far_side:
        to = settings(far_side.port)
        finish(ledger, archive, to, "one")
        rows = ledger.claim_deliveries("ris", "lost", -1)  # a lease that is over at once, as after a kill
        open_destination(to, "CMBNODE").send([archive.path(rows[0].result.path)], lambda _sent: None)
        ledger.expire_leases(datetime.now(UTC), 3)
        assert runner(ledger, archive, to).deliver() == 1
    assert len(far_side.messages) == 2
    assert len(Counter(str(message) for message in far_side.messages)) == 1


def test_a_stopping_worker_keeps_what_was_acknowledged(ledger: Ledger, archive: Archive) -> None:
    with ris() as far_side:
        to = settings(far_side.port)
        for n in range(2):
            finish(ledger, archive, to, f"study {n}")
        stop = iter([False, True, True, True])
        assert replace(runner(ledger, archive, to), stopping=lambda: next(stop)).deliver() <= 1
    assert len(far_side.messages) == 1
    assert ledger.counts().deliveries == {"accepted": 1, "waiting": 1}
