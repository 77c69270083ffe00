"""Write the tables of docs/conformance.md from the code: ``python -m docs.make_conformance``.

The text of the page is written by hand. Everything that the code determines stands between ``<!-- made: NAME -->`` and
``<!-- end -->``: SOP classes and transfer syntaxes as the node negotiates them, settings, and the attributes and
content of result objects, taken from objects that the pipeline makes for simulated studies.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from docs.ai_results import lines
from node.commitment import STORAGE_COMMITMENT
from node.receive.presentation_contexts import STORAGE_CLASSES, VERIFICATION, storage_contexts
from node.retrieve.c_get import IMAGE_CLASSES, get_contexts
from node.settings import DicomWebClientSettings, DicomWebSettings, ReceiverSettings, Settings
from node.settings.connections import ReceiverTlsSettings
from node.settings.pacs import DicomPacs
from node.settings.priors import PriorsSettings
from node.settings.pull import PullSettings
from node.settings.work_items import WorkItemSettings
from pipeline.findings import ChangeOverTime, Findings, ImageQuality, PriorLesion, Trend, Verification
from pipeline.results import ReplacedResult, codes, make_results
from tests.dicom_factory import Patient
from tests.pipeline.results.studies import simulate

PAGE = Path(__file__).with_name("conformance.md")
RESULTS = ("sr", "seg", "capture", "ko")
QUERIES = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_SHORT = 60


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows)])


def sent_classes(samples: Sequence[dict[str, Dataset]]) -> dict[str, str]:
    """SOP classes of the objects that results consist of, with their transfer syntaxes."""
    made = (ds for sample in samples for ds in sample.values())
    return {str(ds.SOPClassUID): str(ds.file_meta.TransferSyntaxUID) for ds in made}


def name_of(uid: str) -> str:
    """The name of a SOP class, also of one that is newer than pydicom."""
    name = UID(uid).name
    return f"{STORAGE_CLASSES[uid]} Storage" if name == uid and uid in STORAGE_CLASSES else name


def overview(samples: Sequence[dict[str, Dataset]]) -> str:
    """Every SOP class with the role of the node."""
    sent = sent_classes(samples)
    rows = [["Verification", f"`{VERIFICATION}`", "yes", "yes"]]
    yes = {True: "yes", False: "no"}
    rows += [
        [name_of(uid), f"`{uid}`", yes[uid in sent], yes[uid in STORAGE_CLASSES]]
        for uid in dict.fromkeys([*STORAGE_CLASSES, *sent])
    ]
    rows += [[UID(uid).name, f"`{uid}`", "yes, if studies are fetched", "no"] for uid in QUERIES]
    rows += [[UID(STORAGE_COMMITMENT).name, f"`{STORAGE_COMMITMENT}`", "yes, if configured", "yes"]]
    return table(["SOP class", "UID", "user (SCU)", "provider (SCP)"], rows)


def accepted(_: Sequence[dict[str, Dataset]]) -> str:
    """Presentation contexts that the receiver accepts."""
    contexts = storage_contexts()
    kinds = {tuple(context.transfer_syntax) for context in contexts}
    named = {kind: f"list {number}" for number, kind in enumerate(sorted(kinds, key=len), start=1)}
    rows = [
        [name_of(str(c.abstract_syntax)), f"`{c.abstract_syntax}`", named[tuple(c.transfer_syntax)], *_roles(c)]
        for c in contexts
    ]
    text = table(["abstract syntax", "UID", "transfer syntaxes", "role", "extended negotiation"], rows)
    for kind, name in named.items():
        ordered = [[number, UID(str(uid)).name, f"`{uid}`"] for number, uid in enumerate(kind, start=1)]
        text += f"\n\nTransfer syntaxes, {name}, in order of preference:\n\n"
        text += table(["", "transfer syntax", "UID"], ordered)
    return text


def _roles(context: PresentationContext) -> list[str]:
    """The node's role, and the extended negotiation."""
    if context.scp_role:
        return ["SCP, and SCU for reports", "role selection"]
    return ["SCP", "none"]


def proposed(samples: Sequence[dict[str, Dataset]]) -> str:
    """Presentation contexts that the node proposes."""
    rows = [["C-ECHO", UID(VERIFICATION).name, *_syntaxes(VERIFICATION)]]
    rows += [
        ["delivery", UID(sop_class).name, f"{UID(syntax).name}; in a second context {UID('1.2.840.10008.1.2').name}"]
        for sop_class, syntax in sent_classes(samples).items()
    ]
    rows += [["fetching studies", UID(uid).name, *_syntaxes(uid)] for uid in QUERIES]
    for uid in IMAGE_CLASSES:
        names = "; ".join(UID(syntax).name for sop_class, syntax in get_contexts() if sop_class == uid)
        rows += [["fetching studies by C-GET, as SCP", UID(uid).name, names]]
    rows += [["storage commitment", UID(STORAGE_COMMITMENT).name, *_syntaxes(STORAGE_COMMITMENT)]]
    return table(["activity", "abstract syntax", "transfer syntaxes"], rows)


