"""Write the lock files: the versions installed now, and for what goes into the container image the hash of each file.

=========================== ===========================================================================================
requirements.lock           what ``cmb-node`` needs to run, as PyPI has it: torch is the CUDA build
requirements-cpu.lock       the same with PyTorch's CPU build, whose version stays until someone edits it in the file
requirements-build.lock     what builds the wheel
requirements-develop.lock   what only training and tests need; versions without hashes
=========================== ===========================================================================================

Run by ``make lock`` in the environment that the tests ran in (CPython 3.11, Linux, x86-64, glibc as in the image).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CPU_LOCK = ROOT / "requirements-cpu.lock"
PLATFORM = "CPython 3.11, Linux, x86-64"
BEFORE_3_11_3 = "async-timeout"
"""What redis needs before Python 3.11.3, thus on Debian 12, where the image can be built without a registry."""


def main() -> None:
    """Write all four files."""
    installed = _pip("freeze", "--exclude-editable", "--exclude", "cmb-node").splitlines()
    needed = [*PROJECT["project"]["dependencies"], BEFORE_3_11_3]
    run = _resolve(needed, installed)
    _write("requirements.lock", f"What cmb-node needs to run ({PLATFORM}); torch is PyPI's build, with CUDA.", run)
    cpu_build = re.search(r"^torch==\S+", CPU_LOCK.read_text(), re.MULTILINE)
    if cpu_build is None:
        raise SystemExit(f"{CPU_LOCK.name}: no line 'torch==VERSION+cpu'")
    others = [line for line in installed if not line.startswith("torch==")]
    on_cpu = _resolve([*needed, cpu_build[0]], others)
    _write(CPU_LOCK.name, f"What cmb-node needs to run ({PLATFORM}), with PyTorch's CPU build.", on_cpu)
    _write(
        "requirements-build.lock", "What builds the wheel.", _resolve(PROJECT["build-system"]["requires"], installed)
    )
    names = {_name(line) for line in run}
    only_develop = [line for line in installed if _name(line) not in names]
    _write("requirements-develop.lock", f"What only training and tests need ({PLATFORM}).", only_develop)


def _resolve(requirements: Iterable[str], constraints: Iterable[str]) -> list[str]:
    """All packages that these requirements need, each with its version and the hash of its file."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder, "pins"), Path(folder, "report")
        pins.write_text("\n".join(constraints))
        options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--quiet"]
        _pip("install", *options, "--constraint", str(pins), "--report", str(report), *requirements)
        found = json.loads(report.read_text())["install"]
    return [
        f"{item['metadata']['name']}=={item['metadata']['version']}"
        f" --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"
        for item in found
    ]


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _name(line: str) -> str:
    return re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()


def _write(name: str, comment: str, lines: Iterable[str]) -> None:
    text = "\n".join([f"# {comment} Written by `make lock`.", *sorted(lines, key=_name)])
    (ROOT / name).write_text(text + "\n")


if __name__ == "__main__":
    main()
