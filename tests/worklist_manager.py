"""A worklist manager for the tests: UPS-RS of PS3.18 chapter 11 with the rules of PS3.4 annex CC, and no leniency.

It knows nothing of the node. What it requires of a new item, of a change, of a change of state and before a final state
is read from the columns of PS3.4 table CC.2.5-3 and the transitions of table CC.1.1-2.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from tests.node.web_service import Request, Response, Web, web

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
JSON = "application/dicom+json"
# Table CC.2.5-3, column N-CREATE
REQUIRED = (
    "ScheduledProcedureStepPriority", "ProcedureStepLabel", "ScheduledProcedureStepStartDateTime",
    "InputReadinessState", "ProcedureStepState",
)  # fmt: skip
PRESENT = (
    "TransactionUID", "WorklistLabel", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence", "PatientName",
    "PatientID", "OtherPatientIDsSequence", "PatientBirthDate", "PatientSex", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence", "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence", "StudyInstanceUID",
)  # fmt: skip
EMPTY = (
    "TransactionUID", "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence",
)  # fmt: skip
OF_REQUEST = (
    "StudyInstanceUID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)  # fmt: skip
# Column N-SET
NOT_CHANGED = (
    "SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "AdmissionID", "ReferencedRequestSequence", "ReplacedProcedureStepSequence",
    "ScheduledProcedureStepModificationDateTime",
)  # fmt: skip
# Column "final state": P for COMPLETED, X for CANCELED
PERFORMED = (
    "PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepEndDateTime",
)  # fmt: skip
CANCELLED = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")
RETRIEVAL = ("DICOMRetrievalSequence", "WADORSRetrievalSequence", "WADORetrievalSequence", "XDSRetrievalSequence")


class _RefusedError(Exception):
    def __init__(self, status: int, warning: str) -> None:
        super().__init__(warning)
        self.status, self.warning = status, warning


@dataclass
class ReferenceManager:
    """The worklist: work items by UID, and what was done to each, in order."""

    notes_cancel_requests: bool = False
    """Whether a request to cancel an item in progress is noted in it; the standard only has an event for it."""
    items: dict[str, Dataset] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def state(self, uid: str) -> str:
        return str(self.items[uid].ProcedureStepState)

    def steps(self, uid: str) -> list[str]:
        """What was done to an item: states, and the progress that was told."""
        return [step for one, step in self.done if one == uid]

    def answer(self, method: str, path: str, content: bytes = b"") -> Response:
        """Answer a request; the path is relative to the service."""
        place, _, query = path.partition("?")
        parts = place.strip("/").split("/")
        with self._turn:
            try:
                return self._answer(method, parts, query, _parse(content))
            except _RefusedError as refused:
                self.refusals.append(f"{method} {path}: {refused.warning}")
                return Response(refused.status, headers={"Warning": f"299 manager: {refused.warning}"})

    def _answer(self, method: str, parts: list[str], query: str, given: Dataset) -> Response:
        if parts[0] != "workitems" or len(parts) > 3:
            raise _RefusedError(404, "no such resource")
        match (method, *parts[1:]):
            case ("POST",):
                return self._create(query, given)
            case ("GET",):
                return self._search(query)
            case ("GET", uid):
                return _found([self._item(uid)])
            case ("POST", uid):
                return self._update(self._item(uid), uid, query, given)
            case ("PUT", uid, "state"):
                return self._change_state(self._item(uid), uid, given)
            case ("POST", uid, "cancelrequest"):
                return self._request_cancellation(self._item(uid), uid, given)
        raise _RefusedError(405, "no such transaction")

    def _item(self, uid: str) -> Dataset:
        if uid not in self.items:
            raise _RefusedError(404, "the target workitem was not found")
        return self.items[uid]

    def schedule(self, item: Dataset) -> str:
        """Schedule an item, as a department's own system would."""
        answer = self.answer("POST", f"/workitems?{item.SOPInstanceUID}", json.dumps([item.to_json_dict()]).encode())
        assert answer.status == 201, answer.headers
        return str(item.SOPInstanceUID)

    def _create(self, query: str, given: Dataset) -> Response:
        uid = query.removeprefix("workitem=") or str(given.get("SOPInstanceUID", ""))
        if not uid or str(given.get("SOPInstanceUID", uid)) != uid:
            raise _RefusedError(400, "there is no workitem UID, or there are two")
        if uid in self.items:
            raise _RefusedError(409, "the target workitem already exists")
        _require(given.get("SOPClassUID") == UPS_PUSH, "the SOP class is not UPS Push")
        _require(all(given.get(name) for name in REQUIRED), f"needs values: {REQUIRED}")
        missing = [name for name in PRESENT if name not in given]
        _require(not missing, f"lacks {missing}")
        _require(not any(given.get(name) for name in EMPTY), f"must be empty: {EMPTY}")
        _require(given.ProcedureStepState == "SCHEDULED", "The provided value of UPS State was not SCHEDULED.")
        _require("ScheduledProcedureStepModificationDateTime" not in given, "the modification time is the manager's")
        for request in given.ReferencedRequestSequence:
            _require(all(name in request for name in OF_REQUEST), f"a request needs {OF_REQUEST}")
        _check_references(given.InputInformationSequence)
        _check_codes(given)
        given.SOPInstanceUID = uid
        del given.TransactionUID
        self.items[uid] = given
        self._note(uid, "SCHEDULED")
        return Response(201, headers={"Location": f"/workitems/{uid}"})

    def _update(self, item: Dataset, uid: str, query: str, given: Dataset) -> Response:
        state, transaction = item.ProcedureStepState, query.removeprefix("transaction-uid=")
        _require(state not in ("COMPLETED", "CANCELED"), "The submitted request is inconsistent with the current state")
        if state == "SCHEDULED" and transaction:
            raise _RefusedError(409, "The target URI did not reference a claimed Workitem.")
        if state == "IN PROGRESS":
            self._check_transaction(uid, transaction)
            self._check_transaction(uid, str(given.get("TransactionUID", "")))
        _require(not [name for name in NOT_CHANGED if name in given], f"cannot be changed: {NOT_CHANGED}")
        for performed in given.get("UnifiedProcedureStepPerformedProcedureSequence") or ():
            _require("OutputInformationSequence" in performed, "lacks the Output Information Sequence")
            _check_references(performed.OutputInformationSequence)
        _check_codes(given)
        for element in given:
            if element.keyword != "TransactionUID":
                item[element.tag] = element  # a sequence is replaced as a whole
        for progress in given.get("ProcedureStepProgressInformationSequence") or ():
            self._note(uid, f"progress: {progress.get('ProcedureStepProgressDescription', '')}")
        return Response(200)

    def _change_state(self, item: Dataset, uid: str, given: Dataset) -> Response:
        wanted, now = str(given.get("ProcedureStepState", "")), str(item.ProcedureStepState)
        transaction = str(given.get("TransactionUID", "") or "")
        _require(transaction != "", "The Transaction UID is missing.")
        if wanted not in ("IN PROGRESS", "COMPLETED", "CANCELED"):
            raise _RefusedError(400, "The UPS may only become SCHEDULED via N-CREATE")
        if wanted == "IN PROGRESS":
            if now != "SCHEDULED":
                raise _RefusedError(409, f"The UPS is already {now}.")
            self.transactions[uid] = transaction
            self._set(item, uid, wanted)
            return Response(200)
        if now == "SCHEDULED":
            raise _RefusedError(409, "The UPS is not yet in the IN PROGRESS state.")
        if now == wanted:
            return Response(
                200, headers={"Warning": f"299 manager: The UPS is already in the requested state of {now}."}
            )
        if now != "IN PROGRESS":
            raise _RefusedError(409, "The submitted request is inconsistent with the state of the UPS Instance.")
        self._check_transaction(uid, transaction)
        if lacking := _lacking(item, wanted):
            raise _RefusedError(409, f"The UPS has not met final state requirements: {lacking}")
        self._set(item, uid, wanted)
        return Response(200)

    def _check_transaction(self, uid: str, transaction: str) -> None:
        _require(transaction != "", "The Transaction UID is missing.")
        _require(transaction == self.transactions[uid], "The Transaction UID is incorrect.")

    def request_cancellation(self, uid: str, reason: str) -> Response:
        """Request what a person at the manager requests."""
        request = Dataset()
        request.ReasonForCancellation = reason
        return self.answer("POST", f"/workitems/{uid}/cancelrequest", json.dumps([request.to_json_dict()]).encode())

    def _request_cancellation(self, item: Dataset, uid: str, given: Dataset) -> Response:
        state = item.ProcedureStepState
        if state == "COMPLETED":
            raise _RefusedError(409, "The UPS is already COMPLETED.")
        if state == "CANCELED":
            return Response(
                202, headers={"Warning": "299 manager: The UPS is already in the requested state of CANCELED."}
            )
        if state == "IN PROGRESS" and not self.notes_cancel_requests:
            raise _RefusedError(409, "The performer cannot be contacted.")
        progress = Dataset()
        progress.ReasonForCancellation = given.get("ReasonForCancellation", "")
        item.ProcedureStepProgressInformationSequence = [progress]
        if state == "SCHEDULED":  # the manager cancels it itself (CC.2.2.3)
            progress.ProcedureStepCancellationDateTime = "20260101000000+0000"
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator = "110513", "DCM"
            code.CodeMeaning = "Discontinued for unspecified reason"
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [code]
            self._set(item, uid, "IN PROGRESS")
            self._set(item, uid, "CANCELED")
        return Response(202)

    def _search(self, query: str) -> Response:
        found = list(self.items.values())
        limit, offset = len(found), 0
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name == "limit":
                limit = int(value)
            elif name == "offset":
                offset = int(value)
            elif name not in ("includefield", "fuzzymatching"):
                found = [item for item in found if value in _values(item, name.split("."))]
        page = found[offset : offset + limit]
        return _found(page) if page else Response(204)

    def _set(self, item: Dataset, uid: str, state: str) -> None:
        item.ProcedureStepState = state
        self._note(uid, state)

    def _note(self, uid: str, step: str) -> None:
        self.done.append((uid, step))


