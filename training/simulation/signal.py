"""What signal does each fine voxel give? Spoiled gradient echo, T2* decay, field phase, dephasing in veins."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from training.simulation.veins.raster import dephasing

from .protocol import Protocol
from .scene import Scene
from .tissue import Tissue, TissueTable, tissue_table

Complex64 = NDArray[np.complex64]
FAT_SHIFT_PPM = -3.4


def gradient_echo(table: TissueTable, protocol: Protocol) -> NDArray[np.float32]:
    """Steady-state spoiled gradient-echo signal of every tissue (Ernst 1966), proton density included."""
    e1 = np.exp(-protocol.repetition_time_ms / table.t1_ms)
    flip = np.radians(protocol.flip_angle_deg)
    steady = np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1)
    return np.asarray(
        table.proton_density * steady * np.exp(-protocol.echo_time_ms / table.t2star_ms), dtype=np.float32
    )


@njit(parallel=True, cache=True, fastmath=True)
def _tissue_signal(  # type: ignore[no-untyped-def]
    out, csf, grey, white, other, inlay, inlay_fraction, vein, artery, field, grain, amount, level, radians, fat_phase
):  # pragma: no cover
    nk, nj, ni = out.shape
    fat = np.complex64(np.cos(fat_phase) + 1j * np.sin(fat_phase))
    for k in prange(nk):
        for j in range(nj):
            for i in range(ni):
                c, g, w = np.float32(csf[k, j, i]), np.float32(grey[k, j, i]), np.float32(white[k, j, i])
                q = inlay_fraction[k, j, i] / np.float32(255.0)
                rest = max(np.float32(255.0) - c - g - w, np.float32(0.0)) / np.float32(255.0)
                inner = (c * level[1] + g * level[2] + w * level[3]) / np.float32(255.0)
                inner = inner * (np.float32(1.0) - q) + q * level[inlay[k, j, i]]
                inner *= max(np.float32(1.0) - amount * grain[k % 128, j % 128, i % 128], np.float32(0.0))
                a = artery[k, j, i] / np.float32(255.0)
                v = vein[k, j, i] / np.float32(255.0)
                inner = (inner * (np.float32(1.0) - a) + a * level[9]) * (np.float32(1.0) - v) + v * level[19]
                t = other[k, j, i]
                value = np.complex64(inner)
                if t == 4 or t == 7:
                    value += rest * level[t] * fat
                else:
                    value += rest * level[t] * (np.float32(1.0) - a) * (np.float32(1.0) - v)
                if value == 0:  # air
                    out[k, j, i] = 0
                    continue
                phase = radians * field[k, j, i]
                out[k, j, i] = value * np.complex64(np.cos(phase) + 1j * np.sin(phase))


@njit(parallel=True, cache=True, fastmath=True)
def _vein_signal(out, voxel, tissue, blood, vein, level, field, radians):  # type: ignore[no-untyped-def]  # pragma: no cover
    flat, share, ppm = out.reshape(-1), vein.reshape(-1), field.reshape(-1)
    for n in prange(len(voxel)):
        at = voxel[n]
        phase = radians * ppm[at]
        turn = np.complex64(np.cos(phase) + 1j * np.sin(phase))
        f = share[at] / np.float32(255.0)
        around = np.float32(1.0) - f
        # Signal of the tissue round the vein, as if it filled the voxel.
        plain = flat[at] / turn - f * level
        full = plain / max(around, np.float32(0.08)) if around > 0.04 else np.complex64(0.0)
        flat[at] = turn * (full * tissue[n] + level * blood[n])


def fine_signal(scene: Scene, protocol: Protocol) -> Complex64:
    """Complex signal of the head without lesions on the fine grid, shape (k, j, i)."""
    head = scene.head
    level = gradient_echo(tissue_table(head.tissue, protocol.field_strength_t), protocol)
    radians = np.float32(protocol.radians_per_ppm)
    grain = scene.parameters.texture.r2star_hz_per_t * protocol.field_strength_t * protocol.echo_time_ms * 1e-3
    out = np.empty(head.geometry.shape, dtype=np.complex64)
    artery = scene.veins.artery if scene.veins.artery is not None else np.zeros(out.shape, dtype=np.uint8)
    _tissue_signal(
        out,
        head.csf,
        head.grey,
        head.white,
        head.other,
        head.inlay,
        head.inlay_fraction,
        scene.veins.fraction,
        artery,
        scene.field_ppm,
        scene.grain,
        np.float32(grain),
        level,
        radians,
        np.float32(radians * FAT_SHIFT_PPM),
    )
    tissue, blood = dephasing(
        scene.veins, head.geometry.shape, head.b0, float(radians * head.tissue.chi_ppm[Tissue.VEIN])
    )
    _vein_signal(
        out, scene.veins.voxel, tissue, blood, scene.veins.fraction, level[Tissue.VEIN], scene.field_ppm, radians
    )
    return out


def white_matter_level(scene: Scene, protocol: Protocol) -> float:
    """Signal of plain white matter, against which the noise is set."""
    return float(gradient_echo(tissue_table(scene.head.tissue, protocol.field_strength_t), protocol)[Tissue.WHITE])
