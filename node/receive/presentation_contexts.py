"""Which SOP classes and transfer syntaxes does the node accept?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from node.archive import is_uid
from node.commitment import STORAGE_COMMITMENT
from node.settings import ConfigError

VERIFICATION = "1.2.840.10008.1.1"

STORAGE_CLASSES: dict[str, str] = {
    # objects that are analysed
    "1.2.840.10008.5.1.4.1.1.4": "MR Image",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image",
    # results of this and other nodes: a PACS that routes complete studies sends them, too
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
    "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR",
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "Comprehensive SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR",
    "1.2.840.10008.5.1.4.1.1.88.59": "Key Object Selection",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.1": "Multi-frame Single Bit Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.11.1": "Grayscale Softcopy Presentation State",
    "1.2.840.10008.5.1.4.1.1.11.2": "Color Softcopy Presentation State",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
}
"""SOP classes that are always accepted."""

TRANSFER_SYNTAXES: tuple[str, ...] = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian, the default that every device supports
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian, retired
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless: only from a sender without a lossless encoding
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
"""In order of preference: uncompressed, then lossless by speed of decoding, then possibly lossy."""

_LIKE_A_UID = re.compile(r"[0-9.]{5,64}")


def storage_contexts(extra_sop_classes: Iterable[str] = ()) -> list[PresentationContext]:
    """List the presentation contexts that the node accepts.

    Parameters
    ----------
    extra_sop_classes : iterable of str
        Further storage SOP Class UIDs; they may be private.

    Raises
    ------
    ConfigError
        One of them is malformed, or belongs to another service than storage.
    """
    for uid in extra_sop_classes:
        if not is_uid(uid) or _LIKE_A_UID.fullmatch(uid) is None:
            raise ConfigError("malformed UID", where=f"receiver.extra_sop_classes: {uid!r}")
        if uid_to_service_class(UID(uid)) is StorageServiceClass:
            continue
        if uid.startswith("1.2.840.10008.") and not uid.startswith("1.2.840.10008.5.1.4.1.1."):
            raise ConfigError("not a storage SOP class", where=f"receiver.extra_sop_classes: {uid}")
        register_uid(uid, f"Extra_{uid.replace('.', '_')}", StorageServiceClass)
    classes = dict.fromkeys([*STORAGE_CLASSES, *extra_sop_classes])
    commitment = build_context(STORAGE_COMMITMENT, list(TRANSFER_SYNTAXES[:2]))
    commitment.scu_role = commitment.scp_role = True  # a peer may request it, or report on a request
    return [
        build_context(VERIFICATION, list(TRANSFER_SYNTAXES[:2])),
        commitment,
        *(build_context(uid, list(TRANSFER_SYNTAXES)) for uid in classes),
    ]
