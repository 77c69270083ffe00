"""What may a stage's settings look like? A strict, frozen base for every parameter table of a profile.

Those of the skull removal stand here so that a profile can be read without SimpleITK.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """Base of every parameter table: unknown keys, infinities and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BrainParameters(Parameters):
    """Settings of the skull removal. Lengths are millimetres; edge and darkness are relative to the local mean."""

    grid_mm: float = Field(1.0, gt=0, description="In-plane voxel of the working grid")
    slice_mm: float = Field(2.0, gt=0, description="Largest slice step of the working grid")
    diffusion_iterations: int = Field(5, ge=0, description="Steps of gradient anisotropic diffusion")
    diffusion_conductance: float = Field(3.0, gt=0, description="Conductance of the diffusion")
    edge_sigma_mm: float = Field(1.5, gt=0, description="Scale of the Marr-Hildreth operator")
    edge_strength: float = Field(0.2, ge=0, description="Scale-normalised Laplacian that makes an edge")
    local_mm: float = Field(15.0, gt=0, description="Scale of the local mean brightness")
    darkest: float = Field(0.4, ge=0, lt=1, description="Darker than this is not brain tissue (bone, air, sinus)")
    erosion_mm: float = Field(6.0, gt=0, description="Erosion that cuts the brain from scalp, eyes and neck")
    closing_mm: float = Field(10.0, gt=0, description="Closing that takes the sulci in")
    margin_mm: float = Field(1.75, ge=0, description="Added rim of cortex and cerebrospinal fluid")
    plausible_ml: tuple[float, float] = Field((900.0, 2100.0), description="Volume of a brain covered as a whole")
    plausible_area_cm2: tuple[float, float] = Field((50.0, 260.0), description="Largest area of the brain in a slice")
