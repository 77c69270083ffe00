# shellcheck shell=sh disable=SC2034 # the scripts that source this file use what it sets
# What buildah and podman need on this host, for the scripts that source this file: sets `mounts` and `podman_run`.
[ "$(id -u)" = 0 ] || { echo "run it as root: it needs buildah, podman, runc and mmdebstrap" >&2; exit 1; }
for p in buildah podman runc catatonit mmdebstrap ${packages:-}; do
  dpkg-query -Wf '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="${missing:-} $p"
done
if [ -n "${missing:-}" ] && command -v apt-get >/dev/null; then
  apt-get -qq update
  # shellcheck disable=SC2086 # one word for each package
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
fi
# What pip needs to reach its index from this host it needs in a container, too.
mounts=
for path in /etc/ssl/certs /etc/pip.conf ${PIP_FIND_LINKS:-}; do
  [ ! -e "$path" ] || mounts="$mounts --volume $path:$path:ro"
done
# A host without systemd has no timers for health checks, and one that is itself a container may not raise limits.
podman_run="podman run --rm --init --runtime runc --no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
