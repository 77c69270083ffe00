"""How do the two requests this node serves, and their answers, look on the wire? (PS3.7 6.3.1, 9.3.1, 9.3.5)

A command set is a handful of elements in Implicit VR Little Endian, all of group 0000. Taking it apart here instead of
by way of a pydicom data set is stricter with strangers, and halves what a small image costs.
"""

from __future__ import annotations

import struct
from io import BytesIO

from pynetdicom.dimse_primitives import C_ECHO, C_STORE

_ELEMENT = struct.Struct("<HHL")
_NO_DATA_SET = 0x0101
_STORE_RQ, _ECHO_RQ, _CANCEL_RQ, _RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
# element numbers of group 0000, PS3.7 annex E
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000


class CommandError(ValueError):
    """Not a command set, or none of a request that is served; the text holds nothing of what was sent."""


def decode_request(command: bytes) -> tuple[C_STORE | C_ECHO | None, bool]:
    """Read a command set.

    Returns
    -------
    request : C_STORE, C_ECHO or None
        None for a C-CANCEL request, which there is nothing to do about.
    has_data_set : bool
        Whether a data set follows.

    Raises
    ------
    CommandError
        It is broken, incomplete, or asks for something else.
    """
    values = _split(command)
    try:
        field, has_data_set = _number(values[_FIELD]), _number(values[_DATA_SET_TYPE]) != _NO_DATA_SET
        if field == _CANCEL_RQ and not has_data_set:
            return None, False
        if field not in (_STORE_RQ, _ECHO_RQ):
            raise CommandError(f"command {field:#06x} is not served here")
        request = C_STORE() if field == _STORE_RQ else C_ECHO()
        request.MessageID = _number(values[_MESSAGE_ID])
        request.AffectedSOPClassUID = _uid(values[_SOP_CLASS])
        if isinstance(request, C_STORE):
            request.AffectedSOPInstanceUID = _uid(values[_SOP_INSTANCE])
            request.Priority = _number(values.get(_PRIORITY, b"\0\0"))
            request.DataSet = BytesIO()
        elif has_data_set:
            raise CommandError("an echo with a data set")
    except KeyError as error:
        raise CommandError(f"a command without its element (0000,{error.args[0]:04X})") from error
    return request, has_data_set


def encode_response(response: C_STORE | C_ECHO) -> bytes:
    """Write the command set of an answer."""
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
            raise CommandError("a command that is cut off")
        group, number, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0 or number in values or length > len(command) - at:
            raise CommandError("a command with a foreign, double or overlong element")
        values[number] = command[at : at + length]
        at += length
    return values


def _number(value: bytes) -> int:
    if len(value) != 2:
        raise CommandError("a command with a number that is none")
    return int.from_bytes(value, "little")


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ")
    if not 1 <= len(text) <= 64 or not text.isascii():
        raise CommandError("a command with a UID that is none")
    return text.decode("ascii")


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
