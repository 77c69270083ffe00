"""A patient whose study is reviewed on the page, and the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from node.ledger import Ledger
from pipeline.findings import ChangeOverTime, Findings, ImageQuality, PriorLesion, Trend
from tests.node.people import browser, local_app
from tests.node.seeded import Seeder, make_findings
from tests.node.web.test_worklist import Page


class Patient:
    """One patient with two studies: four bleeds, then seven, of which three are new; one is no longer seen."""

    def __init__(self, folder: Path) -> None:
        self.seeder = s = Seeder(folder)
        self.ledger: Ledger = s.ledger
        for key, findings in (("then", self._then), ("now", self._now)):
            s.receive(key, "Rivera^Maria", "P-7001")
            s.settle(key)
            s.open(key)
            s.analyse(key, 0, findings=findings())
            s.deliver(key)
        self.path, self.job = f"/studies/{s.studies['now']}", s.jobs["now"]
        self.lesions = self._now().lesions

    def _then(self) -> Findings:
        return make_findings(self.seeder.studies["then"], 4)

    def _now(self) -> Findings:
        made, before = make_findings(self.seeder.studies["now"], 7), self._then().lesions
        lesions = tuple(
            replace(one, trend=Trend.STABLE, prior_tracking_uid=before[n].tracking_uid) if n < 3 else
            replace(one, trend=Trend.NEW)
            for n, one in enumerate(made.lesions)
        )  # fmt: skip
        last = before[3]
        gone = PriorLesion(
            last.tracking_uid, last.centroid_lps_mm, 4.5, 0.7, last.certainty, "lobar", "occipital", "left"
        )
        change = ChangeOverTime(
            self.seeder.studies["then"], "20250102", "1.2.3", True, new=4, stable=3, no_longer_seen=(gone,),
            aria_h="mild", flags=("more than 4 microbleeds",), caveats=("SWI shows more microbleeds than T2*-GRE",),
        )  # fmt: skip
        quality = ImageQuality(in_plane_mm=0.7, slice_mm=2.8, coverage=0.98, snr=24.0, motion=1.1)
        return replace(made, lesions=lesions, change=change, image_quality=quality, warnings=("the head moved",))


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    made = Patient(tmp_path_factory.mktemp("patient"))
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def web(patient: Patient) -> Iterator[TestClient]:
    with browser(local_app(patient.seeder.data_dir, patient.ledger)) as client:
        yield client


def fields(patient: Patient, **more: Any) -> dict[str, Any]:
    """The form as a browser would send it when nothing was touched."""
    given = {"job": patient.job, "position": 5, "view": "swi"}
    return {**given, "comment": "", "observer": "", "organisation": "", **more}


def turn(web: TestClient, patient: Patient, **more: Any) -> Page:
    """Ask for the viewer alone, as htmx does."""
    answer = web.post(f"{patient.path}/review", data=fields(patient, **more), headers={"hx-target": "viewer"})
    assert answer.status_code == 200, answer.text
    return Page(answer.text)
