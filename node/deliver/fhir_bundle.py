"""How does a report read in FHIR R4? A DiagnosticReport with its Observations, in one transaction."""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from node.ledger.records import Json
from node.settings.destinations import FhirDestination
from node.text import one_line
from pipeline.findings import Findings, Lesion, LesionOrigin, read_findings, wording
from pipeline.results.codes import DIAMETER, LATERALITY, LOCATIONS, PROBABILITY, VOLUME

from .report_lines import ReportLine, change, quality, summary, verification

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
    """Make the transaction of a report (:mod:`node.deliver.report`); the same report makes the same one.

    Every resource has an identifier that comes from the study, and is written by a conditional update: sent again it is
    the same resource, and a later result takes the place of an earlier one.
    """
    findings = read_findings(report["findings"])
    parts = (
        _device(findings),
        _microbleeds(report, findings, settings),
        _distribution(report, findings, settings),
        _change(report, findings, settings),
        _quality(report, findings, settings),
        _diagnostic_report(report, findings, settings),
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


def _device_value(findings: Findings) -> str:
    return one_line(f"{findings.software} {findings.profile}")


def _device(findings: Findings) -> Json:
    """The software: one Device for each version and profile, shared by all their results."""
    return {
        "resourceType": "Device",
        "identifier": [{"system": IDENTIFIERS, "value": _device_value(findings)}],
        "status": "active",
        "deviceName": [{"name": "cmb-node", "type": "model-name"}],
        "version": [{"value": one_line(findings.software)}],
        "type": {"text": "Software that finds cerebral microbleeds in susceptibility-weighted MR images"},
        "note": [{"text": f"{wording.RESEARCH_ONLY}. Profile {one_line(findings.profile)}."}],
    }


def _diagnostic_report(report: Json, findings: Findings, settings: FhirDestination) -> Json:
    study, verified = report["study"], findings.verification
    names = ("microbleeds", "distribution", "change", "quality")
    resource: Json = {
        "resourceType": "DiagnosticReport",
        **_head(report, settings, "report", "CMB", "Cerebral microbleeds on SWI"),
        "category": [{"coding": [{"system": _SECTION, "code": "RAD", "display": "Radiology"}]}],
        "issued": verified.at.isoformat() if verified else str(report["issued"]),
        "result": [{"reference": _full_url(_value(report, name))} for name in names],
        "imagingStudy": [_imaging_study(study)],
        "conclusion": one_line(
            f"{wording.impression(findings)} {wording.not_assessed(findings)}. {verification(findings)}. "
            f"{wording.RESEARCH_ONLY}."
        ),
    }
    if study["accession_number"].strip():
        resource["basedOn"] = [_order(study, settings)]
    if verified is not None:
        resource["resultsInterpreter"] = [{"display": one_line(wording.reader(findings))}]
        if verified.organisation:
            resource["performer"] = [{"display": one_line(verified.organisation)}]
    return resource


def _imaging_study(study: Json) -> Json:
    uid = {"system": DICOM_UID, "value": f"urn:oid:{study['study_instance_uid']}"}
    return {"type": "ImagingStudy", "identifier": uid}


def _order(study: Json, settings: FhirDestination) -> Json:
    identifier = {
        "type": {"coding": [{"system": _IDENTIFIER_TYPE, "code": "ACSN"}]},
        "system": settings.accession_system,
        "value": one_line(study["accession_number"]),
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
    patient_id = one_line(study["patient_id"])
    if not patient_id:
        return {}
    if settings.find_patient:
        query = urlencode({"identifier": f"{settings.patient_system}|{patient_id}"})
        return {"reference": f"Patient?{query}"}
    name = one_line(wording.person_name(study["patient_name"]))
    identifier = {"system": settings.patient_system, "value": patient_id}
    return {"type": "Patient", "identifier": identifier, **({"display": name} if name else {})}


def _observation(report: Json, findings: Findings, settings: FhirDestination, name: str, code: str, text: str) -> Json:
    return {
        "resourceType": "Observation",
        **_head(report, settings, name, code, text),
        "category": [{"coding": [{"system": _CATEGORY, "code": "imaging"}]}],
        "device": {"reference": _full_url(_device_value(findings))},
    }


def _microbleeds(report: Json, findings: Findings, settings: FhirDestination) -> Json:
    """The counts; the microbleeds are contained resources, because they mean nothing without this result."""
    total, *rest = summary(findings)
    observation = {
        **_observation(report, findings, settings, "microbleeds", total.code, total.name),
        "valueInteger": total.value,
        "component": [_component(line) for line in rest],
        "derivedFrom": [_imaging_study(report["study"])],
    }
    if findings.lesions:
        observation["contained"] = [_lesion(lesion, findings, report["status"]) for lesion in findings.lesions]
        observation["hasMember"] = [{"reference": f"#lesion-{lesion.id}"} for lesion in findings.lesions]
    return observation


def _lesion(lesion: Lesion, findings: Findings, status: str) -> Json:
    where = ", ".join(f"{value:.1f}" for value in lesion.centroid_lps_mm)
    components = [_measure(DIAMETER, lesion.diameter_mm, "mm"), _measure(VOLUME, lesion.volume_mm3, "mm3")]
    if lesion.origin is LesionOrigin.DETECTED:
        components.append(_measure(PROBABILITY, wording.stated_probability(lesion), "1"))
    components.append(_component(ReportLine("POSITION", "Centre, DICOM patient coordinates (LPS), mm", where)))
    if trend := wording.trend(lesion, findings.change):
        components.append(_component(ReportLine("TREND", "Change since the prior study", trend)))
    return {
        "resourceType": "Observation",
        "id": f"lesion-{lesion.id}",
        "status": status,
        "code": _concept("LESION", "Microbleed"),
        "bodySite": _site(lesion),
        "valueCodeableConcept": _concept(lesion.certainty.name, lesion.certainty.value),
        "component": components,
        "note": [{"text": f"{lesion.id}: {wording.lesion_line(lesion, findings.change)}"}],
        "identifier": [{"system": DICOM_UID, "value": f"urn:oid:{lesion.tracking_uid}"}],
    }


def _site(lesion: Lesion) -> Json:
    """Where a microbleed lies, coded as in the DICOM report."""
    found = (LOCATIONS.get(lesion.location or ""), LATERALITY.get(lesion.side or ""))
    coding = [_coding(code) for code in found if code is not None]
    return {**({"coding": coding} if coding else {}), "text": wording.place(lesion)}


def _measure(code: Any, value: float, unit: str) -> Json:
    quantity = {"value": round(value, 3), "unit": unit, "system": _UCUM, "code": unit}
    return {"code": {"coding": [_coding(code)], "text": code.meaning}, "valueQuantity": quantity}


def _distribution(report: Json, findings: Findings, settings: FhirDestination) -> Json:
    """The region and side table: two components a row."""
    components = [
        _component(ReportLine(f"PLACE_{certainty.upper()}", f"{wording.place(row.place)}, {certainty}", count))
        for row in findings.summary.regions
        for certainty, count in (("definite", row.definite), ("possible", row.possible))
    ]
    observation = _observation(report, findings, settings, "distribution", "PLACE", "Microbleeds by place")
    return {**observation, **({"component": components} if components else {"valueString": wording.counts(findings)})}


def _change(report: Json, findings: Findings, settings: FhirDestination) -> Json:
    """The comparison with the prior study, also when there is none: a former one must not remain."""
    observation = _observation(report, findings, settings, "change", "CHANGE", "Change over time")
    if findings.change is None or not findings.change.assessed:
        return {**observation, "dataAbsentReason": {"text": one_line(wording.changes(findings.change))}}
    return {**observation, "component": [_component(line) for line in change(findings)]}


def _quality(report: Json, findings: Findings, settings: FhirDestination) -> Json:
    observation = _observation(report, findings, settings, "quality", "QUALITY", "Image quality and warnings")
    return {**observation, "component": [_component(line) for line in quality(findings)]}


def _component(line: ReportLine) -> Json:
    code = _concept(line.code, line.name)
    if isinstance(line.value, str):
        return {"code": code, "valueString": one_line(line.value) or "-"}
    if isinstance(line.value, int):
        return {"code": code, "valueInteger": line.value}
    unit = line.unit or "1"
    return {"code": code, "valueQuantity": {"value": line.value, "unit": unit, "system": _UCUM, "code": unit}}


def _concept(code: str, text: str) -> Json:
    return {"coding": [{"system": CODES, "code": code}], "text": one_line(text)}


def _coding(code: Any) -> Json:
    """A DICOM code as FHIR has it."""
    return {"system": SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}
