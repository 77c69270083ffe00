"""How do weights become a network that is ready to run? Checked by hash, loaded once, on the right device."""

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
from pipeline.weights import Weights, load_weights

P = TypeVar("P", bound=Parameters)

CALIBRATION = "calibration"
"""Tensor beside a classifier's own: offset, weight of its logit, weight of the candidate's logit."""
NEUTRAL = (0.0, 1.0, 0.0)
_KEPT = 4


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network in evaluation mode, with its calibration."""

    network: nn.Module
    device: torch.device
    calibration: tuple[float, float, float] = NEUTRAL


_loaded: OrderedDict[tuple[str, str, str], Loaded] = OrderedDict()


def choose_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises
    ------
    ProfileError
        When CUDA is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ProfileError("there is no CUDA device", do="use --device cpu")
    return torch.device(device)


def load_network(build: Callable[[P], nn.Module], parameters: P, weights: Weights, device: str) -> Loaded:
    """Build a network and fill it; the last few are kept, so a worker loads each once.

    Raises
    ------
    ProfileError
        When the weights are missing, are not the profile's, or do not fit its parameters.
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
    ready = merge_norms(network.eval()).to(where)
    for module in ready.modules():
        # The order of memory in which convolutions are quickest; what goes through them follows.
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
    loaded = Loaded(ready, where, _triple(calibration))
    _loaded[key] = loaded
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
    return loaded


def fill(network: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Put tensors into a network; every one must fit.

    Raises
    ------
    ProfileError
        When one is missing, left over, or of another shape.
    """
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ProfileError(
            f"the weights {name} do not fit the network of the profile ({first})", do="use the profile they came with"
        ) from error


def merge_norms(network: nn.Module) -> nn.Module:
    """Work the batch normalisation that directly follows a convolution into it, which changes no result."""
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
