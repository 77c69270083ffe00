"""How does a campaign run? Studies come in while faults strike; then the site is left alone and must come to rest."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from node.ledger import DeliveryState, JobState, Ledger, SeriesState
from tests.integration.killable_node import make_study

from .faults import SLOW, WEIGHTS, Fault
from .site import Site, running_site, small_disk

SENDERS = 3
AT_ONCE = 3
"""Faults that may overlap."""


@dataclass(frozen=True)
class Plan:
    """What a campaign does; the same seed draws the same faults at the same times."""

    seed: int
    faults: int
    studies: int
    database: str = "sqlite"
    slow: bool = False
    calm_limit_s: float = 300.0
    disk_mb: int = 600


@dataclass
class Outcome:
    """What came of it; every list but `struck` should be empty."""

    plan: Plan
    struck: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    never_accepted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    needs_a_hand: list[str] = field(default_factory=list)
    superseded: int = 0
    seconds: float = 0.0
    calm_s: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, twice, stuck, or needs a hand."""
        return not (self.never_accepted or self.lost or self.twice or self.stuck or self.needs_a_hand)

    def table(self) -> str:
        """The figures, for people."""
        rows = [
            ("faults that struck", str(self.struck.total())),
            ("of which", ", ".join(f"{number} {fault}" for fault, number in self.struck.most_common())),
            ("faults with nothing to strike", str(self.missed.total())),
            ("studies", str(self.plan.studies)),
            ("never accepted", _named(self.never_accepted)),
            ("lost", _named(self.lost)),
            ("twice", _named(self.twice)),
            ("stuck", _named(self.stuck)),
            ("need a hand", _named(self.needs_a_hand)),
            ("superseded by later images", str(self.superseded)),
            ("time under fault", f"{self.seconds:.0f} s"),
            ("time to calm", f"{self.calm_s:.0f} s"),
        ]  # fmt: skip
        title = f"seed {self.plan.seed}, {self.plan.database}"
        return "\n".join([f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _named(entries: list[str]) -> str:
    return "0" if not entries else f"{len(entries)}: {'; '.join(entries[:5])}"


def run(plan: Plan, folder: Path) -> Outcome:
    """Run a campaign below `folder`."""
    with small_disk(folder / "disk", plan.disk_mb) as disk, running_site(folder, plan.database, disk) as site:
        outcome, studies = Outcome(plan), _make_studies(plan, folder)
        started = time.monotonic()
        senders = [
            threading.Thread(target=_send, args=(site, outcome, studies, n), daemon=True) for n in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        _strike(site, plan, outcome)
        outcome.seconds = time.monotonic() - started
        for sender in senders:
            sender.join(max(1.0, plan.calm_limit_s))
        outcome.calm_s = _come_to_rest(site, [study for study, _ in studies], plan.calm_limit_s)
        _judge(site, outcome, [study for study, _ in studies])
        return outcome


def _make_studies(plan: Plan, folder: Path) -> list[tuple[str, list[Path]]]:
    return [make_study(folder / "studies", f"chaos-{plan.seed}-{n}", slices=20, size=80) for n in range(plan.studies)]


def _send(site: Site, outcome: Outcome, studies: list[tuple[str, list[Path]]], first: int) -> None:
    """Send every `SENDERS`-th study, spread over the campaign: each waits for its share of the faults."""
    for n in range(first, len(studies), SENDERS):
        study, paths = studies[n]
        while outcome.struck.total() < outcome.plan.faults * n // (len(studies) + 1):
            time.sleep(0.2)
        if site.send(paths) is None:
            outcome.never_accepted.append(study)


def _strike(site: Site, plan: Plan, outcome: Outcome) -> None:
    """Strike until enough faults have struck, `AT_ONCE` at a time at most."""
    generator = random.Random(plan.seed)
    weights: dict[Fault, int] = WEIGHTS | (SLOW if plan.slow else {})
    room = threading.Semaphore(AT_ONCE)
    count = threading.Lock()

    def strike(fault: Fault, seed: int) -> None:
        try:
            struck = fault(site, random.Random(seed))
        finally:
            room.release()
        with count:
            (outcome.struck if struck else outcome.missed)[fault.__name__.replace("_", " ")] += 1

    threads = []
    exclusive: dict[Fault, threading.Thread] = {}
    while outcome.struck.total() < plan.faults and outcome.missed.total() < 10 * plan.faults:
        fault = generator.choices(list(weights), list(weights.values()))[0]
        seed, pause = generator.randrange(2**32), generator.uniform(0.1, 1.6)
        if (running := exclusive.get(fault)) is not None:
            running.join()  # never the same fault twice at once: it would undo itself
        room.acquire()
        thread = threading.Thread(target=strike, args=(fault, seed), daemon=True)
        exclusive[fault] = thread
        thread.start()
        threads.append(thread)
        time.sleep(pause)
    for thread in threads:
        thread.join(60)
    site.turn_clock(0)


def _come_to_rest(site: Site, studies: list[str], limit_s: float) -> float:
    """Wait until every study is delivered or nothing will change any more; seconds."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        try:
            with site.ledger() as ledger:
                if all(_settled(ledger, study) for study in studies):
                    break
        except Exception:  # the database comes back just now
            pass
        time.sleep(1)
    return time.monotonic() - started


def _settled(ledger: Ledger, study: str) -> bool:
    jobs = ledger.jobs_of_study(study)
    over = (JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED)
    receiving = any(series.state is SeriesState.RECEIVING for series in ledger.series(study))
    return bool(jobs) and not receiving and all(job.state in over for job in jobs)


def _judge(site: Site, outcome: Outcome, studies: list[str]) -> None:
    arrived = site.arrived()
    with site.ledger() as ledger:
        for study in studies:
            jobs = ledger.jobs_of_study(study)
            live = [job for job in jobs if job.superseded_by is None and job.state is not JobState.SUPERSEDED]
            outcome.superseded += len(jobs) - len(live)
            if any(job.state is JobState.FAILED for job in live):
                outcome.needs_a_hand.append(f"{study}: {live[0].why}")
                continue
            if not _settled(ledger, study):
                outcome.stuck.append(f"{study}: {[str(job.state) for job in jobs]}")
                continue
            if len(live) > 1:
                outcome.twice.append(f"{study}: jobs {[job.id for job in live]}")
            deliveries = [delivery for job in live for delivery in ledger.deliveries(job.id)]
            if any(delivery.state is not DeliveryState.ACCEPTED for delivery in deliveries):
                outcome.needs_a_hand.append(f"{study}: a delivery is not accepted")
            known = {result.sop_instance_uid for job in jobs for result in ledger.results(job.id)}
            wanted = {result.sop_instance_uid for job in live for result in ledger.results(job.id)}
            for name, stored in arrived.items():
                there = stored.get(study, set())
                if not wanted or not wanted <= there:
                    outcome.lost.append(f"{study}: {len(wanted - there)} of {len(wanted)} results not at {name}")
                if there - known:
                    outcome.twice.append(f"{study}: {len(there - known)} unknown results at {name}")
