"""How do weights become a network? They are checked by hash and loaded once onto the right device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import ProfileError
from pipeline.parameters import Parameters

from .weights import Weights, load_weights

P = TypeVar("P", bound=Parameters)

CALIBRATION = "calibration"
"""Additional tensor of a classifier: offset, weight of its logit, weight of the candidate's logit."""
NEUTRAL = (0.0, 1.0, 0.0)
_KEPT = 4


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network in evaluation mode, with its calibration."""

    network: nn.Module
    device: torch.device
    calibration: tuple[float, float, float] = NEUTRAL


_gave_up = False
_loaded: OrderedDict[tuple[str, str, str], LoadedNetwork] = OrderedDict()


def choose_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device; the CPU in any case after the GPU has failed.

    Raises
    ------
    ProfileError
        If CUDA is asked for and not available.
    """
    if _gave_up and device != "cpu":
        return torch.device("cpu")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ProfileError("there is no CUDA device", do="use --device cpu")
    return torch.device(device)


def forget_networks() -> None:
    """Free the memory of the networks that are kept for the next study."""
    _loaded.clear()


def give_up_gpu() -> None:
    """Use the CPU whatever is asked for, as long as this process lives: the GPU failed."""
    global _gave_up
    _gave_up = True
    forget_networks()


def load_network(build: Callable[[P], nn.Module], parameters: P, weights: Weights, device: str) -> LoadedNetwork:
    """Build a network and load its weights; the last few are cached, so that a worker loads each once.

    Raises
    ------
    ProfileError
        If the weights are missing, are not those of the profile, or do not fit its parameters.
    """
    where = choose_device(device)
    key = (weights.sha256, str(where), f"{type(parameters).__module__} {parameters.model_dump_json()}")
    if key in _loaded:
        _loaded.move_to_end(key)
        return _loaded[key]
    tensors = load_weights(weights)
    calibration = tensors.pop(CALIBRATION, None)
    network = build(parameters)
    fill(network, tensors, weights.name)
    ready = channels_last(merge_norms(network.eval()).to(where))
    loaded = LoadedNetwork(ready, where, _triple(calibration))
    _loaded[key] = loaded
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
    return loaded


def channels_last(network: nn.Module) -> nn.Module:
    """Give the weights the memory layout in which convolutions are fastest; their inputs follow it."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
    return network


def fill(network: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Load tensors into a network; every one must fit.

    Raises
    ------
    ProfileError
        If one is missing, left over, or of another shape.
    """
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ProfileError(
            f"the weights {name} do not fit the network of the profile ({first})", do="use the profile they came with"
        ) from error


def merge_norms(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it, which does not change the result."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for n in range(len(module) - 1):
            first, second = module[n], module[n + 1]
            if isinstance(first, nn.Conv2d | nn.Conv3d) and isinstance(second, nn.BatchNorm2d | nn.BatchNorm3d):
                module[n], module[n + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return network


def _triple(calibration: Tensor | None) -> tuple[float, float, float]:
    if calibration is None:
        return NEUTRAL
    offset, own, candidate = (float(v) for v in calibration.tolist())
    return offset, own, candidate
