"""Report, capture, HL7 message, FHIR bundle, page and terminal say the same words of one result."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.commands.detect import print_findings
from node.deliver.fhir_bundle import bundle
from node.deliver.oru import oru
from node.settings import load_settings
from node.settings.destinations import FhirDestination, Hl7Destination
from node.web.context import make_templates
from node.web.findings_view import findings_view
from pipeline.findings import Findings, Placement, read_findings, wording
from pipeline.results import make_results
from pipeline.results.context import plain
from pipeline.results.sc.montage import HEIGHT
from pipeline.results.sc.panels import SliceRenderer
from pipeline.results.sc.sidebar import Sidebar
from tests.node.reports import report
from tests.pipeline.results.studies import CREATED, KEY, Detection, evaluations_in, follow_up, simulate, verified

pytestmark = pytest.mark.slow

RIS = Hl7Destination(kind="hl7", host="127.0.0.1", port=2575)
EHR = FhirDestination(
    kind="fhir", url="http://127.0.0.1/fhir", patient_system="urn:oid:1.2.3", accession_system="urn:acc"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Detection:
    """Seven microbleeds in lobes, deep structures and the hindbrain, definite and possible."""
    return simulate(tmp_path_factory.mktemp("study"), 7, regions=True, tags={"SpecificCharacterSet": "ISO_IR 192"})


def _lesions(study: Detection, number: int, **changes: Any) -> Detection:
    lesions = tuple(replace(lesion, **changes) for lesion in study.findings.lesions[:number])
    return replace(study, findings=replace(study.findings, lesions=lesions))


def _definite_only(study: Detection) -> Detection:
    definite = tuple(lesion for lesion in study.findings.lesions if lesion.certainty == "definite")
    return replace(study, findings=replace(study.findings, lesions=definite))


def _not_assessed(study: Detection) -> Detection:
    unplaced = _lesions(study, 3, region=None, location=None, side=None)
    compared = follow_up(unplaced)
    why = "the scans do not overlap"
    change = replace(
        compared.findings.change, assessed=False, why=why, aria_h=None, flags=(), no_longer_seen=(), undecided=()
    )
    lesions = tuple(replace(lesion, trend=None) for lesion in unplaced.findings.lesions)
    placement = Placement(False, "the brain does not fit the atlas")
    warnings = ("slices are 5 mm thick: small microbleeds may be missed",)
    findings = replace(
        compared.findings, lesions=lesions, change=change, placement=placement, warnings=warnings, image_quality=None
    )
    return replace(compared, findings=findings)


VARIANTS: dict[str, Callable[[Detection], Detection]] = {
    "none": lambda study: _lesions(study, 0),
    "definite only": _definite_only,
    "mixed pattern": lambda study: study,
    "midline": lambda study: _lesions(study, 1, region="infratentorial", location="brainstem", side="midline"),
    "near a border": lambda study: _lesions(study, 2, border_mm=1.2, beyond="deep"),
    "verified": verified,
    "compared": follow_up,
    "not assessed": _not_assessed,
}


def _report(study: Detection) -> str:
    (sr,) = [one.dataset for one in make_results(study, key=KEY, created=CREATED) if one.kind == "sr"]
    return " ".join(item.TextValue for item in evaluations_in(sr) if item.ValueType == "TEXT")


def _capture(study: Detection) -> str:
    pictures = SliceRenderer.of(study.acquisition.swi, study.findings.lesions, tuple(range(1, 25)))
    sidebar = Sidebar(study.findings, pictures, HEIGHT)
    counts = wording.counts(study.findings)  # drawn large, with a ring beside each certainty
    return " ".join([counts, *(text for text, _ in (*sidebar.headlines, *sidebar.notes))])


def _message(study: Detection) -> str:
    message = hl7.parse(str(oru(report(study.findings), RIS)))
    lines = [f"{segment(3)(1)(2)}: {message.unescape(str(segment(5)))}" for segment in message.segments("OBX")]
    return "\n".join(lines)


def _resources(study: Detection) -> str:
    return json.dumps(bundle(report(study.findings), EHR), ensure_ascii=False)


def _page(study: Detection) -> str:
    templates = make_templates(load_settings(None))
    answer = findings_view(study.findings, {})
    shown = SimpleNamespace(answer=answer, pictures=None, viewer=None, review=None, standing=())
    part: Any = templates.get_template("answer.html").module
    text = html.unescape(f"{part.headline(shown)}{part.lesions(shown, False)}{part.summary(shown)}")
    return text.replace("<b>", "").replace("</b>", "")


PLACES = {"capture": _capture, "report": _report, "message": _message, "FHIR": _resources, "page": _page}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("place", PLACES)
def test_every_place_says_the_same_words(study: Detection, variant: str, place: str) -> None:
    detection = VARIANTS[variant](study)
    findings = detection.findings
    said = PLACES[place](detection)
    statements = [wording.counts(findings), wording.not_assessed(findings)]
    statements += [wording.pattern_line(findings)] if findings.lesions else []
    statements += [wording.changes(findings.change)] if findings.change else []
    statements += [wording.aria_h(findings.change)] if findings.change and findings.change.assessed else []
    statements += [wording.verification(findings)] if findings.verification else []
    statements += [*wording.flags(findings), *wording.caveats(findings)]
    statements += [] if place == "page" else wording.warnings(findings)  # which has those of the job beside them
    for statement in statements:
        assert (plain(statement) if place == "capture" else statement) in said


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("place", ["message", "FHIR", "page"])
def test_every_microbleed_is_described_in_the_same_words(study: Detection, variant: str, place: str) -> None:
    detection = VARIANTS[variant](study)
    said = PLACES[place](detection)
    for lesion in detection.findings.lesions:
        for words in (
            wording.place(lesion), wording.near_border(lesion), lesion.certainty.value, wording.probability(lesion),
        ):  # fmt: skip
            assert words in said
        if place != "page":
            assert wording.lesion_line(lesion, detection.findings.change) in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_terminal_says_what_the_report_says(
    study: Detection, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    detection = VARIANTS[variant](study)
    print_findings(detection.findings, range(100))
    said, reported = capsys.readouterr().out, _report(detection)
    for statement in (wording.impression(detection.findings), *wording.remarks(detection.findings)):
        assert statement in said
        assert statement in reported
    for lesion in detection.findings.lesions:
        assert wording.place(lesion) in said


@pytest.mark.parametrize(
    ("probability", "stated"), [(1.0, 0.999), (0.9999, 0.999), (0.9989, 0.999), (0.9284, 0.928), (0.5, 0.5), (0.0, 0.0)]
)
def test_no_number_of_a_report_says_that_a_microbleed_is_certain(
    study: Detection, probability: float, stated: float
) -> None:
    (lesion,) = _lesions(study, 1, probability=probability).findings.lesions
    assert wording.stated_probability(lesion) == stated


@pytest.mark.parametrize(("border_mm", "words"), [(2.9, "near the border to deep"), (3.0, ""), (None, "")])
def test_within_three_millimetres_a_region_may_be_the_other(
    study: Detection, border_mm: float | None, words: str
) -> None:
    detection = _lesions(study, 1, border_mm=border_mm, beyond=None if border_mm is None else "deep")
    (lesion,) = detection.findings.lesions
    assert wording.near_border(lesion) == words
    assert any("Main region uncertain" in remark for remark in wording.remarks(detection.findings)) == bool(words)


def test_the_midline_is_a_side(study: Detection) -> None:
    (lesion,) = VARIANTS["midline"](study).findings.lesions
    assert wording.place(lesion) == "midline brainstem (infratentorial)"
    assert wording.place(lesion, short=True) == "mid brainstem"


@pytest.mark.parametrize(
    ("place", "words", "short"),
    [
        (("lobar", "frontal", "left"), "left frontal (lobar)", "L frontal"),
        (("deep", "white matter", "right"), "right deep white matter", "R deep WM"),
        (("lobar", None, "left"), "left lobar", "L lobar"),
        ((None, None, None), "location not assessed", "not assessed"),
    ],
)
def test_a_place_names_side_location_and_region(
    study: Detection, place: tuple[str | None, ...], words: str, short: str
) -> None:
    lesion = replace(study.findings.lesions[0], **dict(zip(("region", "location", "side"), place, strict=True)))
    assert (wording.place(lesion), wording.place(lesion, short=True)) == (words, short)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("none", "none"),
        ("mixed pattern", "mixed (lobar and deep or infratentorial)"),
        ("midline", "strictly deep or infratentorial"),
        ("not assessed", "not assessed"),
    ],
)
def test_a_pattern_says_what_counts_as_deep(study: Detection, variant: str, words: str) -> None:
    assert wording.pattern(VARIANTS[variant](study).findings.summary.pattern) == words


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("Doe^Jane", "Jane Doe"),
        ("Doe^Jane^Q^Dr^PhD", "Dr Jane Q Doe PhD"),
        ("Doe", "Doe"),
        ("^Jane", "Jane"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
        ("", ""),
    ],
)
def test_a_person_name_is_written_as_people_do(stored: str, written: str) -> None:
    assert wording.person_name(stored) == written


@given(st.text(max_size=64))
def test_any_name_becomes_one_line_without_carets(name: str) -> None:
    written = wording.person_name(name)
    assert "^" not in written
    assert written == " ".join(written.split())


@pytest.mark.parametrize(
    ("stored", "written"),
    [("20261126", "2026-11-26"), ("2026.11.26", "2026-11-26"), ("", ""), ("spring", "spring")],
)
def test_dates_have_one_format(stored: str, written: str) -> None:
    assert wording.date(stored) == written


def test_times_name_their_zone() -> None:
    at = datetime(2026, 11, 26, 14, 5, tzinfo=UTC)
    assert wording.moment(at) == "2026-11-26 14:05 UTC"
    assert wording.moment(at.astimezone(timezone(timedelta(hours=1)))) == "2026-11-26 15:05 UTC+01:00"


def test_the_words_are_those_of_the_document(study: Detection, tmp_path: Path) -> None:
    """A result that is read back from ``findings.json`` is worded as it was when it was written."""
    for variant in VARIANTS.values():
        findings = variant(study).findings
        path = tmp_path / "findings.json"
        path.write_text(json.dumps(findings.to_json()))
        again: Findings = read_findings(json.loads(path.read_text()))
        assert wording.impression(again) == wording.impression(findings)
        assert list(wording.remarks(again)) == list(wording.remarks(findings))
