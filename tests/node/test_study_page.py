"""A radiologist reads the result of a study at a glance, turns its slices, and loses nothing that was said so far."""

from __future__ import annotations

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

from node.config import load_settings
from node.ledger import AddedBleed, Ledger, NewJob
from node.ledger.access_records import Action
from node.worklist.app import create_app
from node.worklist.review import Review, read_review
from pipeline.errors import InputError
from pipeline.findings import (
    ChangeOverTime,
    Findings,
    ImageQuality,
    PriorLesion,
    RejectedLesion,
    Trend,
    Verification,
)
from tests.node.people import browser, form_token
from tests.node.pictures import NUMBERS
from tests.node.seeded import HOSTILE, Seeder, make_findings
from tests.node.test_worklist import Page

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
    with browser(create_app(load_settings(None, data_dir=patient.seeder.data_dir), patient.ledger)) as client:
        yield client


def fields(web: TestClient, patient: Patient, **more: Any) -> dict[str, Any]:
    """The form as a browser would send it when nothing was touched."""
    given = {"csrf_token": form_token(web, patient.path), "job": patient.job, "at": 5, "shown": "swi"}
    return {**given, "comment": "", "observer": "", "organisation": "", **more}


def turn(web: TestClient, patient: Patient, **more: Any) -> Page:
    """Ask for the viewer alone, as htmx does."""
    answer = web.post(f"{patient.path}/review", data=fields(web, patient, **more), headers={"hx-target": "viewer"})
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_headline_says_it_all(web: TestClient, patient: Patient) -> None:
    text = Page(web.get(patient.path).text).text
    for expected in (
        "7 microbleeds marked",
        "4 definite · 3 possible",
        "burden 5–9",
        "mixed: lobar and deep",
        "4 new, 3 stable, 1 no longer seen since 2025-01-02",
        "ARIA-H mild",
        "more than 4 microbleeds",
        "SWI shows more microbleeds than T2*-GRE",
        "Not assessed: superficial siderosis, macrobleeds",
        "0.7 mm in plane, 2.8 mm slices, 98 % of the brain covered, SNR 24, motion 1.1",
        "The head moved",
    ):
        assert expected in text


def test_regions_are_counted_by_side(web: TestClient, patient: Patient) -> None:
    html = web.get(patient.path).text
    table = Page(html[html.index('class="grid tight regions"') :].split("</table>")[0])
    # lesions 3 and 6 are lobar, 1, 4 and 7 deep, 2 and 5 infratentorial; odd ones right; 5 to 7 possible
    assert table.text.split("all ")[1] == (
        "lobar frontal 2 0 + 1 1 2 deep thalamus 3 1 1 + 1 3 infratentorial cerebellum 2 1 0 + 1 2"
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
    assert "no. 1 of 2025-01-02, 2.6 mm then" in page.text
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
    with browser(create_app(load_settings(None, data_dir=tmp_path), s.ledger)) as client:
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


def test_files_are_downloaded_under_a_name_and_it_is_written_down(web: TestClient, patient: Patient) -> None:
    links = [str(a["href"]) for a in Page(web.get(patient.path).text).tags("a") if "/results/" in str(a["href"])]
    assert [link.rpartition("/")[2] for link in links] == ["capture.dcm", "findings.json"]  # the seed has no SR file
    picture, document = (web.get(link) for link in links)
    assert picture.headers["content-disposition"] == f'attachment; filename="capture-{patient.job}.dcm"'
    assert picture.content[128:132] == b"DICM"
    assert document.json()["schema"] == "cmb-findings/1"
    noted = [one.detail for one in patient.ledger.audit() if one.action == Action.DOWNLOAD]
    assert noted[:2] == [f"job {patient.job}, findings.json", f"job {patient.job}, capture"]


def test_the_slices_are_turned_without_losing_a_word(web: TestClient, patient: Patient) -> None:
    verdict = {f"verdict-{patient.lesions[0].tracking_uid}": "reject"}
    given = fields(web, patient, go="6", comment="a <b>vein</b>", **verdict)
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
        ({"at": "77"}, "swi/39"),
    ],
)
def test_a_button_shows_the_slice_that_it_names(
    web: TestClient, patient: Patient, pressed: dict[str, str], shown: str
) -> None:
    page = turn(web, patient, **pressed)
    assert [i["src"] for i in page.tags("input") if i.get("type") == "image"] == [
        f"{patient.path}/pictures/{patient.job}/{shown}.jpg"
    ]


