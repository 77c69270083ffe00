"""Which image network is taken over? torchvision's AlexNet and ResNet-50 with the last layer replaced (Afzal 2021)."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.models import alexnet, resnet50

Backbone = Literal["alexnet", "resnet50"]
SIZE = 224
"""Rows and columns of the input."""
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of the ImageNet images that the published weights were trained on."""


def make_transfer(backbone: Backbone, classes: int = 2) -> nn.Module:
    """Make the network with fresh weights: logits ``(n, classes)`` of images ``(n, 3, 224, 224)``."""
    if backbone == "alexnet":
        network = alexnet(weights=None)
        last = network.classifier[6]
        assert isinstance(last, nn.Linear)  # noqa: S101 - of torchvision's own layout
        network.classifier[6] = nn.Linear(last.in_features, classes)
        return network
    residual = resnet50(weights=None)
    residual.fc = nn.Linear(residual.fc.in_features, classes)
    return residual


def last_layer(network: nn.Module) -> nn.Module:
    """The replaced layer."""
    layer = network.fc if hasattr(network, "fc") else network.classifier[6]  # type: ignore[index]
    assert isinstance(layer, nn.Module)  # noqa: S101
    return layer
