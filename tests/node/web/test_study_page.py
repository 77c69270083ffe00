"""A radiologist reads the result of a study at a glance, turns its slices, and loses nothing that was said so far."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import FormData

from node.ledger import AddedMicrobleed, Correction, Ledger, NewJob
from node.ledger.access_records import AuditAction
from node.web.auth import POLL
from node.web.review import Review, read_review
from pipeline.errors import InputError
from pipeline.findings import ChangeOverTime, Findings, ImageQuality, PriorLesion, RejectedLesion, Trend, Verification
from tests.node.people import browser, local_app
from tests.node.pictures import NUMBERS
from tests.node.seeded import HOSTILE, Seeder, make_findings

from .test_worklist import Page

UIDS = [lesion.tracking_uid for lesion in make_findings("2.25.1", 3).lesions]


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


def test_the_headline_says_it_all(web: TestClient, patient: Patient) -> None:
    text = Page(web.get(patient.path).text).text
    for expected in (
        "7 cerebral microbleeds: 4 definite, 3 possible",
        "Burden: 5-9",
        "Pattern: mixed (lobar and deep or infratentorial)",
        "Change since 2025-01-02: 4 new, 3 stable, 1 no longer seen",
        "ARIA-H by new microbleeds: mild",
        "More than 4 microbleeds",
        "SWI shows more microbleeds than T2*-GRE",
        "Not assessed: superficial siderosis, macrobleeds",
        "Spacing between slices 2.8 mm, In-plane voxel size 0.7 mm, Share of the brain inside the slices 98 %",
        "The head moved",
    ):
        assert expected in text


def test_regions_are_counted_by_side(web: TestClient, patient: Patient) -> None:
    html = web.get(patient.path).text
    table = Page(html[html.index('class="grid tight regions"') :].split("</table>")[0])
    # lesions 3 and 6 are lobar, 1, 4 and 7 deep, 2 and 5 infratentorial; odd ones right; 5 to 7 possible
    assert table.text.split("Total ")[1] == (
        "lobar frontal 2 0 + 1 1 + 0 2 deep thalamus 3 1 + 0 1 + 1 3 infratentorial cerebellum 2 1 + 0 0 + 1 2"
    )


def test_each_bleed_has_its_row_its_pictures_and_what_it_was_before(web: TestClient, patient: Patient) -> None:
    html = web.get(patient.path).text
    page = Page(html)
    for lesion in patient.lesions:
        row = Page(html[html.index(f'id="lesion-{lesion.id}"') :].split("</tbody>")[0])
        assert (lesion.trend or "").upper() in row.text.upper()
        assert str(NUMBERS[round(lesion.centroid_lps_mm[2] / 2)]) in row.text
        sources = [str(image["src"]) for image in row.tags("img")]
        assert sources == [
            f"{patient.path}/pictures/{patient.job}/{lesion.id}-{v}.jpg" for v in ("swi", "phase", "mip")
        ]
        assert Image.open(BytesIO(web.get(sources[0]).content)).size == (60, 20)
    assert "microbleed 1 of 2025-01-02, 2.6 mm" in page.text
    assert "No longer seen: 1" in page.text
    assert f"{patient.path}/pictures/{patient.job}/gone-1-swi.jpg" in [image["src"] for image in page.tags("img")]


def test_all_studies_of_the_patient_are_listed_and_linked(web: TestClient, patient: Patient) -> None:
    page = Page(web.get(patient.path).text)
    assert "Change over time" in page.text
    then = f"/studies/{patient.seeder.studies['then']}"
    assert then in [a["href"] for a in page.tags("a")]
    assert patient.path in [a["href"] for a in Page(web.get(then).text).tags("a")]


def test_a_namesake_is_not_the_same_patient(tmp_path: Path) -> None:
    s = Seeder(tmp_path)
    for key, patient_id in (("one", "P-1"), ("two", "P-2")):
        s.receive(key, "Rivera^Maria", patient_id)
        s.settle(key)
        s.open(key)
        s.analyse(key, 1)
    with browser(local_app(tmp_path, s.ledger)) as client:
        assert "Change over time" not in client.get(f"/studies/{s.studies['one']}").text
    s.ledger.close()


def test_pictures_belong_to_their_study_and_need_no_images(web: TestClient, patient: Patient) -> None:
    then, job = patient.seeder.studies["then"], patient.job
    assert web.get(f"{patient.path}/pictures/{job}/swi/3.jpg").headers["content-type"] == "image/jpeg"
    for wrong in (
        f"/studies/{then}/pictures/{job}/1-swi.jpg",
        f"{patient.path}/pictures/{job}/99-swi.jpg",
        f"{patient.path}/pictures/{job}/swi/4000.jpg",
        f"{patient.path}/pictures/{job}/swi/-1.jpg",
        f"{patient.path}/pictures/{job}/index.json.jpg",
        f"/studies/{then}/results/{job}/findings.json",
        f"/studies/{then}/results/{job}/sr.dcm",
    ):
        assert web.get(wrong).status_code == 404, wrong
    assert web.get(f"{patient.path}/pictures/{job}/t2/3.jpg").status_code == 422


def test_volumes_are_unpacked_by_the_browser_and_belong_to_their_study(web: TestClient, patient: Patient) -> None:
    address = f"{patient.path}/pictures/{patient.job}/swi.nii"
    answer = web.get(address)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert answer.content[:4] == (348).to_bytes(4, "little")  # the client has unpacked it
    then = f"/studies/{patient.seeder.studies['then']}"
    assert web.get(f"{then}/pictures/{patient.job}/swi.nii").status_code == 404
    assert web.get(f"{patient.path}/pictures/{patient.job}/prior.nii").status_code == 404
    assert web.get(f"{patient.path}/pictures/{patient.job}/brain.nii").status_code == 422


def test_the_viewer_is_the_published_one_with_its_licence_and_is_kept_by_browsers(web: TestClient) -> None:
    script = web.get("/static/niivue/niivue.js")
    licence = web.get("/static/niivue/LICENSE.txt").text
    assert f"SHA-256: {hashlib.sha256(script.content).hexdigest()}" in licence
    assert "@niivue/niivue 0.69.0" in licence
    assert "Redistribution and use in source and binary forms" in licence
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "no-cache"
    again = web.get("/static/niivue/niivue.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code == 304


def test_files_are_downloaded_under_a_name_and_it_is_written_down(web: TestClient, patient: Patient) -> None:
    links = [str(a["href"]) for a in Page(web.get(patient.path).text).tags("a") if "/results/" in str(a["href"])]
    assert [link.rpartition("/")[2] for link in links] == ["capture.dcm", "findings.json"]  # the seed has no SR file
    picture, document = (web.get(link) for link in links)
    assert picture.headers["content-disposition"] == f'attachment; filename="capture-{patient.job}.dcm"'
    assert picture.content[128:132] == b"DICM"
    assert document.json()["schema"] == "cmb-findings/1"
    noted = [one.detail for one in patient.ledger.audit() if one.action == AuditAction.DOWNLOAD]
    assert noted[:2] == [f"job {patient.job}, findings.json", f"job {patient.job}, capture"]


def test_the_slices_are_turned_without_losing_a_word(web: TestClient, patient: Patient) -> None:
    verdict = {f"verdict-{patient.lesions[0].tracking_uid}": "reject"}
    given = fields(patient, go="6", comment="a <b>vein</b>", **verdict)
    html = web.post(f"{patient.path}/review", data=given).text
    page = Page(html)
    assert f"{patient.path}/pictures/{patient.job}/swi/6.jpg" in [i.get("src") for i in page.tags("input")]
    radios = {(i["name"], i["value"]) for i in page.tags("input") if i.get("type") == "radio" and "checked" in i}
    assert radios == {(f"verdict-{patient.lesions[0].tracking_uid}", "reject")}
    assert "a &lt;b&gt;vein&lt;/b&gt;" in html
    assert "Slices" in turn(web, patient, go="7").text


@pytest.mark.parametrize(
    ("pressed", "shown"),
    [
        ({"go": "6"}, "swi/6"),
        ({"go": "-3"}, "swi/0"),
        ({"go": "9999"}, "swi/39"),
        ({"go": "number", "number": "111"}, "swi/10"),
        ({"go": "number:111"}, "swi/10"),
        ({"go": "number", "number": "100000"}, "swi/39"),
        ({"show": "mip"}, "mip/5"),
        ({"show": "phase"}, "phase/5"),
        ({"show": "nonsense"}, "swi/5"),
        ({"position": "77"}, "swi/39"),
    ],
)
def test_a_button_shows_the_slice_that_it_names(
    web: TestClient, patient: Patient, pressed: dict[str, str], shown: str
) -> None:
    page = turn(web, patient, **pressed)
    assert [i["src"] for i in page.tags("input") if i.get("type") == "image"] == [
        f"{patient.path}/pictures/{patient.job}/{shown}.jpg"
    ]


def added_in(page: Page) -> list[str]:
    return [str(i["value"]) for i in page.tags("input") if i.get("name") == "added"]


def test_where_nothing_dark_is_seen_the_reader_confirms_and_it_stays_possible(
    web: TestClient, patient: Patient
) -> None:
    page = turn(web, patient, **{"place.x": 320, "place.y": 256})
    assert added_in(page) == []
    assert "Nothing dark can be measured at this place" in page.text
    (waiting,) = [str(b["value"]) for b in page.tags("button") if b.get("name") == "confirm"]
    x, y, z = map(float, waiting.split())
    assert (x, y, z) == (pytest.approx(-1, abs=0.3), pytest.approx(-1, abs=0.3), 10.0)  # the middle of 160 × 128 mm
    assert added_in(turn(web, patient, dismiss="1")) == []
    page = turn(web, patient, confirm=waiting)
    assert added_in(page) == [waiting]
    assert "size not measured" in page.text
    html = web.post(f"{patient.path}/review", data=fields(patient, added=[waiting], certainty=["definite"])).text
    row = Page(html[html.index("<tbody data-lesion data-added") :].split("</tbody>")[0])
    assert row.text.split() == ["A1", "location", "not", "assessed", "slice", "106", "·", "size", "not", "measured",
        "possible", "Remove"]  # fmt: skip
    (thumbnail,) = [str(image["src"]) for image in row.tags("img")]
    assert Image.open(BytesIO(web.get(thumbnail).content)).size == (120, 120)
    assert added_in(turn(web, patient, added=[waiting, "8.0 9.0 12.0"], certainty=["possible"] * 2, remove="0")) == [
        "8.0 9.0 12.0"
    ]


def test_a_dark_place_is_measured_unless_it_is_marked_already(web: TestClient, patient: Patient) -> None:
    second = patient.lesions[1]
    place = "-11.5 5.0 12.0"  # beside the centre of microbleed 2
    given = {"added": ["8.0 9.0 12.0"], "certainty": ["possible"]}
    refused = turn(web, patient, place=place, **given)
    assert "Microbleed 2 is already marked there" in refused.text
    assert added_in(refused) == ["8.0 9.0 12.0"]  # nothing is lost
    twice = turn(web, patient, place="8.5 9.0 12.0", **given)
    assert "A1 is already marked there" in twice.text
    verdict = {f"verdict-{second.tracking_uid}": "reject"}
    page = turn(web, patient, place=place, **verdict)
    assert added_in(page) == [place]
    assert re.search(r"slice 107 · [34]\.\d mm", page.text)  # of voxels of 2 mm
    assert "size not measured" not in page.text
    assert "definite possible Remove" in page.text


def test_beside_the_brain_nothing_is_added_and_nothing_is_lost(web: TestClient, patient: Patient) -> None:
    given = {"added": ["8.0 9.0 12.0"], "certainty": ["possible"], f"verdict-{UIDS[0]}": "reject"}
    page = turn(web, patient, place="-76.0 -60.0 10.0", **given)
    assert "This place lies outside the brain" in page.text
    assert added_in(page) == ["8.0 9.0 12.0"]
    alone = web.post(
        f"{patient.path}/review", data=fields(patient, place="-76 -60 10", **given), headers={"hx-target": "added"}
    )
    assert alone.text.lstrip().startswith('<div id="added"')
    assert added_in(Page(alone.text)) == ["8.0 9.0 12.0"]


def test_the_certainty_of_any_finding_can_be_changed(web: TestClient, patient: Patient) -> None:
    first, last = patient.lesions[0], patient.lesions[6]
    more = {f"certainty-{first.tracking_uid}": "possible", f"certainty-{last.tracking_uid}": "possible"}
    given = fields(patient, observer="Dr. Grey", organisation="Ward 3", preview="1", **more)
    page = Page(web.post(f"{patient.path}/review", data=given).text)
    assert "7 cerebral microbleeds: 3 definite, 4 possible" in page.text
    assert "Microbleed 1: definite → possible" in page.text
    assert "Microbleed 7:" not in page.text  # it was possible before
    back = Page(web.post(f"{patient.path}/review", data=fields(patient, **more)).text)
    chosen = [o for o in back.tags("option") if "selected" in o]
    assert len(chosen) == 7


def test_the_picture_pressed_by_keyboard_marks_nothing(web: TestClient, patient: Patient) -> None:
    page = turn(web, patient, **{"place.x": 0, "place.y": 0})
    assert added_in(page) == []


@pytest.mark.parametrize(
    "pressed",
    [
        {"mark": "1", "row": "", "column": ""},
        {"mark": "1", "row": "65", "column": "3"},
        {"place.x": "nan", "place.y": "3"},
        {"place.x": "641", "place.y": "3"},
        {"go": "number", "number": "1.5"},
        {"go": "x"},
    ],
)
def test_what_makes_no_sense_is_said_and_the_form_stays(
    web: TestClient, patient: Patient, pressed: dict[str, str]
) -> None:
    page = turn(web, patient, added=["1.0 2.0 10.0"], certainty=["definite"], **pressed)
    assert any(attributes.get("role") == "alert" for attributes in page.tags("p"))
    assert [i["value"] for i in page.tags("input") if i.get("name") == "added"] == ["1.0 2.0 10.0"]


@pytest.mark.parametrize(
    "broken",
    [
        {"job": "x"},
        {"job": ""},
        {"position": "1e400"},
        {"added": "1 2", "certainty": "definite"},
        {"added": "1 2 nan", "certainty": "definite"},
        {"added": "1 2 3", "certainty": "sure"},
        {"added": "1 2 3"},
        {"added": ["1 2 3"] * 501, "certainty": ["definite"] * 501},
    ],
)
def test_a_form_that_no_page_made_is_refused(web: TestClient, patient: Patient, broken: dict[str, Any]) -> None:
    assert web.post(f"{patient.path}/review", data=fields(patient, **broken)).status_code in (400, 422)


def test_every_address_that_shows_a_patient_is_in_the_audit(patient: Patient) -> None:
    no_patient = {"/healthz", "/metrics", "/sign-in", "/sign-out", "/account"}
    no_patient |= {f"/studies/{{uid}}/{action}" for action in ("retry", "send", "priority")}  # they lead to the page
    values = {"uid": patient.seeder.studies["now"], "number": patient.job, "name": "1-swi", "view": "swi", "k": 3}
    volume, at = {"name": "swi"}, {"at": "0 0 10"}
    app = local_app(patient.seeder.data_dir, patient.ledger)
    addresses = {(path, method) for path, ways in app.openapi()["paths"].items() for method in ways}
    no_patient |= {path for path, _ in addresses if path.startswith(("/administration/users", "/administration/dest"))}
    with browser(app) as web:
        for path, method in sorted(address for address in addresses if address[0] not in no_patient):
            app.state.context.looks.clear()
            before = len(patient.ledger.audit(limit=10_000))
            data = fields(patient) if method == "post" else None
            more = volume if path.endswith(".nii") else {}
            query = at if path.endswith("place.jpg") else None
            answer = web.request(
                method, path.format(**{**values, **more}, kind="capture"), data=data, params=query, headers={POLL: "1"}
            )
            assert answer.status_code in (200, 303, 409), (path, answer.text)
            assert len(patient.ledger.audit(limit=10_000)) == before + 1, path


def test_a_review_is_a_look_at_the_study_and_every_download_is_recorded(patient: Patient) -> None:
    with browser(local_app(patient.seeder.data_dir, patient.ledger)) as web:
        start = patient.ledger.audit(limit=1)[0].id if patient.ledger.audit(limit=1) else 0
        for _ in range(2):
            web.post(f"{patient.path}/review", data=fields(patient), headers={POLL: "1"})
            web.get(f"{patient.path}/results/{patient.job}/findings.json", headers={POLL: "1"})
    rows = [entry for entry in patient.ledger.audit(limit=1000) if entry.id > start]
    assert sorted(entry.action for entry in rows) == [
        AuditAction.DOWNLOAD,
        AuditAction.DOWNLOAD,
        AuditAction.STUDY,
    ]


def test_a_form_of_another_site_is_refused(web: TestClient, patient: Patient) -> None:
    for way in ("review", "corrections"):
        answer = web.post(f"{patient.path}/{way}", data=fields(patient), headers={"origin": "https://attacker.example"})
        assert answer.status_code == 403


def test_the_preview_says_what_will_be_sent_and_lacks_nothing(web: TestClient, patient: Patient) -> None:
    first, second = (lesion.tracking_uid for lesion in patient.lesions[:2])
    more = {f"verdict-{first}": "reject", f"verdict-{second}": "accept", "preview": "1"}
    given = fields(patient, added=["10.0 -15.0 10.0"], certainty=["possible"], comment=HOSTILE, **more)
    html = web.post(f"{patient.path}/review", data={**given, "observer": "Dr. Grey"}).text
    page = Page(html)
    assert "7 cerebral microbleeds: 3 definite, 4 possible" in page.text  # 7 - 1 + 1
    assert "6 unchanged, 1 of them accepted individually" in page.text
    assert "Microbleed 1: right thalamus (deep), definite, 2.6 mm" in page.text
    assert "A1: location not assessed, possible, size not measured, slice 106" in page.text
    assert "must name its organisation" in page.text
    assert "pacs" in page.text
    assert page.tags("script")[-1]["src"].startswith("/static/")  # type: ignore[union-attr]
    assert "<script>alert" not in html
    hidden = FormData([(str(i["name"]), str(i["value"])) for i in page.tags("input") if i.get("type") == "hidden"])
    sent = read_review(hidden)
    assert sent.verdicts == {first: False, second: True}
    assert sent.added == (AddedMicrobleed((10.0, -15.0, 10.0), "possible"),)
    assert sent.comment == HOSTILE
    back = Page(web.post(f"{patient.path}/review", data=dict(hidden)).text)
    assert len([i for i in back.tags("input") if i.get("type") == "radio" and "checked" in i]) == 2


def test_a_result_that_was_superseded_meanwhile_cannot_be_corrected(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    with browser(local_app(tmp_path, patient.ledger)) as web:
        given = fields(patient, observer="Dr. Grey", organisation="Ward 3")
        given[f"verdict-{patient.lesions[0].tracking_uid}"] = "reject"
        newer = patient.ledger.open_job(replace(_same(patient), key="another"))
        for way, more in (("corrections", {}), ("review", {"preview": "1"})):
            answer = web.post(f"{patient.path}/{way}", data={**given, **more})
            page = Page(answer.text)
            assert answer.status_code == 409
            assert re.search(rf"superseded (meanwhile )?by job {newer.id}", page.text)
            assert patient.path in [a["href"] for a in page.tags("a")]
            assert "Microbleed 1: right thalamus" in page.text  # what the reader had said is still to be read
        turned = web.post(f"{patient.path}/review", data={**given, "go": "3"}, headers={"hx-target": "viewer"})
        assert f"superseded by job {newer.id}" in turned.text
        assert f"/pictures/{patient.job}/swi/3.jpg" in turned.text
    patient.ledger.close()


def _same(patient: Patient) -> NewJob:
    job = patient.ledger.job(patient.job)
    return NewJob(
        key=job.key, study_instance_uid=job.study_instance_uid, swi_series_uid=job.swi_series_uid,
        phase_series_uid=job.phase_series_uid, profile=job.profile, destinations=job.destinations,
    )  # fmt: skip


def test_when_the_images_are_gone_the_crops_stay_and_the_page_says_so(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    study = patient.seeder.studies["now"]
    patient.ledger.mark_removed(study, datetime.now(UTC))
    (tmp_path / "outbox" / str(patient.job) / "slices.zip").unlink()
    with browser(local_app(tmp_path, patient.ledger)) as web:
        page = Page(web.get(patient.path).text)
        assert "The slices were deleted with the images on" in page.text
        assert "send the study again" in page.text
        assert [i for i in page.tags("input") if i.get("type") == "radio"] == []
        assert web.get(f"{patient.path}/pictures/{patient.job}/1-swi.jpg").status_code == 200
        assert web.get(f"{patient.path}/pictures/{patient.job}/swi/3.jpg").status_code == 404
        given = fields(patient, observer="Dr. Grey", organisation="Ward 3")
        refused = web.post(f"{patient.path}/corrections", data=given)
        assert refused.status_code == 409
        assert "no longer in the archive" in refused.text
        shutil.rmtree(tmp_path / "outbox")
        bare = Page(web.get(patient.path).text)
        assert "7 cerebral microbleeds" in bare.text
        assert [i for i in bare.tags("img") if "/pictures/" in str(i["src"])] == []
    patient.ledger.close()


def test_a_verified_result_says_by_whom_and_what_was_rejected(tmp_path: Path) -> None:
    s = Seeder(tmp_path)
    study = s.receive("one", "Rivera^Maria", "P-7001")
    s.settle("one")
    s.open("one")
    made = make_findings(study, 2)
    lesion = made.lesions[0]
    rejected = RejectedLesion(
        9, "2.25.9", lesion.centroid_lps_mm, 3.1, 0.4, lesion.certainty, "lobar", "frontal", "left"
    )
    seal = Verification("Grey^Meredith", "Ward <3>", datetime(2026, 11, 21, 9, 0, tzinfo=UTC), "one is a <i>vein</i>")
    s.analyse("one", 0, findings=replace(made, rejected=(rejected,), verification=seal))
    with browser(local_app(tmp_path, s.ledger)) as web:
        html = web.get(f"/studies/{study}").text
    s.ledger.close()
    page = Page(html)
    assert "Verified by Meredith Grey, Ward <3>, 2026-11-21 09:00 UTC" in page.text
    assert "one is a <i>vein</i>" in page.text
    assert "<i>" not in html
    assert "Rejected: 1" in page.text
    again = [i for i in page.tags("input") if i.get("name") == "verdict-2.25.9"]
    assert [i["value"] for i in again] == ["accept"]


@settings(max_examples=60)
@given(
    verdicts=st.dictionaries(st.sampled_from(UIDS), st.booleans()),
    added=st.lists(
        st.builds(AddedMicrobleed, st.tuples(*[st.floats(-300, 300)] * 3), st.sampled_from(["definite", "possible"])),
        max_size=4,
    ),
    comment=st.text(max_size=40),
    position=st.integers(0, 400),
)
def test_a_form_that_is_read_and_written_again_is_the_same(
    verdicts: dict[str, bool], added: list[AddedMicrobleed], comment: str, position: int
) -> None:
    findings = make_findings("2.25.1", 3)
    certainties = {findings.lesions[0].tracking_uid: "possible"}
    given = Review(3, verdicts, tuple(added), comment, "Dr. Grey", "Ward 3", position, "mip", certainties)
    pairs = [("job", "3"), ("position", str(position)), ("view", "mip"), ("comment", comment)]
    pairs += [("observer", "Dr. Grey"), ("organisation", "Ward 3")]
    pairs += [(f"verdict-{uid}", "accept" if accepted else "reject") for uid, accepted in verdicts.items()]
    pairs += [(f"certainty-{uid}", certainty) for uid, certainty in certainties.items()]
    for one in added:
        pairs += [("added", " ".join(map(str, one.centroid_lps_mm))), ("certainty", one.certainty)]
    assert read_review(FormData(pairs)) == given
    correction = given.correction(findings)
    assert {v.tracking_uid: v.accepted for v in correction.verdicts} == verdicts
    assert len(correction.certainties) == verdicts.get(findings.lesions[0].tracking_uid, True)
    assert Correction.from_json(correction.to_json()).key("1") == correction.key("1")


@given(
    st.lists(
        st.tuples(st.sampled_from(["job", "position", "added", "certainty", "go", "verdict-1"]), st.text(max_size=12))
    )
)
def test_any_form_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    read = None
    with suppress(InputError):
        read = read_review(FormData(pairs))
    last = dict(pairs)
    if read is not None:
        assert (read.job, read.position) == (float(last["job"]), float(last["position"]))
