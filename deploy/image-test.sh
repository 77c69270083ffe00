#!/bin/sh
# Builds the container image and runs `cmbnode demo` in it: with Docker, or as root with Debian's buildah and podman,
# where the base image can also be made from Debian packages. Options come from the environment: DEVICE,
# PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS (docs/install.md), IMAGE (its name), ENGINE (docker or podman), and BUILT=1 to test
# an image that exists.
set -eu
cd "$(dirname "$0")/.."
image=${IMAGE:-cmb-node:test}
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
[ -n "${ENGINE:-}" ] || { docker info >/dev/null 2>&1 && ENGINE=docker; } || ENGINE=podman

if [ "$ENGINE" = docker ]; then
  [ -n "${BUILT:-}" ] ||
    docker build --tag "$image" --build-arg DEVICE --build-arg PIP_EXTRA_INDEX_URL --build-arg PIP_FIND_LINKS .
  size=$(docker image inspect --format '{{.Size}}' "$image")
  run="docker run --rm --init"
else
  . deploy/podman.sh
  if [ -z "${BUILT:-}" ]; then
    if ! buildah inspect --type image "$base" >/dev/null 2>&1 && ! buildah pull -q "docker.io/library/$base" 2>/dev/null; then
      echo "── $base cannot be pulled; one is made of Debian packages"
      mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm - |
        podman import --quiet - "docker.io/library/$base"
    fi
    # shellcheck disable=SC2086 # several words
    buildah build --isolation chroot --layers --format docker --tag "$image" --build-arg BASE="docker.io/library/$base" \
      --build-arg DEVICE="${DEVICE:-cpu}" --build-arg PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-}" \
      --build-arg PIP_FIND_LINKS="${PIP_FIND_LINKS:-}" $mounts .
  fi
  size=$(podman image inspect --format '{{.Size}}' "$image")
  run=$podman_run
fi
echo "── image of $((size / 1000000)) MB; the demo in it, as compose runs it"
$run --network none --read-only --tmpfs /tmp:size=256m,mode=1777 --cap-drop ALL --security-opt no-new-privileges \
  --memory 6g --pids-limit 256 "$image" demo
