"""A small campaign of hostile input: nothing is raised that nobody expected, nothing grows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.hostile import LEVELS, mutate, outcome, run
from tests.node.receiving import p_data, pdu

pytestmark = pytest.mark.slow


def test_hostile_input_raises_nothing_unexpected_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run(associations=300, files=40, commands=0, seed=7, folder=tmp_path)
    assert done.unexpected == 0, done.table() + str(done.errors)
    assert all(done.outcomes[f"association, mutated {level}"].total() == 60 for level in LEVELS)
    assert done.outcomes["file, by C-STORE"].total() == done.outcomes["file, read by the pipeline"].total() == 40
    assert len(set().union(*done.outcomes.values())) > 6, "the mutations reach many places"
    assert done.after.descriptors <= done.before.descriptors + 4
    assert done.after.threads <= done.before.threads + 4
    assert done.after.rss_mb < done.before.rss_mb + 64


def test_an_answer_is_named_by_the_last_word_on_the_object() -> None:
    status = bytes.fromhex("00000001 02000000 0180 0000 0009 02000000 00B0".replace(" ", ""))
    assert outcome(pdu(2, b"") + p_data(3, 3, status) + pdu(7, bytes(4))) == "C-STORE 0xB000"
    assert outcome(pdu(2, b"") + pdu(7, bytes(4))) == "aborted"
    assert outcome(b"") == "closed without an answer"


def test_the_same_seed_mutates_alike() -> None:
    data = bytes(range(256))
    assert mutate(data, random.Random(1)) == mutate(data, random.Random(1)) != data
