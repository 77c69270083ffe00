"""How long does it take to read 100 slices of 512 x 448 into a volume, beside SimpleITK's own series reader?

    python -m benchmarks.reading [--slices 100] [--repeats 7]

Every way reads the same images from files in the disk cache, in turns, and the shortest of several repeats is shown.
"cmb-node" is from the list of files to a float32 volume with its geometry: headers, recognition, sorting, checks,
decoding and rescale. "SimpleITK" is GetGDCMSeriesFileNames and ImageSeriesReader, cast to float32; it does not read
enhanced objects as a volume. Compressed images are decoded by the node in processes of their own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from pipeline.read.study import find_files, read_studies
from pipeline.read.volume import read_volume
from tests.dicom_factory import Part, affine, classic, enhanced, write

ROWS, COLUMNS = 512, 448
SPACING = (0.5, 0.5, 2.0)
Array = NDArray[np.float32]


def with_the_node(folder: Path) -> Array:
    """From a folder to a volume."""
    (study,), _ = read_studies(find_files(folder))
    return read_volume(study.series[0]).array


def with_simpleitk(folder: Path) -> Array:
    """The same with SimpleITK."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat32))


def shortest(ways: list[Callable[[], Array]], repeats: int) -> list[float]:
    """Seconds of each way, taken in turns."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in seconds]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    k, j, i = np.mgrid[: options.slices, :ROWS, :COLUMNS]
    smooth = 1000 + 500 * np.sin(i / 30 + k / 9) * np.cos(j / 40)
    stored = np.clip(smooth + np.random.default_rng(1).normal(0, 25, smooth.shape), 0, 4095).astype(np.uint16)
    del smooth, i, j, k
    matrix, kind = affine(SPACING), ("ORIGINAL", "PRIMARY", "SWI", "NONE")
    cases = [
        ("classic, explicit", classic(stored, matrix=matrix, bits_stored=12), "explicit"),
        ("classic, implicit", classic(stored, matrix=matrix, bits_stored=12), "implicit"),
        ("classic, JPEG-LS", classic(stored, matrix=matrix, bits_stored=12), "jpeg-ls"),
        ("enhanced, explicit", enhanced([Part(stored, kind)], matrix=matrix, bits_stored=12), "explicit"),
        ("enhanced, JPEG-LS", enhanced([Part(stored, kind)], matrix=matrix, bits_stored=12), "jpeg-ls"),
    ]
    print(f"{options.slices} slices of {COLUMNS} x {ROWS}, 12 of 16 bits; the shortest of {options.repeats}")
    print(f"{'':20} {'cmb-node s':>11} {'SimpleITK s':>12} {'ratio':>6}")
    for name, datasets, transfer_syntax in cases:
        with tempfile.TemporaryDirectory() as folder:
            write(datasets, Path(folder), transfer_syntax)
            np.testing.assert_array_equal(with_the_node(Path(folder)), stored)
            ways: list[Callable[[], Array]] = [lambda f=folder: with_the_node(Path(f))]  # type: ignore[misc]
            if name.startswith("classic"):
                np.testing.assert_array_equal(with_simpleitk(Path(folder)), stored)
                ways.append(lambda f=folder: with_simpleitk(Path(f)))  # type: ignore[misc]
            ours, *theirs = shortest(ways, options.repeats)
            rest = f"{theirs[0]:12.2f} {ours / theirs[0]:6.2f}" if theirs else f"{'-':>12} {'-':>6}"
            print(f"{name:20} {ours:11.2f} {rest}", flush=True)


if __name__ == "__main__":
    main()
