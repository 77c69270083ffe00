"""States, names and times are written as people read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import JobState, Priority, StudyState
from node.worklist import words
from tests.node.seeded import Seeder


@given(st.text(max_size=64))
def test_any_name_becomes_one_line_without_carets_of_its_components(name: str) -> None:
    shown = words.person_name(name)
    assert shown
    assert "^" not in shown
    assert words.person_name("^^^") == words.ABSENT


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Q^Dr^PhD", "Doe, Jane Q Dr PhD"),
        ("Doe", "Doe"),
        ("^Jane", "Jane"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎)"),
        ("", "—"),
    ],
)
def test_a_person_name_is_written_as_people_do(value: str, shown: str) -> None:
    assert words.person_name(value) == shown


@pytest.mark.parametrize(
    ("burden", "shown"), [("0", "none"), ("1-4", "1–4"), ("5-9", "5–9"), (">=10", "≥ 10"), ("", "—")]
)
def test_a_class_of_burden_is_written_as_people_do(burden: str, shown: str) -> None:
    assert words.burden_words(burden) == shown


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (("lobar", "frontal", "left"), "left frontal (lobar)"),
        (("deep", "white matter", "right"), "right deep white matter"),
        (("infratentorial", "brainstem", "midline"), "midline brainstem"),
        (("lobar", None, "left"), "left lobar"),
        ((None, None, None), "not assessed"),
    ],
)
def test_a_place_is_written_as_people_do(place: tuple[str | None, ...], shown: str) -> None:
    assert words.place_words(dict(zip(("region", "location", "side"), place, strict=True))) == shown


def test_a_pattern_says_what_counts_as_deep() -> None:
    shown = [words.pattern_words(p) for p in ("strictly lobar", "strictly deep", "mixed", "none", None)]
    assert shown == [
        "strictly lobar", "strictly deep or infratentorial", "mixed: lobar and deep", "", "pattern not assessed"
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "shown"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "—")])
def test_a_span_is_written_in_fitting_units(seconds: float | None, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_a_time_of_another_day_shows_its_date() -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert words.clock(now, now=now).count(":") == 2
    assert words.clock(now, "minute", now=now).count(":") == 1
    assert words.clock(now - timedelta(days=3), now=now).startswith("2026-11-18")
    assert words.clock(None) == words.ABSENT


def test_every_state_has_words_and_a_tone(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    seeder.receive("study", "A^B", "P")
    job = seeder.open("study")
    seeder.ledger.close()
    for state in StudyState:
        assert words.state_words(state, None)
        assert words.state_tone(state) in {"good", "bad", "moving", "waiting", "quiet"}
    assert words.state_words(StudyState.DELIVERED, replace(job, destinations=())) == "Analysed; no destination set"
    again = replace(job, state=JobState.QUEUED, attempts=1)
    assert words.state_words(StudyState.QUEUED, again) == "Waiting for analysis again (attempt 2)"
    assert {words.priority_words(priority) for priority in Priority} == {"STAT", "High", "Routine", "Low"}
