"""What gives tissue its grain? A periodic block of power-law noise, laid over the head like wallpaper.

Tissue is not uniform below the size of a voxel: fibres, capillaries and small veins leave a texture whose spectrum
falls as a power of frequency. One block is made per head and repeated; its period is far longer than anything a
detector looks at.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

BLOCK = 128


def texture_block(rng: np.random.Generator, exponent: float) -> NDArray[np.float32]:
    """A periodic block of Gaussian noise of unit variance whose amplitude falls as frequency to the −`exponent`.

    Returns
    -------
    ndarray of float32, shape (128, 128, 128)
    """
    spectrum = scipy.fft.rfftn(rng.standard_normal((BLOCK, BLOCK, BLOCK), dtype=np.float32))
    f = scipy.fft.fftfreq(BLOCK).astype(np.float32)
    half = scipy.fft.rfftfreq(BLOCK).astype(np.float32)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + half[None, None, :] ** 2)
    radius[0, 0, 0] = np.inf
    block = scipy.fft.irfftn(spectrum * np.maximum(radius, 4 / BLOCK) ** -exponent, s=(BLOCK,) * 3)
    return np.asarray(block / block.std(), dtype=np.float32)
