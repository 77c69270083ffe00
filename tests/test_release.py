"""The release script tests before it signs, and signs before it pushes; here with tools that only note their calls."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
VERSION = "0.1.0"
TOOLS = ("id", "git", "gpg", "dpkg-query", "python3", "buildah", "podman", "skopeo")
TOOL = r"""#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"$CALLS"
case "$name $*" in $FAILS) exit 1 ;; esac
for last; do :; done
case "$name $*" in
  "id -u") echo 0 ;;
  "git status"*) [ -z "${CHANGED:-}" ] || echo " M README.md" ;;
  "git log"*) echo 1764115200 ;;
  "git rev-parse"*) echo 0123456789abcdef ;;
  gpg*--armor*) echo signature >"${last}.asc" ;;
  dpkg-query*) echo "install ok installed" ;;
  "python3 -m venv"*) mkdir -p "$last/bin" && cp "$0" "$last/bin/pip" ;;
  "pip wheel"*) folder=${*#*--wheel-dir }; touch "${folder% .}/cmb_node-0.1.0-py3-none-any.whl" ;;
  "podman image"*) echo 1000000 ;;
  "podman run"*sbom.sh*) echo "{}" ;;
  "skopeo inspect"*) echo sha256:1234 ;;
  "skopeo copy"*oci-archive:*docker://*) ;;
  "skopeo copy"*) archive=${last#oci-archive:}; touch "${archive%%:*}" ;;
esac
"""
WORDS = ("--key", "release@hospital.example", "--registry", "registry.example/cmb-node")


class Run:
    """A run of the script on a copy of what it reads."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        source, tools, self.log = folder / "source", folder / "tools", folder / "calls"
        shutil.copytree(ROOT / "deploy", source / "deploy")
        for name in ("pyproject.toml", "Dockerfile", "requirements-build.lock"):
            shutil.copy(ROOT / name, source)
        text = re.sub(r'^version = ".*"', f'version = "{VERSION}"', (source / "pyproject.toml").read_text(), flags=re.M)
        (source / "pyproject.toml").write_text(text)
        tools.mkdir()
        for name in TOOLS:
            (tools / name).write_text(TOOL)
            (tools / name).chmod(0o755)
        self.log.touch()
        given = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CALLS": str(self.log),
            "FAILS": "",
            **environment,
        }
        script = [str(source / "deploy" / "release" / "release.sh"), *words]
        self.done = subprocess.run(script, env=given, capture_output=True, text=True)
        self.out = source / "dist" / VERSION

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def position(self, pattern: str) -> list[int]:
        return [number for number, call in enumerate(self.calls) if re.search(pattern, call)]


BUILD, DEMO, TESTS, SBOM = (
    "^buildah build",
    "^podman run.* demo$",
    r"^podman run.*test-in-image\.sh",
    r"^podman run.*sbom\.sh",
)
SIGN, PUSH = "^gpg.*--armor", "^skopeo copy.* docker://"


def test_each_image_is_tested_before_anything_is_signed_and_signed_before_anything_is_pushed(tmp_path: Path) -> None:
    run = Run(tmp_path, *WORDS)
    assert run.done.returncode == 0, run.done.stderr
    steps = [run.position(step) for step in (BUILD, DEMO, TESTS, SBOM)]
    assert [len(step) for step in steps] == [2, 2, 2, 2]
    for image in zip(*steps, strict=True):
        assert list(image) == sorted(image)
    (sign,) = run.position(SIGN)
    assert steps[-1][-1] < sign < run.position(PUSH)[0]
    assert [call.split("docker://")[1] for call in run.calls if "docker://" in call] == [
        f"registry.example/cmb-node:{VERSION}-cpu",
        f"registry.example/cmb-node:{VERSION}-cuda",
    ]
    assert ["DEVICE=cpu" in run.calls[steps[0][0]], "DEVICE=cuda" in run.calls[steps[0][1]]] == [True, True]
    summed = {line.split()[1] for line in (run.out / "SHA256SUMS").read_text().splitlines()}
    assert summed == {path.name for path in run.out.iterdir()} - {"SHA256SUMS", "SHA256SUMS.asc"}
    assert {f"cmb-node-{VERSION}-{device}.{end}" for device in ("cpu", "cuda") for end in ("tar", "cdx.json")} < summed
    assert (run.out / "images.txt").read_text().splitlines() == [
        f"sha256:1234 cmb-node:{VERSION}-cpu",
        f"sha256:1234 cmb-node:{VERSION}-cuda",
    ]


@pytest.mark.parametrize(
    "fails",
    ["pip wheel*", "buildah build*", "podman run* demo", "podman run*cuda*test-in-image.sh", "podman run*sbom.sh*"],
)
def test_nothing_is_signed_or_pushed_when_a_step_fails(fails: str, tmp_path: Path) -> None:
    run = Run(tmp_path, *WORDS, FAILS=fails)
    assert run.done.returncode != 0
    assert run.position(SIGN) == run.position(PUSH) == []
    assert not run.out.exists()


def test_nothing_is_pushed_without_a_signature(tmp_path: Path) -> None:
    run = Run(tmp_path, *WORDS, FAILS="gpg*--armor*")
    assert run.done.returncode != 0
    assert run.position(PUSH) == []


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((), {}, "name the key that signs"),
        (WORDS, {"CHANGED": "1"}, "the working tree has changes"),
        (WORDS, {"FAILS": "gpg*"}, "the key release@hospital.example cannot sign"),
        ((*WORDS, "--devices", "tpu"), {}, "unknown device 'tpu'"),
        (("--key",), {}, "--key needs a value"),
        (("--sign",), {}, "Makes a release of the committed version"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_built(
    words: tuple[str, ...], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    run = Run(tmp_path, *words, **environment)
    assert run.done.returncode == 2
    assert said in run.done.stderr
    assert run.position(BUILD) == run.position("^pip wheel") == []


def test_an_image_that_exists_is_tested_without_building_it_again(tmp_path: Path) -> None:
    run = Run(tmp_path, "--key", "K", "--devices", "cpu", "--built")
    assert run.done.returncode == 0, run.done.stderr
    assert run.position(BUILD) == run.position(PUSH) == []
    assert len(run.position(DEMO)) == len(run.position(TESTS)) == 1


def test_the_scripts_pass_shellcheck() -> None:
    scripts = [str(path) for path in sorted((ROOT / "deploy").rglob("*.sh"))]
    done = subprocess.run(["shellcheck", "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_bill_of_materials_has_debian_packages_and_weights_beside_python_packages() -> None:
    add: Any = runpy.run_path(str(ROOT / "deploy" / "release" / "sbom.py"))["add_components"]
    python = {"components": [{"type": "library", "name": "numpy", "version": "2.3.0"}]}
    document = add(
        python, "1.2", "libc6 2.36-9+deb12u10 amd64\n", f"{'a' * 64}  /opt/cmb-node/weights/net.safetensors\n"
    )
    numpy, libc, net = document["components"]
    assert document["metadata"]["component"] == {"type": "container", "name": "cmb-node", "version": "1.2"}
    assert numpy["name"] == "numpy"
    assert re.fullmatch(r"pkg:deb/\w+/libc6@2\.36-9%2Bdeb12u10\?arch=amd64", libc["purl"])
    assert net["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
