"""Every code is one that the standard's tables have, or its source is named here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from pipeline.results import codes

OUTSIDE = {
    ("UMLS", "C0034375"): "TID 1500, row 12",
    ("UMLS", "C0004781"): "UMLS Metathesaurus: Basal Ganglia; DICOM has only the corpus striatum",
    ("SCT", "255545003"): "SNOMED CT: Definite (qualifier value)",
    ("SCT", "371930009"): "SNOMED CT: Possible (qualifier value)",
    ("SCT", "7147002"): "SNOMED CT: New (qualifier value); CID 6002 speaks of mammograms",
    ("SCT", "58158008"): "SNOMED CT: Stable (qualifier value)",
}
"""Codes that no context group of DICOM has, with the table in which they were looked up."""


def test_each_code_is_in_the_tables_of_the_standard() -> None:
    known = {(scheme, value) for scheme, terms in concepts.items() for meanings in terms.values() for value in meanings}
    used = {(code.scheme_designator, code.value) for code in _codes(vars(codes).values())}
    unknown = {code for code in used if code[0] != codes.PRIVATE_SCHEME} - known
    assert unknown == set(OUTSIDE)


def _codes(values: Iterable[object]) -> Iterator[Code]:
    for value in values:
        if isinstance(value, Code):
            yield value
        elif isinstance(value, dict):
            yield from _codes(value.values())
