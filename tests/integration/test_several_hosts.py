"""Two hosts with PostgreSQL, Redis and a shared folder: one is killed, one is cut off from the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import JobState, Ledger
from node.run.redis_server import find_redis_server
from tests.classical import classical_routing
from tests.hosts import GATEWAY, NETWORK, Host, hosts
from tests.ports import free_port
from tests.servers import postgresql
from tests.waiting import wait_for

from .killable_node import Pacs, make_study, running_pacs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces"),
]
PARTS = (("sweep",), ("worker", "--queue", "analyse"), ("worker", "--queue", "deliver"), ("receiver",))
PORT = 11112


@dataclass(frozen=True)
class Site:
    """Two hosts that run the node, their PACS, and the ledger that they share."""

    hosts: tuple[Host, ...]
    environment: dict[str, str]
    pacs: Pacs
    ledger: Ledger
    data: Path

    def start(self, host: Host) -> None:
        """Start every part of the node but the page on a host."""
        before = self.said(host).count("receiver listens")
        for words in PARTS:
            host.start([sys.executable, "-m", "node.cli", *words], self.environment, self.log(host))
        wait_for(lambda: self.said(host).count("receiver listens") > before, 300)

    def log(self, host: Host) -> Path:
        return self.data / f"{host.name}.log"

    def said(self, host: Host) -> str:
        return self.log(host).read_text() if self.log(host).is_file() else ""

    def leads(self, host: Host) -> str:
        """The line of its log that says so last, with the time first; empty if it never led."""
        said = [line for line in self.said(host).splitlines() if "] leads " in line]
        return said[-1] if said else ""

    def leader(self) -> Host:
        """The host whose sweep took the lead last."""
        wait_for(lambda: any(map(self.leads, self.hosts)))
        return max(self.hosts, key=self.leads)

    def send(self, host: Host, seed: str) -> str:
        """Send a study to a host; every image is accepted. Its UID."""
        uid, paths = make_study(self.data / "sent", seed)
        files = [outgoing for path in paths if (outgoing := read_outgoing(path)) is not None]
        answers = send(files, Peer("CMBNODE", host.address, PORT), "MODALITY", timeout_s=20)
        assert all(answer.accepted for answer in answers)
        assert len(answers) == len(paths)
        return uid

    def done(self, uids: list[str], limit_s: float = 240) -> None:
        """Wait until each study was analysed once and its results are at the PACS."""

        def all_there() -> bool:
            jobs = [job for uid in uids for job in self.ledger.jobs_of_study(uid)]
            assert not [job.why for job in jobs if job.state == JobState.FAILED]
            return len(jobs) == len(uids) and all(job.state == JobState.DELIVERED for job in jobs)

        wait_for(all_there, limit_s, every_s=0.2)
        assert all(self.pacs.studies.get(uid) for uid in uids)

    def owners(self, uids: list[str]) -> Counter[str]:
        """How many of the studies each host analysed."""
        jobs = [self.ledger.jobs_of_study(uid)[0] for uid in uids]
        actors = [entry.actor for job in jobs for entry in self.ledger.history("job", str(job.id))]
        names = {host.name for host in self.hosts}
        return Counter(name for actor in actors for name in names if actor.startswith(f"analyse@{name}-"))


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """A Redis that the hosts reach."""
    port = free_port()
    command = [find_redis_server().path, "--bind", GATEWAY, "--port", str(port), "--protected-mode", "no"]
    process = subprocess.Popen([*command, "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://{GATEWAY}:{port}/0"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        hosts("hosta", "hostb") as both,
        postgresql(address=GATEWAY) as database,
        running_redis(folder) as redis,
        running_pacs(GATEWAY) as pacs,
    ):
        settings = {
            "DATA_DIR": str(folder),
            "DATABASE_URL": database,
            "REDIS_URL": redis,
            "ROUTING_FILE": str(classical_routing(folder)),
            "RECEIVER__HOST": "0.0.0.0",
            "RECEIVER__PORT": str(PORT),
            "RECEIVER__PEERS": json.dumps([f"{NETWORK}0/24"]),
            "ARCHIVE__FREE_DISK_MB": "0",
            "SETTLING__QUIET_S": "0.5",
            "QUEUE__LEASE_S": "6",
            "QUEUE__SWEEP_S": "0.3",
            "QUEUE__RETRY_FIRST_S": "0.5",
            "QUEUE__RETRY_LONGEST_S": "2",
            "DESTINATIONS": json.dumps({"pacs": {"ae_title": "PACS", "host": GATEWAY, "port": pacs.port}}),
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CMBNODE_")}
        environment |= {f"CMBNODE_{name}": value for name, value in settings.items()} | {"OMP_NUM_THREADS": "1"}
        ledger = Ledger(database)
        ledger.upgrade()
        site = Site(both, environment, pacs, ledger, folder)
        for host in both:
            site.start(host)
        yield site
        ledger.close()


def test_two_hosts_share_the_work_and_one_sweep_leads(site: Site) -> None:
    uids = [site.send(host, f"shared-{host.name}-{n}") for n in range(2) for host in site.hosts]
    site.done(uids)
    assert set(site.owners(uids)) == {host.name for host in site.hosts}, "both analyse"
    assert sum(site.owners(uids).values()) >= len(uids)
    assert set(site.pacs.sent.values()) == {1}, "each result is sent once"
    said = [site.said(host) for host in site.hosts]
    assert sorted((one.count("] leads "), one.count("] stands by: ")) for one in said) == [(0, 1), (1, 0)]
    assert site.leader() in site.hosts


def test_a_host_that_is_killed_loses_nothing_and_the_other_sweep_takes_over(site: Site) -> None:
    killed = site.leader()
    (other,) = (host for host in site.hosts if host is not killed)
    uids = [site.send(killed, f"killed-{n}") for n in range(3)]
    wait_for(lambda: any(job.state == JobState.RUNNING for uid in uids for job in site.ledger.jobs_of_study(uid)))
    killed.kill()
    uids.append(site.send(other, "after-the-kill"))
    site.done(uids)
    wait_for(lambda: site.leader() is other)
    site.start(killed)


def test_a_host_that_is_cut_off_holds_nothing_up_and_works_again_afterwards(site: Site) -> None:
    lonely = site.leader()
    (other,) = (host for host in site.hosts if host is not lonely)
    uids = [site.send(lonely, f"cut-{n}") for n in range(2)]
    lonely.cut_off()
    uids.append(site.send(other, "during-the-cut"))
    site.done(uids)
    wait_for(lambda: site.leader() is other)  # the server ends the session of a silent host
    lonely.reconnect()
    uids = [site.send(lonely, "after-the-cut")]
    site.done(uids)
    for host in site.hosts:
        assert "Traceback" not in site.said(host)
