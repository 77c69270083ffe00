"""DCMTK's senders against the receiver: other people's DICOM, every encoding."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.dicom_factory import TRANSFER_SYNTAXES, Part, classic, encode, enhanced, write
from tests.node.receiving import Node, eventually, running_node

STORESCU, ECHOSCU = Path("/usr/bin/storescu"), Path("/usr/bin/echoscu")
PROPOSE = {  # DCMTK proposes a compressed syntax only when told to
    "implicit": "--propose-implicit",
    "explicit": "--propose-little",
    "big-endian": "--propose-big",
    "deflated": "--propose-deflated",
    "jpeg-lossless": "--propose-lossless",
    "jpeg-ls": "--propose-jls-lossless",
    "jpeg-2000": "--propose-j2k-lossless",
    "rle": "--propose-rle",
}
pytestmark = pytest.mark.integration


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as node:
        yield node


def dcmtk(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )


def storescu(node: Node, *arguments: str | Path, called: str = "CMBNODE") -> subprocess.CompletedProcess[str]:
    where = ["-aet", "DCMTK", "-aec", called, "127.0.0.1", str(node.port)]
    return dcmtk(STORESCU, "--verbose", *where, *arguments)


def image(**options: object) -> Dataset:
    rng = np.random.default_rng(3)
    return classic(rng.integers(0, 4000, (1, 48, 64), dtype=np.uint16), bits_stored=12, **options)[0]  # type: ignore[arg-type]


def test_echoscu_is_answered(node: Node) -> None:
    done = dcmtk(ECHOSCU, "-aec", "CMBNODE", "127.0.0.1", str(node.port))
    assert done.returncode == 0, done.stderr
    assert dcmtk(ECHOSCU, "-aec", "OTHER", "127.0.0.1", str(node.port)).returncode != 0


@pytest.mark.parametrize("name", sorted(PROPOSE))
def test_an_image_arrives_unchanged_in_every_encoding(node: Node, tmp_path: Path, name: str) -> None:
    sent = image()
    (path,) = write(sent, tmp_path, name)
    done = storescu(node, PROPOSE[name], path)
    assert done.returncode == 0, done.stderr + done.stdout
    (file,) = node.files()
    kept = dcmread(file)
    assert kept.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[name]
    expected = np.frombuffer(sent.PixelData, np.uint16).reshape(48, 64)
    np.testing.assert_array_equal(kept.pixel_array, expected)
    assert node.instances() == 1


def test_a_multi_frame_object_arrives_and_is_counted_once(node: Node, tmp_path: Path) -> None:
    frames = np.zeros((12, 32, 32), np.uint16)
    for legacy in (False, True):
        sent = enhanced([Part(frames)], legacy=legacy, series_number=1 + legacy)
        done = storescu(node, "--required", *write(sent, tmp_path))
        assert done.returncode == 0, done.stderr + done.stdout
    assert sorted(places for series in node.ledger.series_receiving() for _, _, places in series.places) == [12, 12]


def test_a_series_over_one_association_is_whole_and_released(node: Node, tmp_path: Path) -> None:
    write(classic(np.zeros((20, 64, 64), np.uint16)), tmp_path / "series")
    done = storescu(node, "--scan-directories", tmp_path / "series")
    assert done.returncode == 0, done.stderr + done.stdout
    assert eventually(lambda: node.ledger.series_receiving()[0].open_associations == 0)
    (series,) = node.ledger.series_receiving()
    assert (len(series.places), series.last_ended_released) == (20, True)


def test_a_sender_with_small_pdus_is_understood(node: Node, tmp_path: Path) -> None:
    done = storescu(node, "--max-send-pdu", "4096", *write(image(), tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    assert node.instances() == 1


def test_a_sender_that_aborts_leaves_the_series_unreleased(node: Node, tmp_path: Path) -> None:
    storescu(node, "--abort", *write(image(), tmp_path))
    assert eventually(lambda: node.ledger.series_receiving()[0].open_associations == 0)
    assert node.ledger.series_receiving()[0].last_ended_released is False


def test_dcmtk_shows_why_an_object_was_not_stored(node: Node, tmp_path: Path) -> None:
    sent = image()
    del sent.StudyInstanceUID
    path = tmp_path / "no-study.dcm"
    encode(sent).save_as(path, enforce_file_format=True)
    done = storescu(node, path)
    assert "Error: CannotUnderstand" in done.stdout + done.stderr
    assert node.files() == []
