#!/bin/sh
# Prints the software bill of materials of the image that it runs in (CycloneDX 1.6, JSON): Python packages by
# cyclonedx-py, to which sbom.py adds Debian packages and the weights of the networks. Its argument is the version.
set -eu
cd /tmp
"$(python -c 'import sys; print(sys._base_executable)')" -m venv /tmp/sbom
/tmp/sbom/bin/pip install --quiet --no-cache-dir --disable-pip-version-check 'cyclonedx-bom>=7,<8' >&2
/tmp/sbom/bin/cyclonedx-py environment --spec-version 1.6 --output-format JSON --output-reproducible \
  --output-file /tmp/python.json /opt/cmb-node/bin/python >&2
dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' >/tmp/debian.txt
find /opt/cmb-node -name '*.safetensors' -exec sha256sum {} + >/tmp/weights.txt
/tmp/sbom/bin/python /release/sbom.py "$1" /tmp/python.json /tmp/debian.txt /tmp/weights.txt
