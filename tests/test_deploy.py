"""Units, quadlets and manifests start the node with no more rights than it needs, and in ways that it understands."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.commands.serve import QueueChoice
from node.settings import Settings, load_settings
from node.settings.setting_errors import OTHER_VARIABLES, setting_names, variable_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = ("cmb-node.service", "cmb-node-backup.service", "cmb-node-qa.service")
USER = 10001
PARTS = {
    "receiver": ["receiver"],
    "worker": ["worker", "--queue", "analyse"],
    "deliverer": ["worker", "--queue", "deliver"],
    "sweep": ["sweep"],
    "worklist": ["worklist"],
}
STORES = {"redis", "postgres"}


def _entries(path: Path) -> dict[str, dict[str, list[str]]]:
    """A unit file: the values of each key of each section."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def _variables(text: str) -> set[str]:
    return set(re.findall(r"CMBNODE_[A-Z_0-9]+", text))


def test_systemd_accepts_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    units = [file for file in (DEPLOY / "systemd").iterdir() if file.suffix in (".service", ".timer")]
    for file in units:
        text = file.read_text().replace("/opt/cmb-node/.venv/bin/cmbnode", "/bin/true")
        (tmp_path / file.name).write_text(text)
    (tmp_path / "cmb-node.service.d").mkdir()
    shutil.copy(DEPLOY / "systemd" / "gpu.conf", tmp_path / "cmb-node.service.d")
    verify = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / file.name) for file in units)]
    done = subprocess.run(verify, capture_output=True, text=True)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "cmb-node" in line]
    assert ours == []
    for unit in UNITS:
        rate = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(tmp_path / unit)]
        subprocess.run(rate, capture_output=True, check=True)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_as_a_user_of_its_own_and_writes_only_its_data(unit: str) -> None:
    service = _entries(DEPLOY / "systemd" / unit)["Service"]
    user, folder = (DEPLOY / "systemd" / "cmb-node.sysusers").read_text().split()[1::3]
    assert service["User"] == service["Group"] == [user]
    assert service["UMask"] == ["0077"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    writable = {f"/var/lib/{name}" for name in service.get("StateDirectory", [])}
    writable |= set(" ".join(service.get("ReadWritePaths", [])).split())
    assert folder in writable
    assert "MemoryDenyWriteExecute" not in service  # the CPU kernels of PyTorch are compiled as it runs
    environment = dict(one.split("=", 1) for line in service["Environment"] for one in line.split())
    assert environment["CMBNODE_DATA_DIR"] == folder


def test_the_node_stops_before_systemd_loses_patience_and_outlives_an_analysis_without_memory() -> None:
    service = _entries(DEPLOY / "systemd" / "cmb-node.service")["Service"]
    assert int(service["TimeoutStopSec"][0]) > Settings().queue.grace_s + 10
    assert (service["OOMPolicy"], service["StateDirectoryMode"]) == (["continue"], ["0700"])


def test_the_quadlet_names_keys_that_podman_knows_and_starts_the_node_without_rights() -> None:
    entries = _entries(DEPLOY / "quadlet" / "cmb-node.container")
    known = {  # podman-systemd.unit(5) of Podman 4.4
        "Image", "ContainerName", "Exec", "Environment", "Volume", "PublishPort", "User", "Group", "ReadOnly",
        "NoNewPrivileges", "DropCapability", "RunInit", "PodmanArgs", "HealthCmd", "HealthInterval", "HealthTimeout",
        "HealthRetries", "HealthStartPeriod",
    }  # fmt: skip
    container = entries["Container"]
    assert container.keys() <= known
    assert (container["User"], container["DropCapability"], container["ReadOnly"]) == ([str(USER)], ["all"], ["true"])
    assert container["NoNewPrivileges"] == ["true"]
    assert "127.0.0.1:8080:8080" in container["PublishPort"]
    assert f"{container['Volume'][0].split(':')[0]}" in {path.name for path in (DEPLOY / "quadlet").iterdir()}
    assert container["HealthCmd"] == ["python -m node.processes.alive"]
    assert entries.keys() == {"Unit", "Container", "Service", "Install"}


def _documents() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def _workloads() -> dict[str, dict[str, Any]]:
    """Pod templates by the name of the part."""
    return {
        one["metadata"]["name"].removeprefix("cmb-node-"): one["spec"]["template"]
        for one in _documents()
        if one["kind"] in ("Deployment", "StatefulSet")
    }


def test_kubectl_reads_every_manifest(tmp_path: Path) -> None:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for file in files:
        shutil.copy(file, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [file.name for file in files]}))
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    assert len(list(yaml.safe_load_all(done.stdout))) == len(list(_documents()))


