"""A week of site QA on a running node: the phantom takes the route of every study, and regressions are noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.archive import Archive
from node.archive.qa_runs import QaRun
from node.ledger import Ledger
from node.ledger.records import QA_PATIENT_ID
from node.qa.run import run_qa
from node.settings import Settings
from tests.dicom_factory import affine, siemens_swi, write
from tests.heads import BLEEDS, SPACING, small_head
from tests.running_node import RunningNode, run_node

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def phantom(folder: Path, phase_sign: int = 1) -> Path:
    """A small head with three microbleeds, and where they are; the bundled phantom takes many times as long."""
    folder.mkdir()
    swi, phase = small_head()
    matrix = affine(SPACING, (0.0, 0.0, 0.0))
    write(siemens_swi(swi, phase_sign * phase, swi, matrix=matrix), folder)
    centres = [(matrix @ (*voxel, 1.0))[:3].tolist() for voxel in BLEEDS]
    lesions = [{"centre_lps_mm": centre, "radius_mm": 2.0, "visible": True} for centre in centres]
    (folder / "truth.json").write_text(json.dumps({"lesions": lesions}))
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    # A destination that does not answer: whatever is sent to it stays undelivered.
    with run_node(tmp_path_factory.mktemp("qa"), {"pacs": ("PACS", 9)}, QA__KEEP_DAYS="0") as running:
        yield running


def qa_run(node: RunningNode, study: Path) -> tuple[int, dict[str, Any], str]:
    """What the command makes of a night."""
    done = node.command("qa", "run", "--json", "--study", str(study))
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr.splitlines()[-1]


def night(node: RunningNode, study: Path) -> QaRun:
    """The same without an interpreter of its own."""
    settings = Settings(data_dir=node.data, receiver={"port": node.dicom_port}, qa={"keep_days": 0})  # type: ignore
    ledger = Ledger(settings.ledger_url)
    try:
        return run_qa(settings, ledger, Archive(node.data), study, lambda _: None, actor="test")
    finally:
        ledger.close()


def test_in_a_week_of_nights_each_regression_is_noticed_and_nothing_else_is(node: RunningNode, tmp_path: Path) -> None:
    usual, broken_phase = phantom(tmp_path / "usual"), phantom(tmp_path / "broken", phase_sign=-1)
    status, first, said = qa_run(node, usual)
    assert (status, first["faults"], first["differences"]) == (0, [], []), said
    assert [one["number"] for one in first["found"]] == [1, 2, 3]
    second = night(node, usual)
    assert second.good, second.alarm
    assert [asdict(one) for one in second.found] == first["found"]
    assert second.study_instance_uid != first["study_instance_uid"]

    (profile,) = node.data.glob("frst-quick.toml")
    text = profile.read_text()
    assert "possible = 0.2\ndefinite = 0.6" in text
    profile.write_text(text.replace("possible = 0.2\ndefinite = 0.6", "possible = 0.975\ndefinite = 0.976"))
    status, third, said = qa_run(node, usual)
    assert status == 1
    assert said.startswith("cmbnode: qa: only ")
    assert "no longer found: microbleed " in said
    assert said.endswith("changed since then: the profile's parameters")
    assert third["good"] is False
    _check_that_results_stay_in_the_node(node, third["study_instance_uid"])

    profile.write_text(text)
    assert night(node, usual).good
    inverted = night(node, broken_phase)
    assert "no longer found: microbleed " in inverted.alarm
    assert night(node, usual).good
    assert night(node, usual).good
    shown = node.command("qa", "show", "--csv").stdout.splitlines()
    results = [line.split(",")[1] for line in shown]
    assert results == ["result", "good", "good", "ALARM", "good", "ALARM", "good", "good"]


def _check_that_results_stay_in_the_node(node: RunningNode, study_uid: str) -> None:
    ledger = Ledger(Settings(data_dir=node.data).ledger_url)
    try:
        assert ledger.studies_of_patient(QA_PATIENT_ID) == [study_uid]  # older ones are erased
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
