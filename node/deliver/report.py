"""What do systems get that take no DICOM? One JSON file a job: all that a message to a RIS or FHIR server says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Literal

from node.archive import Archive
from node.ledger import Job, Ledger, ResultFile, StudyRecord
from node.ledger.records import Json
from node.settings.destinations import REPORT, DestinationSettings
from pipeline.errors import InputError

SCHEMA = "cmb-report/1"
_UNTOLD = ("candidates", "timing_s")
_OF_STUDY = (
    "study_instance_uid",
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
    "study_date",
    "study_time",
    "study_description",
    "referring_physician",
)

Status = Literal["preliminary", "final", "corrected"]
"""Of the machine alone; verified by a person; verified, in the place of another verified one."""


@dataclass(frozen=True)
class ReportStore:
    """Knows which destination takes what, and writes the report where one takes it.

    Parameters
    ----------
    destinations : mapping
        Settings by name. A name that is not there takes what a PACS takes, and waits.
    zone : tzinfo, optional
        Zone of the times in reports; the host's by default.
    """

    destinations: Mapping[str, DestinationSettings] = field(default_factory=dict)
    zone: tzinfo | None = None

    def takes(self, destination: str, kind: str) -> bool:
        """Whether a destination takes result files of this kind."""
        settings = self.destinations.get(destination)
        return kind != REPORT if settings is None else settings.takes(kind)

    def write(
        self, ledger: Ledger, job: Job, document: Json, objects: Sequence[ResultFile], archive: Archive
    ) -> list[ResultFile]:
        """Put the report of a job into its outbox; an empty list if no destination takes it.

        Parameters
        ----------
        document : dict
            ``findings.json``.
        objects : sequence of ResultFile
            The DICOM objects that go with it.
        archive : Archive
            Where the outbox is.
        """
        if not any(self.takes(destination, REPORT) for destination in job.destinations):
            return []
        content = self.make(
            job, ledger.study(job.study_instance_uid), document, objects, status_of(ledger, job, document)
        )
        data = json.dumps(content, indent=1).encode()
        relative = archive.put(job.id, f"{REPORT}.json", data).relative_to(archive.root).as_posix()
        return [ResultFile(REPORT, "", "", relative, len(data), hashlib.sha256(data).hexdigest())]

    def make(self, job: Job, study: StudyRecord, document: Json, objects: Sequence[ResultFile], status: Status) -> Json:
        """The document of the schema; the same job makes the same one."""
        of_study = asdict(study)
        return {
            "schema": SCHEMA,
            "status": status,
            "issued": job.created_at.astimezone(self.zone).isoformat(timespec="seconds"),
            "job": {"id": job.id, "key": job.key, "warnings": list(job.warnings)},
            "study": {name: of_study[name] for name in _OF_STUDY},
            "objects": [
                {"kind": o.kind, "sop_class_uid": o.sop_class_uid, "sop_instance_uid": o.sop_instance_uid}
                for o in objects
            ],
            "findings": {name: value for name, value in document.items() if name not in _UNTOLD},
        }


def status_of(ledger: Ledger, job: Job, document: Json) -> Status:
    """How far a result may be relied on, as HL7 tables 0085 and 0123 and FHIR have it."""
    if not document.get("verification"):
        return "preliminary"
    earlier = (ledger.findings(before.id) or {} for before in ledger.predecessors(job.id))
    return "corrected" if any(document.get("verification") for document in earlier) else "final"


def read_report(path: Path) -> Json:
    """Read a report that the node has written.

    Raises
    ------
    InputError
        If it is not there or is none.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError("the node cannot read its own report any more", where=str(path))
    return content
