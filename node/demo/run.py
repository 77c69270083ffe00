"""How does the demo run? A whole node and a PACS of its own; the study goes in by C-STORE, the results come back so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread

from node.deliver.scu import OutgoingFile, Peer, Unreachable, echo, read_outgoing, send
from node.ledger import Job, Ledger
from node.processes.forked import die_with_parent
from node.web.follow import NoResult, follow_study
from node.web.viewer import montage_png, page_count
from pipeline.errors import InputError

from .pacs import ReceivedObjects, receiving
from .score import PlantedTruth, Score, read_truth, score

STUDY = Path(__file__).parent / "study"
NODE_TITLE, PACS_TITLE = "CMBNODE", "DEMOPACS"
START_LIMIT_S, WORK_LIMIT_S, STOP_LIMIT_S = 120.0, 600.0, 60.0
QUIET_S = 2.0
_POLL_S = 0.1


class DemoFailed(Exception):  # noqa: N818 - it reads as what happened
    """The study did not come through; the text says where it stopped and where the log is."""


@dataclass(frozen=True)
class DemoResult:
    """What came of it.

    Parameters
    ----------
    findings : dict
        ``findings.json`` of the study.
    score : Score
        Against the planted bleeds.
    results : dict of str to Path
        What the PACS received, and the same as JSON and PNG, by kind.
    seconds : dict of str to float
        Duration of each step, in order.
    """

    findings: dict[str, Any]
    score: Score
    results: dict[str, Path]
    seconds: dict[str, float]


def run_demo(folder: Path, say: Callable[[str], None], study: Path = STUDY) -> DemoResult:
    """Send a study to a node of its own, wait for the results at a PACS of its own, and stop both.

    Parameters
    ----------
    folder : Path
        An empty folder, or one to be made: ``node`` in it gets the node's data, ``results`` what comes back.
    say : callable
        Hears each step as it begins.
    study : Path
        Folder with the DICOM files of one study, and its ``truth.json``.

    Raises
    ------
    DemoFailed
        If the node does not start or does not deliver.
    """
    files = [outgoing for path in sorted(study.glob("*.dcm")) if (outgoing := read_outgoing(path)) is not None]
    if not files:
        raise InputError("the bundled study is not there", where=str(study), do="install cmb-node again")
    uid = str(dcmread(files[0].path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    seconds: dict[str, float] = {}
    with receiving(folder / "results", PACS_TITLE) as (pacs_port, received):
        say(f"a PACS stands by: {PACS_TITLE}@127.0.0.1:{pacs_port}")
        with _node(folder, pacs_port) as (process, peer):
            _wait_for_node(process, peer, folder, seconds)
            say(f"the node is up: {peer}")
            sent_at = _send(files, peer, seconds, say)
            job = _wait_for_results(folder, uid, process, say)
            outcome = _collect(folder, job, received, read_truth(study / "truth.json"), seconds, sent_at)
            say("stopping")
    return outcome


@contextmanager
def _node(folder: Path, pacs_port: int) -> Iterator[tuple[subprocess.Popen[bytes], Peer]]:
    """Run ``cmbnode up`` with settings of its own, and nothing of the caller's environment; stop it at the end."""
    port, worklist_port = _free_port(), _free_port()
    config = folder / "cmbnode.toml"
    config.write_text(_settings(folder / "node", port, worklist_port, pacs_port), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("CMBNODE_")}
    me = os.getpid()
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "up", "--config", str(config)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(me),
        )
        try:
            yield process, Peer(NODE_TITLE, "127.0.0.1", port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _settings(data: Path, port: int, worklist_port: int, pacs_port: int) -> str:
    """A configuration file; a JSON string is a TOML string too."""
    return f"""\
data_dir = {json.dumps(str(data), ensure_ascii=False)}
ae_title = "{NODE_TITLE}"

[receiver]
host = "127.0.0.1"
port = {port}

[worklist]
port = {worklist_port}

[settling]
quiet_s = {QUIET_S}

[queue]
sweep_s = 0.5

[archive]
free_disk_mb = 200

[destinations.pacs]
ae_title = "{PACS_TITLE}"
host = "127.0.0.1"
port = {pacs_port}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_node(process: subprocess.Popen[bytes], peer: Peer, folder: Path, seconds: dict[str, float]) -> None:
    """Ask by C-ECHO until the receiver answers."""
    started = time.monotonic()
    while True:
        try:
            echo(peer, PACS_TITLE, timeout_s=5)
            break
        except Unreachable as error:
            if process.poll() is not None or time.monotonic() - started > START_LIMIT_S:
                raise DemoFailed(f"the node does not start; {folder / 'node.log'} says why") from error
            time.sleep(_POLL_S)
    seconds["start of the node"] = time.monotonic() - started


def _send(files: list[OutgoingFile], peer: Peer, seconds: dict[str, float], say: Callable[[str], None]) -> datetime:
    say(f"sending {len(files)} images")
    started = time.monotonic()
    refused = [answer for answer in send(files, peer, PACS_TITLE) if not answer.accepted]
    if refused:
        raise DemoFailed(f"the node refused {len(refused)} of {len(files)} images: {refused[0].answer}")
    seconds[f"C-STORE of {len(files)} images"] = time.monotonic() - started
    return datetime.now(UTC)


def _wait_for_results(folder: Path, uid: str, process: subprocess.Popen[bytes], say: Callable[[str], None]) -> Job:
    """Follow the study in the ledger until its results are delivered."""
    log = folder / "node.log"

    def check() -> None:
        if process.poll() is not None:
            raise NoResult("the node stopped by itself")

    with closing(_ledger(folder)) as ledger:
        try:
            return follow_study(ledger, uid, WORK_LIMIT_S, say, check, _POLL_S)
        except NoResult as error:
            raise DemoFailed(f"{error}; the log is {log}") from error


def _ledger(folder: Path) -> Ledger:
    return Ledger(f"sqlite:///{folder / 'node' / 'ledger.sqlite3'}")


def _collect(
    folder: Path, job: Job, received: ReceivedObjects, truth: PlantedTruth, seconds: dict[str, float], sent_at: datetime
) -> DemoResult:
    """Read what came back, write it once more as JSON and PNG, and compare with the truth."""
    with closing(_ledger(folder)) as ledger:
        findings = ledger.findings(job.id) or {}
    wanted = {"sr", "capture"} | ({"seg"} if findings["lesions"] else set())
    if missing := wanted - set(received.by_kind):
        raise DemoFailed(f"the PACS did not receive: {', '.join(sorted(missing))}")
    files = dict(received.by_kind)
    files["findings"] = received.folder / "findings.json"
    files["findings"].write_text(json.dumps(findings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for page in range(page_count(files["capture"])):
        path = files[f"picture {page + 1}"] = received.folder / f"montage-{page + 1}.png"
        path.write_bytes(montage_png(files["capture"], page))
    seconds.update(_times(job, findings, sent_at))
    return DemoResult(findings, score(findings["lesions"], truth), files, seconds)


def _times(job: Job, findings: dict[str, Any], sent_at: datetime) -> dict[str, float]:
    """From the last image sent to the last object accepted, step by step."""
    started, analysed, finished = job.started_at, job.analysed_at, job.finished_at
    assert started is not None and analysed is not None and finished is not None  # noqa: S101, PT018 - it is delivered
    stages = {f"  {name}": float(value) for name, value in findings["timing_s"].items()}
    return {
        "quiet period and routing": (job.created_at - sent_at).total_seconds(),
        "queue": (started - job.created_at).total_seconds(),
        "analysis": (analysed - started).total_seconds(),
        **stages,
        "delivery": (finished - analysed).total_seconds(),
        "last image sent to last result accepted": (finished - sent_at).total_seconds(),
    }
