"""What is the value of an attribute? Values that cannot be used count as absent; nothing here raises."""

from __future__ import annotations

from functools import cache
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_SQ

_ITEM = b"\xfe\xff\x00\xe0"
_tag = cache(Tag)


def flatten(groups: Dataset | None) -> Dataset:
    """Lift the attributes of each functional group macro (PS3.3 C.7.6.16.2) into one flat dataset."""
    flat = Dataset()
    for element in groups or ():
        items: Any = element.value if element.VR == "SQ" else ()
        if element.VR == "UN" and element.value[:4] == _ITEM:  # a private sequence in an implicit VR file
            items = convert_SQ(element.value, True, True)
        if len(items):
            flat.update(items[0])
    return flat


def values(ds: Dataset, name: str | BaseTag) -> tuple[str, ...]:
    """Values of an attribute as stripped text; empty when it is absent or cannot be decoded."""
    try:
        tag = name if isinstance(name, BaseTag) else _tag(name)
        value: Any = ds[tag].value if tag in ds else None
    except Exception:  # pydicom raises many types on malformed values; an unusable value counts as absent
        return ()
    if value is None or isinstance(value, pydicom.Sequence):
        return ()
    if isinstance(value, bytes):  # private attribute of unknown VR in an implicit VR file
        value = value.decode("latin-1").strip("\0 ").split("\\")
    parts = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    texts = tuple(str(part).strip() for part in parts)
    return texts if any(texts) else ()


def text(ds: Dataset, name: str) -> str:
    """Value of an attribute as text, empty when absent."""
    return "\\".join(values(ds, name))


def number(ds: Dataset, name: str | BaseTag) -> float | None:
    """First value of an attribute as a finite number, or ``None``."""
    try:
        value = float(values(ds, name)[0])
    except (IndexError, ValueError):
        return None
    return value if abs(value) < float("inf") else None


def integer(ds: Dataset, name: str) -> int | None:
    """First value of an attribute as a whole number, or ``None``."""
    value = number(ds, name)
    return None if value is None else int(value)
