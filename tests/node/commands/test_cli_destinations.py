"""`cmbnode echo NAME` and `cmbnode send DIR NAME`: a destination by its name in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.deliver.test_stow import stores
from tests.node.jobs import capture
from tests.node.reports import job
from tests.node.ris import ris
from tests.node.web_service import web
from tests.ports import free_port

from .test_cli import refused, run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder with one small object."""
    folder = tmp_path / "objects"
    folder.mkdir()
    capture(job()).save_as(folder / "a.dcm", enforce_file_format=True)
    return folder


def test_echo_asks_a_ris_by_its_name(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    with ris() as far_side:
        config.write_text(f'[destinations.ris]\nkind = "hl7"\nhost = "127.0.0.1"\nport = {far_side.port}\n')
        status, out, _ = run(capsys, "echo", "ris", "--config", config)
    assert status == 0
    assert out.startswith(f"mllp://127.0.0.1:{far_side.port} accepts connections")
    status, _, err = run(capsys, "echo", "ris", "--config", config)
    assert status == 1
    assert "cannot be reached" in err


def test_send_stores_by_dicomweb(capsys: pytest.CaptureFixture[str], config: Path, objects: Path) -> None:
    with web(stores) as service:
        config.write_text(f'[destinations.vna]\nkind = "stow"\nurl = "{service.url}"\n')
        assert run(capsys, "send", objects, "vna", "--config", config)[:2] == (0, "1 accepted, 0 refused\n")
    assert len(service.requests) == 1


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str], config: Path, objects: Path) -> None:
    config.write_text(f'[destinations.ris]\nkind = "hl7"\nhost = "127.0.0.1"\nport = {free_port()}\n')
    assert "no such destination in the settings; there is ris" in refused(capsys, "echo", "pacs", "--config", config)
    assert "accepts no DICOM objects" in refused(capsys, "send", objects, "ris", "--config", config)
