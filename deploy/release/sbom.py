"""Add an image's Debian packages and weights to the bill of materials of its Python packages, check it, and print it.

Called by ``sbom.sh`` with the version of cmb-node, the CycloneDX document of ``cyclonedx-py``, the list of
``dpkg-query`` and the list of ``sha256sum``.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote


def add_components(document: dict[str, Any], version: str, debian: str, weights: str) -> dict[str, Any]:
    """Name the image, and add a component for each Debian package and each file of weights."""
    distribution = platform.freedesktop_os_release()
    document.setdefault("metadata", {})["component"] = {"type": "container", "name": "cmb-node", "version": version}
    for line in debian.splitlines():
        package, number, architecture = line.split()
        url = f"pkg:deb/{distribution['ID']}/{quote(package)}@{quote(number)}?arch={architecture}"
        document["components"].append(
            {"type": "library", "name": package, "version": number, "purl": url, "bom-ref": url}
        )
    for line in weights.splitlines():
        sha256, path = line.split(maxsplit=1)
        document["components"].append(
            {
                "type": "machine-learning-model",
                "name": Path(path).name,
                "bom-ref": f"weights:{sha256}",
                "hashes": [{"alg": "SHA-256", "content": sha256}],
            }
        )
    return document


def main(version: str, *paths: str) -> None:
    """Write the complete document to standard output."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    python, debian, weights = (Path(path).read_text() for path in paths)
    text = json.dumps(add_components(json.loads(python), version, debian, weights), indent=1, ensure_ascii=False)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the bill of materials is not valid: {error}")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
