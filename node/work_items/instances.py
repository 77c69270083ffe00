"""Which instances does a work item refer to, and where are they? Its images, and the results of its job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom import Dataset, dcmread

from node.archive import Archive, is_uid
from node.ledger import Job, Ledger, ResultFile, WorkItemInput
from node.ledger.states import STORED
from node.settings import DicomDestination, Settings
from node.settings.destinations import StowDestination

from .datasets import LocatedInstance


def read_inputs(item: Dataset) -> tuple[WorkItemInput, ...]:
    """The images of the study that a work item is about; empty if it names none.

    Images of other studies, as earlier ones, are left out: the node finds those to compare with by its own rules.
    """
    named = [one for one in map(_input_of, item.get("InputInformationSequence") or ()) if one is not None]
    study = str(item.get("StudyInstanceUID") or "")
    if not named:
        return (WorkItemInput(study),) if is_uid(study) else ()
    if study not in {one.study_instance_uid for one in named}:
        study = named[0].study_instance_uid
    return tuple(one for one in named if one.study_instance_uid == study)


def _input_of(ds: Dataset) -> WorkItemInput | None:
    study, series = str(ds.get("StudyInstanceUID") or ""), str(ds.get("SeriesInstanceUID") or "")
    if ds.get("TypeOfInstances", "DICOM") != "DICOM" or not is_uid(study) or not (series == "" or is_uid(series)):
        return None
    uids = (str(one.get("ReferencedSOPInstanceUID") or "") for one in ds.get("ReferencedSOPSequence") or ())
    urls = (str(one.get("RetrieveURL") or "") for one in ds.get("WADORSRetrievalSequence") or ())
    return WorkItemInput(study, series, tuple(filter(is_uid, uids)), next(filter(None, urls), ""))


def has_code(item: Dataset, keyword: str, *terms: Any) -> bool:
    """Whether a code sequence of an item holds one of these terms, by value and coding scheme."""
    held = {
        (str(one.get("CodeValue") or ""), str(one.get("CodingSchemeDesignator") or ""))
        for one in item.get(keyword) or ()
    }
    return any(term is not None and (term[0], term[2]) in held for term in terms)


def input_references(ledger: Ledger, job: Job, ae_title: str) -> Iterator[LocatedInstance]:
    """The images that a job reads, and who sent them; `ae_title` stands for those that nobody sent."""
    senders = {one.series_instance_uid: one.calling_ae for one in ledger.series(job.study_instance_uid)}
    for image in ledger.job_images(job.id):
        series_uid = image.series_instance_uid
        location = (senders.get(series_uid) or ae_title,)
        yield LocatedInstance(job.study_instance_uid, series_uid, image.sop_class_uid, image.sop_instance_uid, location)


def output_references(ledger: Ledger, archive: Archive, settings: Settings, job: Job) -> list[LocatedInstance]:
    """The DICOM results of a job that a destination has accepted, with every destination that has."""
    accepted: dict[str, list[str]] = {}
    for delivery in ledger.deliveries(job.id):
        if delivery.state in STORED:
            accepted.setdefault(delivery.result.sop_instance_uid, []).append(delivery.destination)
    found = (
        _output(archive, settings, file, accepted.get(file.sop_instance_uid, ())) for file in ledger.results(job.id)
    )
    return [one for one in found if one is not None]


def _output(archive: Archive, settings: Settings, file: ResultFile, names: Any) -> LocatedInstance | None:
    path = archive.path(file.path)
    ways = [settings.destinations[name] for name in names if name in settings.destinations]
    titles = tuple(way.ae_title for way in ways if isinstance(way, DicomDestination))
    services = [way.url for way in ways if isinstance(way, StowDestination)]
    if not file.sop_class_uid or not (titles or services) or not path.is_file():
        return None
    header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
    study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    urls = tuple(f"{url}/studies/{study}/series/{series}" for url in services)
    return LocatedInstance(study, series, file.sop_class_uid, file.sop_instance_uid, titles, urls)
