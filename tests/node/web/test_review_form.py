"""A reader corrects a result on the page: what the form says is read once, kept, and never half sent."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import FormData

from node.ledger import AddedMicrobleed, Correction, NewJob
from node.web.review import Review, read_review
from pipeline.errors import InputError
from tests.node.people import browser, local_app
from tests.node.reviewed import Patient, fields, turn
from tests.node.reviewed import patient as patient
from tests.node.reviewed import web as web
from tests.node.seeded import HOSTILE, make_findings

from .test_worklist import Page

UIDS = [lesion.tracking_uid for lesion in make_findings("2.25.1", 3).lesions]


def added_in(page: Page) -> list[str]:
    return [str(i["value"]) for i in page.tags("input") if i.get("name") == "added"]


def test_where_nothing_dark_is_seen_the_reader_confirms_and_it_stays_possible(
    web: TestClient, patient: Patient
) -> None:
    page = turn(web, patient, **{"place.x": 320, "place.y": 256})
    assert added_in(page) == []
    assert "No dark region can be measured here" in page.text
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
    assert "6 of 7, 1 of them accepted individually" in page.text
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