def test_a_click_marks_a_bleed_and_it_can_be_taken_back(web: TestClient, patient: Patient) -> None:
    page = turn(web, patient, **{"place.x": 320, "place.y": 256})
    added = [str(i["value"]) for i in page.tags("input") if i.get("name") == "added"]
    assert len(added) == 1
    x, y, z = map(float, added[0].split())
    assert (x, y, z) == (pytest.approx(-1, abs=0.3), pytest.approx(-1, abs=0.3), 10.0)  # the middle of 160 × 128 mm
    assert any("ring possible" in str(i.get("class")) for i in page.tags("circle")) is False
    again = turn(web, patient, added=added, certainty=["possible"], mark="1", row="10", column="20")
    assert [i["value"] for i in again.tags("input") if i.get("name") == "added"] == [added[0], "-42.0 -46.0 10.0"]
    rings = [str(i["class"]) for i in again.tags("circle")]
    assert "ring possible" in rings
    left = turn(web, patient, added=[added[0], "-42 -46 10"], certainty=["possible", "definite"], remove="0")
    assert [i["value"] for i in left.tags("input") if i.get("name") == "added"] == ["-42.0 -46.0 10.0"]


def test_the_picture_pressed_by_keyboard_marks_nothing(web: TestClient, patient: Patient) -> None:
    page = turn(web, patient, **{"place.x": 0, "place.y": 0})
    assert [i for i in page.tags("input") if i.get("name") == "added"] == []


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
        {"at": "1e400"},
        {"added": "1 2", "certainty": "definite"},
        {"added": "1 2 nan", "certainty": "definite"},
        {"added": "1 2 3", "certainty": "sure"},
        {"added": "1 2 3"},
        {"added": ["1 2 3"] * 501, "certainty": ["definite"] * 501},
    ],
)
def test_a_form_that_no_page_made_is_refused(web: TestClient, patient: Patient, broken: dict[str, Any]) -> None:
    assert web.post(f"{patient.path}/review", data=fields(web, patient, **broken)).status_code in (400, 422)


def test_a_form_without_the_token_is_refused(web: TestClient, patient: Patient) -> None:
    for way in ("review", "corrections"):
        assert web.post(f"{patient.path}/{way}", data={**fields(web, patient), "csrf_token": ""}).status_code == 403


def test_the_preview_says_what_will_be_sent_and_lacks_nothing(web: TestClient, patient: Patient) -> None:
    first, second = (lesion.tracking_uid for lesion in patient.lesions[:2])
    more = {f"verdict-{first}": "reject", f"verdict-{second}": "accept", "preview": "1"}
    given = fields(web, patient, added=["10.0 -5.0 12.0"], certainty=["possible"], comment=HOSTILE, **more)
    html = web.post(f"{patient.path}/review", data={**given, "observer": "Dr. Grey"}).text
    page = Page(html)
    assert "7 microbleeds 3 definite · 4 possible" in page.text  # 7 - 1 + 1
    assert "6 as they are, 1 of them accepted one by one" in page.text
    assert "no. 1, definite, 2.6 mm, right thalamus" in page.text
    assert "A1: possible, at 10, -5, 12 mm (LPS)" in page.text
    assert "names its organisation" in page.text
    assert "pacs" in page.text
    assert page.tags("script")[-1]["src"].startswith("/static/")  # type: ignore[union-attr]
    assert "<script>alert" not in html
    hidden = FormData([(str(i["name"]), str(i["value"])) for i in page.tags("input") if i.get("type") == "hidden"])
    sent = read_review(hidden)
    assert sent.verdicts == {first: False, second: True}
    assert sent.added == (AddedBleed((10.0, -5.0, 12.0), "possible"),)
    assert sent.comment == HOSTILE
    back = Page(web.post(f"{patient.path}/review", data=dict(hidden)).text)
    assert len([i for i in back.tags("input") if i.get("type") == "radio" and "checked" in i]) == 2


