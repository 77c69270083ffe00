"""How does a report read in FHIR R4? A DiagnosticReport with its Observations, in one transaction."""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from node.destination_settings import FhirDestination
from node.destinations.wording import (
    RESEARCH_ONLY,
    Line,
    added,
    change,
    impression,
    lesion,
    not_assessed,
    place,
    quality,
    reader,
    summary,
    verification,
)
from node.ledger.records import Json
from pipeline.results.codes import DIAMETER, LATERALITY, LOCATIONS, PROBABILITY, VOLUME

CODES: Final = "urn:cmb-node:codes"
IDENTIFIERS: Final = "urn:cmb-node:identifiers"
DICOM_UID: Final = "urn:dicom:uid"
SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UMLS": "http://www.nlm.nih.gov/research/umls",
}
_UCUM: Final = "http://unitsofmeasure.org"
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION: Final = "http://terminology.hl7.org/CodeSystem/v2-0074"
_IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"


def bundle(report: Json, settings: FhirDestination) -> Json:
    """Make the transaction of a report (:mod:`node.report`); the same report makes the same one.

    Every resource has an identifier that comes from the study, and is written by a conditional update: sent again it is
    the same resource, and a later result takes the place of an earlier one.
    """
    parts = (
        _device(report["findings"]),
        _microbleeds(report, settings),
        _distribution(report, settings),
        _change(report, settings),
        _quality(report, settings),
        _diagnostic_report(report, settings),
    )
    return {"resourceType": "Bundle", "type": "transaction", "entry": [_entry(part) for part in parts]}


def _entry(resource: Json) -> Json:
    identifier = resource["identifier"][0]
    query = urlencode({"identifier": f"{identifier['system']}|{identifier['value']}"})
    url = f"{resource['resourceType']}?{query}"
    return {"fullUrl": _full_url(identifier["value"]), "resource": resource, "request": {"method": "PUT", "url": url}}


def _full_url(identifier: str) -> str:
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{IDENTIFIERS}|{identifier}')}"


def _value(report: Json, name: str) -> str:
    return f"{report['study']['study_instance_uid']}.{name}"


def _device_value(findings: Json) -> str:
    return _text(f"{findings.get('software', '')} {findings.get('profile', '')}")


def _device(findings: Json) -> Json:
    """The software: one Device for each version and profile, shared by all their results."""
    return {
        "resourceType": "Device",
        "identifier": [{"system": IDENTIFIERS, "value": _device_value(findings)}],
        "status": "active",
        "deviceName": [{"name": "cmb-node", "type": "model-name"}],
        "version": [{"value": _text(findings.get("software", ""))}],
        "type": {"text": "Software that finds cerebral microbleeds in susceptibility-weighted MR images"},
        "note": [{"text": f"{RESEARCH_ONLY}. Profile {_text(findings.get('profile', ''))}."}],
    }


def _diagnostic_report(report: Json, settings: FhirDestination) -> Json:
    study, findings = report["study"], report["findings"]
    names = ("microbleeds", "distribution", "change", "quality")
    resource: Json = {
        "resourceType": "DiagnosticReport",
        **_head(report, settings, "report", "CMB", "Cerebral microbleeds on SWI"),
        "category": [{"coding": [{"system": _SECTION, "code": "RAD", "display": "Radiology"}]}],
        "issued": _verified_at(report),
        "result": [{"reference": _full_url(_value(report, name))} for name in names],
        "imagingStudy": [_imaging_study(study)],
        "conclusion": _text(
            f"{impression(report)} Not assessed: {not_assessed(findings)}. {verification(findings).capitalize()}. "
            f"{RESEARCH_ONLY}."
        ),
    }
    if study["accession_number"].strip():
        resource["basedOn"] = [_order(study, settings)]
    if by := findings.get("verification"):
        resource["resultsInterpreter"] = [{"display": _text(reader(by))}]
        if by.get("organisation"):
            resource["performer"] = [{"display": _text(by["organisation"])}]
    return resource


def _verified_at(report: Json) -> str:
    by = report["findings"].get("verification")
    return str(by["at"] if by else report["issued"])


def _imaging_study(study: Json) -> Json:
    uid = {"system": DICOM_UID, "value": f"urn:oid:{study['study_instance_uid']}"}
    return {"type": "ImagingStudy", "identifier": uid}


def _order(study: Json, settings: FhirDestination) -> Json:
    identifier = {
        "type": {"coding": [{"system": _IDENTIFIER_TYPE, "code": "ACSN"}]},
        "system": settings.accession_system,
        "value": _text(study["accession_number"]),
    }
    return {"type": "ServiceRequest", "identifier": identifier}


def _head(report: Json, settings: FhirDestination, name: str, code: str, text: str) -> Json:
    """What reports and observations begin with."""
    study = report["study"]
    head: Json = {
        "identifier": [{"system": IDENTIFIERS, "value": _value(report, name)}],
        "status": report["status"],
        "code": _concept(code, text),
    }
    if patient := _patient(study, settings):
        head["subject"] = patient
    with contextlib.suppress(ValueError):
        head["effectiveDateTime"] = datetime.strptime(study["study_date"].strip(), "%Y%m%d").date().isoformat()
    return head


