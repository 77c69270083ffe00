"""Are these the weights that the profile names? Safetensors files, checked by SHA-256 before they are loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.errors import ProfileError
from pipeline.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parents[1] / "profiles"
"""Folder of the weights of the product's own profiles."""


class Weights(Parameters):
    """A file of weights as a profile names it."""

    name: str = Field(min_length=1, description="What the findings call it")
    file: Path = Field(description="Safetensors file; a relative path starts at the profile's folder")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file, lower-case hex")


def read_weights(weights: Weights) -> bytes:
    """Read a weights file, after checking that it is the right file.

    Raises
    ------
    ProfileError
        If the file is missing, or has another hash than the profile says.
    """
    path = path_of(weights)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"the weights {weights.name} cannot be read ({error.strerror})"
        raise ProfileError(reason, where=str(path), do="install the file") from error
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise ProfileError(
            f"weights {weights.name} are not those of the profile (SHA-256 {found[:8]}…, not {weights.sha256[:8]}…)",
            where=str(path),
            do="install the file that belongs to the profile",
        )
    return content


def path_of(weights: Weights) -> Path:
    """Where the file is."""
    return weights.file if weights.file.is_absolute() else FOLDER / weights.file


def load_weights(weights: Weights, device: str = "cpu") -> dict[str, Tensor]:
    """Read the tensors of a weights file onto a device.

    Raises
    ------
    ProfileError
        If the file is missing, has another hash than the profile says, or is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_weights(weights)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ProfileError(
            f"the weights {weights.name} are not safetensors: {error}", where=str(path_of(weights))
        ) from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}
