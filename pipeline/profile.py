"""Which recipe? A profile is data: the stages by the names of their modules, every parameter, weights by hash.

A new method is a module in :mod:`pipeline.candidates` or :mod:`pipeline.classifiers` with a ``Parameters`` model
and one function, and a TOML file that names it. Nothing here changes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tomllib
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.errors import ProfileError
from pipeline.measure import MeasureParameters
from pipeline.parameters import BrainParameters, LocationParameters, Parameters, QualityParameters
from pipeline.shape import RatingParameters, ShapeParameters
from pipeline.weights import Weights

FOLDER = Path(__file__).parent / "profiles"


class Stage(Parameters):
    """A method, found by the name of its module, with all its parameters and, if it is a learned one, its weights."""

    registry: ClassVar[str]

    method: str = Field(pattern="^[a-z][a-z0-9_]*$", description="Name of the module")
    parameters: dict[str, Any] = Field(default_factory=dict, validate_default=True, description="See the module")
    weights: Weights | None = Field(None, description="Passed to the method, with the device, when there are any")

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
        """Call the module's `function`, parameters last; a method with weights also gets them and the device."""
        module = self.module
        if not self.ready:
            raise ProfileError(f"method {self.method} has no weights", do="train it with cmbtrain")
        learned = {"weights": self.weights, "device": device} if self.weights else {}
        return getattr(module, function)(*arguments, module.Parameters(**self.parameters), **learned)


class CandidateStage(Stage):
    """A module of :mod:`pipeline.candidates`: ``propose(acquisition, brain, parameters) -> list[Candidate]``."""

    registry = "candidates"


class ClassifierStage(Stage):
    """A module of :mod:`pipeline.classifiers`.

    ``score(acquisition, brain, candidates, parameters) -> ndarray``, a probability for each candidate.
    """

    registry = "classifiers"


class Thresholds(Parameters):
    """Probabilities at which a candidate is called possible, and definite."""

    possible: float = Field(ge=0, le=1)
    definite: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.possible > self.definite:
            raise ValueError("possible must not be above definite")
        return self


class Suits(Parameters):
    """Images that the profile is meant for; others are analysed with a warning."""

    in_plane_mm: tuple[float, float] = (0.3, 1.1)
    slice_mm: tuple[float, float] = (0.8, 3.0)
    field_strength_t: tuple[float, float] | None = Field(None, description="Any when left out")
    echo_time_ms: tuple[float, float] | None = Field(None, description="Any when left out")
    t2star: bool = Field(False, description="Also a T2*-weighted gradient echo, where a study has no SWI")


class Profile(Parameters):
    """A named, complete recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    brain: BrainParameters = BrainParameters()
    candidates: CandidateStage
    measure: MeasureParameters = MeasureParameters()
    shape: ShapeParameters | None = Field(None, description="Shape and size filter; none when left out")
    rating: RatingParameters | None = Field(None, description="Probability from the shape, for want of a classifier")
    classifier: ClassifierStage | None = None
    thresholds: Thresholds
    max_lesions: int = Field(200, gt=0, le=65535, description="The most probable are reported, with a warning")
    suits: Suits = Suits()
    location: LocationParameters = LocationParameters()
    quality: QualityParameters = QualityParameters()
    caveats: tuple[str, ...] = Field((), description="Said in every result")

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
        """Learned methods that have no weights yet; with any, the profile cannot run."""
        stages = (self.candidates, self.classifier)
        return tuple(s.method for s in stages if s is not None and not s.ready)

    def require_trained(self) -> None:
        """Refuse to run without weights.

        Raises
        ------
        ProfileError
            When a learned method has none; the message says how to train it.
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
        """SHA-256 (hex) over all that changes results: every parameter, defaults too, and the weights' hashes."""
        document = self.model_dump(mode="json", exclude={"description": True})
        for stage in (document["candidates"], document["classifier"]):
            if stage and stage["weights"]:
                del stage["weights"]["file"]  # where the file lies does not matter
        return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_profile(name_or_path: str) -> Profile:
    """Read one of the product's profiles by name, or a profile of your own from a TOML file.

    Raises
    ------
    ProfileError
        When there is no such profile, or it is not complete and correct.
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
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'profile'}: {e['msg']}" for e in error.errors())
        raise ProfileError(problems, where=str(path), do="correct the profile") from error


def available_profiles() -> list[Profile]:
    """All profiles that come with the product, by name."""
    return [load_profile(path.stem) for path in sorted(FOLDER.glob("*.toml"))]


def _anchored(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of weights files absolute, starting from the profile's folder."""
    for table in (document.get("candidates"), document.get("classifier")):
        weights = table.get("weights") if isinstance(table, dict) else None
        if isinstance(weights, dict) and isinstance(weights.get("file"), str):
            weights["file"] = str(folder / weights["file"])
    return document
