"""A whole node tells rsyslog by TLS what happens, rsyslog being down meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import JobState, Ledger
from tests.audit_repository import check_schema
from tests.certificates import Authority
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.rsyslog import Rsyslog, run_rsyslog
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until
from tests.waiting import wait_for

from .killable_node import make_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]

START, STOP, RECEIVED, ACCESSED, QUERY = "110100/110120", "110100/110121", "110104", "110103", "110112"


def codes(repository: Rsyslog) -> list[str]:
    return [event.code for event in repository.events]


def send_and_look(node: RunningNode, study: str, files: Sequence[Path]) -> int:
    """A study is sent and analysed, and somebody looks at it; returns how many results the PACS has accepted."""
    sent = send([o for f in files if (o := read_outgoing(f))], Peer(AE_TITLE, "127.0.0.1", node.dicom_port))
    assert all(answer.accepted for answer in sent)
    with closing(Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")) as ledger:
        wait_until(
            lambda: ledger.jobs() and ledger.job(1).state == JobState.DELIVERED,
            120,
            node.process,
            node.data / "node.out",
        )
        results = len(ledger.deliveries(1))
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", headers={"accept": "text/html"}) as page:
        assert page.get("/").status_code == 200
        assert page.get(f"/studies/{study}").status_code == 200
    return results


def test_rsyslog_gets_everything_in_order_and_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own, port = authority.issue("repository", "127.0.0.1"), free_port()
    tls = {name: str(file) for name, file in authority.issue("cmbnode", "127.0.0.1").settings.items()}
    where = {"host": "127.0.0.1", "port": port, "ca_file": str(authority.ca_file), **tls}
    settings = {"AUDIT_REPOSITORY": json.dumps(where), "QUEUE__RETRY_LONGEST_S": "2"}
    uid, files = make_study(tmp_path, "study")
    with ExitStack() as after_the_node, run_orthanc(tmp_path / "pacs") as orthanc:
        to = {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}
        with run_node(tmp_path / "node", to, **settings) as node:
            with run_rsyslog(tmp_path / "arr", authority, own, port) as repository:
                wait_for(lambda: codes(repository) == [START])
            results = send_and_look(node, uid, files)
            repository = after_the_node.enter_context(run_rsyslog(tmp_path / "arr", authority, own, port))
            wait_for(lambda: ACCESSED in codes(repository))
            assert f"syslog+tls://127.0.0.1:{port} answers" in node.command("doctor").stdout
        wait_for(lambda: STOP in codes(repository))  # rsyslog writes a moment after it has received
        found = repository.events
    check_schema(found, tmp_path)
    received = [event for event in found if event.code == RECEIVED and event.action == "C"]
    exported = [event for event in found if event.code == RECEIVED and event.action == "R"]
    assert sum(sum(event.sop_classes.values()) for event in received) == len(files)
    assert len(exported) == results
    assert {event.participants["Destination Role ID"] for event in exported} == {Orthanc.ae_title}
    told = codes(repository)
    assert told[0] == START
    assert told[-3:] == [QUERY, ACCESSED, STOP]
    assert len(repository.lines) == len(set(repository.lines))
    assert {line.split(b" ")[0] for line in repository.lines} == {b"85"}
