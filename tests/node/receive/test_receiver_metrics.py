"""The receiver counts every answer and every refusal, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

from pydicom import Dataset

from tests.node.receiving import Peer, associate_request, associated, echoes, eventually, running_node, send, slices


def test_answers_and_refusals_are_counted_by_outcome(tmp_path: Path) -> None:
    with running_node(tmp_path, peers=("127.0.0.1/32",), max_associations=1, max_associations_per_peer=1) as node:
        images = slices(2)
        without_study = slices(3)[2]
        del without_study.StudyInstanceUID

        def send_alone(*sent: Dataset) -> None:
            send(node.port, *sent)
            assert eventually(lambda: node.receiver.connections == 0)

        send_alone(*images, images[0], without_study)
        images[0].PixelData = bytes(len(images[0].PixelData))
        send_alone(images[0])
        assert not echoes(node.port, called="SOMEBODY")
        with Peer(node.port, source="127.0.0.2") as stranger:
            assert stranger.receive() is None
        assert eventually(lambda: node.receiver.connections == 0)
        with associated(node.port), Peer(node.port) as second:
            second.send(associate_request())
            assert second.receive() is not None
        node.receiver.stop()
        counted = {
            (tally.metric, *json.loads(tally.labels).values()): tally.number
            for tally in node.ledger.tallies()
            if "received" in tally.metric or "refused" in tally.metric
        }
    received, refused = "cmbnode_instances_received_total", "cmbnode_associations_refused_total"
    assert counted == {
        (received, "stored"): 2,
        (received, "repeated"): 1,
        (received, "not_understood"): 1,
        (received, "conflict"): 1,
        (refused, "rejected"): 1,
        (refused, "address"): 1,
        (refused, "limit"): 1,
    }


def test_what_the_disk_cannot_hold_is_counted(tmp_path: Path) -> None:
    with running_node(tmp_path, free_disk_mb=10**9) as node:
        send(node.port, *slices(1))
        node.receiver.write_tallies()
        (tally,) = node.ledger.tallies()
    assert (tally.labels, tally.number) == ('{"outcome": "no_resources"}', 1)