def _patient(study: Json, settings: FhirDestination) -> Json:
    patient_id = _text(study["patient_id"])
    if not patient_id:
        return {}
    if settings.find_patient:
        query = urlencode({"identifier": f"{settings.patient_system}|{patient_id}"})
        return {"reference": f"Patient?{query}"}
    name = ", ".join(part for part in study["patient_name"].split("=")[0].split("^")[:2] if part.strip())
    identifier = {"system": settings.patient_system, "value": patient_id}
    return {"type": "Patient", "identifier": identifier, **({"display": _text(name)} if _text(name) else {})}


def _observation(report: Json, settings: FhirDestination, name: str, code: str, text: str) -> Json:
    return {
        "resourceType": "Observation",
        **_head(report, settings, name, code, text),
        "category": [{"coding": [{"system": _CATEGORY, "code": "imaging"}]}],
        "device": {"reference": _full_url(_device_value(report["findings"]))},
    }


def _microbleeds(report: Json, settings: FhirDestination) -> Json:
    """The counts; the bleeds are contained, for they live and die with this result."""
    findings = report["findings"]
    total, *rest = summary(findings)
    observation = {
        **_observation(report, settings, "microbleeds", total.code, total.name),
        "valueInteger": total.value,
        "component": [_component(line) for line in rest],
        "derivedFrom": [_imaging_study(report["study"])],
    }
    if findings["lesions"]:
        observation["contained"] = [_lesion(one, report) for one in findings["lesions"]]
        observation["hasMember"] = [{"reference": f"#lesion-{one['id']}"} for one in findings["lesions"]]
    return observation


def _lesion(one: Json, report: Json) -> Json:
    components = [_measure(DIAMETER, one.get("diameter_mm"), "mm"), _measure(VOLUME, one.get("volume_mm3"), "mm3")]
    if not added(one):
        components.append(_measure(PROBABILITY, one.get("probability"), "1"))
    if one.get("centroid_lps_mm"):
        where = ", ".join(f"{value:.1f}" for value in one["centroid_lps_mm"])
        components.append(_component(Line("POSITION", "Centre, DICOM patient coordinates (LPS), mm", where)))
    if one.get("trend"):
        components.append(_component(Line("TREND", "Since the earlier study", one["trend"])))
    observation = {
        "resourceType": "Observation",
        "id": f"lesion-{one['id']}",
        "status": report["status"],
        "code": _concept("LESION", "Microbleed"),
        "bodySite": _site(one),
        "valueCodeableConcept": _concept(one["certainty"].upper(), one["certainty"]),
        "component": [component for component in components if component is not None],
        "note": [{"text": _text(lesion(one))}],
    }
    if one.get("tracking_uid"):
        observation["identifier"] = [{"system": DICOM_UID, "value": f"urn:oid:{one['tracking_uid']}"}]
    return observation


def _site(one: Json) -> Json:
    """Where a bleed lies, coded as in the DICOM report."""
    found = (LOCATIONS.get(one.get("location") or ""), LATERALITY.get(one.get("side") or ""))
    coding = [_coding(code) for code in found if code is not None]
    return {**({"coding": coding} if coding else {}), "text": place(one)}


def _measure(code: Any, value: float | None, unit: str) -> Json | None:
    if value is None:
        return None
    quantity = {"value": round(float(value), 3), "unit": unit, "system": _UCUM, "code": unit}
    return {"code": {"coding": [_coding(code)], "text": code.meaning}, "valueQuantity": quantity}


def _distribution(report: Json, settings: FhirDestination) -> Json:
    """The region and side table: two components a row."""
    rows = (report["findings"].get("summary") or {}).get("regions") or []
    components = [
        _component(Line(f"PLACE_{certainty.upper()}", f"{place(row)}, {certainty}", row[certainty]))
        for row in rows
        for certainty in ("definite", "possible")
    ]
    observation = _observation(report, settings, "distribution", "PLACE", "Microbleeds by place")
    return {**observation, **({"component": components} if components else {"valueString": "no microbleed"})}


def _change(report: Json, settings: FhirDestination) -> Json:
    """The comparison with the earlier study, also when there is none: an older one must not stay."""
    told = change(report["findings"])
    observation = _observation(report, settings, "change", "CHANGE", "Change over time")
    if len(told) < 3:
        return {**observation, "dataAbsentReason": {"text": _text("; ".join(f"{x.name}: {x.value}" for x in told))}}
    return {**observation, "component": [_component(line) for line in told]}


def _quality(report: Json, settings: FhirDestination) -> Json:
    told = quality(report["findings"])
    observation = _observation(report, settings, "quality", "QUALITY", "Image quality and warnings")
    if not told:
        return {**observation, "valueString": "no warning"}
    return {**observation, "component": [_component(line) for line in told]}


def _component(line: Line) -> Json:
    code = _concept(line.code, line.name)
    if isinstance(line.value, str):
        return {"code": code, "valueString": _text(line.value) or "-"}
    if isinstance(line.value, int):
        return {"code": code, "valueInteger": line.value}
    unit = line.unit or "1"
    return {"code": code, "valueQuantity": {"value": line.value, "unit": unit, "system": _UCUM, "code": unit}}


def _concept(code: str, text: str) -> Json:
    return {"coding": [{"system": CODES, "code": code}], "text": _text(text)}


def _coding(code: Any) -> Json:
    """A DICOM code as FHIR has it."""
    return {"system": SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}


def _text(value: str) -> str:
    """Text that FHIR takes as a string: no control characters, nothing around it."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in value).strip()
