"""What if the GPU fails in the middle? The stage is done again on the CPU, which gives the same findings, only later.

Lack of memory is a matter of one study: the next one may use the GPU again. After any other error of CUDA nothing works
in that process any more, so it stays on the CPU until it is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from . import loading

T = TypeVar("T")

_WORDS = ("CUDA error", "CUDA driver", "NVIDIA driver", "CUBLAS", "cuDNN error", "CUDNN_STATUS")
"""What the text of PyTorch's errors contains where their type does not say that the GPU is to blame."""

_log = logging.getLogger(__name__)


def run_with_fallback(run: Callable[[str], T], device: str) -> T:
    """Run a stage on a device, and on the CPU if the GPU fails.

    Parameters
    ----------
    run : callable
        Does the stage on the device that it is given.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """
    try:
        return run(device)
    except RuntimeError as error:
        lacks_memory = isinstance(error, torch.OutOfMemoryError)
        if not (lacks_memory or is_gpu_failure(error)):
            raise
        kind = type(error).__name__
    if lacks_memory:
        loading.forget_networks()
        torch.cuda.empty_cache()
        _log.warning("the GPU lacks memory (%s); this study is analysed on the CPU", kind)
    else:
        loading.give_up_gpu()
        _log.warning("the GPU failed (%s); this process goes on with the CPU until it is replaced", kind)
    return run("cpu")  # not in the handler: there the error would keep the tensors of the GPU


def is_gpu_failure(error: RuntimeError) -> bool:
    """Whether CUDA is to blame and not the network or its input."""
    accelerator: type[Exception] | None = getattr(torch, "AcceleratorError", None)  # PyTorch 2.8
    if accelerator is not None and isinstance(error, accelerator):
        return True
    return any(word in str(error) for word in _WORDS)
