"""How does a document ``findings.json`` become findings again?"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import InputError
from pipeline.findings import SCHEMA, Findings

_ADAPTER: TypeAdapter[Findings] = TypeAdapter(Findings)


def read_findings(document: dict[str, Any]) -> Findings:
    """Read what :meth:`pipeline.findings.Findings.to_json` wrote.

    Raises
    ------
    InputError
        If the document is of another schema, or something in it is not what it should be.
    """
    if document.get("schema") != SCHEMA:
        raise InputError(f"the findings are of schema {document.get('schema')}, not {SCHEMA}")
    quality = document.get("quality") or {}
    given = {name: value for name, value in document.items() if name in Findings.__dataclass_fields__}
    given |= {"warnings": quality.get("warnings") or (), "phase": quality.get("phase")}
    given["image_quality"] = quality.get("measures")
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"the findings cannot be read: {place}: {first['msg']}") from error
