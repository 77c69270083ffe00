"""A broken or hostile compressed file costs one line that names it, whatever its decoder does."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.read import decoding
from pipeline.read.decoding import Decoder, Decoding
from tests.dicom_factory import Part, classic, enhanced, write
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

COMPRESSED = ("jpeg-ls", "jpeg-2000", "jpeg-lossless", "rle")
Y, X = np.mgrid[:64, :64]
STORED = (1000 + 500 * np.sin(X / 5) * np.cos(Y / 7)).astype(np.uint16)[None]
TRIALS = 80
"""Enough that the decoders of JPEG-LS and JPEG 2000 abort once or twice: about one change in a hundred does it."""


@contextmanager
def quiet_standard_error(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    capfd.readouterr()
    yield
    assert capfd.readouterr().err == ""


def test_frames_come_with_their_encoding_in_the_order_asked_for(tmp_path: Path) -> None:
    stored = np.concatenate([STORED + k for k in range(4)])
    for name in ("explicit", *COMPRESSED):
        (path,) = write(enhanced([Part(stored, slope=2.0, intercept=-5.0)]), tmp_path / name, name)
        with Decoding() as decoding_:
            ((found, images),) = decoding_.decode({path: [3, 0, 3]})
        assert found == path
        for (pixels, encoding), k in zip(images, (3, 0, 3), strict=True):
            np.testing.assert_array_equal(pixels, stored[k])
            assert (encoding.slope, encoding.intercept, encoding.bits_stored) == (2.0, -5.0, 16)


@pytest.mark.parametrize("transfer_syntax", COMPRESSED)
def test_a_damaged_codestream_is_decoded_or_named(
    transfer_syntax: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (good,) = write(classic(STORED, bits_stored=12), tmp_path, transfer_syntax)
    data = good.read_bytes()
    start = data.rfind(b"\xfe\xff\x00\xe0") + 8
    chance = random.Random(transfer_syntax)
    decoder = Decoder()
    refused: dict[str, str] = {}
    with quiet_standard_error(capfd):
        for trial in range(TRIALS):
            broken = bytearray(data)
            for _ in range(chance.choice((1, 2, 5, 20))):
                end = min(len(data) - 1, start + chance.choice((60, 120, len(data))))
                broken[chance.randrange(start, end)] = chance.randrange(256)
            path = tmp_path / f"{trial}.dcm"
            path.write_bytes(broken)
            try:
                ((pixels, _),) = decoder.decode(path, [0])
            except InputError as error:
                refused[path.name] = str(error)
            else:
                assert pixels.shape == (64, 64)
    decoder.close()
    assert refused
    assert all(why.startswith(f"{name}: ") and "\n" not in why for name, why in refused.items())


class _Stand:
    """Stands in for the decoding process: a Python script that reads the question and misbehaves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def does(self, what: str) -> None:
        real = subprocess.Popen

        def popen(command: list[str], **options: Any) -> Any:
            assert command[1:] == ["-P", "-m", "pipeline.read.decoder"]
            return real([sys.executable, "-c", f"import os, sys, time; sys.stdin.readline(); {what}"], **options)

        self.monkeypatch.setattr(decoding.subprocess, "Popen", popen)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(classic(STORED), tmp_path, "jpeg-ls")[0]


def decoded(path: Path) -> NDArray[Any]:
    with Decoding() as decoding_:
        ((_, ((pixels, _),)),) = decoding_.decode({path: [0]})
    return pixels


@pytest.mark.parametrize("what", ["os.abort()", "os._exit(3)", "os.write(1, b'{\"images\": [')"])
def test_a_decoder_that_crashes_names_the_file(what: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Stand(monkeypatch).does(what)
    with pytest.raises(InputError, match=rf"{file.name}: the decoder crashes on it"):
        decoded(file)


def test_a_decoder_that_hangs_is_ended_and_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Stand(monkeypatch).does("time.sleep(600)")
    monkeypatch.setattr(decoding, "LIMIT_S", 0.2)
    with pytest.raises(InputError, match=rf"{file.name}: the decoder takes too long"):
        decoded(file)


def _decoders() -> set[int]:
    """The decoding processes that this process has started."""
    return {child.pid for child in psutil.Process().children() if "pipeline.read.decoder" in child.cmdline()}


def test_many_compressed_files_are_decoded_and_no_process_is_left(tmp_path: Path) -> None:
    stored = np.concatenate([STORED + k for k in range(20)])
    paths = write(classic(stored), tmp_path, "rle")
    before = _decoders()  # an earlier test's may still be ending
    with Decoding() as decoding_:
        found = dict(decoding_.decode(dict.fromkeys(paths, (0,))))
    for k, path in enumerate(paths):
        np.testing.assert_array_equal(found[path][0][0], stored[k])
    wait_for(lambda: not _decoders() - before)
