"""A radiologist reads the result of a study at a glance, turns its slices, and loses nothing that was said so far."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from node.ledger.access_records import AuditAction
from node.web.auth import POLL
from pipeline.findings import RejectedLesion, Verification
from tests.node.people import browser, local_app
from tests.node.pictures import NUMBERS
from tests.node.reviewed import Patient, fields, turn
from tests.node.reviewed import patient as patient
from tests.node.reviewed import web as web
from tests.node.seeded import Seeder, make_findings

from .test_worklist import Page


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
