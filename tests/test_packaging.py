"""What is installed is what is in the tree."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", ["node", "pipeline", "training"])
def test_every_data_file_of_a_package_is_installed_with_it(package: str) -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"].get(package, [])
    installed = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    files = {path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    left_out = {path for path in files - installed if path.suffix != ".py"}
    assert not left_out, sorted(str(path.relative_to(ROOT)) for path in left_out)


def test_the_lock_pins_every_direct_dependency_and_names_no_url() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all("://" not in line and " @ " not in line and "==" in line for line in lines)
    locked = {_normal(line.split("==")[0]) for line in lines}
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    assert {_normal(d) for d in wanted} <= locked


def _normal(requirement: str) -> str:
    name = requirement.split("[")[0].split(">")[0].split("=")[0].strip()
    return name.lower().replace("_", "-").replace(".", "-")
