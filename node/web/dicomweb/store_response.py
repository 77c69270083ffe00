"""How is a STOW-RS request answered? Status code and Store Instances Response (PS3.18 10.5.3 and annex I)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from fastapi import Response
from pydicom.datadict import keyword_for_tag

from node.archive import is_uid
from node.receive.ingest import CONFLICT, OUT_OF_RESOURCES, SUCCESS
from node.receive.multipart import PartResult

from .media_types import DICOM_XML

RETRY_S = 30
"""After this many seconds a sender may try again what cannot be stored now."""

_CLASS, _INSTANCE, _RETRIEVE_URL = "00081150", "00081155", "00081190"
_REFERENCED, _FAILED, _OTHER = "00081199", "00081198", "0008119A"  # sequences: stored, failed, failed without UIDs
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"
_STORED = (SUCCESS, CONFLICT)  # a conflict is a warning, as for C-STORE
Json = dict[str, Any]


def store_response(results: Sequence[PartResult], media_type: str, problem: tuple[int, str] | None = None) -> Response:
    """Make the answer.

    Parameters
    ----------
    results : sequence of PartResult
        What became of each part that was read.
    media_type : str
        DICOM JSON or DICOM XML.
    problem : tuple of (int, str), optional
        Status code of what ended the request before its end, and why.
    """
    status = _status(results, problem)
    document = _document(results, problem)
    content = _xml(document) if media_type == DICOM_XML else json.dumps(document).encode()
    whys = dict.fromkeys([*([problem[1]] if problem else []), *(one.why for one in results if one.why)])
    headers = {"Warning": f'299 cmb-node "{"; ".join(map(_header_text, list(whys)[:3]))}"'} if whys else {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_S)
    return Response(content, status, headers, media_type)


def _status(results: Sequence[PartResult], problem: tuple[int, str] | None) -> int:
    """The status code of PS3.18 table 10.5.3-1; 503 if all that failed can be sent again later."""
    any_stored = any(one.status in _STORED for one in results)
    if problem is not None:
        return 202 if problem[0] == 400 and any_stored else problem[0]
    if not results:
        return 400
    if all(one.status == SUCCESS for one in results):
        return 200
    if any_stored:
        return 202
    return 503 if all(one.status == OUT_OF_RESOURCES for one in results) else 409


def _document(results: Sequence[PartResult], problem: tuple[int, str] | None) -> Json:
    """The Store Instances Response as DICOM JSON. Without Retrieve URL: what was received is not served."""
    stored, failed, other = [], [], []
    for one in results:
        named = is_uid(one.sop_class_uid) and is_uid(one.sop_instance_uid)
        item: Json = {_CLASS: _value("UI", one.sop_class_uid), _INSTANCE: _value("UI", one.sop_instance_uid)}
        if not named:
            other.append({_FAILURE_REASON: _value("US", one.status)})
        elif one.status == SUCCESS:
            stored.append(item | {_RETRIEVE_URL: {"vr": "UR"}})
        elif one.status == CONFLICT:
            stored.append(item | {_RETRIEVE_URL: {"vr": "UR"}, _WARNING_REASON: _value("US", one.status)})
        else:
            failed.append(item | {_FAILURE_REASON: _value("US", one.status)})
    if problem is not None:
        other.append({_FAILURE_REASON: _value("US", 0xC000 if problem[0] == 400 else OUT_OF_RESOURCES)})
    sequences = {_REFERENCED: stored, _FAILED: failed, _OTHER: other}
    filled = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    return dict(sorted({_RETRIEVE_URL: {"vr": "UR"}, **filled}.items()))


def _value(vr: str, value: Any) -> Json:
    return {"vr": vr, "Value": [value]}


def _xml(document: Json) -> bytes:
    """The same in the Native DICOM Model (PS3.19 A.1)."""
    root = ElementTree.Element("NativeDicomModel")
    root.extend(_elements(document))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _elements(document: Json) -> Iterator[ElementTree.Element]:
    for tag, element in document.items():
        names = {"tag": tag, "vr": element["vr"], "keyword": keyword_for_tag(int(tag, 16))}
        made = ElementTree.Element("DicomAttribute", names)
        for number, value in enumerate(element.get("Value", ()), start=1):
            if element["vr"] == "SQ":
                ElementTree.SubElement(made, "Item", number=str(number)).extend(_elements(value))
            else:
                ElementTree.SubElement(made, "Value", number=str(number)).text = str(value)
        yield made


def _header_text(words: str) -> str:
    """A text that a header can hold between quotation marks."""
    return words.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")[:200]
