"""States, names and times are written as people read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from node.ledger import JobState, Priority, StudyState
from node.web import labels
from tests.node.seeded import Seeder


@given(st.text(max_size=64))
def test_any_name_becomes_one_line_without_carets_of_its_components(name: str) -> None:
    shown = labels.person_name(name)
    assert shown
    assert "^" not in shown
    assert labels.person_name("^^^") == labels.ABSENT


def test_a_time_is_written_with_its_date_to_the_minute() -> None:
    at = datetime(2026, 11, 26, 14, 5, 59).astimezone()
    assert labels.clock(at) == labels.iso_clock(at.isoformat()) == "2026-11-26 14:05"
    assert labels.clock(None) == labels.ABSENT


def test_every_state_has_words_and_a_tone(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    seeder.receive("study", "A^B", "P")
    job = seeder.open("study")
    seeder.ledger.close()
    for state in StudyState:
        assert labels.state_words(state, None)
        assert labels.state_tone(state) in {"good", "bad", "moving", "waiting", "quiet"}
    assert labels.state_words(StudyState.DELIVERED, replace(job, destinations=())) == "Analysed; no destination is set"
    again = replace(job, state=JobState.QUEUED, attempts=1)
    assert labels.state_words(StudyState.QUEUED, again) == "Waiting for analysis again (attempt 2)"
    assert {labels.priority_words(priority) for priority in Priority} == {"STAT", "High", "Routine", "Low"}
