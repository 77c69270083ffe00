"""What are the settings of a stage? A strict, frozen base for every parameter table of a profile.

The settings of skull removal and of the comparison with a prior study are here, so that a profile and the settings of
the node can be read without SimpleITK.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Parameters(BaseModel):
    """Base of every parameter table; refuses unknown keys, infinities and later changes."""

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
    closing_mm: float = Field(10.0, gt=0, description="Closing that includes the sulci")
    margin_mm: float = Field(1.75, ge=0, description="Added rim of cortex and cerebrospinal fluid")
    plausible_ml: tuple[float, float] = Field((900.0, 2100.0), description="Volume of a completely covered brain")
    plausible_area_cm2: tuple[float, float] = Field((50.0, 260.0), description="Largest area of the brain in a slice")


class LocationParameters(Parameters):
    """Settings of the registration to the atlas, and how good it must be for regions to be named."""

    grid_mm: float = Field(4.0, gt=0, description="Voxel of the grid that is registered")
    start_rounds: int = Field(40, gt=0, description="Steps from each starting height")
    rounds: int = Field(80, gt=0, description="Steps of each affine registration")
    deformation_rounds: int = Field(120, ge=0, description="Steps of the deformation; 0: affine only")
    deformation_smoothness: float = Field(1.0, gt=0, description="Gaussian blur of the deformation, grid voxels")
    least_overlap: float = Field(0.85, ge=0, le=1, description="Dice of the brain and the atlas inside the slices")
    least_agreement: float = Field(0.1, ge=0, le=1, description="Share of the image's variance the template explains")
    scales: tuple[float, float] = Field((0.7, 1.4), description="Smallest and largest stretch that a head may need")


class QualityParameters(Parameters):
    """Limits beyond which the images get a warning."""

    least_coverage: float = Field(0.9, ge=0, le=1, description="Share of the brain inside the slices")
    cut_area: float = Field(0.35, ge=0, le=1, description="Share of the largest section that an end slice may hold")
    least_snr: float = Field(10.0, ge=0, description="Least median of the brain over the noise")
    most_motion: float = Field(
        1.15, ge=1, description="Largest energy of ghosts beside the head, relative to the background"
    )


class ChangeParameters(Parameters):
    """Settings of the comparison with a prior study. Lengths are millimetres.

    The grades of ARIA-H are those of the US prescribing information of anti-amyloid antibodies (new microbleeds: mild
    1 to 4, moderate 5 to 9, severe 10 or more); "more than 4" is the usual criterion before such a therapy.
    """

    match_mm: float = Field(
        5.0, gt=0, description="Microbleeds of the two studies closer than this are the same, in mm"
    )
    doubt_mm: float = Field(
        3.0, gt=0, description="A candidate below the threshold within this distance makes a position doubtful, in mm"
    )
    doubt_probability: float = Field(0.05, ge=0, le=1, description="Less probable candidates leave nothing undecided")
    coverage_mm: float = Field(
        3.0, ge=0, description="A position up to this far outside the other scan's brain counts as seen in it, in mm"
    )
    least_fit: float = Field(
        0.75, ge=-1, le=1, description="A registration with a lower correlation than this is rejected"
    )
    least_common: float = Field(0.5, gt=0, le=1, description="Share of the smaller brain that both scans must show")
    largest_discord_mm: float = Field(
        2.0, gt=0, description="Largest difference in the brain between registration forth and back, in mm"
    )
    mild: int = Field(1, ge=1, description="ARIA-H is mild from this many new microbleeds")
    moderate: int = Field(5, ge=1, description="ARIA-H is moderate from this many new microbleeds")
    severe: int = Field(10, ge=1, description="ARIA-H is severe from this many new microbleeds")
    more_than: tuple[int, ...] = Field(
        (4,), description='Numbers N for which the flag "more than N microbleeds" is raised'
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.mild < self.moderate < self.severe:
            raise ValueError("mild, moderate and severe must rise")
        if any(n < 0 for n in self.more_than):
            raise ValueError("more_than counts microbleeds: 0 or more")
        return self
