"""Which representation does a client accept? The Accept header of RFC 9110 12.5.1, as PS3.18 8.7 uses it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message

from fastapi import HTTPException, Request

DICOM, DICOM_JSON, DICOM_XML = "application/dicom", "application/dicom+json", "application/dicom+xml"
MULTIPART = "multipart/related"
_JSON, _XML = "application/json", "application/xml"
_RANGE = re.compile(r'(?:[^,"]|"[^"]*")+')
_LONGEST = 4096


@dataclass(frozen=True)
class MediaRange:
    """One media type, or range of them, that a client accepts."""

    media_type: str
    parameters: dict[str, str]

    def includes(self, media_type: str) -> bool:
        """Whether it is this type or a range with it."""
        return self.media_type in ("*/*", media_type, f"{media_type.partition('/')[0]}/*")


def accepted(request: Request) -> list[MediaRange]:
    """What the client accepts, the most wanted first; anything if it does not say."""
    ranges = []
    for text in _RANGE.findall(request.headers.get("accept", "")[:_LONGEST]):
        message = Message()
        message["Content-Type"] = " ".join(text.split())
        values = {name.lower(): str(value) for name, value in message.get_params(failobj=[])[1:]}
        ranges.append((_quality(values.get("q", "1")), MediaRange(message.get_content_type(), values)))
    wanted = [one for quality, one in sorted(ranges, key=lambda pair: -pair[0]) if quality > 0]
    return wanted if ranges else [MediaRange("*/*", {})]


def json_or_xml(request: Request) -> str:
    """The type of the answer to a stored message.

    Raises
    ------
    HTTPException
        406: the client accepts neither.
    """
    for one in accepted(request):
        if one.includes(DICOM_JSON) or one.includes(_JSON):
            return DICOM_JSON
        if one.includes(DICOM_XML) or one.includes(_XML):
            return DICOM_XML
    raise _not_acceptable(DICOM_JSON, DICOM_XML)


def require_json(request: Request) -> None:
    """See that the client accepts DICOM JSON, or answer 406."""
    if not any(one.includes(DICOM_JSON) or one.includes(_JSON) for one in accepted(request)):
        raise _not_acceptable(DICOM_JSON)


def wants_multipart(request: Request, transfer_syntaxes: Sequence[str]) -> bool:
    """Whether the client wants files as parts of one message; false: as one file, of which there is just one.

    Parameters
    ----------
    transfer_syntaxes : sequence of str
        Those of the files.

    Raises
    ------
    HTTPException
        406: the client accepts neither, or only other transfer syntaxes.
    """
    for one in accepted(request):
        syntax = one.parameters.get("transfer-syntax", "*")
        if syntax != "*" and set(transfer_syntaxes) != {syntax}:
            continue
        if one.includes(MULTIPART) and one.parameters.get("type", DICOM).lower() in (DICOM, "application/*", "*/*"):
            return True
        if one.includes(DICOM) and len(transfer_syntaxes) == 1:
            return False
    raise _not_acceptable(f'{MULTIPART}; type="{DICOM}"')


def _quality(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 1.0


def _not_acceptable(*offered: str) -> HTTPException:
    return HTTPException(406, f"The answer would be {' or '.join(offered)}, which the request does not accept.")
