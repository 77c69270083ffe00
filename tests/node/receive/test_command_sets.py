"""Command sets as pynetdicom writes and reads them, and as nobody should."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION
from pynetdicom.dsutils import decode

from node.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from node.receive.command_sets import CommandError, decode_request, encode_response
from tests.node.receiving import VERIFICATION, action_command, echo_command, slices, store_command

IMAGE = slices(1)[0]


def test_a_store_request_is_read_as_it_was_written() -> None:
    request, has_data_set = decode_request(store_command(IMAGE))
    assert isinstance(request, C_STORE)
    assert has_data_set
    assert request.is_valid_request
    named = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.MessageID, request.Priority)
    assert named == (IMAGE.SOPClassUID, IMAGE.SOPInstanceUID, 1, 2)


@pytest.mark.parametrize(
    ("sent", "read"), [("PACS", "PACS"), (" CMBNODE ", "CMBNODE"), ("", None), ("A\\\\B", None), ("MÜLLER", None)]
)
def test_who_asked_for_a_move_is_read_if_an_application_can_have_that_title(sent: str, read: str | None) -> None:
    title = sent.encode("latin-1")
    title += b" " * (len(title) % 2)
    element = struct.pack("<HHL", 0, 0x1030, len(title)) + title
    request, _ = decode_request(store_command(IMAGE) + element)
    assert isinstance(request, C_STORE)
    assert request.MoveOriginatorApplicationEntityTitle == read


def test_a_request_for_commitment_is_read_as_it_was_written() -> None:
    request, has_data_set = decode_request(action_command())
    assert isinstance(request, N_ACTION)
    assert has_data_set
    named = (request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, request.ActionTypeID, request.MessageID)
    assert named == (STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 1, 1)


def test_an_echo_and_a_cancel_are_read() -> None:
    request, has_data_set = decode_request(echo_command())
    assert isinstance(request, C_ECHO)
    assert not has_data_set
    assert request.is_valid_request
    assert decode_request(store_command(IMAGE, CommandField=0x0FFF, CommandDataSetType=0x0101)) == (None, False)


@pytest.mark.parametrize(
    ("status", "comment"), [(0x0000, None), (0xA700, "only 3 MB free"), (0xC000, "odd"), (0xB000, "x" * 64)]
)
def test_answers_are_what_pynetdicom_would_write(status: int, comment: str | None) -> None:
    answer = C_STORE()
    answer.MessageID = answer.MessageIDBeingRespondedTo = 77
    answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = IMAGE.SOPClassUID, "1.2.3"
    answer.Status = status
    if comment:
        answer.ErrorComment = comment
    theirs = C_STORE_RSP()
    theirs.primitive_to_message(answer)
    ours = decode(BytesIO(encode_response(answer)), True, True)
    assert ours == theirs.command_set
    assert ours.CommandGroupLength == len(encode_response(answer)) - 12


def test_an_answer_to_an_echo_is_what_pynetdicom_would_write() -> None:
    answer = C_ECHO()
    answer.MessageID = answer.MessageIDBeingRespondedTo = 3
    answer.AffectedSOPClassUID, answer.Status = VERIFICATION, 0
    theirs: DIMSEMessage = C_ECHO_RSP()
    theirs.primitive_to_message(answer)
    assert decode(BytesIO(encode_response(answer)), True, True) == theirs.command_set


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"\0" * 7,
        store_command(IMAGE)[:-1],
        store_command(IMAGE) + element(0x0100, b"\x01\0"),
        store_command(IMAGE) + element(0x0010, b"Doe^John", group=0x0010),
        store_command(IMAGE) + struct.pack("<HHL", 0, 0x5010, 0xFFFFFFFF),
        store_command(IMAGE, CommandField=0x0020),
        store_command(IMAGE, CommandField=0x8001),
        store_command(IMAGE, CommandField=0x0100),
        action_command(sop_class=IMAGE.SOPClassUID),
        action_command().replace(element(0x1008, b"\x01\0"), b""),
        echo_command().replace(element(0x0800, b"\x01\x01"), element(0x0800, b"\x02\x01")),
        echo_command().replace(element(0x0110, b"\x01\0"), element(0x0110, b"\x01\0\0\0")),
    ],
)
def test_what_is_no_request_served_here_is_refused_without_quoting_it(command: bytes) -> None:
    with pytest.raises(CommandError) as refusal:
        decode_request(command)
    assert "Doe" not in str(refusal.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_the_same_way(command: bytes) -> None:
    with pytest.raises(CommandError):
        decode_request(command)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data())
def test_a_damaged_command_is_read_or_refused(data: st.DataObject) -> None:
    command = bytearray(store_command(IMAGE))
    for _ in range(data.draw(st.integers(1, 4))):
        command[data.draw(st.integers(0, len(command) - 1))] = data.draw(st.integers(0, 255))
    try:
        request, _ = decode_request(bytes(command))
    except ValueError:
        return
    assert request is None or request.is_valid_request
