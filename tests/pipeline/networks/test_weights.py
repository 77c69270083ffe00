"""Weights are loaded by hash, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ProfileError
from pipeline.networks.weights import Weights, load_weights
from pipeline.profile import load_profile


def _weights(path: Path, sha256: str | None = None) -> Weights:
    return Weights(name="net", file=path, sha256=sha256 or hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_file({"layer.weight": torch.arange(6.0).reshape(2, 3)}, path)
    return path


def test_the_right_file_gives_its_tensors(file: Path) -> None:
    tensors = load_weights(_weights(file))
    assert torch.equal(tensors["layer.weight"], torch.arange(6.0).reshape(2, 3))


def test_another_file_is_refused_and_named(file: Path) -> None:
    wanted = _weights(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ProfileError, match="are not those of the profile") as caught:
        load_weights(wanted)
    assert str(file) in str(caught.value)
    assert wanted.sha256[:8] in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_weights(_weights(tmp_path / "none.safetensors", "0" * 64))


def test_a_file_with_the_right_hash_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"not a header")
    with pytest.raises(ProfileError, match="are not safetensors"):
        load_weights(_weights(path))


def test_a_profile_finds_its_weights_beside_itself(file: Path) -> None:
    profile = file.with_name("learned.toml")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    profile.write_text(
        f'[candidates]\nmethod = "kmeans"\nweights = {{name = "net", file = "net.safetensors", sha256 = "{digest}"}}\n'
        "[rating]\noffset = 0\nweights = {contrast = 1}\n[thresholds]\npossible = 0.5\ndefinite = 0.5\n"
    )
    weights = load_profile(str(profile)).candidates.weights
    assert weights is not None
    assert list(load_weights(weights)) == ["layer.weight"]
