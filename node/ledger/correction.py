"""What may a reader say of a result? Which bleeds are none, which were missed; the records, and what names them."""

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
class Verdict:
    """A bleed, by the tracking UID that SR and SEG name it with: confirmed, or found to be none."""

    tracking_uid: str
    accepted: bool


@dataclass(frozen=True)
class AddedBleed:
    """A bleed that was missed; its centre in DICOM patient coordinates (LPS), mm."""

    centroid_lps_mm: tuple[float, float, float]
    certainty: Literal["definite", "possible"] = "definite"


@dataclass(frozen=True)
class Correction:
    """What a reader makes of a whole result: bleeds without a verdict are confirmed as they are.

    Parameters
    ----------
    observer : str
        Who verifies it, as a DICOM person name (``Family^Given`` or free text).
    organisation : str
        For which organisation; DICOM asks for it.
    verdicts : tuple of Verdict
        On bleeds of the result; one that was rejected earlier may be accepted again.
    added : tuple of AddedBleed
        Bleeds that it misses.
    comment : str
        Anything else, for the report.
    """

    observer: str
    organisation: str
    verdicts: tuple[Verdict, ...] = ()
    added: tuple[AddedBleed, ...] = ()
    comment: str = ""

    def to_json(self) -> dict[str, Any]:
        """The document that is stored, and that the job's key is made of; the order of verdicts does not matter."""
        document = asdict(self)
        document["verdicts"] = sorted(document["verdicts"], key=lambda v: str(v["tracking_uid"]))
        document["added"] = [{**a, "centroid_lps_mm": list(a["centroid_lps_mm"])} for a in document["added"]]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Correction:
        """Read :meth:`to_json` back."""
        return cls(
            observer=document["observer"],
            organisation=document["organisation"],
            verdicts=tuple(Verdict(**v) for v in document["verdicts"]),
            added=tuple(
                AddedBleed(**{**a, "centroid_lps_mm": tuple(map(float, a["centroid_lps_mm"]))})
                for a in document["added"]
            ),
            comment=document["comment"],
        )

    def key(self, corrected: str) -> str:
        """Key of the job that applies it to the result of the job with key `corrected`."""
        text = json.dumps([corrected, self.to_json()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def summary(self) -> str:
        """In a few words: who, and how much."""
        rejected = sum(not verdict.accepted for verdict in self.verdicts)
        parts = [f"{n} {what}" for n, what in ((rejected, "rejected"), (len(self.added), "added")) if n]
        return f"{self.observer}: {', '.join(parts) or 'all confirmed'}"

    def check(self) -> None:
        """Refuse what no report could hold.

        Raises
        ------
        InputError
            If a name is missing or not fit for DICOM, a bleed is judged twice, or a place is no place.
        """
        for what, value in (("observer", self.observer), ("organisation", self.organisation)):
            if not value.strip():
                raise InputError(f"a correction needs the {what}: a verified report names it")
            if len(value) > _NAME_LENGTH or "\\" in value or not value.isprintable():
                do = f"at most {_NAME_LENGTH} printable characters, no backslash"
                raise InputError(f"the {what} is not fit for a DICOM report", do=do)
        if len(self.comment) > _COMMENT_LENGTH:
            raise InputError(f"the comment is longer than {_COMMENT_LENGTH} characters")
        judged = [verdict.tracking_uid for verdict in self.verdicts]
        if len(set(judged)) < len(judged):
            raise InputError("a microbleed is judged twice in one correction")
        if len(self.added) > MOST_ADDED:
            raise InputError(f"more than {MOST_ADDED} microbleeds are added in one correction")
        if not all(math.isfinite(v) for added in self.added for v in added.centroid_lps_mm):
            raise InputError("an added microbleed has no finite place")
