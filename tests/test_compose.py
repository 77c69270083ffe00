"""The compose files start every part of the node, with no more rights and no more of the host than it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.processes.alive import ALIVE_FILE
from node.settings import load_settings
from node.settings.destinations import DicomDestination

ROOT = Path(__file__).parents[1]
BASE, GPU, DEMO = "docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.demo.yml"
NODE = {"receiver", "worker", "deliverer", "sweep", "worklist"}
STORES = {"redis", "postgres"}


def _compose(*files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose", *(word for file in files for word in ("-f", file)), "config"]
    read = _variables()
    clean = {k: v for k, v in os.environ.items() if k not in read}
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)


@cache
def _document(*files: str) -> dict[str, Any]:
    done = _compose(*files, ORTHANC_PASSWORD="hush")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = yaml.safe_load(done.stdout)
    return document


def _services(*files: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _document(*files)["services"]
    return services


def _variables() -> set[str]:
    """Names of the variables that the compose files read."""
    files = [*ROOT.glob("docker-compose*.yml"), *(ROOT / "deploy").glob("*.yml")]
    return {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}


def _volumes(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted, by the place in the container."""
    return {place: source for source, place, *_ in (volume.split(":") for volume in service.get("volumes", ()))}


def test_every_part_runs_on_the_cpu() -> None:
    services = _services(BASE)
    assert services.keys() == NODE | STORES
    assert all("gpu" not in json.dumps(service) for service in services.values())
    assert {services[name]["build"]["args"]["DEVICE"] for name in NODE} == {"cpu"}


def test_the_gpu_override_gives_the_worker_alone_a_gpu_and_an_image_for_it() -> None:
    services = _services(BASE, GPU)
    assert {name for name, service in services.items() if "gpu" in json.dumps(service.get("deploy", {}))} == {"worker"}
    assert {name for name in NODE if services[name]["build"]["args"]["DEVICE"] == "cuda"} == {"worker"}
    assert {name for name in NODE if services[name]["image"] == services["worker"]["image"]} == {"worker"}


@pytest.mark.parametrize("name", sorted(NODE | STORES | {"orthanc"}))
def test_no_container_can_gain_privileges_or_use_up_the_host(name: str) -> None:
    service = _services(BASE, DEMO)[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["init"] is True
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["tmpfs"]
    assert all("size=" in mount for mount in service["tmpfs"])


@pytest.mark.parametrize("name", sorted(NODE | STORES))
def test_no_part_runs_as_root_or_writes_outside_its_volume(name: str) -> None:
    service = _services(BASE)[name]
    assert service["read_only"] is True
    if name in STORES:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
    assert writable == [f"{'data' if name in NODE else name}:{_home(name)}:rw"]


def _home(name: str) -> str:
    return "/var/lib/postgresql/data" if name == "postgres" else "/data"


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("name", sorted(NODE | STORES))
def test_every_part_has_a_health_check_that_podman_understands_too(name: str) -> None:
    kind, *words = _services(BASE)[name]["healthcheck"]["test"]
    assert kind == "CMD"
    assert all(" " not in word for word in words)


def test_each_container_of_the_node_is_judged_by_a_file_that_no_other_sees() -> None:
    [path] = re.findall(rf"{ALIVE_FILE}=(\S+)", (ROOT / "Dockerfile").read_text())
    for name in NODE:
        service = _services(BASE)[name]
        assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "node.processes.alive"]
        assert [mount.split(":")[0] for mount in service["tmpfs"]] == [str(Path(path).parent)]
        assert ALIVE_FILE not in service["environment"]


def test_the_stores_are_on_the_internal_network_and_so_is_the_worker() -> None:
    document = _document(BASE)
    assert document["networks"]["internal"]["internal"] is True
    inside = {name for name, service in document["services"].items() if list(service["networks"]) == ["internal"]}
    assert inside == STORES | {"worker"}
    assert not any("ports" in document["services"][name] for name in inside)


@pytest.mark.parametrize("name", ["receiver", "deliverer", "sweep", "worklist"])
def test_what_speaks_with_the_hospital_is_on_its_network(name: str) -> None:
    """The sweep fetches earlier studies."""
    assert set(_services(BASE)[name]["networks"]) == {"internal", "hospital"}