def _parse(content: bytes) -> Dataset:
    if not content:
        return Dataset()
    try:
        document = json.loads(content)
        return Dataset.from_json(document[0] if isinstance(document, list) else document)
    except Exception as error:
        raise _RefusedError(400, f"not DICOM JSON: {error}") from error


def _found(items: list[Dataset]) -> Response:
    return Response(200, json.dumps([item.to_json_dict() for item in items]).encode(), JSON)


def _require(fine: bool, otherwise: str) -> None:
    if not fine:
        raise _RefusedError(400, otherwise)


def _check_references(items: Any) -> None:
    """The Referenced Instances and Access Macro."""
    for one in items:
        names = ("TypeOfInstances", "StudyInstanceUID", "SeriesInstanceUID", "ReferencedSOPSequence")
        _require(all(one.get(name) for name in names), f"a reference needs {names}")
        _require(any(one.get(name) for name in RETRIEVAL), "a reference does not say where to retrieve")
        for instance in one.ReferencedSOPSequence:
            named = instance.get("ReferencedSOPClassUID") and instance.get("ReferencedSOPInstanceUID")
            _require(bool(named), "a reference names no instance")


def _check_codes(ds: Dataset) -> None:
    for element in ds.iterall():
        if element.VR == "SQ" and element.keyword.endswith("CodeSequence"):
            for code in element.value:
                whole = code.get("CodeValue") and code.get("CodeMeaning") and code.get("CodingSchemeDesignator")
                _require(bool(whole), f"an incomplete code in {element.keyword}")


