"""The compose files start every part of the node, safely."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PARTS = {"receiver", "deliverer", "sweep", "worklist"}


def _compose(*files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose", *(word for file in files for word in ("-f", file)), "config"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("POSTGRES_", "REDIS_", "PACS_", "CMBNODE_"))}
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)


def _services(*files: str) -> dict[str, dict[str, Any]]:
    done = _compose(*files, POSTGRES_PASSWORD="a", REDIS_PASSWORD="b")
    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return services


def test_secrets_must_come_from_the_environment() -> None:
    done = _compose("docker-compose.yml")
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr or "REDIS_PASSWORD" in done.stderr


def test_every_part_runs_with_a_gpu_reserved_for_the_worker_alone() -> None:
    services = _services("docker-compose.yml")
    assert services.keys() >= PARTS | {"worker", "redis", "postgres", "orthanc"}
    reserved = {name for name, service in services.items() if "gpu" in json.dumps(service.get("deploy", {}))}
    assert reserved == {"worker"}


def test_the_cpu_override_replaces_the_gpu_worker() -> None:
    services = _services("docker-compose.yml", "docker-compose.cpu.yml")
    assert services["worker"]["profiles"] == ["gpu"]
    assert services["worker-cpu"]["command"] == services["worker"]["command"]
    assert "gpu" not in json.dumps(services["worker-cpu"].get("deploy", {}))


@pytest.mark.parametrize("name", sorted(PARTS | {"worker", "worker-cpu"}))
def test_no_part_can_gain_privileges_or_write_outside_its_volume(name: str) -> None:
    service = _services("docker-compose.yml", "docker-compose.cpu.yml")[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["volumes"] == ["data:/data:rw"]


@pytest.mark.parametrize("name", sorted(PARTS | {"worker", "worker-cpu", "redis", "postgres"}))
def test_every_part_has_a_health_check(name: str) -> None:
    assert _services("docker-compose.yml", "docker-compose.cpu.yml")[name]["healthcheck"]["test"]


def test_databases_are_on_the_internal_network_only() -> None:
    done = yaml.safe_load(_compose("docker-compose.yml", POSTGRES_PASSWORD="a", REDIS_PASSWORD="b").stdout)
    assert done["networks"]["internal"]["internal"] is True
    for name in ("redis", "postgres"):
        assert list(done["services"][name]["networks"]) == ["internal"]
        assert "ports" not in done["services"][name]


def test_the_image_does_not_run_as_root() -> None:
    instructions = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in instructions if line.startswith("USER ")]
    assert users[-1:] == ["cmbnode"]
    assert instructions.index("USER cmbnode") < instructions.index('ENTRYPOINT ["cmbnode"]')
