from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import Ledger, ReceivingSeries, SeriesState
from node.receive.ingest import slice_place
from node.route.settling import SettlingDecision, decide, settle
from node.settings import SettlingSettings
from tests.node.conftest import START, Clock
from tests.node.ledger_factory import instance, receive, uid

SETTINGS = SettlingSettings(quiet_s=10, limit_s=300)
AXIAL = "0.00,0.00,1.00"
EVEN = tuple((AXIAL, 2.0 * k, 1) for k in range(72))
COSINES = st.tuples(*[st.floats(-1, 1)] * 4)
FINITE = st.floats(-500, 500)


def series(
    places: tuple[tuple[str, float | None, int], ...] = EVEN, open_: int = 0, released: bool = True
) -> ReceivingSeries:
    return ReceivingSeries("1.2.3", "1.2", "MR", 1, START, open_, released, places)


def decided(after_s: float, *args: object, **given_: object) -> SettlingDecision:
    return decide(series(*args, **given_), START + timedelta(seconds=after_s), SETTINGS)  # type: ignore[arg-type]


def test_a_quiet_whole_series_settles() -> None:
    decision = decided(10)
    assert decision.settles
    assert decision.complete


def test_a_series_that_is_not_quiet_waits() -> None:
    assert decided(9.9) == SettlingDecision(False, "no image for 10 s of 10 s")


def test_an_open_association_is_waited_for() -> None:
    assert decided(299, open_=1) == SettlingDecision(False, "an association that sends it is still open")


def test_an_aborted_association_is_no_evidence() -> None:
    assert decided(299, released=False) == SettlingDecision(False, "its last association was not released")


def test_a_missing_slice_is_waited_for_and_then_told() -> None:
    gap = tuple(place for k, place in enumerate(EVEN) if k not in (30, 31))
    waiting = decided(299, gap)
    assert waiting == SettlingDecision(False, "2 slices seem to be missing after 58.0 mm along the normal")
    settled = decided(300, gap)
    assert settled.settles
    assert not settled.complete
    assert settled.why == f"no image for 300 s, but {waiting.why}"


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("one multi-frame object", (("", None, 72),)),
        ("a report", (("", None, 1),)),
        ("one image", ((AXIAL, 4.0, 1),)),
        ("a localiser in three planes", tuple((key, 20.0 * k, 1) for key in ("x", "y", "z") for k in range(3))),
        ("magnitude and phase in one series", EVEN + EVEN),
        ("slices in any order", tuple(reversed(EVEN))),
        ("positions with rounding errors", tuple((AXIAL, 2.0 * k + 0.004 * (-1) ** k, 1) for k in range(72))),
    ],
)
def test_what_counts_as_whole(name: str, places: tuple[tuple[str, float | None, int], ...]) -> None:
    decision = decided(10, places)
    assert decision.settles, name
    assert decision.complete


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (EVEN + EVEN[:40], "some slices were received 2 times and some 1 times"),
        ((*EVEN, ("", None, 1)), "1 images have no position"),
        (tuple((AXIAL, 2.0 * k + (0.3 if k == 5 else 0.0), 1) for k in range(20)), "not evenly spaced (about 2.00 mm)"),
    ],
)
def test_what_counts_as_lacking(places: tuple[tuple[str, float | None, int], ...], reason: str) -> None:
    decision = decided(10, places)
    assert not decision.settles
    assert reason in decision.why


@given(st.sets(st.integers(0, 40), min_size=1, max_size=10), st.floats(0.3, 8.0), st.floats(-300, 300))
def test_any_gap_is_noticed(missing: set[int], spacing: float, origin: float) -> None:
    inner = {k for k in missing if 0 < k < 40}
    places = tuple((AXIAL, origin + spacing * k, 1) for k in range(41) if k not in inner)
    assert decided(10, places).settles is not inner


@given(st.permutations(range(12)), st.floats(0.3, 8.0))
def test_the_order_of_arrival_does_not_matter(order: list[int], spacing: float) -> None:
    assert decided(10, tuple((AXIAL, spacing * k, 1) for k in order)).settles


def test_parallel_slices_share_a_stack() -> None:
    axial = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert slice_place(axial, [-100.0, -90.0, 12.5]) == (AXIAL, 12.5)
    key, position = slice_place([1.0, 0.001, 0.0, -0.001, 1.0, 0.0005], [-100.0, -90.0, 14.5])
    assert key == AXIAL
    assert position == pytest.approx(14.5, abs=0.1)
    assert slice_place([0.0, 1.0, 0.0, 0.0, 0.0, -1.0], [30.0, 0.0, 0.0]) == ("-1.00,0.00,0.00", -30.0)


@pytest.mark.parametrize(
    ("orientation", "position"),
    [
        (None, [0, 0, 0]),
        ([1, 0, 0, 0, 1, 0], None),
        ([1, 0, 0, 1, 0, 0], [0, 0, 0]),  # rows and columns in one direction
        ([1, 0, 0], [0, 0, 0]),
        ([float("nan")] * 6, [0, 0, 0]),
        ([1, 0, 0, 0, 1, 0], [0, 0, float("inf")]),
    ],
)
def test_an_image_without_a_plane_has_no_place(orientation: list[float] | None, position: list[float] | None) -> None:
    assert slice_place(orientation, position) == ("", None)


@given(st.lists(st.floats(), min_size=6, max_size=6), st.lists(st.floats(), min_size=3, max_size=3))
def test_no_numbers_in_a_header_can_break_it(orientation: list[float], position: list[float]) -> None:
    key, place = slice_place(orientation, position)
    assert (key == "") == (place is None)


def test_series_settle_in_the_ledger_when_their_time_has_come(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "whole", clock())
    receive(ledger, "gap", clock())
    ledger.record_instance(instance("gap", "swi", 5, clock()))
    ledger.release_series([uid("gap", "swi")], clock(), association="a1")
    assert settle(ledger, clock.forward(5), SETTINGS) == 0
    assert settle(ledger, clock.forward(5), SETTINGS) == 1
    (whole,) = ledger.series(uid("whole"))
    assert (whole.state, whole.whole) == (SeriesState.SETTLED, True)
    assert settle(ledger, clock.forward(290), SETTINGS) == 1
    (gap,) = ledger.series(uid("gap"))
    assert (gap.state, gap.whole) == (SeriesState.SETTLED, False)
    assert "2 slices seem to be missing" in gap.settled_why
    assert gap.settled_why in [change.why for change in ledger.history("series", uid("gap", "swi"))]