def _lacking(item: Dataset, state: str) -> list[str]:
    if state == "CANCELED":
        (progress, *_) = item.ProcedureStepProgressInformationSequence or [Dataset()]
        return [name for name in CANCELLED if not progress.get(name)]
    performed = item.UnifiedProcedureStepPerformedProcedureSequence
    if not performed:
        return ["UnifiedProcedureStepPerformedProcedureSequence"]
    return [name for name in PERFORMED if not performed[0].get(name)]


def _values(ds: Dataset, path: list[str]) -> list[str]:
    """The values at a path of keywords or tags."""
    name, *rest = path
    keyword = keyword_for_tag(int(name, 16)) if len(name) == 8 and name.isalnum() and name[0].isdigit() else name
    value = ds.get(keyword)
    if rest:
        return [one for item in value or () for one in _values(item, rest)]
    return [str(value)]


@contextmanager
def run_manager(manager: ReferenceManager, token: str = "", port: int = 0) -> Iterator[Web]:
    """Serve a worklist over real HTTP until the block ends; with a token, only to those that show it."""

    def answer(request: Request) -> Response:
        if token and request.headers.get("authorization") != f"Bearer {token}":
            return Response(401, b"who are you?", "text/plain")
        if request.content and request.headers.get("content-type") != JSON:
            return Response(415)
        return manager.answer(request.method, request.path.removeprefix("/api"), request.content)

    with web(answer, port) as served:
        yield served