def test_a_result_that_was_superseded_meanwhile_cannot_be_corrected(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    with browser(create_app(load_settings(None, data_dir=tmp_path), patient.ledger)) as web:
        given = fields(web, patient, observer="Dr. Grey", organisation="Ward 3")
        given[f"verdict-{patient.lesions[0].tracking_uid}"] = "reject"
        newer = patient.ledger.open_job(replace(_same(patient), key="another"))
        for way, more in (("corrections", {}), ("review", {"preview": "1"})):
            answer = web.post(f"{patient.path}/{way}", data={**given, **more})
            page = Page(answer.text)
            assert answer.status_code == 409
            assert f"superseded meanwhile by job {newer.id}" in page.text
            assert patient.path in [a["href"] for a in page.tags("a")]
            assert "no. 1, definite" in page.text  # what the reader had said is still to be read
        turned = web.post(f"{patient.path}/review", data={**given, "go": "3"}, headers={"hx-target": "viewer"})
        assert f"superseded meanwhile by job {newer.id}" in turned.text
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
    with browser(create_app(load_settings(None, data_dir=tmp_path), patient.ledger)) as web:
        page = Page(web.get(patient.path).text)
        assert "The slices went with the images on" in page.text
        assert "send the study again" in page.text
        assert [i for i in page.tags("input") if i.get("type") == "radio"] == []
        assert web.get(f"{patient.path}/pictures/{patient.job}/1-swi.jpg").status_code == 200
        assert web.get(f"{patient.path}/pictures/{patient.job}/swi/3.jpg").status_code == 404
        given = fields(web, patient, observer="Dr. Grey", organisation="Ward 3")
        refused = web.post(f"{patient.path}/corrections", data=given)
        assert refused.status_code == 409
        assert "removed by retention" in refused.text
        shutil.rmtree(tmp_path / "outbox")
        bare = Page(web.get(patient.path).text)
        assert "7 microbleeds marked" in bare.text
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
    with browser(create_app(load_settings(None, data_dir=tmp_path), s.ledger)) as web:
        html = web.get(f"/studies/{study}").text
    s.ledger.close()
    page = Page(html)
    assert "Verified by Grey, Meredith, Ward <3>, " in page.text
    assert "one is a <i>vein</i>" in page.text
    assert "<i>" not in html
    assert "Rejected: 1" in page.text
    again = [i for i in page.tags("input") if i.get("name") == "verdict-2.25.9"]
    assert [i["value"] for i in again] == ["accept"]


@settings(deadline=None, max_examples=60)
@given(
    verdicts=st.dictionaries(st.sampled_from(UIDS), st.booleans()),
    added=st.lists(
        st.builds(AddedBleed, st.tuples(*[st.floats(-300, 300)] * 3), st.sampled_from(["definite", "possible"])),
        max_size=4,
    ),
    comment=st.text(max_size=40),
    position=st.integers(0, 400),
)
def test_a_form_that_is_read_and_written_again_is_the_same(
    verdicts: dict[str, bool], added: list[AddedBleed], comment: str, position: int
) -> None:
    given = Review(3, verdicts, tuple(added), comment, "Dr. Grey", "Ward 3", position, "mip")
    pairs = [("job", "3"), ("at", str(position)), ("shown", "mip"), ("comment", comment)]
    pairs += [("observer", "Dr. Grey"), ("organisation", "Ward 3")]
    pairs += [(f"verdict-{uid}", "accept" if accepted else "reject") for uid, accepted in verdicts.items()]
    for one in added:
        pairs += [("added", " ".join(map(str, one.centroid_lps_mm))), ("certainty", one.certainty)]
    assert read_review(FormData(pairs)) == given
    assert {v.tracking_uid: v.accepted for v in given.correction().verdicts} == verdicts


@given(
    st.lists(st.tuples(st.sampled_from(["job", "at", "added", "certainty", "go", "verdict-1"]), st.text(max_size=12)))
)
def test_any_form_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    read = None
    with suppress(InputError):
        read = read_review(FormData(pairs))
    last = dict(pairs)
    if read is not None:
        assert (read.job, read.position) == (float(last["job"]), float(last["at"]))
