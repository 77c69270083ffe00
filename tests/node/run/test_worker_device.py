"""The log says once what the networks run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from node.queue import ANALYSE
from node.run.workers import Worker
from node.settings import Settings
from pipeline.networks import hardware
from pipeline.networks.hardware import Hardware


@pytest.mark.parametrize(
    ("device", "gpu", "said"),
    [
        ("auto", "NVIDIA H100, 80 GiB", "NVIDIA H100, 80 GiB"),
        ("auto", "", "CPU, 4 threads"),
        ("cpu", "NVIDIA H100, 80 GiB", "CPU, 4 threads"),
    ],
)
def test_a_worker_says_what_its_networks_run_on(
    device: Any, gpu: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "find_hardware", lambda: Hardware("2.15", True, gpu, 4))
    settings = Settings(data_dir=tmp_path, redis_url=SecretStr("redis://127.0.0.1:1/0"), device=device)
    worker = Worker(settings, ANALYSE)
    with capture_logs() as log:
        worker._tell_device()
        worker._tell_device()
    assert [(line["event"], line["device"]) for line in log] == [("networks run on", said)]
