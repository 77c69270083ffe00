"""FHIR R4: what is sent validates, arrives once, and the server's outcome is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from node.deliver import SendResult, Unreachable, open_destination
from node.deliver.fhir import judge
from node.deliver.fhir_bundle import bundle
from node.deliver.http import ServiceResponse
from node.settings.destinations import FhirDestination
from pipeline.findings import Placement
from tests.node.reports import STUDY_UID, findings, lesion, longitudinal, report, verified, write
from tests.node.web_service import Request, Response, web

FHIR_JSON = "application/fhir+json"
TO = FhirDestination(kind="fhir", url="http://ehr/fhir", patient_system="urn:oid:1.2.3", accession_system="urn:acc")


class Server:
    """A FHIR server that knows transactions of conditional updates."""

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}

    def __call__(self, request: Request) -> Response:
        transaction = Bundle.model_validate_json(request.content)
        assert (request.headers["content-type"].partition(";")[0], transaction.type) == (FHIR_JSON, "transaction")
        entries = [self._update(entry) for entry in transaction.entry]
        answer = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
        return Response(200, json.dumps(answer).encode(), FHIR_JSON)

    def _update(self, entry: Any) -> dict[str, Any]:
        split = urlsplit(entry.request.url)
        key = f"{split.path}?{parse_qs(split.query)['identifier'][0]}"
        status = "200 OK" if key in self.resources else "201 Created"
        self.resources[key] = json.loads(entry.resource.model_dump_json())
        return {"response": {"status": status}}


def send(path: Path, url: str, **more: Any) -> SendResult:
    answers: list[SendResult] = []
    to = FhirDestination(kind="fhir", url=url, **more)
    open_destination(to, "CMBNODE").send([path], answers.append)
    return answers[0]


def resources(made: Any, kind: str) -> list[Any]:
    return [entry["resource"] for entry in made["entry"] if entry["resource"]["resourceType"] == kind]


def observation(made: Any, code: str) -> Any:
    return next(o for o in resources(made, "Observation") if o["code"]["coding"][0]["code"] == code)


def components(made: Any, code: str) -> dict[str, Any]:
    told = observation(made, code).get("component", [])
    return {
        part["code"]["coding"][0]["code"]: next(value for name, value in part.items() if name.startswith("value"))
        for part in told
    }


VARIANTS = {
    "longitudinal": longitudinal(),
    "nothing": findings(),
    "sixty": findings(*(lesion(n) for n in range(1, 61))),
    "unplaced": findings(lesion(1, region=None, location=None, side=None), placement=Placement(False, "poor fit")),
    "no warnings": findings(lesion(1), warnings=(), image_quality=None),
    "verified": verified(longitudinal()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_valid_fhir(variant: str) -> None:
    status = "final" if variant == "verified" else "preliminary"
    parsed = Bundle.model_validate_json(json.dumps(bundle(report(VARIANTS[variant], status), TO)))
    assert {entry.resource.get_resource_type() for entry in parsed.entry} == {
        "Device",
        "DiagnosticReport",
        "Observation",
    }
    assert len({entry.fullUrl for entry in parsed.entry}) == len(parsed.entry)


def test_the_report_refers_to_patient_order_study_and_observations() -> None:
    made = bundle(report(), TO)
    (told,) = resources(made, "DiagnosticReport")
    assert told["status"] == "preliminary"
    assert told["subject"]["identifier"] == {"system": "urn:oid:1.2.3", "value": "P-1"}
    assert told["subject"]["display"] == "Dr. Jörg A Müller MD (山田 太郎)"
    assert told["basedOn"][0]["identifier"]["value"] == "ACC-7"
    assert told["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY_UID}"
    assert told["effectiveDateTime"] == "2026-03-01"
    known = {entry["fullUrl"] for entry in made["entry"]}
    assert {reference["reference"] for reference in told["result"]} < known
    assert observation(made, "TOTAL")["device"]["reference"] in known
    assert "RESEARCH USE ONLY" in told["conclusion"]
    assert "3 new" in told["conclusion"]


def test_the_change_over_time_is_an_observation() -> None:
    told = components(bundle(report(longitudinal()), TO), "CHANGE")
    assert (told["NEW"], told["STABLE"], told["GONE"], told["ARIA_H"]) == (3, 1, 1, "mild")
    alone = observation(bundle(report(findings()), TO), "CHANGE")
    assert "no prior study" in alone["dataAbsentReason"]["text"]
    assert "component" not in alone


def test_each_bleed_is_contained_with_site_side_and_measures() -> None:
    made = observation(bundle(report(longitudinal()), TO), "TOTAL")
    assert (made["valueInteger"], len(made["contained"])) == (4, 4)
    assert [f"#{one['id']}" for one in made["contained"]] == [member["reference"] for member in made["hasMember"]]
    fourth = made["contained"][3]
    assert [coding["code"] for coding in fourth["bodySite"]["coding"]] == ["42695009", "24028007"]
    assert fourth["valueCodeableConcept"]["text"] == "possible"
    assert {part["valueQuantity"]["code"] for part in fourth["component"] if "valueQuantity" in part} == {
        "mm",
        "mm3",
        "1",
    }


def test_a_verified_report_is_final_and_names_its_reader() -> None:
    (told,) = resources(bundle(report(verified(longitudinal(), "Rita"), "final"), TO), "DiagnosticReport")
    assert (told["status"], told["resultsInterpreter"]) == ("final", [{"display": "Rita"}])
    (again,) = resources(bundle(report(verified(longitudinal()), "corrected"), TO), "DiagnosticReport")
    assert again["status"] == "corrected"


def test_the_servers_own_patient_is_searched_for_when_asked() -> None:
    (told,) = resources(bundle(report(), TO.model_copy(update={"find_patient": True})), "DiagnosticReport")
    assert told["subject"] == {"reference": "Patient?identifier=urn%3Aoid%3A1.2.3%7CP-1"}
    (nobody,) = resources(bundle(report(patient_id=" "), TO), "DiagnosticReport")
    assert "subject" not in nobody


def test_sent_again_it_is_there_once_and_a_later_result_takes_its_place(tmp_path: Path) -> None:
    server = Server()
    with web(server) as service:
        first = send(write(tmp_path, given=longitudinal()), service.url)
        again = send(write(tmp_path, given=longitudinal()), service.url)
        later = send(write(tmp_path, given=verified(findings(lesion(1))), status="final", number=9), service.url)
    assert first.accepted
    assert first.answer == "accepted: 6 made, 0 updated"
    assert (again.answer, later.answer) == ("accepted: 0 made, 6 updated",) * 2
    assert len(server.resources) == 6
    (told,) = (r for r in server.resources.values() if r["resourceType"] == "DiagnosticReport")
    assert told["status"] == "final"
    total = next(
        r for r in server.resources.values() if r.get("code", {}).get("coding", [{}])[0].get("code") == "TOTAL"
    )
    assert len(total["contained"]) == 1


OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "not-found", "diagnostics": "no Patient\nwith this ID"}],
}
PARTLY = {"resourceType": "Bundle", "entry": [{"response": {"status": "412 Multiple"}}] * 6}
REFUSALS = [
    (Response(422, json.dumps(OUTCOME).encode(), FHIR_JSON), "422 Unprocessable Entity: error not-found no Pati"),
    (Response(404, b"<html>", "text/html"), "404 Not Found"),
    (Response(200, b"<html>sign in</html>", "text/html"), "without the outcome of the transaction"),
    (Response(200, b'{"resourceType": "Bundle", "entry": []}', FHIR_JSON), "without the outcome"),
    (Response(200, json.dumps(OUTCOME).encode(), FHIR_JSON), "no Patient with this ID"),
    (Response(302, b"", "text/html", {"Location": "http://127.0.0.1:1/"}), "302 Found"),
    (Response(200, json.dumps(PARTLY).encode(), FHIR_JSON), "refused in part: 412"),
]


@pytest.mark.parametrize(("response", "words"), REFUSALS)
def test_a_refusal_is_kept_in_the_servers_words(tmp_path: Path, response: Response, words: str) -> None:
    with web(lambda _request: response) as service:
        sent = send(write(tmp_path), service.url)
    assert not sent.accepted
    assert words in sent.answer


def test_a_server_that_is_out_of_order_is_unreachable(tmp_path: Path) -> None:
    with web(lambda _request: Response(503)) as service, pytest.raises(Unreachable, match="503"):
        send(write(tmp_path), service.url)


def test_the_token_goes_with_the_request(tmp_path: Path) -> None:
    with web(Server()) as service:
        assert send(write(tmp_path), service.url, token="t0ken").accepted
    assert service.requests[0].headers["authorization"] == "Bearer t0ken"
    assert service.requests[0].path == "/api"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}, ""),
        ({"resourceType": "CapabilityStatement", "fhirVersion": "3.0.2"}, "speaks FHIR 3.0.2"),
        ({"hello": "world"}, "without a CapabilityStatement"),
    ],
)
def test_echo_asks_which_fhir_is_spoken(content: Any, words: str) -> None:
    with web(lambda _request: Response(200, json.dumps(content).encode(), FHIR_JSON)) as service:
        destination = open_destination(FhirDestination(kind="fhir", url=service.url), "CMBNODE")
        if words:
            with pytest.raises(Unreachable, match=words):
                destination.check()
        else:
            assert destination.check() == "speaks FHIR 4.0.1"
    assert service.requests[0].path == "/api/metadata"


@settings(max_examples=25)
@given(st.text(max_size=30), st.text(max_size=10), st.text("0123456789", max_size=9), st.text(max_size=30))
def test_any_name_makes_valid_fhir(name: str, patient_id: str, date: str, warning: str) -> None:
    given_report = report(
        findings(lesion(1), warnings=(warning,)), patient_name=name, patient_id=patient_id, study_date=date
    )
    content = json.dumps(bundle(given_report, TO), ensure_ascii=False).encode("utf-8", "replace")
    assert len(Bundle.model_validate_json(content).entry) == 6


@given(st.binary(max_size=100))
def test_whatever_a_stranger_answers_is_no_acceptance(content: bytes) -> None:
    assert not judge(Path("x"), 6, ServiceResponse(200, FHIR_JSON, content)).accepted
