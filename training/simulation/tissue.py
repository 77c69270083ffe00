"""What is each tissue made of, as MR sees it? Proton density, T1, T2* and susceptibility by field strength.

Values are textbook figures gathered for SWI simulation: T2* and T1 at 1.5, 3 and 7 T follow the ranges of Peters et
al. 2007 (Magn Reson Imaging 25:748), Wansapura 1999 and Rooney 2007; susceptibilities follow the QSM literature (Li
2011, Deistung 2013). They are typical, not measured here; each simulated head varies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

GYROMAGNETIC_MHZ_PER_T = 42.577
BLOOD_DELTA_CHI_PPM = 0.27 * 4 * np.pi
"""Susceptibility difference of fully de- and oxygenated red cells, ppm SI (Spees 2001)."""


class Tissue(IntEnum):
    """What a voxel of the simulated head can be made of."""

    AIR = 0
    CSF = 1
    GREY = 2
    WHITE = 3
    FAT = 4
    MUSCLE = 5
    BONE = 6
    MARROW = 7
    DURA = 8
    ARTERY = 9
    CAUDATE = 10
    PUTAMEN = 11
    PALLIDUM = 12
    THALAMUS = 13
    RED_NUCLEUS = 14
    SUBSTANTIA_NIGRA = 15
    SUBTHALAMIC = 16
    DENTATE = 17
    WHITE_LESION = 18
    VEIN = 19


IRON_RICH = (
    Tissue.CAUDATE,
    Tissue.PUTAMEN,
    Tissue.PALLIDUM,
    Tissue.RED_NUCLEUS,
    Tissue.SUBSTANTIA_NIGRA,
    Tissue.SUBTHALAMIC,
    Tissue.DENTATE,
)
"""Nuclei whose iron, and so susceptibility and R2*, grows with age."""


@dataclass(frozen=True)
class Properties:
    """MR properties of one tissue; times in ms as ``(1.5 T, 3 T, 7 T)``, susceptibility in ppm (SI, against water)."""

    proton_density: float
    t1_ms: tuple[float, float, float]
    t2star_ms: tuple[float, float, float]
    chi_ppm: float


_T = Tissue
PROPERTIES: dict[Tissue, Properties] = {
    _T.AIR: Properties(0.0, (1000, 1000, 1000), (1, 1, 1), 9.4),
    _T.CSF: Properties(1.0, (4300, 4300, 4300), (400, 250, 120), 0.019),
    _T.GREY: Properties(0.82, (1150, 1400, 1950), (84, 66, 33), 0.020),
    _T.WHITE: Properties(0.70, (650, 850, 1200), (66, 53, 27), -0.030),
    _T.FAT: Properties(0.90, (290, 370, 550), (30, 22, 10), 0.65),
    _T.MUSCLE: Properties(0.75, (1000, 1400, 1900), (32, 24, 14), 0.0),
    _T.BONE: Properties(0.03, (300, 400, 500), (1.0, 0.7, 0.4), -2.1),
    _T.MARROW: Properties(0.45, (350, 450, 600), (12, 8, 4), 0.2),
    _T.DURA: Properties(0.40, (900, 1100, 1400), (12, 9, 5), 0.0),
    _T.ARTERY: Properties(0.88, (500, 600, 800), (110, 70, 30), -0.03),
    _T.CAUDATE: Properties(0.82, (1000, 1250, 1750), (60, 45, 22), 0.044),
    _T.PUTAMEN: Properties(0.80, (900, 1130, 1600), (54, 35, 17), 0.045),
    _T.PALLIDUM: Properties(0.74, (750, 950, 1250), (40, 22, 11), 0.13),
    _T.THALAMUS: Properties(0.77, (850, 1070, 1500), (66, 50, 26), 0.02),
    _T.RED_NUCLEUS: Properties(0.76, (800, 1000, 1350), (45, 25, 13), 0.10),
    _T.SUBSTANTIA_NIGRA: Properties(0.76, (800, 1000, 1350), (42, 23, 12), 0.12),
    _T.SUBTHALAMIC: Properties(0.76, (800, 1000, 1350), (44, 25, 13), 0.11),
    _T.DENTATE: Properties(0.78, (900, 1150, 1600), (48, 29, 15), 0.13),
    _T.WHITE_LESION: Properties(0.86, (1000, 1300, 1750), (95, 75, 42), 0.0),
    _T.VEIN: Properties(0.88, (1450, 1700, 2100), (75, 28, 9), 0.45),
}
FIELDS_T = (1.5, 3.0, 7.0)


@dataclass(frozen=True, eq=False)
class TissueTable:
    """One head's tissue constants at one field strength, indexed by :class:`Tissue` value; times in ms."""

    proton_density: NDArray[np.float32]
    t1_ms: NDArray[np.float32]
    t2star_ms: NDArray[np.float32]
    field_strength_t: float


@dataclass(frozen=True, eq=False)
class TissueState:
    """How one head's tissues differ from the typical ones.

    Parameters
    ----------
    iron : float
        Factor on the susceptibility of the iron-rich nuclei, about 0.5 (young) to 1.5 (old).
    chi_ppm, t1_factor, t2star_factor, density_factor : ndarray
        Indexed by :class:`Tissue` value.
    """

    iron: float
    chi_ppm: NDArray[np.float32]
    t1_factor: NDArray[np.float32]
    t2star_factor: NDArray[np.float32]
    density_factor: NDArray[np.float32]


def draw_tissue_state(rng: np.random.Generator, *, iron: float, oxygenation: float, haematocrit: float) -> TissueState:
    """Vary the typical tissue by a few per cent, and the iron and blood of this head as given.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the variation.
    iron : float
        Factor on nuclear iron, see :class:`TissueState`.
    oxygenation, haematocrit : float
        Venous oxygen saturation Y and haematocrit: Δχ = 0.27·4π·Hct·(1 − Y) ppm.
    """
    n = len(Tissue)
    chi = np.array([PROPERTIES[t].chi_ppm for t in Tissue], dtype=np.float64)
    t2 = 1 + 0.05 * rng.standard_normal(n)
    for tissue in IRON_RICH:
        own = iron * (1 + 0.12 * rng.standard_normal())
        t2[tissue] *= (1 + 0.35 * (1 - own)) if own < 1 else 1 / (1 + 0.35 * (own - 1))
        chi[tissue] *= own
    chi[Tissue.VEIN] = BLOOD_DELTA_CHI_PPM * haematocrit * (1 - oxygenation)
    return TissueState(
        iron=iron,
        chi_ppm=chi.astype(np.float32),
        t1_factor=(1 + 0.05 * rng.standard_normal(n)).astype(np.float32),
        t2star_factor=np.clip(t2, 0.5, 1.7).astype(np.float32),
        density_factor=(1 + 0.02 * rng.standard_normal(n)).astype(np.float32),
    )


def tissue_table(state: TissueState, field_strength_t: float) -> TissueTable:
    """Constants of this head at `field_strength_t`, log-interpolated between 1.5, 3 and 7 T."""

    def at(times: tuple[float, float, float]) -> float:
        return float(np.exp(np.interp(np.log(field_strength_t), np.log(FIELDS_T), np.log(times))))

    t1 = np.array([at(PROPERTIES[t].t1_ms) for t in Tissue], dtype=np.float32)
    t2 = np.array([at(PROPERTIES[t].t2star_ms) for t in Tissue], dtype=np.float32)
    pd = np.array([PROPERTIES[t].proton_density for t in Tissue], dtype=np.float32)
    return TissueTable(pd * state.density_factor, t1 * state.t1_factor, t2 * state.t2star_factor, field_strength_t)
