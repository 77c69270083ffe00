"""A dry run says what the rules would decide about studies that were routed before, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from node.ledger import WorklistRow
from node.ledger.engine import Store
from node.route.dry_run import DryRun, dry_run
from node.route.rules import RoutingTable

from .swi_example import IGNORE_REST, swi_rule, swi_study
from .test_routed_jobs import Node
from .test_routed_jobs import node as node


def rows(node: Node) -> list[WorklistRow]:
    return node.ledger.worklist()


def tried(node: Node, table: RoutingTable | None = None) -> DryRun:
    (row,) = rows(node)
    return dry_run(node.ledger, node.archive, row, table or node.table, node.settings)


def copy(ledger: Store, folder: Path) -> str:
    with (folder / "copy.jsonl").open("w") as out:
        ledger.write_copy(out)
    return (folder / "copy.jsonl").read_text()


def test_what_would_be_decided_now_is_compared_with_what_was_done(
    node: Node, rules: Callable[[str], RoutingTable], tmp_path: Path
) -> None:
    node.receive(swi_study(), tmp_path / "a")
    assert tried(node).done is None  # not routed yet
    node.settle()
    node.route()
    before = copy(node.ledger, tmp_path)
    same = tried(node)
    assert same.now is not None
    assert (same.differences, same.now) == ((), same.done)
    assert same.now.words.startswith("series 11, 9, 8; profile ")
    assert same.now.words.endswith("priority routine; to pacs, research")
    other = tried(node, rules(swi_rule('priority = "stat"\ndestinations = "pacs"')))
    assert other.differences == ("priority routine, now stat", "to pacs, research, now to pacs")
    none = tried(node, rules(IGNORE_REST))
    assert len(none.differences) == 1
    assert none.differences[0].startswith("not analysed: ")
    assert copy(node.ledger, tmp_path) == before


def test_a_study_that_was_left_out_would_be_analysed(
    node: Node, rules: Callable[[str], RoutingTable], tmp_path: Path
) -> None:
    analysing, node.table = node.table, rules(IGNORE_REST)
    node.receive(swi_study(), tmp_path / "a")
    node.settle()
    node.route()
    assert tried(node).differences == ()
    (difference,) = tried(node, analysing).differences
    assert difference.startswith("series 11, 9, 8; profile ")


def test_a_study_whose_images_were_deleted_cannot_be_tried(node: Node, tmp_path: Path) -> None:
    images = [ds for ds in swi_study() if ds.SeriesNumber == 2]
    node.receive(images, tmp_path / "a")
    node.settle()
    node.route()
    assert node.ledger.mark_removed(images[0].StudyInstanceUID, node.clock()) is not None
    run = tried(node)
    assert run.now is None
    assert "retention" in run.problem
