"""A reader's correction on its whole way: real node, real PACS, fetched back, and read as a training label."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import RunningNode, run_node, wait_until
from training.cli import main
from training.datasets.layouts import open_dataset

from .killable_node import make_study

pytestmark = pytest.mark.integration

PLAIN = (44.0, 74.4, 21.0)
"""Patient coordinates of plain brain in the study of `make_study`."""


@dataclass(frozen=True)
class Site:
    """A PACS, a node that sends to it, and what the node found in one study."""

    orthanc: Orthanc
    node: RunningNode
    study: str
    first: dict[str, Any]

    def delivered(self, count: int) -> dict[str, Any]:
        """Wait for so many jobs, the newest delivered; its details."""
        log = self.node.data / "node.out"

        def newest() -> Any:
            jobs = self.node.jobs()
            return jobs[0] if len(jobs) == count and jobs[0]["state"] in ("delivered", "failed") else None

        job = wait_until(newest, 120, self.node.process, log)
        assert job["state"] == "delivered", job["why"]
        return show(self.node, job["id"])

    def reports(self) -> list[Dataset]:
        """The reports in the PACS."""
        return [dcmread(io.BytesIO(file)) for file in self.orthanc.instances(self.study, "SR")]


def show(node: RunningNode, job: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(node.command("show", str(job), "--json").stdout)
    return document


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    study, images = make_study(folder / "images", "read by a person")
    with (
        run_orthanc(folder / "pacs") as orthanc,
        run_node(folder / "node", {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}) as node,
    ):
        orthanc.upload(*images)
        sent = node.command("send", str(images[0].parent), f"CMBNODE@127.0.0.1:{node.dicom_port}")
        assert sent.returncode == 0, sent.stderr
        site = Site(orthanc, node, study, {})
        yield Site(orthanc, node, study, site.delivered(1))


def test_a_correction_is_a_verified_report_in_the_pacs_and_a_label_for_training(site: Site, tmp_path: Path) -> None:
    found = site.first["findings"]["lesions"]
    assert len(found) == 3
    done = site.node.command(
        "correct", str(site.first["id"]), "--reject", "2", "--add", ",".join(map(str, PLAIN)),
        "--observer", "Reader^Ada", "--organisation", "General Hospital", "--comment", "one is a vein",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    corrected = site.delivered(2)["findings"]
    flags = {report.VerificationFlag: report for report in site.reports()}
    assert flags.keys() == {"UNVERIFIED", "VERIFIED"}
    verified = flags["VERIFIED"]
    (before,) = verified.PredecessorDocumentsSequence
    (series,) = before.ReferencedSeriesSequence
    (report,) = series.ReferencedSOPSequence
    assert report.ReferencedSOPInstanceUID == flags["UNVERIFIED"].SOPInstanceUID
    assert str(verified.VerifyingObserverSequence[0].VerifyingObserverName) == "Reader^Ada"

    for number, file in enumerate(site.orthanc.instances(site.study)):
        (tmp_path / f"{number:03d}.dcm").write_bytes(file)  # as a researcher fetches the study
    assert main(["check", str(tmp_path)]) == 0
    (record,) = open_dataset(tmp_path)
    marks = record.read().marks
    assert Counter(mark.kind for mark in marks) == {"bleed": 3, "rejected": 1}
    for kind, name in (("bleed", "lesions"), ("rejected", "rejected")):
        wanted = np.array(sorted(lesion["centroid_lps_mm"] for lesion in corrected[name]))
        assert np.allclose(sorted(m.centre_lps_mm for m in marks if m.kind == kind), wanted, atol=1.0)


def test_a_second_reader_hears_that_the_result_was_superseded(site: Site) -> None:
    refused = site.node.command(
        "correct", str(site.first["id"]), "--observer", "Other^Bob", "--organisation", "Clinic"
    )  # fmt: skip
    assert refused.returncode == 2
    newest = site.node.jobs()[0]["id"]
    assert f"superseded meanwhile by job {newest}, the correction by Reader^Ada" in refused.stderr
    assert len(site.node.jobs()) == 2


def test_results_that_the_pacs_sends_back_leave_the_correction_standing(site: Site, tmp_path: Path) -> None:
    for number, file in enumerate(site.orthanc.instances(site.study, "SR")):
        (tmp_path / f"{number}.dcm").write_bytes(file)
    sent = site.node.command("send", str(tmp_path), f"CMBNODE@127.0.0.1:{site.node.dicom_port}")
    assert sent.returncode == 0, sent.stderr
    log = site.node.data / "node.out"  # routed once more, for the new series
    wait_until(lambda: log.read_bytes().count(b"study routed") >= 2, 60, site.node.process, log)
    newest, first = site.node.jobs()
    assert (newest["state"], newest["superseded_by"]) == ("delivered", None)
    assert first["superseded_by"] == newest["id"]
