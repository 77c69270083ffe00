"""What is in a cohort? Sets of studies, and from which ranges their protocols, heads and lesions are drawn."""

from __future__ import annotations

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from pipeline.errors import InputError
from training.simulation.head_parameters import HeadVariation
from training.simulation.lesion_sampling import Clusters, LesionParameters
from training.simulation.protocol import Apodisation, MaskShape, PhaseFilter, Sequence, Vendor
from training.simulation.scene import Texture
from training.simulation.veins import Generator, VeinParameters
from training.simulation.veins.short import ShortVeins

Split = Literal["train", "validation", "test"]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range needs the smaller number first, not {pair}")
    return pair


Span = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Smallest and largest value; drawn uniformly in between."""
Voxel = tuple[float, float, float]
FEWEST_SAMPLES = 4
"""Along an axis."""


class Model(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not used, so that a cohort keeps its digest when there is something new to set.

        `timing` was always written.
        """
        return {name: value for name, value in handler(self).items() if value is not None or name == "timing"}


class Timing(Model):
    """Echo time, repetition time and flip angle at one field strength."""

    echo_time_ms: float
    repetition_time_ms: float
    flip_angle_deg: float


DEFAULT_TIMING = {
    1.5: Timing(echo_time_ms=40, repetition_time_ms=49, flip_angle_deg=15),
    3.0: Timing(echo_time_ms=20, repetition_time_ms=28, flip_angle_deg=15),
    7.0: Timing(echo_time_ms=15, repetition_time_ms=25, flip_angle_deg=12),
}


class ProtocolRange(Model):
    """Where the protocols of a set are drawn from. Lists are choices, pairs of numbers are ranges."""

    field_strength_t: tuple[float, ...] = Field((3.0,), min_length=1)
    voxel_mm: tuple[Voxel, ...] = Field(((0.5, 0.5, 2.0),), min_length=1)
    timing: Timing | None = Field(None, description="Instead of the usual one of the field strength")
    timing_jitter: float = Field(0.08, ge=0, le=0.3, description="Relative spread of echo time and flip angle")
    sequence: Sequence = Sequence.SWI_3D
    vendors: tuple[Vendor, ...] = Field((Vendor.SIEMENS,), min_length=1)
    filters: tuple[PhaseFilter, ...] = Field((PhaseFilter.HOMODYNE,), min_length=1)
    width: tuple[int, ...] = Field((48, 64, 80), min_length=1)
    power: tuple[int, ...] = Field((4,), min_length=1)
    mip_mm: Span = (14.0, 16.0)
    snr: Span = (12.0, 30.0)
    window: Span = (0.1, 0.6)
    partial_fourier: tuple[tuple[float, float], ...] = Field(((1.0, 1.0), (0.875, 1.0)), min_length=1)
    zero_fill: tuple[float, ...] = Field((1.0,), min_length=1)
    motion_share: float = Field(0.15, ge=0, le=1, description="Share of scans in which the patient moved")
    motion_mm: Span = (0.2, 0.8)
    shading: Span = (0.05, 0.4)
    masks: tuple[MaskShape, ...] | None = Field(None, min_length=1)
    apodisations: tuple[Apodisation, ...] | None = Field(None, min_length=1)
    noise_exponent: Span | None = Field(None, description="Colour of the noise; see NoiseModel")
    g_factor: Span | None = Field(None, description="Largest local amplification of the noise")
    acceleration: tuple[int, ...] | None = Field(None, min_length=1)
    bias: Span | None = Field(None, description="Spread of a local receive profile")
    slab_edge: Span | None = Field(None, description="Share of the slab at its ends where excitation falls off (3D)")
    slice_width: Span | None = Field(None, description="Gaussian slices, relative to the slice distance (2D)")
    slice_fill: tuple[float, ...] | None = Field(None, min_length=1, description="Interpolation across slices (3D)")
    ghost_share: float | None = Field(None, ge=0, le=1, description="Share of scans with ghosts of pulsation")
    ghost: Span | None = Field(None, description="Their strength; see Protocol")


class StudySet(Model):
    """One set of studies from the anatomies of one split."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    split: Split
    studies: int = Field(ge=1)
    studies_per_head: int = Field(3, ge=1, description="Lesion sets and protocols on the same head")
    generators: tuple[Generator, ...] = Field((Generator.DRAINAGE,), min_length=1)
    veins: VeinParameters = VeinParameters()
    texture: Texture = Texture()
    lesions: LesionParameters = LesionParameters()
    protocol: ProtocolRange = ProtocolRange()
    short_veins: ShortVeins | None = None
    clusters: Clusters | None = None
    head: HeadVariation | None = None
    fine_mm: float = Field(0.5, gt=0.1, le=4.0, description="Edge of the voxels that the physics runs on")
    fov_mm: Voxel = (192.0, 224.0, 144.0)
    oblique_deg: float = Field(6.0, ge=0, le=45, description="Spread of the angles by which the slices are turned")

    @model_validator(mode="after")
    def _scannable(self) -> StudySet:
        for voxel in self.protocol.voxel_mm:
            if min(voxel) < self.fine_mm:
                raise ValueError(f"a voxel of {voxel} mm is finer than fine_mm, {self.fine_mm} mm")
            if any(fov / step < FEWEST_SAMPLES for fov, step in zip(self.fov_mm, voxel, strict=True)):
                raise ValueError(f"a voxel of {voxel} mm leaves fewer than four samples in {self.fov_mm} mm")
        return self


class Cohort(Model):
    """A cohort file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = ""
    seed: int = Field(ge=0)
    sets: tuple[StudySet, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Cohort:
        names = [s.name for s in self.sets]
        if len(set(names)) != len(names):
            raise ValueError("two sets have the same name")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over everything in the file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def available_cohorts() -> list[str]:
    """Names of the cohorts that come with the simulator."""
    folder = files(__package__).joinpath("presets")
    return sorted(Path(p.name).stem for p in folder.iterdir() if p.name.endswith(".toml"))


def load_cohort(name_or_path: str) -> Cohort:
    """Read a cohort file, or one that comes with the simulator by its name.

    Raises
    ------
    InputError
        If there is none, or it says something impossible; the message names the entry.
    """
    bundled = files(__package__).joinpath("presets", f"{name_or_path}.toml")
    path = Path(name_or_path)
    if path.is_file():
        text = path.read_text()
    elif bundled.is_file():
        text = bundled.read_text()
    else:
        known = ", ".join(available_cohorts())
        raise InputError(f"no cohort {name_or_path!r}", do=f"give a TOML file or one of {known}")
    try:
        return Cohort.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not TOML ({error})", where=name_or_path) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "cohort"
        raise InputError(f"{where}: {first['msg']}", where=name_or_path, do="correct the cohort file") from None
