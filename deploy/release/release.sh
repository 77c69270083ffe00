#!/bin/sh
# Makes a release of the committed version in dist/VERSION: the wheel, an image for the CPU and one with CUDA, each tested,
# a software bill of materials (SBOM) for each image, checksums of everything, and their signature.
#
#   deploy/release/release.sh --key KEY [--devices "cpu cuda"] [--registry HOST/REPOSITORY] [--built]
#
#   --key KEY        the GnuPG key that signs (ID or e-mail address)
#   --devices LIST   images to make (default: cpu cuda)
#   --registry NAME  also push the images, as NAME:VERSION-cpu and NAME:VERSION-cuda
#   --built          do not build: test and sign the images cmb-node:VERSION-cpu and cmb-node:VERSION-cuda of this host
#
# Run it as root on Linux with buildah, podman, runc, skopeo, gnupg and Python 3.11 or newer with venv. The build reads
# PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS (docs/install.md). Run `make test` first. The script stops at the first step that
# fails: nothing is signed that was not tested, and nothing is pushed that was not signed.
set -eu
cd "$(dirname "$0")/../.."
stop() { echo "release: $*" >&2; exit 2; }
step() { echo "── $*"; }

key='' registry='' built='' devices='cpu cuda'
while [ $# -gt 0 ]; do
  case $1 in
    --key | --devices | --registry)
      [ $# -gt 1 ] || stop "$1 needs a value"
      case $1 in --key) key=$2 ;; --devices) devices=$2 ;; *) registry=$2 ;; esac
      shift 2 ;;
    --built) built=1; shift ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
for device in $devices; do
  case $device in cpu | cuda) ;; *) stop "unknown device '$device': cpu or cuda" ;; esac
done
[ -z "$(git status --porcelain)" ] || stop "the working tree has changes: commit them, or use a fresh clone"
[ -n "$key" ] || stop "name the key that signs: --key KEY"
echo test | gpg --batch --yes --local-user "$key" --detach-sign --output /dev/null || stop "the key $key cannot sign"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
out=$PWD/dist/$version
[ ! -e "$out" ] || stop "$out exists: remove it, or raise the version in pyproject.toml"
packages='skopeo gnupg'
. deploy/podman.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/out"

step "wheel"
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --require-hashes -r requirements-build.lock
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) "$work/build/bin/pip" wheel --quiet --no-deps --no-build-isolation \
  --wheel-dir "$work/out" .

for device in $devices; do
  image=cmb-node:$version-$device
  step "$image: build, and the demo in it"
  ENGINE=podman IMAGE=$image DEVICE=$device BUILT=$built deploy/image-test.sh

  step "$image: tests of the pipeline in it"
  # shellcheck disable=SC2086 # several words
  $podman_run $mounts --network host --volume "$PWD:/source:ro" --env TESTS="${TESTS:-}" --entrypoint sh "$image" \
    /source/deploy/release/test-in-image.sh

  step "$image: software bill of materials"
  # shellcheck disable=SC2086
  $podman_run $mounts --network host --volume "$PWD/deploy/release:/release:ro" --entrypoint sh "$image" \
    /release/sbom.sh "$version" >"$work/out/cmb-node-$version-$device.cdx.json"

  step "$image: archive"
  archive=$work/out/cmb-node-$version-$device.tar
  skopeo copy --quiet "containers-storage:localhost/$image" "oci-archive:$archive:$image"
  echo "$(skopeo inspect --format '{{.Digest}}' "oci-archive:$archive") $image" >>"$work/out/images.txt"
done

step "checksums and signature"
git rev-parse HEAD >"$work/out/commit.txt"
(cd "$work/out" && sha256sum -- * >SHA256SUMS)
gpg --batch --local-user "$key" --armor --detach-sign --output "$work/out/SHA256SUMS.asc" "$work/out/SHA256SUMS"
mkdir -p dist
mv "$work/out" "$out"

if [ -n "$registry" ]; then
  for device in $devices; do
    step "push $registry:$version-$device"
    skopeo copy --quiet --preserve-digests "oci-archive:$out/cmb-node-$version-$device.tar" \
      "docker://$registry:$version-$device"
  done
fi
step "the release is in $out"
ls -l "$out"
