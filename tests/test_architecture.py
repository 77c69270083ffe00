"""The walls of docs/architecture.md stand: who imports what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _imports(package: str) -> Iterator[tuple[str, str]]:
    """Yield (file, top-level module imported) for every import statement, wherever it stands."""
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield name, node.module.split(".")[0]


def _users(package: str, *libraries: str) -> set[str]:
    return {file for file, library in _imports(package) if library in libraries}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("node", "training"), ("pipeline", "node"), ("pipeline", "training"), ("training", "node")],
)
def test_dependencies_point_one_way(package: str, forbidden: str) -> None:
    assert not _users(package, forbidden)


def test_the_pipeline_knows_no_network_database_or_queue() -> None:
    assert not _users("pipeline", "pynetdicom", "sqlalchemy", "celery", "redis", "httpx", "socket", "fastapi")


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        (("celery", "kombu", "billiard"), ("node/bell.py", "node/tasks.py")),
        (("highdicom",), ()),
        (("hl7",), ("node/destinations/mllp.py", "node/destinations/oru.py")),
        (("torch", "torchvision", "SimpleITK", "scipy"), ()),
        (
            ("pynetdicom",),
            (
                "node/association.py",
                "node/command_sets.py",
                "node/destinations/",
                "node/demo/pacs.py",
                "node/receiver.py",
                "node/priors/dicom_qr.py",
                "node/storage_classes.py",
                "node/upper_layer.py",
            ),
        ),
    ],
)
def test_in_the_node_a_library_stays_where_it_belongs(libraries: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    assert not {file for file in _users("node", *libraries) if not file.startswith(allowed or ("-",))}


def test_only_the_results_know_highdicom() -> None:
    assert all(file.startswith("pipeline/results/") for file in _users("pipeline", "highdicom"))


def test_sql_is_written_in_the_ledger_only() -> None:
    """Others may name SQLAlchemy's errors, to outlive them, and nothing else."""
    for path in sorted((ROOT / "node").rglob("*.py")):
        if "ledger" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy":
                assert node.module == "sqlalchemy.exc", path


def test_nothing_is_unpickled() -> None:
    for package in ("node", "pipeline", "training"):
        assert not _users(package, "pickle", "dill", "cloudpickle", "joblib", "shelve")


@pytest.mark.parametrize("module", ["node.receiver", "node.sweep", "node.worklist", "node.cli", "pipeline.study"])
def test_what_needs_no_network_of_neurons_does_not_load_one(module: str) -> None:
    code = (
        f"import sys, {module}; print([name for name in ('torch', 'SimpleITK', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
