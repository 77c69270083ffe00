"""`cmbnode send` and `cmbnode echo`, against a storage SCP and the demo's PACS: what arrives, and what is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pynetdicom import AE, StoragePresentationContexts, evt

from node.demo.pacs import receiving
from tests.dicom_factory import Patient, classic, write
from tests.ports import free_port

from .test_cli import refused, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_nobodys_settings")]


def test_send_stores_every_file_in_its_own_transfer_syntax(
    capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path
) -> None:
    extra = np.full((3, 16, 16), 7, np.uint16)
    write(classic(extra, patient=Patient(seed="other"), series_number=20), study / "deep" / "down", "jpeg-lossless")
    (study / "notes.txt").write_text("not DICOM")
    syntaxes: dict[str, str] = {}

    def keep(event: Any) -> int:
        syntaxes[event.request.AffectedSOPInstanceUID] = event.context.transfer_syntax
        return 0x0000

    with scp(keep) as port:
        status, out, err = run(capsys, "send", study, f"PACS@127.0.0.1:{port}")
    sent = [dcmread(path, stop_before_pixels=True) for path in study.rglob("*.dcm")]
    assert (status, out) == (0, f"{len(sent)} accepted, 0 refused\n")
    assert "1 file is not sent: it is not DICOM" in err
    assert syntaxes == {ds.SOPInstanceUID: ds.file_meta.TransferSyntaxUID for ds in sent}
    assert len(set(syntaxes.values())) == 2


@contextmanager
def scp(store: Any) -> Iterator[int]:
    entity = AE(ae_title="PACS")
    for context in StoragePresentationContexts[:60]:
        entity.add_supported_context(context.abstract_syntax, [*context.transfer_syntax, "1.2.840.10008.1.2.4.70"])
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_a_refused_file_makes_send_fail_and_say_why(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    answers = iter([0x0000, 0xA700])
    with scp(lambda _event: next(answers, 0x0000)) as port:
        status, out, err = run(capsys, "send", study, f"PACS@127.0.0.1:{port}")
    assert status == 1
    assert out.endswith(" accepted, 1 refused\n")
    assert "0xA700" in err


@pytest.mark.parametrize("kept", [400, 900, -100])
def test_a_truncated_file_has_its_own_line_and_the_others_are_sent(
    capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path, kept: int
) -> None:
    folder = tmp_path / "sent"
    shutil.copytree(study, folder)
    victim = next(
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.read_bytes()[128:132] == b"DICM"
    )
    victim.write_bytes(victim.read_bytes()[:kept])
    with scp(lambda _event: 0x0000) as port:
        status, out, err = run(capsys, "send", folder, f"PACS@127.0.0.1:{port}")
    assert status == 1
    assert out.endswith(" accepted, 1 refused\n")
    assert f"{victim}: " in err


def test_sending_to_nobody_is_no_usage_error(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    status, out, err = run(capsys, "send", study, f"PACS@127.0.0.1:{free_port()}")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].endswith("does not answer; is the host up and the port right?")


def test_a_folder_without_dicom_is_not_sent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    assert "no DICOM file" in refused(capsys, "send", tmp_path, "PACS@127.0.0.1:104")
    assert "no such folder" in refused(capsys, "send", tmp_path / "none", "PACS@127.0.0.1:104")


def test_echo_says_whether_a_node_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with scp(lambda _event: 0x0000) as port:
        status, out, _ = run(capsys, "echo", f"PACS@127.0.0.1:{port}")
    assert status == 0
    assert f"PACS@127.0.0.1:{port} answers" in out
    assert run(capsys, "echo", f"PACS@127.0.0.1:{port}")[0] == 1


def test_the_demos_pacs_keeps_what_it_receives(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    with receiving(tmp_path / "in", "DEMOPACS") as (port, received):
        assert run(capsys, "send", study, f"DEMOPACS@127.0.0.1:{port}")[0] == 0
    originals = {ds.SOPInstanceUID for ds in (dcmread(path) for path in study.glob("*.dcm"))}
    assert set(received.by_kind) == {"capture"}
    assert dcmread(received.by_kind["capture"]).SOPInstanceUID in originals
