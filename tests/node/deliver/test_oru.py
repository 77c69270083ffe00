"""What a RIS reads: the ORU^R01, parsed by the `hl7` library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hl7
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.deliver.oru import control_id, escape, oru
from node.settings.destinations import Hl7Destination
from pipeline.findings import Certainty, ChangeOverTime, Findings, Placement, wording
from tests.node.reports import OBJECTS, STUDY_UID, findings, lesion, longitudinal, report, verified

SETTINGS = Hl7Destination(
    kind="hl7", host="ris", port=2575, assigning_authority="HOSP", receiving_application="RIS", sending_facility="MR"
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def message(**given: Any) -> hl7.Message:
    """The message of a report, as the far side parses it from the wire."""
    return hl7.parse(str(oru(report(**given), SETTINGS)).encode().decode("utf-8"))


def field(parsed: hl7.Message, segment: str, number: int, *within: int, occurrence: int = 1) -> str:
    return str(parsed.extract_field(segment, occurrence, number, *within))


def observations(parsed: hl7.Message) -> dict[str, list[str]]:
    """Values by code."""
    found: dict[str, list[str]] = {}
    for segment in parsed.segments("OBX"):
        found.setdefault(str(segment(3)(1)(1)), []).append(parsed.unescape(str(segment(5))))
    return found


def test_the_message_is_an_oru_of_version_251_in_utf_8() -> None:
    parsed = message()
    assert [field(parsed, "MSH", 9, 1, part) for part in (1, 2, 3)] == ["ORU", "R01", "ORU_R01"]
    assert field(parsed, "MSH", 12) == "2.5.1"
    assert field(parsed, "MSH", 18) == "UNICODE UTF-8"
    assert [field(parsed, "MSH", number) for number in (3, 4, 5)] == ["CMBNODE", "MR", "RIS"]
    assert field(parsed, "MSH", 7) == "20260301080000+0000"
    assert [str(segment[0]) for segment in parsed][:6] == ["MSH", "PID", "PV1", "ORC", "OBR", "OBX"]


def test_the_patient_and_the_order_are_those_of_the_study() -> None:
    parsed = message()
    assert [field(parsed, "PID", 3, 1, part) for part in (1, 4, 5)] == ["P-1", "HOSP", "PI"]
    assert [field(parsed, "PID", 5, 1, part) for part in range(1, 9)] == [
        "Müller", "Jörg", "A", "MD", "Dr.", "", "L", "A",
    ]  # fmt: skip
    assert [field(parsed, "PID", 5, 2, part) for part in (1, 2, 8)] == ["山田", "太郎", "I"]
    assert [field(parsed, "PID", number) for number in (7, 8)] == ["19500131", "M"]
    assert [field(parsed, "OBR", number) for number in (3, 18)] == ["ACC-7", "ACC-7"]
    assert field(parsed, "ORC", 3) == "ACC-7"
    assert field(parsed, "OBR", 7) == "20260301071500"
    assert [field(parsed, "OBR", 16, 1, part) for part in (2, 3)] == ["Referrer", "Ann"]


def test_three_new_bleeds_are_said_to_be_new_and_aria_h_mild() -> None:
    values = observations(message(given=longitudinal()))
    assert (values["NEW"], values["STABLE"], values["GONE"], values["ARIA_H"]) == (["3"], ["1"], ["1"], ["mild"])
    assert values["PRIOR"] == ["2025-02-28"]
    assert values["FLAG"] == ["3 or more new microbleeds"]
    assert values["CAVEAT"] == [wording.SEQUENCE_CAVEAT, "SWI shows more than T2*-GRE"]
    assert values["GONE_LESION"] == ["left cerebellum (infratentorial), 2.9 mm"]
    assert "3 new, 1 stable, 1 no longer seen. ARIA-H by new microbleeds: mild." in values["IMPRESSION"][0]


def test_what_could_not_be_decided_is_said() -> None:
    doubtful = longitudinal()
    assert doubtful.change is not None
    change = replace(doubtful.change, stable=0, undecided=(4,), unclear=doubtful.change.no_longer_seen)
    values = observations(message(given=replace(doubtful, change=change)))
    assert (values["UNDECIDED"], values["UNCLEAR"]) == (["microbleed 4"], ["1"])
    assert "3 new, 0 stable, 1 no longer seen, 1 undecided" in values["IMPRESSION"][0]


def test_a_comparison_that_failed_says_why() -> None:
    change = ChangeOverTime("1.5", "20250228", None, assessed=False, why="the images do not fit")
    values = observations(message(given=findings(lesion(1), change=change)))
    assert values["CHANGE"] == ["Change since 2025-02-28 not assessed: the images do not fit"]
    assert "NEW" not in values
    assert "stable" not in values["IMPRESSION"][0]


def test_counts_places_and_lesions_are_each_a_line() -> None:
    values = observations(message(given=longitudinal()))
    assert (values["TOTAL"], values["DEFINITE"], values["POSSIBLE"]) == (["4"], ["3"], ["1"])
    assert (values["BURDEN"], values["PATTERN"]) == (["1-4"], ["mixed (lobar and deep or infratentorial)"])
    assert values["PLACE"] == [
        "left frontal (lobar): 3 definite, 0 possible",
        "right thalamus (deep): 0 definite, 1 possible",
    ]
    assert len(values["LESION"]) == 4
    assert values["LESION"][0] == "1: left frontal (lobar), definite, 4.2 mm, probability 0.93, new"
    assert values["WARNING"] == ["No phase image: calcification cannot be told apart"]
    assert (values["QUALITY_SLICE_MM"], values["QUALITY_MOTION"]) == (["2.0"], ["1.04"])
    assert values["RESEARCH"] == [wording.RESEARCH_ONLY]
    assert "superficial siderosis" in values["NOT_ASSESSED"][0]
    assert values["110180"] == [STUDY_UID]
    assert values["SR_UID"] == [OBJECTS[1].sop_instance_uid]


def test_a_negative_result_says_so_and_names_what_was_not_assessed() -> None:
    values = observations(message(given=findings()))
    assert values["TOTAL"] == ["0"]
    assert values["IMPRESSION"] == ["No cerebral microbleeds found."]
    assert values["PATTERN"] == ["none"]
    assert values["CHANGE"] == ["Change over time not assessed: no prior study"]
    assert "LESION" not in values


def test_a_location_that_was_not_assessed_is_not_made_up() -> None:
    unplaced = lesion(1, region=None, location=None, side=None)
    values = observations(message(given=findings(unplaced, placement=Placement(False, "poor fit"))))
    assert values["PATTERN"] == ["not assessed"]
    assert values["LESION"][0].startswith("1: location not assessed, definite")


def test_sixty_bleeds_are_sixty_numbered_lines() -> None:
    parsed = message(given=findings(*(lesion(number) for number in range(1, 61))))
    assert len(observations(parsed)["LESION"]) == 60
    segments = parsed.segments("OBX")
    assert [str(segment(1)) for segment in segments] == [str(n) for n in range(1, len(segments) + 1)]
    told = {(str(segment(3)), str(segment(4))) for segment in segments}
    assert len(told) == len(segments)  # OBX-3 and OBX-4 together name an observation (HL7 2.5.1, 7.4.2.4)


@pytest.mark.parametrize(("status", "letter"), [("preliminary", "P"), ("final", "F"), ("corrected", "C")])
def test_the_status_is_that_of_the_report_in_every_segment(status: Any, letter: str) -> None:
    parsed = message(given=verified(longitudinal()), status=status)
    assert field(parsed, "OBR", 25) == letter
    assert {field(parsed, "OBX", 11, occurrence=n) for n in range(1, len(parsed.segments("OBX")) + 1)} == {letter}


def test_a_verified_result_names_its_reader_and_one_of_the_machine_says_that_nobody_looked() -> None:
    read = message(given=verified(longitudinal(), "Reader^Rita"), status="final")
    assert [field(read, "OBR", 32, 1, 1, part) for part in (2, 3)] == ["Reader", "Rita"]
    assert [field(read, "OBX", 16, 1, part) for part in (2, 3)] == ["Reader", "Rita"]
    assert observations(read)["VERIFIED"] == ["Verified by Rita Reader, Hospital, 2026-03-01 08:00 UTC"]
    assert "Not verified by a reader" in observations(message())["VERIFIED"][0]


def test_a_study_without_an_accession_number_is_named_by_its_uid() -> None:
    parsed = message(accession_number="", patient_id="", study_time="", study_date="")
    assert field(parsed, "OBR", 3) == STUDY_UID
    assert [field(parsed, "OBR", 18), field(parsed, "OBR", 7), str(parsed.segment("PID")[3])] == ["", "", ""]


def test_the_same_job_makes_the_same_message_and_another_job_another_control_id() -> None:
    assert str(oru(report(), SETTINGS)) == str(oru(report(), SETTINGS))
    assert len(control_id(report())) == 20
    assert control_id(report()) != control_id(report(number=8))


def test_long_text_is_of_type_tx() -> None:
    parsed = message(given=findings(warnings=("x" * 250, "two\nlines", "short")))
    kinds = {
        field(parsed, "OBX", 5, occurrence=n)[:5]: field(parsed, "OBX", 2, occurrence=n)
        for n in range(1, len(parsed.segments("OBX")) + 1)
        if field(parsed, "OBX", 3, 1, 1, occurrence=n) == "WARNING"
    }
    assert kinds == {"Xxxxx": "TX", "Two\rl": "TX", "Short": "ST"}


@given(ANY_TEXT)
def test_any_text_comes_back_as_it_went(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("|^~&\r\n\x0b\x1c")
    framed = hl7.parse(f"MSH|^~\\&|A\rOBX|1|TX|C||{escaped}|end")
    assert framed.unescape(escaped) == text.replace("\r\n", "\r").replace("\n", "\r")
    assert str(framed.segment("OBX")[5]) == escaped


def components(name: str) -> list[str]:
    """A name's first group in XPN order, as it should arrive."""
    family, given_name, middle, prefix, suffix = (name.split("=")[0].split("^", 4) + [""] * 4)[:5]
    told = (family, given_name, middle, suffix, prefix)
    return [part.replace("\r\n", "\r").replace("\n", "\r") for part in told]


