"""What do all result objects of one job share? Manufacturer, time, patient, and UIDs.

highdicom reads the clock and draws random UIDs; :meth:`ResultContext.finish` replaces both, so that the same job gives
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import MutableSequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from pipeline import __version__
from pipeline.findings import Findings
from pipeline.findings.wording import RESEARCH_ONLY
from pipeline.read import elements
from pipeline.uids import derive_uid

from . import codes
from .replaced import ReplacedResult
from .source import SourceImages, read_source

if TYPE_CHECKING:
    from highdicom import SOPClass

    from pipeline.detect import Detection

MANUFACTURER: Final = "cmb-node"
MODEL: Final = "Cerebral microbleed detector"

_IMPLEMENTATION: Final = "cmb-node implementation"
_PLAIN: Final = str.maketrans(
    {"×": "x", "³": "3", "²": "2", "–": "-", "—": "-", "≥": ">=", "≤": "<=", "µ": "u", "’": "'", "ß": "ss", "ø": "o"}
)


def plain(text: str, limit: int | None = None) -> str:
    """`text` in ASCII on one line, which every Specific Character Set can encode."""
    decomposed = unicodedata.normalize("NFKD", " ".join(text.split()).translate(_PLAIN))
    ascii_text = "".join(c for c in decomposed if not unicodedata.combining(c)).encode("ascii", "replace").decode()
    return ascii_text if limit is None else ascii_text[:limit]


def encodable(text: str, character_set: str | MutableSequence[str] | None) -> bool:
    """Whether one of the encodings of a Specific Character Set (PS3.3 C.12.1.1.2) can encode `text`."""
    for encoding in convert_encodings(character_set or None):
        try:
            text.encode("ascii" if encoding == default_encoding else encoding)  # pydicom reads more than ASCII in it
        except (UnicodeEncodeError, LookupError):
            continue
        return True
    return False


def code_item(code: Code) -> Dataset:
    """Item of a code sequence (PS3.3, table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


@dataclass(frozen=True)
class DetectorDevice:
    """The detector as a device: another model is another device (IHE AI Results)."""

    profile: str
    software: str
    weights: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, findings: Findings) -> DetectorDevice:
        """The device that made `findings`."""
        return cls(findings.profile, findings.software, tuple(sorted(findings.weights.items())))

    @property
    def _identity(self) -> str:
        return json.dumps([self.profile, self.software, self.weights])

    @property
    def uid(self) -> str:
        """Device UID; changes with the profile, its weights and the software."""
        return derive_uid("cmb-node device", self._identity)

    @property
    def serial_number(self) -> str:
        """Short name of the same identity."""
        return hashlib.sha256(self._identity.encode()).hexdigest()[:16]

    @property
    def algorithm(self) -> str:
        """Algorithm Name (LO)."""
        return plain(f"{MANUFACTURER} {self.profile}", 64).strip()

    @property
    def family(self) -> Code:
        """Algorithm Family (CID 7162)."""
        return codes.LEARNED if self.weights else codes.CLASSICAL

    @property
    def parameters(self) -> dict[str, str]:
        """Algorithm Parameters: the profile and, by hash, its weights."""
        return {"profile": plain(self.profile), **{plain(f"weights {n}"): f"sha256:{h}" for n, h in self.weights}}


@dataclass(frozen=True, eq=False)
class ResultContext:
    """A detection and everything that its DICOM objects share."""

    detection: Detection
    key: str
    created: datetime
    source: SourceImages
    device: DetectorDevice
    replaces: ReplacedResult | None = None

    @classmethod
    def of(
        cls, detection: Detection, key: str, created: datetime, replaces: ReplacedResult | None = None
    ) -> ResultContext:
        """Read the headers of the source images and choose the time zone.

        Raises
        ------
        ValueError
            If `created` names no time zone.
        InputError
            If a source image cannot be read.
        """
        if created.tzinfo is None:
            raise ValueError("created must name its time zone")
        source = read_source(detection.acquisition)
        zone = _zone(source.header) or created.tzinfo
        return cls(
            detection,
            key,
            created.astimezone(zone).replace(microsecond=0),
            source,
            DetectorDevice.of(detection.findings),
            replaces,
        )

    @property
    def revision(self) -> int:
        """1 for the first result of the study, 2 for the one that replaces it, and so on."""
        return 1 if self.replaces is None else self.replaces.revision + 1

    def uid(self, *names: object) -> str:
        """UID of the object called `names` within this job."""
        return derive_uid(self.key, *names)

    def text(self, text: str, limit: int | None = None) -> str:
        """`text` if the Specific Character Set of the images can encode it, or else in ASCII."""
        if encodable(text, self.source.header.get("SpecificCharacterSet")):
            return text if limit is None else text[:limit]
        return plain(text, limit)

    def general(self, kind: str, series_number: int, title: str) -> dict[str, Any]:
        """Arguments of every highdicom constructor.

        In a series list, a result of a later revision has a description and a number of its own.
        """
        verified = self.detection.findings.verification is not None
        revision = f"revision {self.revision}" if self.revision > 1 else ""
        described = ", ".join(filter(None, (title, "verified" if verified else "", revision)))
        date, time = DA(self.created.date()), TM(self.created.time())
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": series_number + 100 * (self.revision - 1),
            "series_description": f"{described} (research use only)",
            "sop_instance_uid": self.uid(kind, "instance"),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MODEL,
            "software_versions": plain(self.device.software, 64),
            "device_serial_number": self.device.serial_number,
            "content_qualification": "RESEARCH",
            "specific_character_set": None,
            "content_date": date,
            "content_time": time,
            "series_date": date,
            "series_time": time,
            "transfer_syntax_uid": ExplicitVRLittleEndian,
        }

    def finish(self, ds: SOPClass) -> Dataset:
        """Add patient, study, equipment and time to `ds`; replace what differs from run to run."""
        header = self.source.header
        for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
            if keyword in header:
                ds[keyword] = header[keyword]
        ds.copy_patient_and_study_information(header)
        for keyword in ("PatientSize", "PatientWeight"):
            if (
                keyword in ds and not elements.text(header, keyword).isascii()
            ):  # not a number, and cannot be written either
                del ds[keyword]
        ds.InstanceCreationDate, ds.InstanceCreationTime = DA(self.created.date()), TM(self.created.time())
        ds.InstanceCreatorUID = self.device.uid
        ds.add_new("ContributingEquipmentSequence", "SQ", [self._contribution()])
        meta = ds.file_meta
        meta.ImplementationClassUID = UID(derive_uid(_IMPLEMENTATION, __version__))
        meta.ImplementationVersionName = f"CMBNODE_{__version__}"[:16]
        return ds

    def _contribution(self) -> Dataset:
        """The one Contributing Equipment item of IHE AI Results: purpose, and a UID that changes with the model."""
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
        item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, MODEL
        item.DeviceSerialNumber = self.device.serial_number
        item.DeviceUID = self.device.uid
        item.SoftwareVersions = plain(self.device.software, 64)
        item.ContributionDateTime = DT(self.created)
        item.ContributionDescription = f"Profile {plain(self.device.profile)}. {RESEARCH_ONLY}."
        return item


def _zone(header: Dataset) -> timezone | None:
    """Time zone of the source (``&ZZXX``); ``None`` if it has none or a malformed one."""
    text = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-offset if text[0] == "-" else offset) if offset < timedelta(hours=24) else None
