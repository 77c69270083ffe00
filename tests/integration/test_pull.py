"""The whole way of a study that the PACS does not route: found, fetched, analysed, delivered, not fetched again."""

from __future__ import annotations

import json
import signal
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dicom_factory import Patient
from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import RunningNode, run_node, wait_until

from .killable_node import make_study

pytestmark = pytest.mark.integration


def listed(node: RunningNode) -> dict[str, Any]:
    done = node.command("pull", "list", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_study_that_nobody_sends_is_analysed_though_the_process_that_fetches_it_is_killed(tmp_path: Path) -> None:
    today = Patient(seed="new", patient_id="P-12", name="Test^Pull", tags={"StudyDate": f"{date.today():%Y%m%d}"})
    uid, files = make_study(tmp_path, "new", patient=today)
    with run_orthanc(tmp_path / "pacs") as orthanc:
        orthanc.upload(*files)
        url = f"{str(orthanc.http.base_url).rstrip('/')}/dicom-web"
        pull = {"archive": {"dicomweb": {"url": url}, "every_s": 1, "quiet_s": 1}}
        with run_node(
            tmp_path / "node",
            {"pacs": (Orthanc.ae_title, orthanc.dicom_port)},
            PULL=json.dumps(pull),
            QUEUE__LEASE_S="10",
        ) as node:
            log = node.data / "node.out"
            tried = node.command("pull", "try", "archive")
            assert (tried.returncode, uid in tried.stdout, "fetched" in tried.stdout) == (0, True, True), tried.stderr
            node.part("sweep").send_signal(signal.SIGKILL)
            job = wait_until(
                lambda: next((j for j in node.jobs() if j["state"] == "delivered"), None), 180, node.process, log
            )
            assert job["study"]["study_instance_uid"] == uid
            assert not job["study"]["for_comparison_only"]
            modalities = {series["00080060"] for series in orthanc.find_series(uid)}
            assert {"MR", "SR"} <= modalities

            def looked_again() -> dict[str, Any] | None:
                (study,) = listed(node)["studies"]
                return study if study["why"] == "the node has its images already" else None

            study = wait_until(looked_again, 60, node.process, log)
            assert (study["state"], study["source"]) == ("fetched", "archive")
            assert len(node.jobs()) == 1
            (source,) = listed(node)["sources"]
            assert (source["name"], source["why"], source["failed"]) == ("archive", "", 0)
            page = httpx.get(f"http://127.0.0.1:{node.http_port}/administration", trust_env=False, timeout=30).text
            assert "Queries for new studies" in page
            assert url in page
            retried = node.command("pull", "retry", uid)
            assert (retried.returncode, "will look at study" in retried.stdout) == (0, True)