def _syntaxes(sop_class: str) -> list[str]:
    return [", ".join(UID(str(uid)).name for uid in build_context(sop_class).transfer_syntax or [])]


def implementation(_: Sequence[dict[str, Dataset]]) -> str:
    """How the node names itself in associations."""
    rows = [
        ["Implementation Class UID", f"`{PYNETDICOM_IMPLEMENTATION_UID}`"],
        ["Implementation Version Name", f"`{PYNETDICOM_IMPLEMENTATION_VERSION}`"],
        ["Application Context Name", "`1.2.840.10008.3.1.1.1`"],
    ]
    return table(["in the A-ASSOCIATE request and acceptance", "value"], rows)


def parameters(_: Sequence[dict[str, Dataset]]) -> str:
    """Settings that bear on the network."""
    parts: list[tuple[str, type[BaseModel]]] = [
        ("receiver", ReceiverSettings),
        ("receiver.tls", ReceiverTlsSettings),
        ("priors", PriorsSettings),
        ("pull.NAME", PullSettings),
        ("priors.dicom, pull.NAME.dicom", DicomPacs),
        ("dicomweb", DicomWebSettings),
        ("dicomweb.clients.NAME", DicomWebClientSettings),
        ("work_items", WorkItemSettings),
    ]
    rows = [["`ae_title`", f"`{Settings().ae_title}`", "AE title of every application entity of the node"]]
    for prefix, part in parts:
        rows += [
            [
                f"`{prefix}.{name}`",
                _default(field),
                field.description,
            ]
            for name, field in part.model_fields.items()
            if field.description
        ]
    return table(["parameter", "default", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "none" if field.default in ((), {}, None) else f"`{_toml(field.default)}`"


def _toml(value: object) -> str:
    """A default as the configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def made() -> list[dict[str, Dataset]]:
    """Result objects of three simulated studies: one with everything, one without a microbleed, one with 60."""
    with tempfile.TemporaryDirectory() as folder:
        rich = simulate(Path(folder) / "a", 3, regions=True, warnings=("an example",), weights={"cnn3d": "0" * 64})
        tags = {"PatientSex": "M", "PatientBirthDate": "19610101", "StudyDate": "20250505", "AccessionNumber": "B2"}
        bare_patient = Patient(seed="other", patient_id="P-2", name="Other^Patient", tags=tags)
        bare = simulate(Path(folder) / "b", 0, patient=bare_patient)
        rich = replace(rich, findings=_enriched(rich.findings))
        many = simulate(Path(folder) / "c", 60, patient=replace(bare_patient, seed="many"))
        made_of = [(rich, "a" * 64, ReplacedResult("b" * 64)), (bare, "c" * 64, None), (many, "d" * 64, None)]
        samples = []
        for detection, key, replaces in made_of:
            results = make_results(detection, key=key, created=WHEN, replaces=replaces, key_objects=True)  # type: ignore[arg-type]
            samples.append({result.kind: result.dataset for result in results})
        return samples


def _enriched(findings: Findings) -> Findings:
    """The same findings, compared with an earlier study and verified by a reader."""
    first, *rest = findings.lesions
    lesions = (replace(first, trend=Trend.NEW), *(replace(one, trend=Trend.STABLE) for one in rest))
    gone = PriorLesion("2.25.99", first.centroid_lps_mm, 3.0, 0.9, first.certainty)
    change = ChangeOverTime(
        prior_study_instance_uid="2.25.7", prior_study_date="20240503", prior_sr_sop_instance_uid="2.25.8",
        prior_sr_series_instance_uid="2.25.9", assessed=True, new=1, stable=len(rest), no_longer_seen=(gone,),
        aria_h="mild", flags=("an example",), caveats=("an example",), fit=0.97,
    )  # fmt: skip
    return replace(
        findings,
        lesions=lesions,
        change=change,
        image_quality=ImageQuality(0.9, 2.0, 0.98, 21.0, 1.1),
        verification=Verification("Reader^Rita", "Hospital", WHEN),
    )


def attributes(kind: str) -> Callable[[Sequence[dict[str, Dataset]]], str]:
    """The table of the attributes of one kind of object."""

    def make(samples: Sequence[dict[str, Dataset]]) -> str:
        objects = [sample.get(kind) for sample in samples]
        shown = [ds for ds in objects if ds is not None]
        rows = []
        for tag in sorted({element.tag for ds in shown for element in ds}):
            held = [ds[tag].value for ds in shown if tag in ds]
            always = len(held) == len(shown)
            keyword = keyword_for_tag(tag)
            rows.append(
                [
                    keyword,
                    f"({tag.group:04X},{tag.element:04X})",
                    dictionary_VR(tag),
                    "yes" if always else "if applicable",
                    _source(keyword, held, len(shown)),
                ]
            )
        return table(["attribute", "tag", "VR", "always", "value"], rows)

    return make


_FROM_IMAGES = frozenset(
    {
        "SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
        "StudyDescription", "FrameOfReferenceUID", "PositionReferenceIndicator", "IssuerOfPatientID",
    }
)  # fmt: skip


_KNOWN = {
    "InstanceCreatorUID": "derived from profile, weights and version",
    "DeviceSerialNumber": "short form of profile, weights and version",
    "SoftwareVersions": "version of the node",
    **dict.fromkeys(("Rows", "Columns", "NumberOfFrames"), "from the pixel data"),
}


def _source(keyword: str, held: Sequence[Any], objects: int) -> str:
    """Where a value comes from, as far as two objects of different studies tell."""
    if keyword in _FROM_IMAGES:
        return "copied from the images"
    if keyword in _KNOWN:
        return _KNOWN[keyword]
    vr = dictionary_VR(keyword)
    if vr == "SQ":
        return "a sequence"
    if vr in ("DA", "TM", "DT"):
        return "time of the job"
    if vr == "UI" and keyword != "SOPClassUID":
        return "derived from the job" if len({str(value) for value in held}) == objects else "derived from the version"
    texts = {} if vr in ("OB", "OW") else dict.fromkeys(_text(value) for value in held)
    if len(texts) in (1, 2) and all(len(text) <= _SHORT for text in texts) and not (vr == "US" and len(texts) == 2):
        return " or ".join(f"`{text}`" if text else "empty" for text in texts)
    return "generated by the node"


def _text(value: Any) -> str:
    many = value if not isinstance(value, str | bytes) and hasattr(value, "__iter__") else [value]
    return "\\".join(str(one) for one in many)


def content(samples: Sequence[dict[str, Dataset]]) -> str:
    """The content tree of the report: concepts, value types and templates; items alike are written once."""
    root = samples[0]["sr"]
    return "\n".join(["```text", *_tree(root, 0), "```"])


def _tree(item: Dataset, depth: int) -> Iterator[str]:
    template = ""
    if "ContentTemplateSequence" in item:
        template = f"  TID {item.ContentTemplateSequence[0].TemplateIdentifier}"
    relation = f"{item.RelationshipType}: " if "RelationshipType" in item else ""
    concept = _concept(item.ConceptNameCodeSequence[0]) if "ConceptNameCodeSequence" in item else "(no concept name)"
    yield f"{'  ' * depth}{relation}{item.ValueType} {concept}{template}"
    seen: set[tuple[str, ...]] = set()
    for child in item.get("ContentSequence", ()):
        lines = tuple(_tree(child, depth + 1))
        if lines not in seen:
            yield from lines
        seen.add(lines)


def _concept(code: Dataset) -> str:
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def ai_results(samples: Sequence[dict[str, Dataset]]) -> str:
    """What IHE AI Results asks, line by line."""
    return table(["the profile asks", "the node sends", "met"], lines(samples))


def terms(_: Sequence[dict[str, Dataset]]) -> str:
    """Every code that results are written with."""
    found: list[tuple[str, Code]] = []
    for name, value in vars(codes).items():
        values = value.values() if isinstance(value, dict) else [value]
        found += [(name, code) for code in values if isinstance(code, Code) and not name.startswith("_")]
    rows = [
        [f"`{code.value}`", code.scheme_designator, code.meaning, name.replace("_", " ").lower()]
        for name, code in dict.fromkeys(found)
    ]
    return table(["code", "scheme", "meaning", "used as"], sorted(rows, key=lambda row: (row[1], row[0])))


MAKERS: dict[str, Callable[[Sequence[dict[str, Dataset]]], str]] = {
    "overview": overview,
    "accepted": accepted,
    "proposed": proposed,
    "implementation": implementation,
    "parameters": parameters,
    "content": content,
    "ai results": ai_results,
    "terms": terms,
    **{f"attributes {kind}": attributes(kind) for kind in RESULTS},
}


def filled(page: str, samples: Sequence[dict[str, Dataset]]) -> str:
    """The page with every table as the code has it now."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- made: {match[1]} -->\n\n{MAKERS[match[1]](samples)}\n\n<!-- end -->"

    return re.sub(r"<!-- made: ([a-z ]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), made()))