@settings(max_examples=40)
@given(name=ANY_TEXT.filter(lambda name: name.split("=")[0]), patient_id=ANY_TEXT, warning=ANY_TEXT)
def test_any_name_and_any_warning_round_trip_and_add_no_segment(name: str, patient_id: str, warning: str) -> None:
    plain = message(given=findings(warnings=("",)))
    parsed = message(given=findings(warnings=(warning,)), patient_name=name, patient_id=patient_id)
    assert [str(s[0]) for s in parsed] == [str(s[0]) for s in plain]
    assert [field(parsed, "PID", 5, 1, part) for part in range(1, 6)] == components(name)
    normal = wording.sentence(warning).replace("\r\n", "\r").replace("\n", "\r")
    assert observations(parsed)["WARNING"] == [normal]
    if patient_id:
        assert field(parsed, "PID", 3, 1, 1) == patient_id.replace("\r\n", "\r").replace("\n", "\r")


@settings(max_examples=20)
@given(st.lists(st.sampled_from(list(Certainty)), max_size=12))
def test_the_counts_add_up(certainties: list[Certainty]) -> None:
    made: Findings = findings(*(lesion(n, certainty=c) for n, c in enumerate(certainties, 1)))
    values = observations(message(given=made))
    assert int(values["TOTAL"][0]) == len(certainties) == int(values["DEFINITE"][0]) + int(values["POSSIBLE"][0])
    assert len(values.get("LESION", [])) == len(certainties)
