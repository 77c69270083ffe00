"""What can networks run on here?"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    pytorch: str
    has_cuda: bool
    gpu: str
    threads: int


def find_hardware() -> Hardware:
    """Ask PyTorch."""
    import torch

    gpu = ""
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        gpu = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    return Hardware(str(torch.__version__), torch.version.cuda is not None, gpu, torch.get_num_threads())
