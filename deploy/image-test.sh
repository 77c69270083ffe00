#!/bin/sh
# Builds the container image and runs `cmbnode demo` in it: with Docker, or as root with Debian's buildah and podman,
# where the base image can also be made from Debian packages. Options of the build come from the environment:
# DEVICE, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS (docs/install.md).
set -eu
cd "$(dirname "$0")/.."
image=cmb-node:test
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)

if docker info >/dev/null 2>&1; then
  docker build --tag "$image" --build-arg DEVICE --build-arg PIP_EXTRA_INDEX_URL --build-arg PIP_FIND_LINKS .
  size=$(docker image inspect --format '{{.Size}}' "$image")
  run="docker run --rm --init"
else
  [ "$(id -u)" = 0 ] || { echo "neither Docker nor root: run it as root, with buildah, podman, runc and mmdebstrap" >&2; exit 1; }
  missing=$(for p in buildah podman runc catatonit mmdebstrap; do
    dpkg-query -Wf '${Status}' $p 2>/dev/null | grep -q 'ok installed' || echo $p; done)
  if [ -n "$missing" ]; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
  fi
  if ! buildah inspect --type image "$base" >/dev/null 2>&1 && ! buildah pull -q "docker.io/library/$base" 2>/dev/null; then
    echo "── $base cannot be pulled; one is made of Debian packages"
    mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm - |
      podman import --quiet - "docker.io/library/$base"
  fi
  # What pip needs to reach its index from this host it needs in the build, too.
  mounts=
  for path in /etc/ssl/certs /etc/pip.conf ${PIP_FIND_LINKS:-}; do
    [ ! -e "$path" ] || mounts="$mounts --volume $path:$path:ro"
  done
  buildah build --isolation chroot --layers --format docker --tag "$image" --build-arg BASE="docker.io/library/$base" \
    --build-arg DEVICE="${DEVICE:-cpu}" --build-arg PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-}" \
    --build-arg PIP_FIND_LINKS="${PIP_FIND_LINKS:-}" $mounts .
  size=$(podman image inspect --format '{{.Size}}' "$image")
  # A host without systemd has no timers for health checks, and one that is itself a container may not raise limits.
  run="podman run --rm --init --runtime runc --no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
fi
echo "── image of $((size / 1000000)) MB; the demo in it, as compose runs it"
$run --network none --read-only --tmpfs /tmp:size=256m,mode=1777 --cap-drop ALL --security-opt no-new-privileges \
  --memory 6g --pids-limit 256 "$image" demo
