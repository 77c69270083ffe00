"""How are the node's results searched by QIDO-RS? (PS3.18 10.6)"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydicom.datadict import keyword_for_tag

from node.ledger.access_records import AuditAction
from node.web.auth import address_of

from .media_types import DICOM_JSON, require_json
from .results import (
    INSTANCE_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    Json,
    ResultInstance,
    result_studies,
    tag_of,
)
from .services import DicomWebClient, DicomWebServices, RetrievingClient, Shared

MOST_RESULTS, USUAL_RESULTS = 1000, 100
MATCHED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "PatientID",
    "PatientName",
    "AccessionNumber",
    "StudyDate",
    "Modality",
    "ModalitiesInStudy",
)
"""The attributes that a search can match."""
_CONTROLS = ("includefield", "fuzzymatching")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")

router = APIRouter()


@dataclass(frozen=True)
class ResultQuery:
    """A search: what must match, and which part of the answers is wanted."""

    match: Mapping[str, str] = field(default_factory=dict)
    limit: int = USUAL_RESULTS
    offset: int = 0

    @classmethod
    def read(cls, request: Request, **within: str) -> ResultQuery:
        """Read the query of an address; `within` are the UIDs in its path.

        Raises
        ------
        HTTPException
            400: it names an attribute that is not matched, or a malformed number.
        """
        match, numbers = dict(within), {"limit": USUAL_RESULTS, "offset": 0}
        for name, value in request.query_params.multi_items():
            keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
            if name in numbers:
                if not value.isdecimal() or len(value) > 9:
                    raise HTTPException(400, f"{name} is not a number.")
                numbers[name] = int(value)
            elif keyword in MATCHED and within.get(keyword, value) == value:
                match[keyword] = value
            elif name not in _CONTROLS:
                words = f"A search cannot match {name[:64]}; it can match {', '.join(MATCHED)}."
                raise HTTPException(400, words)
        return cls({k: v for k, v in match.items() if v}, min(numbers["limit"], MOST_RESULTS), numbers["offset"])

    def select(self, study: list[ResultInstance]) -> list[ResultInstance]:
        """The objects of a study that match."""
        match = dict(self.match)
        modalities = match.pop("ModalitiesInStudy", "")
        if modalities and not any(_matches("Modality", modalities, one.text("Modality")) for one in study):
            return []
        return [one for one in study if all(_matches(name, value, one.text(name)) for name, value in match.items())]


def _matches(keyword: str, wanted: str, value: str) -> bool:
    """Single value, list of UIDs, range of dates, or wildcard matching (PS3.4 C.2.2.2)."""
    if keyword.endswith("UID"):
        return value in re.split(r"[,\\]", wanted)
    if keyword == "StudyDate":
        first, dash, last = wanted.partition("-")
        return first <= value <= (last or "99999999") if dash and value else value == wanted
    pattern = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in re.sub(r"\*+", "*", wanted))
    return re.fullmatch(pattern, value, re.IGNORECASE if keyword == "PatientName" else 0) is not None


@router.get("/studies")
def studies(request: Request, services: Shared, client: RetrievingClient) -> Response:
    """Studies with results."""
    return _search(request, services, client, ResultQuery.read(request), _study_items)


@router.get("/series")
def series(request: Request, services: Shared, client: RetrievingClient) -> Response:
    """Series of results."""
    return _search(request, services, client, ResultQuery.read(request), _series_items)


@router.get("/instances")
def instances(request: Request, services: Shared, client: RetrievingClient) -> Response:
    """Result objects."""
    return _search(request, services, client, ResultQuery.read(request), _instance_items)


@router.get("/studies/{study_uid}/series")
def series_of_study(request: Request, services: Shared, client: RetrievingClient, study_uid: str) -> Response:
    """Series of results of a study."""
    query = ResultQuery.read(request, StudyInstanceUID=study_uid)
    return _search(request, services, client, query, _series_items)


@router.get("/studies/{study_uid}/instances")
def instances_of_study(request: Request, services: Shared, client: RetrievingClient, study_uid: str) -> Response:
    """Result objects of a study."""
    query = ResultQuery.read(request, StudyInstanceUID=study_uid)
    return _search(request, services, client, query, _instance_items)


@router.get("/studies/{study_uid}/series/{series_uid}/instances")
def instances_of_series(
    request: Request, services: Shared, client: RetrievingClient, study_uid: str, series_uid: str
) -> Response:
    """Result objects of a series."""
    query = ResultQuery.read(request, StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
    return _search(request, services, client, query, _instance_items)


Items = Callable[[list[ResultInstance], list[ResultInstance], str], Iterator[Json]]
"""(all objects of a study, those that match, base address) → the answers about them."""


def _search(
    request: Request, services: DicomWebServices, client: DicomWebClient, query: ResultQuery, items: Items
) -> Response:
    require_json(request)
    detail = f"QIDO-RS {request.url.path}?{request.url.query}"[:300].rstrip("?")
    services.ledger.record_access(client.audit_name, AuditAction.LIST, detail=detail, address=address_of(request))
    uid, base = query.match.get("StudyInstanceUID", ""), base_address(request, services)
    one_study = "" if re.search(r"[,\\]", uid) else uid
    found = (
        item
        for study in result_studies(services, one_study)
        if (matching := query.select(study))
        for item in items(study, matching, base)
    )
    answers = list(islice(found, query.offset, query.offset + query.limit + 1))
    headers = {"Warning": f'299 {base} "There are more results: repeat with offset."'}
    more = len(answers) > query.limit
    return JSONResponse(answers[: query.limit], headers=headers if more else None, media_type=DICOM_JSON)


def base_address(request: Request, services: DicomWebServices) -> str:
    """The address of the services as the client knows it."""
    own = (services.settings.worklist.url or str(request.base_url)).rstrip("/")
    return own + "/" + request.url.path.lstrip("/").partition("/")[0]


def _study_items(study: list[ResultInstance], _matching: list[ResultInstance], base: str) -> Iterator[Json]:
    first = study[0]
    modalities = sorted({one.text("Modality") for one in study})
    yield _sorted(
        first.elements(STUDY_KEYWORDS)
        | _own(base, first.study_uid)
        | {
            tag_of("ModalitiesInStudy"): {"vr": "CS", "Value": modalities},
            tag_of("NumberOfStudyRelatedSeries"): _number(len({one.series_uid for one in study})),
            tag_of("NumberOfStudyRelatedInstances"): _number(len(study)),
        }
    )


def _series_items(study: list[ResultInstance], matching: list[ResultInstance], base: str) -> Iterator[Json]:
    for uid, group in groupby(sorted(matching, key=lambda one: one.series_uid), key=lambda one: one.series_uid):
        first = next(group)
        number = sum(one.series_uid == uid for one in study)
        yield _sorted(
            first.elements(("StudyInstanceUID", *SERIES_KEYWORDS))
            | _own(base, first.study_uid, uid)
            | {tag_of("NumberOfSeriesRelatedInstances"): _number(number)}
        )


def _instance_items(_study: list[ResultInstance], matching: list[ResultInstance], base: str) -> Iterator[Json]:
    for one in matching:
        yield _sorted(
            one.elements(("StudyInstanceUID", "SeriesInstanceUID", "Modality", *INSTANCE_KEYWORDS))
            | _own(base, one.study_uid, one.series_uid, one.text("SOPInstanceUID"))
        )


def _own(base: str, *uids: str) -> Json:
    """Where the object can be fetched, and that it can be fetched now."""
    steps = zip(("studies", "series", "instances"), uids, strict=False)
    url = "/".join([base, *(f"{level}/{uid}" for level, uid in steps)])
    return {
        tag_of("RetrieveURL"): {"vr": "UR", "Value": [url]},
        tag_of("InstanceAvailability"): {"vr": "CS", "Value": ["ONLINE"]},
    }


def _number(value: int) -> Json:
    return {"vr": "IS", "Value": [value]}


def _sorted(item: Json) -> Json:
    return dict(sorted(item.items()))
