"""What can a reader correct in a result? Reject or confirm microbleeds, change their certainty, add missed ones."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import InputError

MOST_ADDED = 500
_NAME_LENGTH = 64  # DICOM PN and LO
_COMMENT_LENGTH = 1024


@dataclass(frozen=True)
class LesionVerdict:
    """A microbleed, by its tracking UID in SR and SEG: confirmed or rejected."""

    tracking_uid: str
    accepted: bool


@dataclass(frozen=True)
class AddedMicrobleed:
    """A microbleed that was missed; its centre in DICOM patient coordinates (LPS), mm."""

    centroid_lps_mm: tuple[float, float, float]
    certainty: Literal["definite", "possible"] = "definite"


@dataclass(frozen=True)
class CertaintyVerdict:
    """How certain the reader is of a microbleed, by its tracking UID, where this differs from the result."""

    tracking_uid: str
    certainty: Literal["definite", "possible"]


@dataclass(frozen=True)
class Correction:
    """A reader's correction of a result: microbleeds without a verdict are confirmed.

    Parameters
    ----------
    observer : str
        Who verifies it, as a DICOM person name (``Family^Given`` or free text).
    organisation : str
        The reader's organisation, which DICOM requires.
    verdicts : tuple of LesionVerdict
        On microbleeds of the result; one that was rejected earlier may be accepted again.
    added : tuple of AddedMicrobleed
        Microbleeds that the result misses.
    comment : str
        A comment for the report.
    certainties : tuple of CertaintyVerdict
        Microbleeds that are more or less certain than the result says.
    """

    observer: str
    organisation: str
    verdicts: tuple[LesionVerdict, ...] = ()
    added: tuple[AddedMicrobleed, ...] = ()
    comment: str = ""
    certainties: tuple[CertaintyVerdict, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document that is stored and that determines the job's key; the order of verdicts does not matter."""
        document = asdict(self)
        document["verdicts"] = sorted(document["verdicts"], key=lambda v: str(v["tracking_uid"]))
        document["added"] = [{**a, "centroid_lps_mm": list(a["centroid_lps_mm"])} for a in document["added"]]
        document["certainties"] = sorted(document["certainties"], key=lambda v: str(v["tracking_uid"]))
        if not self.certainties:
            del document["certainties"]  # a correction that changes none keeps the key it has always had
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Correction:
        """Read :meth:`to_json` back."""
        return cls(
            observer=document["observer"],
            organisation=document["organisation"],
            verdicts=tuple(LesionVerdict(**v) for v in document["verdicts"]),
            added=tuple(
                AddedMicrobleed(**{**a, "centroid_lps_mm": tuple(map(float, a["centroid_lps_mm"]))})
                for a in document["added"]
            ),
            comment=document["comment"],
            certainties=tuple(CertaintyVerdict(**v) for v in document.get("certainties", ())),
        )

    def key(self, corrected: str) -> str:
        """Key of the job that applies it to the result of the job with key `corrected`."""
        text = json.dumps([corrected, self.to_json()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def summary(self) -> str:
        """The reader and the number of changes, in one line."""
        rejected = sum(not verdict.accepted for verdict in self.verdicts)
        changed = (len(self.certainties), "with changed certainty")
        numbers = ((rejected, "rejected"), (len(self.added), "added"), changed)
        parts = [f"{n} {what}" for n, what in numbers if n]
        return f"{self.observer}: {', '.join(parts) or 'all confirmed'}"

    def check(self) -> None:
        """Refuse what a report cannot contain.

        Raises
        ------
        InputError
            If a name is missing or unsuitable for DICOM, a microbleed has two verdicts, or a position is not finite.
        """
        for what, value in (("observer", self.observer), ("organisation", self.organisation)):
            if not value.strip():
                raise InputError(f"a correction requires the {what}, which the verified report names")
            if len(value) > _NAME_LENGTH or "\\" in value or not value.isprintable():
                do = f"at most {_NAME_LENGTH} printable characters, no backslash"
                raise InputError(f"the {what} is not suitable for a DICOM report", do=do)
        if len(self.comment) > _COMMENT_LENGTH:
            raise InputError(f"the comment is longer than {_COMMENT_LENGTH} characters")
        judged = [verdict.tracking_uid for verdict in self.verdicts]
        if len(set(judged)) < len(judged):
            raise InputError("a microbleed has two verdicts in one correction")
        if len({one.tracking_uid for one in self.certainties}) < len(self.certainties):
            raise InputError("a microbleed has two certainties in one correction")
        if len(self.added) > MOST_ADDED:
            raise InputError(f"more than {MOST_ADDED} microbleeds are added in one correction")
        if not all(math.isfinite(v) for added in self.added for v in added.centroid_lps_mm):
            raise InputError("the position of an added microbleed is not finite")
