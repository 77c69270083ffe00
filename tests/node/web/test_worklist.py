"""The worklist tells a person where every study is, and gives a hostile one no hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from node.run.redis_server import EmbeddedRedis
from node.settings import Settings, load_settings
from node.web import labels
from node.web.app import create_app
from node.web.security import is_loopback
from tests.node.people import local_app
from tests.node.seeded import HOSTILE, Seeded, Seeder, seed, write_capture


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    made = seed(tmp_path_factory.mktemp("worklist"))
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    own.prepare()
    process = subprocess.Popen(own.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not own.answers():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield own.url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def settings(seeded: Seeded, redis_url: str) -> Settings:
    return load_settings(
        None, data_dir=seeded.data_dir, worklist={"sign_in": False}, redis_url=redis_url, archive={"free_disk_mb": 1}
    )


@pytest.fixture(scope="module")
def web(seeded: Seeded, settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, seeded.ledger), base_url="http://127.0.0.1:8080") as client:
        yield client


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.extend(data.split())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def read(web: TestClient, path: str, status: int = 200) -> Page:
    answer = web.get(path, headers={"accept": "text/html"})
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def study_path(seeded: Seeded, key: str) -> str:
    return f"/studies/{seeded.studies[key]}"


def test_the_worklist_says_where_every_study_is(web: TestClient) -> None:
    text = read(web, "/").text
    for expected in (
        "Receiving images",
        "Waiting for analysis",
        "Analysing: candidates",
        "Sending results",
        "Results delivered",
        "Not analysed",
        "Failed",
        "STAT",
        "4 definite · 3 possible",
        "none marked",
        "no susceptibility-weighted series: 3 series are taken for something else",
        "slice 31 of 72 is missing between 58.0 and 62.0 mm",
        "PACS@10.0.0.7:104 does not answer; next attempt",
    ):
        assert expected in text


def test_the_newest_study_comes_first(web: TestClient, seeded: Seeded) -> None:
    links = [a["href"] for a in read(web, "/").tags("a") if (a["href"] or "").startswith("/studies/")]
    assert links == [study_path(seeded, key) for key in reversed(seeded.studies)]


def test_a_study_page_shows_picture_lesions_series_deliveries_and_history(web: TestClient, seeded: Seeded) -> None:
    page = read(web, study_path(seeded, "delivered"))
    montage = f"{study_path(seeded, 'delivered')}/montage.png?job={seeded.jobs['delivered']}"
    assert montage in [image["src"] for image in page.tags("img")]
    for expected in (
        "Grace Hopper",
        "1948-03-12",
        "7 cerebral microbleeds: 4 definite, 3 possible",
        "Burden: 5-9",
        "right thalamus",
        "No phase: calcifications cannot be told from bleeds",
        "SWI_Images",
        "a minimum intensity projection is never analysed",
        "Structured report",
        "Segmentation",
        "stored",
        "Study routed",
        "all results accepted",
    ):
        assert expected in page.text
    assert page.text.count("Accepted") == 3


def test_a_clean_study_says_that_nothing_was_marked(web: TestClient, seeded: Seeded) -> None:
    text = read(web, study_path(seeded, "clean")).text
    assert "No cerebral microbleeds found" in text
    assert "Segmentation" not in text


def test_a_failed_study_says_why_and_what_helps_and_uses_no_series(web: TestClient, seeded: Seeded) -> None:
    page = read(web, study_path(seeded, "failed"))
    assert "slice 31 of 72 is missing" in page.text
    assert "What to do: if images are missing or damaged, send the study again" in page.text
    assert [a["value"] for a in page.tags("button") if a.get("name") == "job"] == [str(seeded.jobs["failed"])]
    assert "Used" not in page.words
    assert "Used" in read(web, study_path(seeded, "delivered")).words


def test_a_study_that_waits_for_its_destination_says_so(web: TestClient, seeded: Seeded) -> None:
    text = read(web, study_path(seeded, "delivering")).text
    assert text.count("Waiting attempt 2 at") == 3
    assert text.count("PACS@10.0.0.7:104 does not answer") >= 3


@pytest.mark.parametrize("key", ["receiving", "queued", "running", "ignored"])
def test_a_study_without_a_result_has_a_page_too(web: TestClient, seeded: Seeded, key: str) -> None:
    page = read(web, study_path(seeded, key))
    assert "cerebral microbleeds" not in page.text
    assert "SWI_Images" in page.text


def test_only_a_study_on_its_way_is_asked_for_again(web: TestClient, seeded: Seeded) -> None:
    polls = {
        key: any("hx-trigger" in a for _, a in read(web, study_path(seeded, key)).elements) for key in seeded.studies
    }
    over = {"delivered", "clean", "ignored", "failed"}
    assert polls == {key: key not in over for key in seeded.studies}


def test_a_hostile_name_stays_text(web: TestClient, seeded: Seeded) -> None:
    shown = labels.person_name(HOSTILE)
    for path in ("/", study_path(seeded, "queued")):
        page = read(web, path)
        assert " ".join(shown.split()) in page.text
        assert all((script.get("src") or "").startswith("/static/") for script in page.tags("script"))
        assert all("onerror" not in attributes for _, attributes in page.elements)
        assert not page.tags("b") or "&" not in page.tags("b")[0]


def test_no_page_has_a_script_or_style_of_its_own(web: TestClient, seeded: Seeded) -> None:
    for path in ["/", *(study_path(seeded, key) for key in seeded.studies)]:
        page = read(web, path)
        assert all((script.get("src") or "").startswith("/static/") for script in page.tags("script"))
        assert page.tags("style") == []
        assert not any(name == "style" or name.startswith("on") for _, found in page.elements for name in found)


@pytest.mark.parametrize("path", ["/", "/nowhere", "/api/jobs", "/healthz", "/metrics", "/static/worklist.css"])
def test_every_answer_carries_the_security_headers(web: TestClient, path: str) -> None:
    headers = web.get(path).headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_every_page_says_research_use_only(web: TestClient, seeded: Seeded) -> None:
    for path, status in (("/", 200), (study_path(seeded, "delivered"), 200), ("/nowhere", 404)):
        assert "Research use only — not a medical device" in read(web, path, status).text


def test_another_sites_name_for_this_machine_is_refused(web: TestClient) -> None:
    assert web.get("/", headers={"host": "attacker.example"}).status_code == 400
    assert web.get("/", headers={"host": "localhost:8080"}).status_code == 200


def test_a_site_can_name_the_hosts_that_it_answers_to(seeded: Seeded, settings: Settings) -> None:
    unnamed = settings.worklist.model_copy(update={"host": "0.0.0.0", "sign_in": True})
    named = unnamed.model_copy(update={"hosts": ("cmb.hospital.example",)})
    for part, host, status in (
        (unnamed, "anything.example", 200),
        (named, "cmb.hospital.example", 200),
        (named, "127.0.0.1", 200),
        (named, "other.example", 400),
    ):
        app = create_app(settings.model_copy(update={"worklist": part}), seeded.ledger)
        assert TestClient(app).get("/sign-in", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("h.example", False),
    ],
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_montage_is_the_capture_object_as_png(web: TestClient, seeded: Seeded) -> None:
    answer = web.get(f"{study_path(seeded, 'delivered')}/montage.png")
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(BytesIO(answer.content))
    assert image.size == (640, 480)
    assert image.getpixel((200, 150)) == (231, 184, 92)


def test_every_page_of_a_long_montage_is_shown(tmp_path: Path) -> None:
    made = seed(tmp_path)
    write_capture(tmp_path / "outbox" / str(made.jobs["delivered"]) / "capture.dcm", pages=3)
    app = local_app(tmp_path, made.ledger)
    with TestClient(app, base_url="http://127.0.0.1") as web:
        page = read(web, study_path(made, "delivered"))
        images = [source for image in page.tags("img") if "montage" in (source := str(image["src"]))]
        pictures = [Image.open(BytesIO(web.get(source).content)) for source in images]
        beyond = web.get(images[-1].replace("page=2", "page=3")).status_code
    made.ledger.close()
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert beyond == 404


def test_no_picture_is_served_for_a_study_that_has_none(web: TestClient, seeded: Seeded) -> None:
    assert web.get(f"{study_path(seeded, 'running')}/montage.png").status_code == 404
    other = f"{study_path(seeded, 'clean')}/montage.png?job={seeded.jobs['delivered']}"
    assert web.get(other).status_code == 404


def test_a_picture_that_retention_removed_is_not_missed(tmp_path: Path) -> None:
    made = seed(tmp_path)
    shutil.rmtree(tmp_path / "outbox")
    app = local_app(tmp_path, made.ledger)
    with TestClient(app, base_url="http://127.0.0.1") as web:
        assert "The capture is no longer on this node" in read(web, study_path(made, "delivered")).text
        assert web.get(f"{study_path(made, 'delivered')}/montage.png").status_code == 404
    made.ledger.close()


def test_an_unknown_study_is_a_page_that_says_so(web: TestClient) -> None:
    page = read(web, "/studies/1.2.3<script>", 404)
    assert "This node has no such study." in page.text


def test_a_node_without_studies_says_how_to_begin(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    with TestClient(
        local_app(tmp_path, seeder.ledger),
        base_url="http://localhost",
    ) as web:
        assert "No studies yet" in read(web, "/").text
    seeder.ledger.close()


def test_many_studies_are_turned_page_by_page(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    for n in range(102):
        seeder.receive(f"study-{n}", f"Patient^{n}", f"P{n}", images=1)
    with TestClient(
        local_app(tmp_path, seeder.ledger),
        base_url="http://localhost",
    ) as web:
        first, second = read(web, "/"), read(web, "/?page=1")
    seeder.ledger.close()
    assert [len([a for a in page.tags("a") if a.get("class") == "row"]) for page in (first, second)] == [100, 2]
    assert "Older →" in first.text
    assert "← Newer" in second.text


def test_jobs_are_listed_as_json(web: TestClient, seeded: Seeded) -> None:
    listed = web.get("/api/jobs").json()["jobs"]
    assert [job["id"] for job in listed] == sorted(seeded.jobs.values(), reverse=True)
    failed = web.get("/api/jobs", params={"state": "failed"}).json()["jobs"]
    assert [job["id"] for job in failed] == [seeded.jobs["failed"]]
    assert failed[0]["study"]["patient_name"] == "Yamada^Tarou=山田^太郎"


def test_one_job_has_findings_deliveries_and_history(web: TestClient, seeded: Seeded) -> None:
    job = web.get(f"/api/jobs/{seeded.jobs['delivered']}").json()
    assert job["state"] == "delivered"
    assert job["counts"] == {"total": 7, "definite": 4, "possible": 3}
    assert len(job["findings"]["lesions"]) == 7
    assert {(d["kind"], d["state"], d["status"]) for d in job["deliveries"]} == {
        (kind, "accepted", "0x0000") for kind in ("sr", "seg", "capture")
    }
    assert [change["to"] for change in job["history"]] == ["queued", "running", "analysed", "delivering", "delivered"]


@pytest.mark.parametrize(("path", "status"), [("/api/jobs/999", 404), ("/api/jobs/x", 422), ("/api/jobs?limit=0", 422)])
def test_the_api_refuses_what_makes_no_sense(web: TestClient, path: str, status: int) -> None:
    assert web.get(path).status_code == status


def test_metrics_count_everything_and_name_nobody(web: TestClient, seeded: Seeded) -> None:
    text = web.get("/metrics").text
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["cmbnode_jobs", "failed"] == 1
    assert values["cmbnode_jobs", "delivered"] == 2
    assert values["cmbnode_jobs", "superseded"] == 0
    assert values["cmbnode_series", "receiving"] == 3
    assert values["cmbnode_deliveries", "waiting"] == 3
    assert values["cmbnode_deliveries_waiting", "pacs"] == 3
    assert values["cmbnode_queue_length", "analyse"] == 0
    assert values["cmbnode_redis_up",] == 1
    assert values["cmbnode_oldest_queued_seconds",] > 3600
    assert values["cmbnode_disk_free_bytes",] > 0
    for private in ("Hopper", "P-1001", "script", *seeded.studies.values()):
        assert private not in text


def test_the_worklist_loads_neither_torch_nor_simpleitk() -> None:
    code = "import sys, node.web.app; print([m for m in ('torch', 'SimpleITK', 'pynetdicom') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout.strip() == "[]"
