"""Site QA on a running node: the phantom takes the route of every study, and a planted regression is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.ledger import Ledger
from node.ledger.records import QA_PATIENT_ID
from node.settings import Settings
from tests.dicom_factory import affine, siemens_swi, write
from tests.heads import BLEEDS, SPACING, small_head
from tests.running_node import RunningNode, run_node

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small head with three microbleeds, and where they are; the bundled phantom takes many times as long."""
    folder = tmp_path_factory.mktemp("phantom")
    swi, phase = small_head()
    matrix = affine(SPACING, (0.0, 0.0, 0.0))
    write(siemens_swi(swi, phase, swi, matrix=matrix), folder)
    centres = [(matrix @ (*voxel, 1.0))[:3].tolist() for voxel in BLEEDS]
    lesions = [{"centre_lps_mm": centre, "radius_mm": 2.0, "visible": True} for centre in centres]
    (folder / "truth.json").write_text(json.dumps({"lesions": lesions}))
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    # A destination that does not answer: whatever is sent to it stays undelivered.
    with run_node(tmp_path_factory.mktemp("qa"), {"pacs": ("PACS", 9)}, QA__KEEP_DAYS="0") as running:
        yield running


def qa_run(node: RunningNode, phantom: Path) -> tuple[int, dict[str, Any], str]:
    done = node.command("qa", "run", "--json", "--study", str(phantom))
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr.splitlines()[-1]


def test_a_regression_is_noticed_by_the_next_run_and_results_stay_in_the_node(node: RunningNode, phantom: Path) -> None:
    status, first, said = qa_run(node, phantom)
    assert (status, first["faults"], first["differences"]) == (0, [], []), said
    assert [one["number"] for one in first["found"]] == [1, 2, 3]
    status, second, said = qa_run(node, phantom)
    assert (status, second["faults"], second["differences"]) == (0, [], []), said
    assert second["found"] == first["found"]
    assert second["study_instance_uid"] != first["study_instance_uid"]

    (profile,) = node.data.glob("frst-quick.toml")
    text = profile.read_text()
    assert "possible = 0.2\ndefinite = 0.6" in text
    profile.write_text(text.replace("possible = 0.2\ndefinite = 0.6", "possible = 0.975\ndefinite = 0.976"))
    status, third, said = qa_run(node, phantom)
    assert status == 1
    assert said.startswith("cmbnode: qa: only ")
    assert "no longer found: microbleed " in said
    assert said.endswith("changed since then: the profile's parameters")
    assert third["good"] is False

    ledger = Ledger(Settings(data_dir=node.data).ledger_url)
    try:
        assert ledger.studies_of_patient(QA_PATIENT_ID) == [third["study_instance_uid"]]  # older ones are erased
        (row,) = ledger.worklist()
        assert row.study.patient_name == "QA^PHANTOM"
        assert row.job is not None
        assert row.job.destinations == ()
        assert row.job.prior_job_id is None
        assert ledger.deliveries(row.job.id) == []
    finally:
        ledger.close()
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}") as page:
        assert "QA^PHANTOM" not in page.get("/").text
        assert "phantom of site QA" not in page.get("/").text
        assert "phantom of site QA" in page.get("/", params={"q": QA_PATIENT_ID}).text
        assert "cmbnode_qa_good 0.0" in page.get("/metrics").text

    shown = node.command("qa", "show", "--csv").stdout.splitlines()
    assert [line.split(",")[1] for line in shown] == ["result", "good", "good", "ALARM"]
