"""How is a study analysed? A profile is data: its methods by module name, every parameter, weights by hash.

A new method is a module in :mod:`pipeline.candidates` or :mod:`pipeline.classifiers` with a ``Parameters`` model
and one function, and a TOML file that names it; nothing changes here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tomllib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.measure.region import MeasureParameters
from pipeline.measure.shape import RatingParameters, ShapeParameters
from pipeline.networks.weights import Weights

from .errors import ProfileError, describe_mistake
from .parameters import BrainParameters, LocationParameters, Parameters, QualityParameters

FOLDER = Path(__file__).parent / "profiles"


class Stage(Parameters):
    """A method, found by the name of its module, with all its parameters and, if it is learned, its weights."""

    registry: ClassVar[str]

    method: str = Field(pattern="^[a-z][a-z0-9_]*$", description="Name of the module")
    parameters: dict[str, Any] = Field(default_factory=dict, validate_default=True, description="See the module")
    weights: Weights | None = Field(None, description="Weights, passed to the method with the device")

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if importlib.util.find_spec(f"pipeline.{cls.registry}.{method}") is None:
            raise ValueError(f"there is no method {method!r} in pipeline.{cls.registry}")
        return method

    @field_validator("parameters")
    @classmethod
    def _complete(cls, parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return parameters
        model = importlib.import_module(f"pipeline.{cls.registry}.{info.data['method']}").Parameters
        return dict(model.model_validate(parameters).model_dump())

    @property
    def module(self) -> ModuleType:
        """The method's module."""
        return importlib.import_module(f"pipeline.{self.registry}.{self.method}")

    @property
    def ready(self) -> bool:
        """Whether it can run: a learned method (its module says so) needs weights."""
        return self.weights is not None or not getattr(self.module, "LEARNED", False)

    def call(self, function: str, *arguments: object, device: str) -> Any:
        """Call the module's `function`, parameters last; a method with weights also gets them and the device.

        If the GPU fails, it is called again for the CPU.
        """
        module = self.module
        if not self.ready:
            raise ProfileError(f"method {self.method} has no weights", do="train it with cmbtrain")
        method, parameters = getattr(module, function), module.Parameters(**self.parameters)
        if not self.weights:
            return method(*arguments, parameters)
        from pipeline.networks.fallback import run_with_fallback  # loads PyTorch

        def run(where: str) -> Any:
            return method(*arguments, parameters, weights=self.weights, device=where)

        return run_with_fallback(run, device)


class CandidateStage(Stage):
    """A module of :mod:`pipeline.candidates`: ``propose(acquisition, brain, parameters) -> list[Candidate]``."""

    registry = "candidates"


class ClassifierStage(Stage):
    """A module of :mod:`pipeline.classifiers`.

    ``score(acquisition, brain, candidates, parameters) -> ndarray``, a probability for each candidate.
    """

    registry = "classifiers"


class Thresholds(Parameters):
    """Least probabilities of a possible and of a definite microbleed."""

    possible: float = Field(ge=0, le=1)
    definite: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.possible > self.definite:
            raise ValueError("possible must not be above definite")
        return self


class TrainedFor(Parameters):
    """Images that the profile is intended for; others are analysed with a warning."""

    in_plane_mm: tuple[float, float] = (0.3, 1.1)
    slice_mm: tuple[float, float] = (0.8, 3.0)
    field_strength_t: tuple[float, float] | None = Field(None, description="Any when left out")
    echo_time_ms: tuple[float, float] | None = Field(None, description="Any when left out")
    t2star: bool = Field(False, description="Also a T2*-weighted gradient echo, where a study has no SWI")


class Profile(Parameters):
    """A named, complete set of methods and parameters."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    brain: BrainParameters = BrainParameters()
    candidates: CandidateStage
    measure: MeasureParameters = MeasureParameters()
    shape: ShapeParameters | None = Field(None, description="Shape and size filter; none when left out")
    rating: RatingParameters | None = Field(
        None, description="Probability from the shape, in a profile without a classifier"
    )
    classifier: ClassifierStage | None = None
    thresholds: Thresholds
    max_lesions: int = Field(200, gt=0, le=65535, description="Largest number of lesions reported; more give a warning")
    suits: TrainedFor = TrainedFor()
    location: LocationParameters = LocationParameters()
    quality: QualityParameters = QualityParameters()
    caveats: tuple[str, ...] = Field((), description="Stated in every result")

    @field_validator("caveats")
    @classmethod
    def _sentences(cls, caveats: tuple[str, ...]) -> tuple[str, ...]:
        if any(not caveat.strip() or "\n" in caveat for caveat in caveats):
            raise ValueError("a caveat is one line of text")
        return caveats

    @model_validator(mode="after")
    def _one_source_of_probability(self) -> Self:
        if (self.rating is None) == (self.classifier is None):
            raise ValueError("a profile has either a classifier or a rating")
        return self

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of every weights file, by name."""
        stages = (self.candidates, self.classifier)
        return {s.weights.name: s.weights.sha256 for s in stages if s is not None and s.weights is not None}

    @property
    def untrained(self) -> tuple[str, ...]:
        """Learned methods without weights; a profile with any cannot run."""
        stages = (self.candidates, self.classifier)
        return tuple(s.method for s in stages if s is not None and not s.ready)

    def require_trained(self) -> None:
        """Refuse to run without weights.

        Raises
        ------
        ProfileError
            If a learned method has none; the message says how to train it.
        """
        if self.untrained:
            usual = f"cmbtrain fit {self.name}` and `cmbtrain export"
            how = getattr(self.classifier and self.classifier.module, "TRAINED_BY", usual)
            raise ProfileError(
                f"profile {self.name} has no trained weights for {' and '.join(self.untrained)}",
                do=f"train it with `{how}`, or use another profile",
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over all that changes results: every parameter, defaults included, and the weights by hash."""
        document = self.model_dump(mode="json", exclude={"description": True})
        for stage in (document["candidates"], document["classifier"]):
            if stage and stage["weights"]:
                del stage["weights"]["file"]  # the path does not matter
        return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_profile(name_or_path: str) -> Profile:
    """Read one of the product's profiles by name, or a profile of your own from a TOML file.

    Raises
    ------
    ProfileError
        If there is no such profile, or it is incomplete or incorrect.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
        if path.parent != FOLDER or not path.is_file():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
            raise ProfileError(f"there is no profile {name_or_path!r}", do=f"use one of: {known}, or a .toml file")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"is not TOML: {error}", where=str(path)) from error
    try:
        return Profile.model_validate(_anchored({"name": path.stem, **document}, path.parent.absolute()))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'profile'}: {describe_mistake(dict(one), _entries(one['loc']))}"
            for one in error.errors()
        )
        raise ProfileError(problems, where=str(path), do="correct the profile") from error


def _entries(location: Sequence[str | int]) -> Iterable[str]:
    """The entries that a misspelt one could have been: those of the profile, or of one of its stages."""
    return Profile.model_fields if len(location) == 1 else Stage.model_fields if len(location) == 2 else ()


def available_profiles() -> list[Profile]:
    """All profiles of the product, by name."""
    return [load_profile(path.stem) for path in sorted(FOLDER.glob("*.toml"))]


def _anchored(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of weights files absolute, starting from the profile's folder."""
    for table in (document.get("candidates"), document.get("classifier")):
        weights = table.get("weights") if isinstance(table, dict) else None
        if isinstance(weights, dict) and isinstance(weights.get("file"), str):
            weights["file"] = str(folder / weights["file"])
    return document
