"""Which study do the benchmarks analyse? One of 0.50 × 0.50 × 2 mm from the simulator, made when it is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

COHORT = ["--cohort", "high-resolution", "--set", "test", "--limit", "1", "--format", "dicom"]


def simulated_study(folder: Path) -> Path:
    """Return the folder of a simulated study below `folder`, after a minute of simulation if it is new."""
    if not any(folder.rglob("*.dcm")):
        print(f"simulating one study into {folder} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "training.cli", "simulate", "--out", str(folder), *COHORT], check=True)
    return folder


def widen(study: Path, folder: Path, columns: int) -> Path:
    """Write the images with more columns, the noise of their edges mirrored outwards: a larger field of view."""
    for path in sorted(study.rglob("*.dcm")):
        image = dcmread(path)
        missing = columns - int(image.get("Columns", columns))
        if missing <= 0 or "NumberOfFrames" in image:  # the truth is a Segmentation
            continue
        syntax, left = image.file_meta.TransferSyntaxUID, missing // 2
        array = np.pad(image.pixel_array, ((0, 0), (left, missing - left)), "reflect")
        along = np.array(image.ImageOrientationPatient[:3], float) * float(image.PixelSpacing[1])
        corner = np.array(image.ImagePositionPatient, float) - left * along
        image.ImagePositionPatient = [f"{x:.10g}" for x in corner]
        image.Columns, image.PixelData = columns, array.tobytes()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax.is_compressed:
            image.compress(syntax, generate_instance_uid=False)
        target = folder / path.relative_to(study)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save_as(target)
    return folder
