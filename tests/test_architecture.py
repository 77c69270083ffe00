"""The walls of docs/architecture.md stand: who imports what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@cache
def _imports(package: str) -> tuple[tuple[str, str], ...]:
    """(File, top-level module imported) for every import statement, wherever it stands."""
    return tuple(_each_import(package))


def _each_import(package: str) -> Iterator[tuple[str, str]]:
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


LAYERS = (
    ("archive", "processes", "roles", "settings", "text"),
    ("ledger",),
    ("commitment", "leases", "logs", "queue", "retry", "tls"),
    ("notices",),
    ("deliver", "receive"),
    ("retrieve",),
    ("analyse", "priors", "pull"),
    ("atna", "route", "work_items"),
    ("web",),
    ("demo", "run"),
    ("doctor", "qa"),
    ("commands",),
    ("cli",),
)
"""The rooms of `node/` from the ground up. A room imports only from layers below its own."""


def test_no_import_in_the_node_runs_up() -> None:
    layer = {room: n for n, rooms in enumerate(LAYERS) for room in rooms}
    upward = []
    for path in sorted((ROOT / "node").rglob("*.py")):
        room = path.relative_to(ROOT / "node").with_suffix("").parts[0]
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("node.") and node.level == 0:
                used = node.module.split(".")[1]
                if used != room and layer[used] >= layer[room]:
                    upward.append(f"{path.relative_to(ROOT)} imports node.{used}")
    assert upward == []


def test_the_pipeline_knows_no_network_database_or_queue() -> None:
    assert not _users("pipeline", "pynetdicom", "sqlalchemy", "celery", "redis", "httpx", "socket", "fastapi")


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        (("celery", "kombu", "billiard"), ("node/queue.py", "node/run/workers.py")),
        (("highdicom",), ()),
        (("hl7",), ("node/deliver/mllp.py", "node/deliver/oru.py")),
        (("torch", "torchvision", "SimpleITK"), ()),
        (("scipy",), ("node/web/detector_shifts.py",)),
        (
            ("pynetdicom",),
            (
                "node/receive/connections.py",
                "node/receive/command_sets.py",
                "node/deliver/",
                "node/demo/pacs.py",
                "node/receive/receiver.py",
                "node/retrieve/",
                "node/receive/presentation_contexts.py",
                "node/receive/upper_layer.py",
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


def test_the_node_runs_without_torchvision() -> None:
    """Its operators are compiled for one build of torch; there is none on PyPI for the CPU build in the image."""
    assert not _users("node", "torchvision") | _users("pipeline", "torchvision")


def test_nothing_is_unpickled() -> None:
    for package in ("node", "pipeline", "training"):
        assert not _users(package, "pickle", "dill", "cloudpickle", "joblib", "shelve")


def test_a_class_name_means_one_thing() -> None:
    """`Parameters` is the one exception: every method of a stage has its own, found by the name of its module."""
    defined: dict[str, list[str]] = {}
    for package in ("node", "pipeline", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Parameters":
                    defined.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}


@pytest.mark.parametrize(
    "module",
    ["node.receive.receiver", "node.run.sweep", "node.run.workers", "node.web.app", "node.cli", "pipeline.read.study"],
)
def test_what_needs_no_network_of_neurons_does_not_load_one(module: str) -> None:
    code = (
        f"import sys, {module}; print([name for name in ('torch', 'SimpleITK', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_migrations_of_the_ledger_follow_one_another() -> None:
    """Two that were written at the same time would both follow the same one, and no ledger could be opened."""
    files = sorted((ROOT / "node" / "ledger" / "migrations" / "versions").glob("0*.py"))
    for number, file in enumerate(files, start=1):
        text = file.read_text()
        before = f'"{number - 1:04d}"' if number > 1 else "None"
        assert file.name.startswith(f"{number:04d}_")
        assert f'\nrevision = "{number:04d}"\ndown_revision = {before}\n' in text
