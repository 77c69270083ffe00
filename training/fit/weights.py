"""How does a trained network leave? As safetensors with what it is and what it was trained on in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.networks.loading import CALIBRATION
from pipeline.networks.transfer import Backbone, last_layer
from pipeline.networks.weights import Weights
from pipeline.profile import Profile


def save_weights(
    network: nn.Module, path: Path, about: dict[str, str], calibration: Sequence[float] | None = None
) -> str:
    """Write a network's tensors, kernels in half precision; returns the SHA-256 of the file."""
    tensors = {name: _small(t.detach().cpu()).contiguous() for name, t in network.state_dict().items()}
    if calibration is not None:
        tensors[CALIBRATION] = torch.tensor(calibration, dtype=torch.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # safetensors writes several keys in any order, and the same weights must have the same hash.
    save_file(tensors, partial, metadata={"about": json.dumps(about, sort_keys=True)})
    partial.replace(path)
    return sha256_of(path)


def _small(tensor: Tensor) -> Tensor:
    """Kernels and matrices in half precision: half the size, and no change that can be seen in a score."""
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 2 else tensor.clone()


def halve(network: nn.Module) -> None:
    """Give a network the precision its file will have."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(_small(tensor))


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def header_of(path: Path) -> dict[str, str]:
    """What a file of weights says of itself."""
    with safe_open(path, "pt") as opened:
        return dict(json.loads((opened.metadata() or {}).get("about", "{}")))


def with_weights(profile: Profile, stage: str, path: Path) -> Profile:
    """The profile with the weights of one stage, ``candidates`` or ``classifier``."""
    one = getattr(profile, stage)
    weights = Weights(name=path.stem, file=path.absolute(), sha256=sha256_of(path))
    return profile.model_copy(update={stage: one.model_copy(update={"weights": weights})})


def start_from(network: nn.Module, path: Path) -> list[str]:
    """Take over every tensor of a file that fits by name and shape; returns the names of those that stay fresh.

    Raises
    ------
    InputError
        When the file cannot be read or nothing in it fits.
    """
    try:
        if path.suffix == ".safetensors":
            given = load_file(path)
        else:
            given = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot be read as weights ({' '.join(str(error).split())[:100]})", where=str(path)
        ) from error
    return take_over(network, given, str(path))


def take_over(network: nn.Module, given: Mapping[str, Tensor], where: str) -> list[str]:
    """Take over every tensor that fits by name and shape; returns the names of those that stay fresh.

    Raises
    ------
    InputError
        When nothing fits.
    """
    own = network.state_dict()
    fitting = {n: t.to(own[n].dtype) for n, t in given.items() if n in own and own[n].shape == t.shape}
    if not fitting:
        raise InputError("holds no tensor that fits the network", where=where)
    network.load_state_dict({**own, **fitting})
    return sorted(set(own) - set(fitting))


def start_from_imagenet(network: nn.Module, backbone: Backbone) -> str:
    """Take torchvision's ImageNet weights, all but the last layer; returns the name of their file.

    Raises
    ------
    InputError
        When they cannot be had from here.
    """
    from torchvision.models import AlexNet_Weights, ResNet50_Weights

    weights = AlexNet_Weights.IMAGENET1K_V1 if backbone == "alexnet" else ResNet50_Weights.IMAGENET1K_V2
    try:
        given = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the ImageNet weights of {backbone} cannot be downloaded ({error})",
            do=f"give the file of {weights.url} with --pretrained",
        ) from error
    own = network.state_dict()
    network.load_state_dict({**own, **{n: t for n, t in given.items() if own[n].shape == t.shape}})
    return weights.url.rsplit("/", 1)[-1]


def freeze_all_but_last(network: nn.Module) -> None:
    """Train the replaced layer only."""
    for parameter in network.parameters():
        parameter.requires_grad = False
    for parameter in last_layer(network).parameters():
        parameter.requires_grad = True
