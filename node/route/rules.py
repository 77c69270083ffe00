"""By which rules are series routed, and are the rules valid? The table is ``routing.toml``, or a site's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from node.settings import ConfigError, Settings
from pipeline.errors import ProfileError, describe_mistake
from pipeline.read.study import Series, SeriesRole

SHIPPED = Path(__file__).with_name("routing.toml")


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"malformed regular expression: {error}") from error
    return value


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Pattern = Annotated[str, AfterValidator(_pattern)]
Values = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Roles = Annotated[tuple[SeriesRole, ...], BeforeValidator(_as_tuple)]


@dataclass(frozen=True)
class SeriesOrigin:
    """Where a series comes from, for the conditions of rules."""

    manufacturer: str = ""
    study_description: str = ""
    station: str = ""
    institution: str = ""
    calling_ae: str = ""


class RoutingRule(BaseModel):
    """One rule: its conditions, and what happens to a series that meets them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    role: Roles = ()
    modality: Values = ()
    calling_ae: Values = ()
    manufacturer: Pattern | None = None
    series_description: Pattern | None = None
    study_description: Pattern | None = None
    station: Pattern | None = None
    institution: Pattern | None = None
    computed: bool | None = None
    action: Literal["analyse", "ignore"]
    profile: str | None = None
    priority: Literal["stat", "high", "routine", "low"] | None = None
    destinations: Values | None = None
    why: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action == "analyse" and not self.profile:
            raise ValueError("profile: missing, although the action is analyse")
        for name in ("profile", "priority", "destinations"):
            if self.action == "ignore" and getattr(self, name) is not None:
                raise ValueError(f"{name}: not allowed with the action ignore")
        return self

    def matches(self, series: Series, origin: SeriesOrigin, *, computed: bool = False) -> bool:
        """Whether a series, which may be an SWI that is yet to be computed, meets all conditions of the rule."""
        texts = {
            "manufacturer": origin.manufacturer,
            "series_description": series.description,
            "study_description": origin.study_description,
            "station": origin.station,
            "institution": origin.institution,
        }
        return (
            (not self.role or series.role in self.role)
            and (not self.modality or series.modality in self.modality)
            and (not self.calling_ae or origin.calling_ae in self.calling_ae)
            and (self.computed is None or self.computed == computed)
            and all(
                (pattern := getattr(self, name)) is None or re.search(pattern, text, re.IGNORECASE) is not None
                for name, text in texts.items()
            )
        )


class RoutingTable(BaseModel):
    """An ordered rule table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["cmb-routing/1"] = Field("cmb-routing/1", alias="schema")
    rule: tuple[RoutingRule, ...] = Field(min_length=1)

    def first(self, series: Series, origin: SeriesOrigin, *, computed: bool = False) -> RoutingRule | None:
        """Find the first rule that matches a series."""
        return next((rule for rule in self.rule if rule.matches(series, origin, computed=computed)), None)


def load_table(settings: Settings) -> RoutingTable:
    """Read the site's rule table, or the one in the package, and check its profiles and destinations.

    Raises
    ------
    ConfigError
        Naming the file, the number of the rule and the field.
    """
    file = settings.routing_file or SHIPPED
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(file), do="see routing_file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as TOML ({error})", where=str(file)) from error
    try:
        table = RoutingTable.model_validate(document)
    except ValidationError as error:
        raise _explain(file, document, error) from error
    for number, rule in enumerate(table.rule, start=1):
        _check(rule, f"{file}: rule {number} ({rule.name})", settings)
    return table


def _explain(file: Path, document: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """Name the rule and the field of the first error."""
    first = error.errors()[0]
    what, location = (
        describe_mistake(dict(first), {**RoutingTable.model_fields, **RoutingRule.model_fields}),
        list(first["loc"]),
    )
    if len(location) < 2 or location[0] != "rule":
        return ConfigError(what, where=f"{file}: {'.'.join(map(str, location)) or 'table'}")
    number = int(location[1])
    rules = document["rule"]
    name = rules[number].get("name", "without a name") if isinstance(rules[number], dict) else "not a table"
    field = f" {'.'.join(map(str, location[2:]))}:" if location[2:] else ""
    return ConfigError(f"{field} {what}".strip(), where=f"{file}: rule {number + 1} ({name})")


def _check(rule: RoutingRule, where: str, settings: Settings) -> None:
    """Check that the profile and the destinations of a rule exist."""
    if rule.profile is not None:
        from pipeline.profile import load_profile

        try:
            profile = load_profile(rule.profile)
            profile.require_trained()
        except ProfileError as error:
            raise ConfigError(f"profile: {error}", where=where, do="`cmbnode profiles` lists them") from error
        if rule.role == (SeriesRole.T2STAR,) and not profile.suits.t2star:
            what = f"profile: {profile.name} does not accept a T2*-weighted gradient echo"
            raise ConfigError(what, where=where, do="name a profile with suits.t2star = true")
    for name in rule.destinations or ():
        if name not in settings.destinations:
            known = ", ".join(sorted(settings.destinations)) or "none"
            raise ConfigError(f"destinations: no destination {name!r} is configured; configured: {known}", where=where)