def test_every_part_has_a_pod_and_every_pod_runs_a_command_that_exists() -> None:
    workloads = _workloads()
    assert workloads.keys() == PARTS.keys() | STORES
    for name, words in PARTS.items():
        (container,) = workloads[name]["spec"]["containers"]
        assert container["args"] == words
    assert {words[2] for words in PARTS.values() if len(words) > 1} == {queue.value for queue in QueueChoice}


@pytest.mark.parametrize("name", sorted(PARTS.keys() | STORES))
def test_no_pod_runs_as_root_can_gain_rights_or_use_up_the_machine(name: str) -> None:
    spec = _workloads()[name]["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == USER if name in PARTS else context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_each_pod_of_the_node_is_judged_by_its_own_file(name: str) -> None:
    spec = _workloads()[name]["spec"]
    (container,) = spec["containers"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["python", "-m", "node.processes.alive"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert "emptyDir" in mounts["/tmp"]
    assert int(spec["terminationGracePeriodSeconds"]) > Settings().queue.grace_s + 10


def test_a_pod_gets_only_variables_that_the_node_knows() -> None:
    """Kubernetes would add CMB_NODE_…_SERVICE_HOST and the like for every Service."""
    known = {variable_of(name) for name in setting_names(Settings)} | set(OTHER_VARIABLES)
    for name, template in _workloads().items():
        assert template["spec"]["enableServiceLinks"] is False
        if name in PARTS:
            assert {one["name"] for one in template["spec"]["containers"][0]["env"]} <= known
    for file in (*(DEPLOY / "systemd").iterdir(), *(DEPLOY / "quadlet").iterdir()):
        assert _variables(file.read_text()) <= known, file.name


def test_the_configuration_in_the_manifest_is_taken_and_is_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = (one for one in _documents() if one["metadata"]["name"] == "cmb-node-config")
    (tmp_path / "config.toml").write_text(config["data"]["config.toml"])
    assert load_settings(tmp_path / "config.toml").receiver.listen_host == "0.0.0.0"
    example = tomllib.loads((ROOT / "config" / "example.toml").read_text())
    assert tomllib.loads(config["data"]["config.toml"]) == example


def test_what_a_manifest_names_exists_in_another() -> None:
    documents = list(_documents())
    named = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for template in _workloads().values():
        for volume in template["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in named
            if given := volume.get("configMap"):
                assert ("ConfigMap", given["name"]) in named
        mounted = {mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
        assert {volume["name"] for volume in template["spec"]["volumes"]} <= mounted
    labels = [template["metadata"]["labels"] for template in _workloads().values()]
    for one in documents:
        if one["kind"] == "Service":
            assert any(one["spec"]["selector"].items() <= label.items() for label in labels)
    env = [one for t in _workloads().values() for one in t["spec"]["containers"][0].get("env", ())]
    hosts = {re.sub(r".*[/@]([\w-]+)[:/]\w+/?\w*$", r"\1", e["value"]) for e in env if e["name"].endswith("_URL")}
    assert {("Service", host) for host in hosts} <= named


def test_redis_starts_in_kubernetes_as_it_does_in_compose() -> None:
    (script,) = (one for one in _documents() if one["metadata"]["name"] == "cmb-node-redis" and "data" in one)
    assert script["data"]["start-redis.sh"] == (DEPLOY / "start-redis.sh").read_text()
