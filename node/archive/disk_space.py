"""How much room is left? Images are refused below a limit, and people are warned before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class DiskSpace:
    """The free space of a disk, beside the setting ``archive.free_disk_mb``.

    Parameters
    ----------
    free_mb : int
    required_mb : int
        With less, images are refused.
    """

    free_mb: int
    required_mb: int

    @classmethod
    def of(cls, folder: Path, required_mb: int) -> Self:
        """Measure it where `folder` lies."""
        return cls(shutil.disk_usage(folder).free // MEGABYTE, required_mb)

    @property
    def refuses(self) -> bool:
        """Whether images are refused."""
        return self.free_mb < self.required_mb

    @property
    def fills_up(self) -> bool:
        """Whether images are refused, or soon will be."""
        return self.free_mb < 2 * self.required_mb

    def __str__(self) -> str:
        if self.refuses:
            return f"images are refused: {self.free_mb} MB free, {self.required_mb} MB required"
        if self.fills_up:
            return f"the disk is filling up: {self.free_mb} MB free, images are refused below {self.required_mb} MB"
        return f"{self.free_mb} MB free"
