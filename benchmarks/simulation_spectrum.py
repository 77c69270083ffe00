"""Has the simulated tissue as much texture as real tissue? In-plane power spectra, band by band.

The real data are a folder with ``Mag.nii.gz`` and ``Phase.nii.gz`` (i, j, k, echo) of a 7 T gradient echo; the
simulation uses the same voxel, field strength and echo time. Spectra are of 51 × 51 voxel patches: magnitude over its
mean, phase unwrapped.

    python benchmarks/simulation_spectrum.py --real DIR [--anatomy DIR --head NAME] [--figure FILE]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.signal.windows import hann
from skimage.restoration import unwrap_phase

from training.simulation.anatomy import list_anatomies, load_anatomy
from training.simulation.head import Slab
from training.simulation.head_parameters import HeadParameters
from training.simulation.protocol import Protocol
from training.simulation.scene import SceneParameters, Texture, make_scene
from training.simulation.study import simulate

EDGES = (0.08, 0.2, 0.35, 0.5, 0.7, 1.0)  # cycles/mm
STEP = 0.46875
ECHO_MS = 12.0
N = 51


@dataclass(frozen=True)
class Spectrum:
    """Mean power per band, magnitude and phase."""

    magnitude: np.ndarray
    phase: np.ndarray


def bands(patch: np.ndarray) -> np.ndarray:
    """Mean power of a patch in each band."""
    window = np.outer(hann(N), hann(N))
    power = np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2 / (window**2).sum()
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(N, STEP), np.fft.fftfreq(N, STEP)))
    return np.array([power[(f >= a) & (f < b)].mean() for a, b in pairwise(EDGES)])


def detrended(phase: np.ndarray) -> np.ndarray:
    """Unwrapped phase less its second-order polynomial."""
    flat = unwrap_phase(phase)
    y, x = np.mgrid[: phase.shape[0], : phase.shape[1]] / phase.shape[0] - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    weights, *_ = np.linalg.lstsq(terms, flat.ravel(), rcond=None)
    return flat - (terms @ weights).reshape(flat.shape)


def spectrum(magnitude: list[np.ndarray], phase: list[np.ndarray]) -> Spectrum:
    """Median over patches of the power per band."""
    return Spectrum(
        np.median([bands(m / m.mean()) for m in magnitude], axis=0),
        np.median([bands(detrended(p)) for p in phase], axis=0),
    )


def real(folder: Path) -> Spectrum:
    """Spectrum of the last echo of the real patch, every other slice."""
    m = np.asarray(nib.load(folder / "Mag.nii.gz").dataobj)[..., -1]
    p = np.asarray(nib.load(folder / "Phase.nii.gz").dataobj)[..., -1]
    p = p / np.abs(p).max() * np.pi
    slices = range(1, m.shape[2], 2)
    return spectrum([m[:, :, k] for k in slices], [p[:, :, k] for k in slices])


def simulated(anatomy: Path | None, head: str | None, texture: Texture, snr: float) -> Spectrum:
    """Spectrum of patches about the midline of a simulated head."""
    refs = {r.name: r for r in list_anatomies(anatomy)}
    ref = refs[head] if head else next(iter(refs.values()))
    slab = Slab((192.0, 225.0, 144.0), STEP)
    scene = make_scene(load_anatomy(ref), SceneParameters(HeadParameters(age=35), slab, texture=texture), 11)
    protocol = Protocol(
        field_strength_t=7.0,
        echo_time_ms=ECHO_MS,
        repetition_time_ms=25,
        flip_angle_deg=12,
        voxel_mm=(STEP, STEP, 1.0),
        snr=snr,
        window=0.0,
    )
    images = simulate(scene, protocol, (), 1).images
    brain = scene.head.brain()
    step = scene.head.geometry.shape[0] / images.geometry.shape[0]
    m, p = [], []
    for k in range(20, images.geometry.shape[0] - 20, 3):
        for j in range(60, images.geometry.shape[1] - 100, 30):
            for i in (
                images.geometry.shape[2] // 2 - 50,
                images.geometry.shape[2] // 2 - 25,
                images.geometry.shape[2] // 2,
            ):
                box = np.s_[j : j + N, i : i + N]
                if brain[int(k * step)][box].mean() > 0.85:
                    m.append(images.magnitude[k][box])
                    p.append(images.raw_phase[k][box])
    return spectrum(m, p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--anatomy", type=Path)
    parser.add_argument("--head")
    parser.add_argument("--snr", type=float, default=14.0)
    parser.add_argument("--texture", type=float, nargs=3, default=None, help="R2* (Hz/T), chi (ppm), exponent")
    parser.add_argument("--figure", type=Path)
    a = parser.parse_args()
    texture = Texture(*a.texture) if a.texture else Texture()
    true, made = real(a.real), simulated(a.anatomy, a.head, texture, a.snr)
    print(f"7 T, {STEP} x {STEP} x 1 mm, TE {ECHO_MS} ms, SNR {a.snr}, {texture}\n")
    print("| band, cycles/mm | magnitude real | simulated | ratio | phase real | simulated | ratio |")
    print("|---|---|---|---|---|---|---|")
    for n, (lo, hi) in enumerate(pairwise(EDGES)):
        row = [f"{lo}-{hi}"]
        for one, two in ((true.magnitude[n], made.magnitude[n]), (true.phase[n], made.phase[n])):
            row += [f"{one:.2e}", f"{two:.2e}", f"{two / one:.2f}"]
        print("| " + " | ".join(row) + " |")
    if a.figure:
        draw(true, made, a.figure)


def draw(true: Spectrum, made: Spectrum, path: Path) -> None:
    """Both spectra, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    middle = [(a + b) / 2 for a, b in pairwise(EDGES)]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), constrained_layout=True)
    for axis, kind in zip(axes, ("magnitude", "phase"), strict=True):
        axis.loglog(middle, getattr(true, kind), "o-", label="real 7 T patch")
        axis.loglog(middle, getattr(made, kind), "s--", label="simulated")
        axis.set(title=kind, xlabel="cycles/mm", ylabel="power")
        axis.legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
