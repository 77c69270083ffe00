"""What can networks run on here?"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Hardware:
    """What PyTorch finds.

    Parameters
    ----------
    pytorch : str
        Its version.
    has_cuda : bool
        Whether that build can use a GPU at all.
    gpu : str
        Name and memory of the GPU; empty if it finds none.
    threads : int
        Threads on the CPU.
    bfloat16 : bool
        Whether the CPU multiplies such numbers; see :func:`multiplies_bfloat16`.
    """

    pytorch: str
    has_cuda: bool
    gpu: str
    threads: int
    bfloat16: bool = False

    @property
    def cpu(self) -> str:
        """What networks use of the CPU, as a person reads it."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return threads + (", bfloat16" if self.bfloat16 else "")


def find_hardware() -> Hardware:
    """Ask PyTorch."""
    import torch

    gpu = ""
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        gpu = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    return Hardware(
        str(torch.__version__), torch.version.cuda is not None, gpu, torch.get_num_threads(), multiplies_bfloat16()
    )


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers (AVX-512 BF16 or AMX); others are 12 times slower with them."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch
        return False
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Convolve in bfloat16 where the processor multiplies it: three times as fast, as the networks were trained."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and multiplies_bfloat16())
