"""Which number does a PACS show for the slice that a lesion lies on?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread

from node.ledger import Ledger


def slice_numbers(ledger: Ledger, archive: Path, series_uids: Iterable[str], sop_uids: Iterable[str]) -> dict[str, int]:
    """Instance Number of each slice that is still in the archive, by SOP Instance UID.

    A multi-frame object is left out: its Instance Number is not that of a slice.
    """
    wanted = set(sop_uids)
    numbers = {}
    for instance in ledger.instances(*series_uids):
        path = archive / instance.path
        if instance.sop_instance_uid in wanted and instance.number_of_frames == 1 and path.is_file():
            number = dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"]).get("InstanceNumber")
            if number is not None and int(number) >= 1:
                numbers[instance.sop_instance_uid] = int(number)
    return numbers