def test_only_the_receiver_is_published_beyond_this_host() -> None:
    ports = {name: port for file in (BASE, DEMO) for name, port in _published(file)}
    assert {name for name, port in ports.items() if not port.startswith("127.0.0.1:")} == {"receiver"}
    target = _services(BASE)["receiver"]["environment"]["CMBNODE_RECEIVER__PORT"]
    assert ports["receiver"] == f"${{DICOM_PORT:-11112}}:{target}"


def _published(file: str) -> list[tuple[str, str]]:
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    return [(name, port) for name, service in services.items() for port in service.get("ports", ())]


def test_no_secret_stands_in_an_environment_or_on_a_command_line() -> None:
    for name, service in _services(BASE, GPU).items():
        environment = service.get("environment", {})
        passwords = {key for key in environment if "PASSWORD" in key or "TOKEN" in key}
        assert all(key.endswith("_FILE") for key in passwords), name
        assert not [value for value in environment.values() if re.search(r"//[^/@]*:[^/@]*@", str(value))]
    assert "requirepass $(cat /run/secrets/redis_password)" in (ROOT / "deploy" / "start-redis.sh").read_text()


def test_the_node_and_its_stores_read_the_same_password_files() -> None:
    document = _document(BASE)
    services, folder = document["services"], str(ROOT / "secrets")
    for name, secret in (("postgres", "database_password"), ("redis", "redis_password")):
        assert document["secrets"][secret]["file"] == f"{folder}/{secret}"
        assert [entry if isinstance(entry, str) else entry["source"] for entry in services[name]["secrets"]] == [secret]
    for name in NODE:
        assert _volumes(services[name])[services[name]["environment"]["CMBNODE_SECRETS_DIR"]] == folder


@pytest.mark.parametrize("files", [(BASE,), (BASE, DEMO)])
def test_every_setting_can_be_set_in_the_configuration_that_is_mounted(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = ROOT / ("config" if files == (BASE,) else "deploy/demo")
    for name in NODE:
        service = _services(*files)[name]
        config = Path(service["environment"]["CMBNODE_CONFIG"])
        assert config.name == "config.toml"
        assert _volumes(service)[str(config.parent)] == str(folder)
    for secret in ("database_password", "redis_password"):
        (tmp_path / secret).write_text("hush")
    for key, value in _services(*files)["sweep"]["environment"].items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("CMBNODE_SECRETS_DIR", str(tmp_path))
    settings = load_settings(folder / ("example.toml" if files == (BASE,) else "config.toml"))
    assert settings.ledger_url == "postgresql+psycopg://cmbnode:hush@postgres/cmbnode"
    assert settings.broker_url == "redis://:hush@redis:6379/0"
    assert settings.destinations.keys() == {"pacs"}
    assert settings.receiver.calling_ae_titles


@pytest.mark.parametrize("name", ["receiver", "worklist"])
def test_what_is_published_listens_on_all_addresses_of_its_container(name: str) -> None:
    assert _services(BASE)[name]["environment"][f"CMBNODE_{name.upper()}__HOST"] == "0.0.0.0"


def test_the_example_names_every_variable_that_the_compose_files_read() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert {line.split("=")[0] for line in lines if line and not line.startswith("#")} == _variables()


def test_passwords_and_settings_stay_out_of_the_image_and_of_the_repository() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    for path in (".env", "secrets/redis_password", "config/config.toml"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0, path


def test_the_demo_pacs_needs_a_password() -> None:
    done = _compose(BASE, DEMO)
    assert done.returncode != 0
    assert "ORTHANC_PASSWORD" in done.stderr


def test_the_demo_pacs_routes_to_the_node_and_gets_its_results() -> None:
    services = _services(BASE, DEMO)
    orthanc = json.loads(services["orthanc"]["environment"]["ORTHANC_JSON"])
    assert orthanc["LuaScripts"]
    for script in orthanc["LuaScripts"]:
        assert Path(_volumes(services["orthanc"])[script]).is_file()
    settings = load_settings(ROOT / "deploy" / "demo" / "config.toml")
    assert orthanc["DicomModalities"]["cmbnode"] == [settings.ae_title, "receiver", settings.receiver.port]
    assert orthanc["StableAge"] <= 60
    pacs = settings.destinations["pacs"]
    assert isinstance(pacs, DicomDestination)
    assert (pacs.ae_title, pacs.host, pacs.port) == (orthanc["DicomAet"], "orthanc", orthanc["DicomPort"])
    assert settings.receiver.calling_ae_titles == (orthanc["DicomAet"],)
    for name in ("receiver", "deliverer"):
        assert set(services[name]["networks"]) & set(services["orthanc"]["networks"])
