"""The end of an association is noted, whatever ends it: the sender, the network, or the node itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.receiving import Node, associated, eventually, running_node, send, slices

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


@pytest.mark.parametrize(("how", "released"), [("release", True), ("abort", False)])
def test_the_end_of_an_association_is_noted_as_what_it_was(node: Node, how: str, released: bool) -> None:
    with associated(node.port) as association:
        association.send_c_store(slices(1)[0])
        assert node.ledger.series_receiving()[0].open_associations == 1
        getattr(association, how)()
    assert eventually(lambda: node.ledger.series_receiving()[0].open_associations == 0)
    assert node.ledger.series_receiving()[0].last_ended_released is released


def test_the_end_of_an_association_is_noted_before_its_release_is_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_series = node.ledger.release_series

    def slow(*arguments: Any, **options: Any) -> None:
        time.sleep(0.5)
        release_series(*arguments, **options)

    monkeypatch.setattr(node.ledger, "release_series", slow)
    with associated(node.port) as association:
        association.send_c_store(slices(1)[0])
        association.release()
        assert association.is_released
        series = node.ledger.series_receiving()[0]
    assert (series.open_associations, series.last_ended_released) == (0, True)


def test_a_connection_that_breaks_ends_its_association(node: Node) -> None:
    with associated(node.port) as association:
        association.send_c_store(slices(1)[0])
        association.dul.socket.socket.close()
        assert eventually(lambda: node.ledger.series_receiving()[0].open_associations == 0)
        association.is_established = False
    assert node.ledger.series_receiving()[0].last_ended_released is False


def test_associations_of_a_receiver_that_died_are_ended_at_the_next_start(tmp_path: Path) -> None:
    with running_node(tmp_path) as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.ledger, "release_series", lambda *_, **__: None)
        send(node.port, slices(1)[0])
    with running_node(tmp_path) as node:
        assert node.ledger.series_receiving()[0].open_associations == 0
