"""What tests of the receiver share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.receiving import Node, running_node


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A receiver that the tests of a module share."""
    with running_node(tmp_path_factory.mktemp("node")) as node:
        yield node
