"""Who may connect and call, how many at a time, and what they may send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, MRImageStorage

from node.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, storage_contexts
from node.settings import ConfigError, ReceiverSettings, load_settings
from tests.node.receiving import (
    Node,
    Peer,
    associate_request,
    associated,
    echoes,
    eventually,
    running_node,
    send,
    slices,
    statuses,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("options", "accepted"), [({"calling": "FRIEND"}, True), ({"calling": "STRANGER"}, False)])
def test_only_listed_ae_titles_may_call(tmp_path: Path, options: dict[str, str], accepted: bool) -> None:
    with running_node(tmp_path, calling_ae_titles=("FRIEND", "OTHER")) as node:
        assert echoes(node.port, **options) is accepted


def test_an_association_for_another_ae_title_is_refused_unless_configured(tmp_path: Path, shared: Node) -> None:
    assert not echoes(shared.port, called="SOMEBODY")
    with running_node(tmp_path, require_called_ae_title=False) as node:
        assert echoes(node.port, called="SOMEBODY")


@pytest.mark.parametrize(("peers", "accepted"), [(("127.0.0.0/8",), True), (("10.0.0.0/8", "::1/128"), False)])
def test_only_peers_of_listed_networks_may_connect(tmp_path: Path, peers: tuple[str, ...], accepted: bool) -> None:
    with running_node(tmp_path, peers=peers) as node, Peer(node.port) as peer:
        if accepted:
            assert peer.associate() == 2
        else:
            assert peer.receive() is None  # not a byte was asked for


def test_an_ipv4_peer_of_a_dual_socket_is_judged_and_named_as_one(tmp_path: Path) -> None:
    with running_node(tmp_path, host="::", peers=("127.0.0.0/8",)) as node:
        (image,) = slices(1)
        del image.StudyInstanceUID
        assert statuses(send(node.port, image)) == [0xC000]
        assert node.ledger.quarantined()[0].peer == "127.0.0.1"


def test_more_associations_than_allowed_are_refused_for_now(tmp_path: Path) -> None:
    with running_node(tmp_path, max_associations=2, max_associations_per_peer=2) as node:
        with associated(node.port) as first, associated(node.port) as second:
            assert first.is_established
            assert second.is_established
            with Peer(node.port) as peer:
                peer.send(associate_request())
                assert peer.receive() == (3, bytes([0, 2, 3, 2]))  # transient, presentation, local limit exceeded
        assert eventually(lambda: echoes(node.port))


def test_one_address_cannot_take_all_associations(tmp_path: Path) -> None:
    with running_node(tmp_path, max_associations=5, max_associations_per_peer=2) as node:
        with Peer(node.port) as first, Peer(node.port) as second, Peer(node.port) as third:
            assert [first.associate(), second.associate(), third.associate()] == [2, 2, 3]
            with Peer(node.port, source="127.0.0.2") as another:
                assert another.associate() == 2
        assert eventually(lambda: echoes(node.port))


@pytest.mark.parametrize(("options", "most"), [({}, 10), ({"max_associations": 1}, 1), ({"max_associations": 6}, 3)])
def test_one_address_gets_half_of_the_associations_unless_set(options: dict[str, int], most: int) -> None:
    assert ReceiverSettings(**options).associations_per_peer == most  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ({}, "127.0.0.1"),
        ({"peers": ["10.0.0.0/8"]}, "0.0.0.0"),
        ({"calling_ae_titles": ["PACS"]}, "0.0.0.0"),
        ({"allow_anyone": True}, "0.0.0.0"),
        ({"host": "127.0.0.1", "allow_anyone": True}, "127.0.0.1"),
        ({"host": "::1"}, "::1"),
        ({"host": "10.1.2.3", "peers": ["10.0.0.0/8"]}, "10.1.2.3"),
    ],
)
def test_other_machines_are_listened_to_once_it_is_said_who_may_send(options: dict[str, Any], host: str) -> None:
    assert ReceiverSettings(**options).listen_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "node.hospital.example", ""])
def test_a_reachable_address_without_a_word_on_who_may_send_is_an_error(host: str) -> None:
    with pytest.raises(ConfigError, match=r"allow_anyone = true") as error:
        load_settings(None, receiver={"host": host})
    assert error.value.where == "receiver.host"


def test_a_pacs_that_is_asked_for_earlier_studies_must_be_able_to_send_them() -> None:
    pacs = {"dicom": {"ae_title": "PACS", "host": "10.1.2.3", "port": 104}}
    with pytest.raises(ConfigError, match=r"listens on 127\.0\.0\.1 only"):
        load_settings(None, priors=pacs)
    assert load_settings(None, priors=pacs, receiver={"peers": ["10.1.2.0/24"]}).receiver.listen_host == "0.0.0.0"


def test_other_storage_classes_are_accepted_only_if_configured(tmp_path: Path, shared: Node) -> None:
    private = "1.2.826.0.1.3680043.9.9999.1"
    (ct,) = slices(1)
    ct.SOPClassUID = CTImageStorage
    (odd,) = slices(1, series_number=2)
    odd.SOPClassUID = private
    with associated(shared.port, contexts=(CTImageStorage, private)) as association:
        assert [str(context.abstract_syntax) for context in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    with running_node(tmp_path, extra_sop_classes=(CTImageStorage, private)) as node:
        assert statuses(send(node.port, ct, odd)) == [0, 0]


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.1.1", "MR", "../x"])
def test_what_is_no_storage_class_is_named_in_the_settings(uid: str) -> None:
    with pytest.raises(ConfigError, match="extra_sop_classes"):
        storage_contexts([uid])


def test_every_class_comes_in_every_encoding_and_plain_is_preferred() -> None:
    contexts = {str(context.abstract_syntax): context.transfer_syntax for context in storage_contexts()}
    assert MRImageStorage in STORAGE_CLASSES
    for uid in STORAGE_CLASSES:
        assert tuple(map(str, contexts[uid])) == TRANSFER_SYNTAXES
    assert TRANSFER_SYNTAXES[0] == "1.2.840.10008.1.2.1"
