"""Which study do the benchmarks analyse? One of 0.50 × 0.50 × 2 mm from the simulator, made when it is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COHORT = ["--cohort", "high-resolution", "--set", "test", "--limit", "1", "--format", "dicom"]


def simulated_study(folder: Path) -> Path:
    """Return the folder of a simulated study below `folder`, after a minute of simulation if it is new."""
    if not any(folder.rglob("*.dcm")):
        print(f"simulating one study into {folder} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "training.cli", "simulate", "--out", str(folder), *COHORT], check=True)
    return folder
