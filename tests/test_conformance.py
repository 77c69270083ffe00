"""The conformance statement says what the code does, and what a running node negotiates."""

from __future__ import annotations

import re
import runpy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydicom.uid import UID, AllTransferSyntaxes, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from node.commitment import STORAGE_COMMITMENT, CommitmentRequest, InstanceReference
from node.deliver.commitment import CommitmentScu
from node.deliver.scu import Peer, echo, read_outgoing, send
from node.retrieve.c_get import IMAGE_CLASSES
from node.retrieve.dicom_qr import QueryRetrieve
from node.retrieve.source import SourceError, TransferLimits
from node.settings import DicomDestination
from node.settings.priors import DicomPacs
from pipeline.results import ResultObject, write_results
from tests.node.receiving import VERIFICATION, Node, running_node

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"
UNLISTED = [
    "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve: FIND, MOVE, GET
    "1.2.840.10008.5.1.4.1.2.2.2",
    "1.2.840.10008.5.1.4.1.2.2.3",
    "1.2.840.10008.5.1.4.31",  # Modality Worklist
    "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
    "1.2.840.10008.5.1.4.34.6.1",  # Unified Procedure Step, Push
    "1.2.840.10008.1.1.2.3",  # no SOP class at all
]


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "make_conformance.py"))


@pytest.fixture(scope="module")
def samples(maker: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = maker["made"]()
    return made


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node")) as running:
        yield running


def section(name: str) -> str:
    """What is between the marks of this name."""
    found = re.search(rf"<!-- made: {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def uids(text: str) -> list[str]:
    return re.findall(r"`(\d[\d.]+)`", text)


def lists() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The page's SOP classes with the name of their list, and the transfer syntaxes of each list."""
    head, *rest = section("accepted").split("Transfer syntaxes, ")
    classes = dict(re.findall(r"`(\d[\d.]+)` \| (list \d)", head))
    return classes, {part.split(",")[0]: uids(part) for part in rest}


def negotiate(node: Node, contexts: Sequence[tuple[str, list[str]]]) -> Association:
    """Ask for these presentation contexts, and Verification so that there is one to agree on."""
    ae = AE(ae_title="MODALITY")
    ae.requested_contexts = [build_context(VERIFICATION), *(build_context(uid, syntaxes) for uid, syntaxes in contexts)]
    association = ae.associate("127.0.0.1", node.port, ae_title="CMBNODE")
    assert association.is_established
    association.release()
    return association


def test_the_tables_are_those_that_the_code_makes(maker: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    page = PAGE.read_text()
    assert page == maker["filled"](page, samples), "run: python -m docs.make_conformance"
    assert set(re.findall(r"<!-- made: ([a-z ]+) -->", page)) == maker["MAKERS"].keys()


def test_every_listed_class_is_accepted_in_every_listed_syntax_and_no_other(node: Node) -> None:
    classes, syntaxes = lists()
    assert len(classes) > 15
    for uid, name in classes.items():
        assert ImplicitVRLittleEndian in syntaxes[name]
        association = negotiate(
            node, [(uid, [syntax]) for syntax in dict.fromkeys([*syntaxes[name], *AllTransferSyntaxes])]
        )
        taken = [c.transfer_syntax[0] for c in association.accepted_contexts[1:]]
        assert sorted(taken) == sorted(syntaxes[name]), uid


def test_of_several_syntaxes_the_first_of_the_list_is_taken(node: Node) -> None:
    classes, syntaxes = lists()
    asked = [(uid, syntaxes[name][::-1]) for uid, name in classes.items()]
    for context in negotiate(node, asked).accepted_contexts[1:]:
        assert context.transfer_syntax == [syntaxes[classes[str(context.abstract_syntax)]][0]]


def test_no_class_that_is_not_listed_is_accepted(node: Node) -> None:
    classes, _ = lists()
    storage = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    unlisted = [uid for uid in (*storage, *UNLISTED) if uid not in classes]
    assert len(unlisted) > 100
    for start in range(0, len(unlisted), 100):
        part = unlisted[start : start + 100]
        association = negotiate(node, [(uid, [ImplicitVRLittleEndian]) for uid in part])
        assert [str(c.abstract_syntax) for c in association.accepted_contexts] == [VERIFICATION]
        assert {str(c.abstract_syntax) for c in association.rejected_contexts} == set(part)


def test_what_the_node_asks_for_is_what_the_statement_says(
    maker: dict[str, Any], samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A peer that accepts everything writes down every presentation context that is proposed to it."""
    proposed: dict[str, set[str]] = {}

    def note(event: evt.Event) -> None:
        for context in event.assoc.requestor.requested_contexts:
            proposed.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))

    peer_ae = AE(ae_title="PEER")
    peer_ae.supported_contexts = AllStoragePresentationContexts[:100]
    peer_ae.add_supported_context(VERIFICATION)
    for uid in maker["QUERIES"]:
        peer_ae.add_supported_context(uid)
    peer_ae.add_supported_context(STORAGE_COMMITMENT)
    handlers = [(evt.EVT_REQUESTED, note), (evt.EVT_C_STORE, lambda _: 0), (evt.EVT_C_FIND, lambda _: iter(()))]
    handlers += [(evt.EVT_N_ACTION, lambda _: (0, None))]
    server = peer_ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        port = int(server.server_address[1])
        echo(Peer("PEER", "127.0.0.1", port))
        for number, sample in enumerate(samples):
            objects = [ResultObject(kind, ds) for kind, ds in sample.items()]
            paths = write_results(objects, tmp_path / str(number)).values()
            send([one for path in paths if (one := read_outgoing(path)) is not None], Peer("PEER", "127.0.0.1", port))
        commits = DicomDestination(ae_title="PEER", host="127.0.0.1", port=port, commit_within_s=60)
        request = CommitmentRequest("2.25.1", (InstanceReference("1.2", "1.3"),))
        CommitmentScu(commits, "CMBNODE").request(request, lambda _: True)
        asked = QueryRetrieve(DicomPacs(ae_title="PEER", host="127.0.0.1", port=port), "CMBNODE")
        assert asked.series("1.2.3") == []
        by_get = DicomPacs(ae_title="PEER", host="127.0.0.1", port=port, retrieve="c-get")
        for source in (asked, QueryRetrieve(by_get, "CMBNODE", Mock())):
            with pytest.raises(SourceError):
                source.fetch("1.2.3", ["1.2.4"], TransferLimits(time.monotonic() + 20, lambda: "", 10))
    finally:
        server.shutdown()
    assert set(proposed) == {*IMAGE_CLASSES, *(uid for uid, *roles in overview() if roles[0].startswith("yes"))}
    stated = {re.sub(" Class$", "", row[1]): row[2] for row in rows(section("proposed"))}
    named = {maker["name_of"](uid): {UID(syntax).name for syntax in taken} for uid, taken in proposed.items()}
    assert {re.sub(" Class$", "", name): syntaxes for name, syntaxes in named.items()} == {
        name: set(re.split("; in a second context |; " if "; " in text else ", ", text))
        for name, text in stated.items()
    }


def overview() -> list[list[str]]:
    """UID, role as SCU and as SCP of every class of the overview."""
    return [[row[1].strip("`"), row[2], row[3]] for row in rows(section("overview"))]


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_overview_names_as_provider_what_the_receiver_accepts() -> None:
    classes, _ = lists()
    assert {uid for uid, _, provider in overview() if provider == "yes"} == set(classes)
