"""What is installed is what is in the tree."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("node", "pipeline", "training")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", PACKAGES)
def test_every_data_file_of_a_package_is_installed_with_it(package: str) -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"].get(package, [])
    installed = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    left_out = {path for path in set(_files(package)) - installed if path.suffix != ".py"}
    assert not left_out, sorted(str(path.relative_to(ROOT)) for path in left_out)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(tree)], check=True)
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_works_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    """Installed in an environment of its own, with the libraries of this one, it needs nothing of the repository."""
    own = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(own / "bin" / "python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    [packages] = own.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CMBNODE_ARCHIVE__FREE_DISK_MB": "1"}
    environment |= {"CMBNODE_RECEIVER__PORT": "0", "CMBNODE_WORKLIST__PORT": "0"}

    def run(*words: str) -> str:
        command = [str(own / "bin" / words[0]), *words[1:]]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert run("python", "-c", "import node; print(node.__file__)").startswith(str(packages))
    assert run("cmbnode", "init", "node.toml").startswith("node.toml is written")
    assert run("cmbnode", "doctor", "--config", "node.toml").endswith("nothing is wrong\n")
    assert "Research use only" in run("cmbtrain", "--help")


def test_the_installed_packages_are_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        installed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT)): path.read_bytes() for package in PACKAGES for path in _files(package)}
    assert installed.keys() == sources.keys()
    assert [name for name in sources if installed[name] != sources[name]] == []


def test_the_image_installs_the_wheel_of_a_stage_that_saw_nothing_but_the_sources() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
    wheel, dependencies, image = stages
    assert wheel.startswith("${BASE} AS wheel")
    for package in PACKAGES:
        assert f"COPY {package} {package}" in wheel
        assert f"COPY {package}" not in dependencies + image
    assert "--no-index --no-deps /dist/*.whl" in wheel
    assert "COPY --from=wheel" in image
    assert "--mount" not in image  # buildah would not see that the wheel is another, and keep the old one
    assert "touch" not in "".join(stages)


def test_the_image_is_not_built_unless_the_worker_can_be_imported() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [modules] = re.findall(r'python -c "import ([^"]+)"', dockerfile)
    assert {"node.run.workers", "pipeline.detect"} <= set(modules.split(", "))
    for module in modules.split(", "):
        assert importlib.util.find_spec(module) is not None


def test_what_goes_into_the_image_is_pinned_with_hashes_and_names_no_url() -> None:
    for name in ("requirements.lock", "requirements-cpu.lock", "requirements-build.lock"):
        lines = _lines(name)
        assert lines
        assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+ --hash=sha256:[0-9a-f]{64}", line)] == []


def test_the_lock_files_pin_every_direct_dependency_once() -> None:
    run, cpu, develop = (_pins(f"requirements{kind}.lock") for kind in ("", "-cpu", "-develop"))
    project = PYPROJECT["project"]
    needed = {_normal(d) for d in project["dependencies"]}
    optional = {_normal(d) for extra in project["optional-dependencies"].values() for d in extra}
    assert needed <= run.keys()
    assert needed <= cpu.keys()
    assert optional <= run.keys() | develop.keys()
    assert not run.keys() & develop.keys()


def test_the_image_for_the_cpu_differs_in_torch_alone_and_has_no_cuda() -> None:
    run, cpu = _pins("requirements.lock"), _pins("requirements-cpu.lock")
    cuda = {name for name in run if name == "triton" or name.startswith(("nvidia-", "cuda-"))}
    assert cuda
    assert cpu["torch"].endswith("+cpu")
    assert cpu.items() - {("torch", cpu["torch"])} == {(n, v) for n, v in run.items() if n not in cuda | {"torch"}}


def _files(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]


def _pins(name: str) -> dict[str, str]:
    pins = [line.split(" ")[0].split("==") for line in _lines(name)]
    assert len({_normal(package) for package, _ in pins}) == len(pins)
    return {_normal(package): version for package, version in pins}


def _normal(requirement: str) -> str:
    name = requirement.split("[")[0].split(">")[0].split("=")[0].strip()
    return name.lower().replace("_", "-").replace(".", "-")
