"""The metrics are as Prometheus wants them, each is on the page, and the dashboard and the rules use no other."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from node.archive.qa_runs import QaRun, add_run
from node.ledger import AnnouncedStudy
from node.processes.parts import PartFile
from node.settings import DicomDestination, Settings
from node.settings.audit_repository import AuditRepositorySettings
from node.settings.pull import PullSettings
from node.settings.work_items import WorkItemSettings
from node.web.app import create_app
from tests.node.seeded import seed

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What Prometheus reads from a node with studies in every state, and a PACS that must commit."""
    made = seed(tmp_path_factory.mktemp("node"))
    pacs = DicomDestination(ae_title="PACS", host="127.0.0.1", port=104, commit_within_s=60)
    quiet = pacs.model_copy(update={"commit_within_s": None})
    repository = AuditRepositorySettings(host="127.0.0.1", transport="udp")
    manager = WorkItemSettings(url="http://127.0.0.1/ups")
    destinations = {"pacs": pacs, "quiet": quiet}
    settings = Settings(
        data_dir=made.data_dir,
        destinations=destinations,
        audit_repository=repository,
        work_items=manager,
        pull={"archive": PullSettings(dicomweb={"url": "http://archive/dicom-web"})},  # type: ignore[arg-type]
    )
    assert made.ledger.claim_pull_query("archive", "test", 30)
    made.ledger.end_pull_query("archive", "test", [AnnouncedStudy("1.2.3")], 60, 60, "it left some out")
    made.ledger.begin_feed()
    PartFile(made.data_dir, "receiver").beat()
    add_run(made.data_dir, QaRun(datetime.now(UTC), "1.2.3", "", 6, seconds={"send": 2.5}))
    app = create_app(settings, made.ledger)
    app.state.context = replace(app.state.context, job_queue=Mock(depth=Mock(return_value=0)))
    yield TestClient(app, base_url="http://127.0.0.1").get("/metrics").text
    made.ledger.close()


@pytest.fixture(scope="module")
def samples(exposition: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def promtool(*words: str, stdin: str = "") -> None:
    done = subprocess.run(["promtool", *words], input=stdin, capture_output=True, text=True, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def used_metrics(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\bcmbnode_\w+", text)}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def dashboard_expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [*targets, *(str(variable["query"]) for variable in dashboard["templating"]["list"])]


def test_promtool_finds_nothing_to_improve(exposition: str) -> None:
    promtool("check", "metrics", stdin=exposition)


def test_counters_and_histograms_come_from_the_ledger(samples: dict[tuple[str, ...], float]) -> None:
    assert samples["cmbnode_jobs_finished_total", "delivered"] == 2
    assert samples["cmbnode_jobs_finished_total", "analysis_failed"] == 1
    assert samples["cmbnode_delivery_attempts_total", "pacs", "accepted"] == 5
    assert samples["cmbnode_analysis_seconds_count", "analysis"] == 3
    assert samples["cmbnode_analysis_seconds_sum", "analysis"] == pytest.approx(28.2)
    buckets = [samples["cmbnode_analysis_seconds_bucket", "analysis", le] for le in ("5.0", "10.0", "60.0", "+Inf")]
    assert buckets == [0, 3, 3, 3]
    assert samples["cmbnode_destination_failing_seconds", "pacs"] > 3600
    assert samples["cmbnode_oldest_waiting_seconds", "pacs"] > 3600


def test_what_never_happened_is_there_with_zero(samples: dict[tuple[str, ...], float]) -> None:
    assert samples["cmbnode_delivery_attempts_total", "quiet", "failed"] == 0
    assert samples["cmbnode_leases_lost_total", "analysis"] == 0
    assert samples["cmbnode_destination_failing_seconds", "quiet"] == 0
    assert samples["cmbnode_turnaround_seconds_count", "stat"] == 0


def test_every_metric_is_on_the_page_and_no_other(exposition: str) -> None:
    page = (ROOT / "docs" / "watch.md").read_text()
    listed = re.findall(r"^\| `(cmbnode_\w+)", page, re.MULTILINE)
    assert sorted(listed) == sorted(re.findall(r"^# HELP (\w+)", exposition, re.MULTILINE))


def test_the_labels_on_the_page_are_those_of_the_metrics(exposition: str) -> None:
    page = (ROOT / "docs" / "watch.md").read_text()
    for name, labels in re.findall(r"^\| `(cmbnode_\w+?)(?:\{([\w, ]+)\})?` \|", page, re.MULTILINE):
        line = re.search(rf"^{name}(?:_bucket)?(?:\{{(.*?)\}})? ", exposition, re.MULTILINE)
        if line is None:
            assert name == "cmbnode_certificate_expiry_timestamp_seconds", "this node has no certificate"
            continue
        found = set(re.findall(r"(\w+)=", line[1] or "")) - {"le"}
        assert found == set(filter(None, labels.replace(" ", "").split(","))), name


def test_the_dashboard_and_the_rules_use_metrics_that_exist(
    exposition: str, samples: dict[tuple[str, ...], float]
) -> None:
    alerts = [rule["expr"] for rule in rules()]
    exist = {*(name for name, *_ in samples), *re.findall(r"^# HELP (\w+)", exposition, re.MULTILINE)}
    for expressions in (alerts, dashboard_expressions()):
        used = used_metrics(expressions)
        assert len(used) > 8
        assert used - exist == set()


def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")


def test_every_rule_is_tested_and_on_the_page() -> None:
    tested = (MONITORING / "alerts_test.yml").read_text()
    page = (ROOT / "docs" / "watch.md").read_text()
    for rule in rules():
        assert f'ALERTS{{alertname="{rule["alert"]}",' in tested
        assert f"| `{rule['alert']}` |" in page
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    assert [one["name"] for one in dashboard["__inputs"]] == ["DS_PROMETHEUS"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["title"]
        assert all(target["datasource"]["uid"] == "${DS_PROMETHEUS}" for target in panel.get("targets", ()))


def test_prometheus_understands_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [
        one.replace("$__rate_interval", "5m") for one in dashboard_expressions() if "label_values" not in one
    ]
    recorded = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    assert len(recorded) > 25
    promtool("check", "rules", str(tmp_path / "panels.yml"))
