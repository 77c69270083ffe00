"""How are the requests that the node serves, and their responses, encoded? (PS3.7 6.3.1, 9.3.1, 9.3.5, 10.3)

A command set is a few elements of group 0000 in Implicit VR Little Endian. Decoding it here instead of through a
pydicom data set is stricter with malformed commands, and costs 23 µs of processor time per image instead of
pynetdicom's 507 µs (`python -m benchmarks.receive_parts`, AMD EPYC). Storage commitment (N-ACTION, N-EVENT-REPORT) is
rare: pynetdicom encodes its responses.
"""

from __future__ import annotations

import struct
from io import BytesIO

from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION, N_EVENT_REPORT

from node.commitment import STORAGE_COMMITMENT

_ELEMENT = struct.Struct("<HHL")
_NO_DATA_SET = 0x0101
_STORE_RQ, _ECHO_RQ, _CANCEL_RQ, _RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
_EVENT_REPORT_RQ, _ACTION_RQ = 0x0100, 0x0130
# element numbers of group 0000, PS3.7 annex E
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
_REQUESTED_CLASS, _REQUESTED_INSTANCE, _EVENT_TYPE, _ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008
_MOVE_ORIGINATOR = 0x1030

Request = C_STORE | C_ECHO | N_ACTION | N_EVENT_REPORT
"""A request that is served."""


class CommandError(ValueError):
    """Not a command set, or not that of a request that is served; the text quotes nothing of what was sent."""


def decode_request(command: bytes) -> tuple[Request | None, bool]:
    """Read a command set.

    Returns
    -------
    request : C_STORE, C_ECHO, N_ACTION, N_EVENT_REPORT or None
        ``None`` for a C-CANCEL request, which needs no action.
    has_data_set : bool
        Whether a data set follows.

    Raises
    ------
    CommandError
        It is malformed or incomplete, or requests another service.
    """
    values = _split(command)
    try:
        field, has_data_set = _number(values[_FIELD]), _number(values[_DATA_SET_TYPE]) != _NO_DATA_SET
        if field == _CANCEL_RQ and not has_data_set:
            return None, False
        if field in (_ACTION_RQ, _EVENT_REPORT_RQ):
            return _commitment_request(field, values), has_data_set
        if field not in (_STORE_RQ, _ECHO_RQ):
            raise CommandError(f"command {field:#06x} is not supported")
        request = C_STORE() if field == _STORE_RQ else C_ECHO()
        request.MessageID = _number(values[_MESSAGE_ID])
        request.AffectedSOPClassUID = _uid(values[_SOP_CLASS])
        if isinstance(request, C_STORE):
            request.AffectedSOPInstanceUID = _uid(values[_SOP_INSTANCE])
            request.Priority = _number(values.get(_PRIORITY, b"\0\0"))
            request.MoveOriginatorApplicationEntityTitle = _ae_title(values.get(_MOVE_ORIGINATOR, b""))
            request.DataSet = BytesIO()
        elif has_data_set:
            raise CommandError("a C-ECHO request with a data set")
    except KeyError as error:
        raise CommandError(f"element (0000,{error.args[0]:04X}) is missing in the command set") from error
    return request, has_data_set


def _commitment_request(field: int, values: dict[int, bytes]) -> N_ACTION | N_EVENT_REPORT:
    """Read a request of the storage commitment service, the only one that uses these commands here."""
    request: N_ACTION | N_EVENT_REPORT
    if field == _ACTION_RQ:
        request = N_ACTION()
        request.RequestedSOPClassUID = sop_class = _uid(values[_REQUESTED_CLASS])
        request.RequestedSOPInstanceUID = _uid(values[_REQUESTED_INSTANCE])
        request.ActionTypeID = _number(values[_ACTION_TYPE])
    else:
        request = N_EVENT_REPORT()
        request.AffectedSOPClassUID = sop_class = _uid(values[_SOP_CLASS])
        request.AffectedSOPInstanceUID = _uid(values[_SOP_INSTANCE])
        request.EventTypeID = _number(values[_EVENT_TYPE])
    if sop_class != STORAGE_COMMITMENT:
        raise CommandError(f"command {field:#06x} of another service than storage commitment")
    request.MessageID = _number(values[_MESSAGE_ID])
    return request


def encode_response(response: C_STORE | C_ECHO) -> bytes:
    """Encode the command set of a response."""
    field = (_STORE_RQ if isinstance(response, C_STORE) else _ECHO_RQ) | _RESPONSE
    elements = [
        (_SOP_CLASS, _padded(str(response.AffectedSOPClassUID or ""), b"\0")),
        (_FIELD, struct.pack("<H", field)),
        (_ANSWERED_ID, struct.pack("<H", response.MessageIDBeingRespondedTo)),
        (_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        (_STATUS, struct.pack("<H", response.Status)),
    ]
    if comment := getattr(response, "ErrorComment", None):
        elements.append((_COMMENT, _padded(comment, b" ")))
    if isinstance(response, C_STORE):
        elements.append((_SOP_INSTANCE, _padded(str(response.AffectedSOPInstanceUID or ""), b"\0")))
    body = b"".join(_ELEMENT.pack(0, number, len(value)) + value for number, value in elements)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _split(command: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    at = 0
    while at < len(command):
        if at + _ELEMENT.size > len(command):
            raise CommandError("truncated command set")
        group, number, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0 or number in values or length > len(command) - at:
            raise CommandError("foreign, repeated or overlong element in the command set")
        values[number] = command[at : at + length]
        at += length
    return values


def _number(value: bytes) -> int:
    if len(value) != 2:
        raise CommandError("malformed number in the command set")
    return int.from_bytes(value, "little")


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ")
    if not 1 <= len(text) <= 64 or not text.isascii():
        raise CommandError("malformed UID in the command set")
    return text.decode("ascii")


def _ae_title(value: bytes) -> str | None:
    """An AE title; ``None`` if there is none, or one that no device can have."""
    title = value.strip(b"\0 ")
    if not 1 <= len(title) <= 16 or not title.isascii() or b"\\" in title:
        return None
    text = title.decode("ascii")
    return text if text.isprintable() else None


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
