"""The whole way of an earlier study: asked for, interrupted by kill -9, fetched, analysed, compared with."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Ledger, PriorState
from tests.dicom_factory import Patient
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

from .killable_node import make_study

pytestmark = pytest.mark.integration


@contextmanager
def opened(node: RunningNode) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")
    try:
        yield ledger
    finally:
        ledger.close()


def orthanc_process(folder: Path) -> psutil.Process:
    """The Orthanc that runs in `folder`."""
    return next(child for child in psutil.Process().children() if str(folder) in " ".join(child.cmdline()))


def kinds(orthanc: Orthanc, study_uid: str) -> set[str]:
    return {str(dcmread(io.BytesIO(one), stop_before_pixels=True).Modality) for one in orthanc.instances(study_uid)}


def patient(seed: str, date: str) -> Patient:
    return Patient(seed=seed, patient_id="P-77", name="Test^Longitudinal", tags={"StudyDate": date})


def test_an_earlier_study_is_fetched_analysed_and_compared_though_the_one_who_asks_is_killed(tmp_path: Path) -> None:
    earlier, earlier_files = make_study(tmp_path, "earlier", patient=patient("earlier", "20240503"))
    present, present_files = make_study(tmp_path, "present", patient=patient("present", "20260102"))
    port = free_port()
    with run_orthanc(tmp_path / "pacs", node=(AE_TITLE, port)) as orthanc:
        orthanc.upload(*earlier_files)
        asked = {"dicom": {"ae_title": Orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.dicom_port}}
        with run_node(
            tmp_path / "node", {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}, port, PRIORS=json.dumps(asked)
        ) as node, opened(node) as ledger:  # fmt: skip
            paused = orthanc_process(tmp_path / "pacs")
            paused.suspend()
            try:
                files = [outgoing for path in present_files if (outgoing := read_outgoing(path)) is not None]
                assert all(sent.accepted for sent in send(files, Peer(AE_TITLE, "127.0.0.1", port)))
                wait_until(
                    lambda: _state(ledger, present) is PriorState.ASKED, 60, node.process, node.data / "node.out"
                )
                assert ledger.jobs_of_study(present) == []
                node.part("sweep").send_signal(signal.SIGKILL)
            finally:
                paused.resume()
            delivered = wait_until(lambda: _delivered(ledger, present), 180, node.process, node.data / "node.out")
            assert delivered.warnings == ()
            history = [change.why for change in ledger.history("prior", present)]
            assert any("stopped responding" in why for why in history)
            (request,) = ledger.prior_fetches(present)
            assert (request.prior_study_uid, request.counts.completed) == (earlier, len(earlier_files))
            _check_the_earlier_one(ledger, orthanc, earlier)
            change = (ledger.findings(delivered.id) or {})["change"]
            assert change["prior_study_instance_uid"] == earlier
            assert change["assessed"], change["why"]
            assert "SR" in kinds(orthanc, present)
            shown = node.command("show", str(delivered.id))
            assert "priors       fetched: the study of 2024-05-03 was fetched" in shown.stdout


def _state(ledger: Ledger, uid: str) -> PriorState | None:
    try:
        request = ledger.prior_request(uid)
    except Exception:  # the database is not there yet
        return None
    return None if request is None else request.state


def _delivered(ledger: Ledger, uid: str) -> Any:
    jobs = ledger.jobs_of_study(uid)
    assert not jobs or jobs[0].state != "failed", jobs[0].why
    return jobs[0] if jobs and jobs[0].state == "delivered" else None


def _check_the_earlier_one(ledger: Ledger, orthanc: Orthanc, uid: str) -> None:
    """It was analysed for comparison only: nothing of it left the node."""
    study, (job,) = ledger.study(uid), ledger.jobs_of_study(uid)
    assert study.fetched
    assert study.why.startswith("for comparison only: ")
    assert (job.destinations, job.state) == ((), "delivered")
    assert ledger.prior_request(uid) is None
    assert kinds(orthanc, uid) == {"MR"}
