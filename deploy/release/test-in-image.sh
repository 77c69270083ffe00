#!/bin/sh
# Runs tests of the pipeline with the packages of the image: the sources are at /source, but only the tests are used.
# TESTS names others.
set -eu
mkdir /tmp/check
cp -r /source/tests /source/pyproject.toml /tmp/check
cd /tmp/check
sed 's/ --hash=.*//' /source/requirements-develop.lock >/tmp/pins
python -m pip install --quiet --no-cache-dir --target /tmp/packages --constraint /tmp/pins pytest pytest-timeout hypothesis
export PYTHONPATH=/tmp/packages
case $(python -c 'import pipeline; print(pipeline.__file__)') in
  /opt/cmb-node/*) ;;
  *) echo "the tests would not use the image's own packages" >&2; exit 1 ;;
esac
# shellcheck disable=SC2086 # several folders
python -m pytest -q -p no:cacheprovider -m "not integration and not browser and not slow" \
  ${TESTS:-tests/pipeline/read tests/pipeline/measure tests/pipeline/results tests/pipeline/pictures tests/pipeline/classifiers}
