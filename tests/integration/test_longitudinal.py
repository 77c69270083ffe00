"""A patient comes again: three bleeds are new, and every way out says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node.analyse.comparison import REFERENCE
from node.cli import main
from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Job, Ledger
from pipeline.change import ReferenceImage
from tests.classical import quick_profile
from tests.longitudinal import Longitudinal
from tests.node.ris import Ris, ris
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until
from training.fit.profile_files import write_profile

from .killable_node import Pacs, running_pacs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROUTING = """
schema = "cmb-routing/1"

[[rule]]
name = "SWI"
role = "swi"
action = "analyse"
profile = "{profile}"
"""


def strict_profile(folder: Path) -> Path:
    """The classical profile with the threshold at which it marks next to nothing else in this head."""
    return write_profile(quick_profile(thresholds={"possible": 0.7, "definite": 0.75}), folder / "frst-strict.toml")


@dataclass(frozen=True)
class Site:
    """A node that was sent both studies of the pair, and the PACS that its results went to."""

    pair: Longitudinal
    node: RunningNode
    pacs: Pacs
    ris: Ris

    def job(self, study_uid: str) -> Job:
        with self.ledger() as ledger:
            return ledger.jobs_of_study(study_uid)[0]

    def findings(self, study_uid: str) -> dict[str, Any]:
        with self.ledger() as ledger:
            return ledger.findings(ledger.jobs_of_study(study_uid)[0].id) or {}

    def report(self, study_uid: str) -> Dataset:
        return dcmread(self.node.data / "outbox" / str(self.job(study_uid).id) / "sr.dcm")

    def ledger(self) -> closing[Ledger]:
        return closing(Ledger(f"sqlite:///{self.node.data / 'ledger.sqlite3'}"))


@pytest.fixture(scope="module")
def site(longitudinal: Longitudinal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("again")
    routing = folder / "routing.toml"
    routing.write_text(ROUTING.format(profile=strict_profile(folder)))
    with (
        running_pacs() as pacs,
        ris() as far_ris,
        run_node(
            folder / "node",
            {},
            ROUTING_FILE=str(routing),
            DESTINATIONS=json.dumps(
                {
                    "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port},
                    "ris": {"kind": "hl7", "host": "127.0.0.1", "port": far_ris.port},
                }
            ),
        ) as node,
    ):
        peer = Peer(AE_TITLE, "127.0.0.1", node.dicom_port)
        for scanned in (longitudinal.prior, longitudinal.present):  # the second comes while the first is analysed
            files = [outgoing for path in scanned.files if (outgoing := read_outgoing(path)) is not None]
            assert all(sent.accepted for sent in send(files, peer, "MODALITY", timeout_s=30))
        done = wait_until(lambda: _both_over(node), 280, node.process, folder / "node" / "node.out")
        assert [job["state"] for job in done] == ["delivered", "delivered"], done
        yield Site(longitudinal, node, pacs, far_ris)


def _both_over(node: RunningNode) -> list[dict[str, Any]]:
    jobs = node.jobs()
    return jobs if len(jobs) == 2 and all(job["state"] in ("delivered", "failed") for job in jobs) else []


def test_three_bleeds_are_new_and_two_stable(site: Site) -> None:
    found = site.findings(site.pair.present.study_uid)
    change = found["change"]
    assert change["assessed"], change["why"]
    assert (change["new"], change["stable"], change["no_longer_seen"]) == (3, 2, [])
    assert change["aria_h"] == "mild"
    assert change["flags"] == ["more than 4 microbleeds"]
    assert change["prior_study_instance_uid"] == site.pair.prior.study_uid
    assert change["prior_study_date"] == site.pair.prior.date
    new = np.array([lesion["centroid_lps_mm"] for lesion in found["lesions"] if lesion["trend"] == "new"])
    distance = np.linalg.norm(new[:, None] - np.array(site.pair.new), axis=2)
    assert (distance.min(axis=1) < 2).all()
    assert sorted(distance.argmin(axis=1)) == [0, 1, 2]
    earlier = {lesion["tracking_uid"] for lesion in site.findings(site.pair.prior.study_uid)["lesions"]}
    assert {lesion["prior_tracking_uid"] for lesion in found["lesions"] if lesion["trend"] == "stable"} == earlier


def test_the_earlier_study_waits_for_nothing_and_is_compared_with_nothing(site: Site) -> None:
    assert site.findings(site.pair.prior.study_uid)["change"] is None
    prior, present = site.job(site.pair.prior.study_uid), site.job(site.pair.present.study_uid)
    assert (prior.prior_job_id, present.prior_job_id) == (None, prior.id)


def test_the_report_in_the_pacs_says_so_and_names_the_earlier_one(site: Site) -> None:
    report, earlier = site.report(site.pair.present.study_uid), site.report(site.pair.prior.study_uid)
    assert report.SOPInstanceUID in site.pacs.studies[site.pair.present.study_uid]
    text = json.dumps(report.to_json_dict(suppress_invalid_tags=True)).lower()
    for said in ("3 new, 2 stable", "mild", "more than 4 microbleeds"):
        assert said in text
    (evidence,) = report.PertinentOtherEvidenceSequence
    assert evidence.StudyInstanceUID == site.pair.prior.study_uid
    referenced = {
        i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence
    }
    assert earlier.SOPInstanceUID in referenced


def test_the_ris_is_told_of_the_new_bleeds_and_their_grade(site: Site) -> None:
    said = {}
    for message in site.ris.messages:
        observed = {str(line[3][0][0]): str(line[5]) for line in message.segments("OBX")}
        said[message.extract_field("OBR", 1, 18)] = observed
    accession = dcmread(site.pair.present.files[0], stop_before_pixels=True).AccessionNumber
    present = said[accession]
    assert (present["NEW"], present["STABLE"], present["ARIA_H"]) == ("3", "2", "mild")
    assert "More than 4 microbleeds" in " ".join(present.values())
    assert len(said) == len(site.ris.messages) == 2
    assert all("ARIA_H" not in observed for name, observed in said.items() if name != accession)


def test_a_reference_image_is_kept_for_the_next_time(site: Site) -> None:
    for scanned in (site.pair.prior, site.pair.present):
        reference = ReferenceImage.from_bytes(
            (site.node.data / "outbox" / str(site.job(scanned.study_uid).id) / REFERENCE).read_bytes()
        )
        assert reference.brain.any()
        assert reference.scan.sequence == "swi"


def test_the_command_line_answers_the_same_without_a_server(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior, present = str(site.pair.prior.folder), str(site.pair.present.folder)
    recipe = ("--profile", str(strict_profile(tmp_path)), "--device", "cpu", "--json")
    assert main(["detect", present, "--prior", prior, "--out", str(tmp_path / "out"), *recipe]) == 0
    alone, served = json.loads(capsys.readouterr().out), site.findings(site.pair.present.study_uid)
    for name in ("new", "stable", "aria_h", "fit", "flags", "caveats"):
        assert alone["change"][name] == served["change"][name]
    assert [lesion["trend"] for lesion in alone["lesions"]] == [lesion["trend"] for lesion in served["lesions"]]
    assert main(["detect", prior, "--prior", present, "--out", str(tmp_path / "none")]) == 2
    assert "later than" in capsys.readouterr().err
