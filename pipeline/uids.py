"""What makes two analyses the same? A job's key, and the UIDs that derive from it.

Repeating a step must give the same objects with the same UIDs, so nothing here is random and no clock is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def job_key(sop_instance_uids: Iterable[str], profile_digest: str, settings: Mapping[str, object] | None = None) -> str:
    """SHA-256 (hex) over the input instances, the profile (weights included) and the settings that change results.

    The order of the instances and duplicates do not matter.
    """
    document = {
        "instances": sorted(set(sop_instance_uids)),
        "profile": profile_digest,
        "settings": dict(settings or {}),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def derive_uid(key: str, *names: object) -> str:
    """Derive the UID of the object called `names` within the job `key`.

    A UUID-derived UID of DICOM PS3.5 B.2 (root 2.25), with a name-based UUID (RFC 9562, version 8: SHA-256).
    """
    digest = bytearray(hashlib.sha256("/".join([key, *map(str, names)]).encode()).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return f"2.25.{int.from_bytes(digest, 'big')}"
