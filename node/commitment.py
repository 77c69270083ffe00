"""What do the messages of storage commitment say? (Storage Commitment Push Model, PS3.4 annex J)

The SCU names the instances that it stored (N-ACTION); later the SCP reports which of them it commits to keep
(N-EVENT-REPORT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom.dataset import Dataset

STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
"""SOP class: Storage Commitment Push Model."""
STORAGE_COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""Its one, well-known instance."""
REQUEST_COMMITMENT: Final = 1
"""Action type of N-ACTION."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event types of N-EVENT-REPORT."""

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119
_FAILURES = {  # PS3.3 C.14.1.1
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "it does not have this object",
    CLASS_CONFLICT: "it has this object with another SOP class",
    0x0122: "it does not commit to objects of this SOP class",
    0x0131: "duplicate transaction UID",
    0x0213: "it is out of resources",
}


class CommitmentMessageError(ValueError):
    """A message without what it must have; the text quotes nothing of what was sent."""


@dataclass(frozen=True)
class InstanceReference:
    """An instance by its SOP class and instance UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """Instances that commitment is requested for."""

    transaction_uid: str
    references: tuple[InstanceReference, ...]


@dataclass(frozen=True)
class CommitmentReport:
    """What is committed, and the reason code (PS3.3 C.14.1.1) of what is not."""

    transaction_uid: str
    committed: tuple[InstanceReference, ...] = ()
    failed: Mapping[InstanceReference, int] = field(default_factory=dict)

    @property
    def event_type(self) -> int:
        """Event type of the N-EVENT-REPORT."""
        return SOME_FAILED if self.failed else ALL_COMMITTED

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for the log."""
        return {"committed": len(self.committed), "not_committed": len(self.failed)}

    @property
    def committed_uids(self) -> set[str]:
        """SOP Instance UIDs that are committed."""
        return {one.sop_instance_uid for one in self.committed}

    @property
    def failures(self) -> dict[str, str]:
        """Why instances are not committed, in words, by SOP Instance UID."""
        return {
            one.sop_instance_uid: _FAILURES.get(reason, f"reason 0x{reason:04X}") for one, reason in self.failed.items()
        }


def encode_request(request: CommitmentRequest) -> Dataset:
    """The Action Information of a request."""
    dataset = Dataset()
    dataset.TransactionUID = request.transaction_uid
    dataset.ReferencedSOPSequence = [_item(one) for one in request.references]
    return dataset


def decode_request(dataset: Dataset) -> CommitmentRequest:
    """Read the Action Information of a request.

    Raises
    ------
    CommitmentMessageError
        If it has no transaction, or names no instances.
    """
    references = tuple(_reference(item) for item in _items(dataset, "ReferencedSOPSequence"))
    if not references:
        raise CommitmentMessageError("it names no instances")
    return CommitmentRequest(_transaction(dataset), references)


def encode_report(report: CommitmentReport) -> Dataset:
    """The Event Information of a report; a sequence without items is left out (PS3.4 table J.3-2)."""
    dataset = Dataset()
    dataset.TransactionUID = report.transaction_uid
    if report.committed:
        dataset.ReferencedSOPSequence = [_item(one) for one in report.committed]
    if report.failed:
        dataset.FailedSOPSequence = [_item(one, reason) for one, reason in report.failed.items()]
    return dataset


def decode_report(dataset: Dataset) -> CommitmentReport:
    """Read the Event Information of a report.

    Raises
    ------
    CommitmentMessageError
        If it has no transaction, or an instance without UIDs.
    """
    failed = {
        _reference(item): int(item.get("FailureReason") or PROCESSING_FAILURE)
        for item in _items(dataset, "FailedSOPSequence")
    }
    committed = tuple(_reference(item) for item in _items(dataset, "ReferencedSOPSequence"))
    return CommitmentReport(_transaction(dataset), committed, failed)


def _item(reference: InstanceReference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    try:
        value: Any = dataset.get(keyword)
        return [item for item in _iterate(value) if isinstance(item, Dataset)]
    except Exception as error:  # pydicom raises many types on malformed values
        raise CommitmentMessageError(f"{keyword} cannot be read") from error


def _iterate(value: Any) -> Iterable[Any]:
    return () if value is None else value


def _reference(item: Dataset) -> InstanceReference:
    return InstanceReference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _transaction(dataset: Dataset) -> str:
    return _uid(dataset, "TransactionUID")


def _uid(dataset: Dataset, keyword: str) -> str:
    try:
        uid = str(dataset.get(keyword) or "").rstrip("\0 ")
    except Exception as error:  # pydicom raises many types on malformed values
        raise CommitmentMessageError(f"{keyword} cannot be read") from error
    if not 1 <= len(uid) <= 64 or not uid.isascii():
        raise CommitmentMessageError(f"{keyword} is missing or malformed")
    return uid
