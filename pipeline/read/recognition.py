"""What is the role of an image, and by which rule? The rules are data: ``recognition.toml``.

A site adds rules without programming: its own TOML table of the same form is read first, see :func:`load_rules`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydicom.datadict import tag_for_keyword

from pipeline.errors import InputError, describe_mistake

from .headers import ALIASES, DERIVED, Facts

SHIPPED = Path(__file__).with_name("recognition.toml")
CONTEXT_FIELDS = {"kin", "frame_kin"}


class SeriesRole(StrEnum):
    """The role of a series in the detection of microbleeds."""

    SWI = "swi"
    PHASE = "phase"
    MAGNITUDE = "magnitude"
    MIP = "mip"
    MIXED_COMPLEX = "mixed_complex"
    T2STAR = "t2star"
    OTHER = "other"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Condition(_Model):
    """One condition: a group, a named definition, or a test of one field (see the head of ``recognition.toml``)."""

    all_: tuple[Condition, ...] = Field((), alias="all")
    any_: tuple[Condition, ...] = Field((), alias="any")
    none_: tuple[Condition, ...] = Field((), alias="none")
    is_: str | None = Field(None, alias="is")
    field: str | None = None
    has: tuple[str, ...] = ()
    matches: str | None = None
    below: float | None = None
    above: float | None = None

    @field_validator("field")
    @classmethod
    def _known_field(cls, name: str | None) -> str | None:
        known = name is None or name in DERIVED | CONTEXT_FIELDS | ALIASES.keys() or tag_for_keyword(name) is not None
        if not known and not re.fullmatch(r"\([0-9a-fA-F]{4},[0-9a-fA-F]{4}\)", name or ""):
            raise ValueError(f"unknown field {name!r}: not a DICOM keyword, (gggg,eeee) or derived field")
        return name

    @field_validator("matches")
    @classmethod
    def _valid_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _one_kind(self) -> Condition:
        group = bool(self.all_ or self.any_ or self.none_)
        test = bool(self.has) or self.matches is not None or self.below is not None or self.above is not None
        if (self.field is not None) != test:
            raise ValueError("a test needs a field and one of has, matches, below, above")
        if group + (self.is_ is not None) + test > 1:
            raise ValueError("a condition is a group, a definition or a test of a field, not several of them")
        return self

    def holds(self, facts: Facts, definitions: Mapping[str, Condition]) -> bool:
        """Whether `facts` satisfy the condition; an empty group always holds."""
        if self.is_ is not None:
            return definitions[self.is_].holds(facts, definitions)
        if self.field is not None:
            return self._test(facts.get(self.field))
        return (
            all(c.holds(facts, definitions) for c in self.all_)
            and (not self.any_ or any(c.holds(facts, definitions) for c in self.any_))
            and not any(c.holds(facts, definitions) for c in self.none_)
        )

    def _test(self, values: tuple[str, ...]) -> bool:
        if self.has:
            wanted = {value.casefold() for value in self.has}
            return any(value.casefold() in wanted for value in values)
        if self.matches is not None:
            return any(re.search(self.matches, value, re.IGNORECASE) for value in values)
        try:
            number = float(values[0])
        except (IndexError, ValueError):
            return False
        return (self.below is None or number < self.below) and (self.above is None or number > self.above)

    def names(self) -> set[str]:
        """Definitions it refers to."""
        nested = set().union(*(c.names() for c in (*self.all_, *self.any_, *self.none_)))
        return nested | ({self.is_} if self.is_ else set())

    def fields(self) -> set[str]:
        """Fields it tests."""
        nested = set().union(*(c.fields() for c in (*self.all_, *self.any_, *self.none_)))
        return nested | ({self.field} if self.field else set())


class RecognitionRule(Condition):
    """A named group of conditions, and the role of an image that meets them.

    `phase_sign` is the sign of paramagnetic blood in the stored phase, if the site knows it. `component` distinguishes
    the real and the imaginary part of a complex image.
    """

    name: str
    role: Literal["swi", "phase", "magnitude", "mip", "t2star", "other"]
    why: str
    confirm: bool = False
    sure_when: str | None = None
    phase_sign: Literal[1, -1] | None = None
    component: Literal["real", "imaginary"] | None = None

    @model_validator(mode="after")
    def _sign_of_phase_only(self) -> RecognitionRule:
        if self.phase_sign is not None and self.role != "phase":
            raise ValueError("phase_sign is valid only in a rule for phase")
        return self


class RoleDecision(_Model):
    """The role of an image, and why."""

    role: SeriesRole
    rule: str
    why: str
    needs_confirmation: bool
    phase_sign: Literal[1, -1] | None = None
    component: Literal["real", "imaginary"] | None = None


class RecognitionRules(_Model):
    """An ordered rule table."""

    schema_: Literal["cmb-recognition/1"] = Field("cmb-recognition/1", alias="schema")
    define: dict[str, Condition] = Field(default_factory=dict)
    rule: tuple[RecognitionRule, ...] = ()

    @cached_property
    def fields(self) -> frozenset[str]:
        """Header fields that the rules look at."""
        conditions: list[Condition] = [*self.define.values(), *self.rule]
        return frozenset(set().union(*(c.fields() for c in conditions)) - CONTEXT_FIELDS)

    def judge(self, facts: Facts) -> RoleDecision:
        """Role of an image with these facts: the first rule that matches."""
        for rule in self.rule:
            if rule.holds(facts, self.define):
                unsure = rule.sure_when is not None and not self.define[rule.sure_when].holds(facts, self.define)
                return RoleDecision(
                    role=SeriesRole(rule.role),
                    rule=rule.name,
                    why=rule.why,
                    needs_confirmation=rule.confirm or unsure,
                    phase_sign=rule.phase_sign,
                    component=rule.component,
                )
        return RoleDecision(role=SeriesRole.OTHER, rule="none", why="no rule matches", needs_confirmation=False)

    def before(self, other: RecognitionRules) -> RecognitionRules:
        """Put this table's rules before those of `other`; definitions of the same name are extended, not replaced."""
        define = dict(other.define)
        for name, condition in self.define.items():
            define[name] = Condition.model_validate({"any": (define[name], condition)}) if name in define else condition
        return RecognitionRules(define=define, rule=(*self.rule, *other.rule))

    def check(self, where: str) -> RecognitionRules:
        """Return the table itself when every definition it names exists and none refers to itself."""
        wanted = {rule.sure_when for rule in self.rule if rule.sure_when}.union(*(rule.names() for rule in self.rule))
        for name, condition in self.define.items():
            wanted |= condition.names()
            if name in self._reached(condition, frozenset()):
                raise InputError(f"definition {name!r} refers to itself", where=where, do="break the circle")
        if missing := sorted(wanted - self.define.keys()):
            raise InputError(f"no definition named {missing[0]!r}", where=where, do="define it or correct the name")
        return self

    def _reached(self, condition: Condition, seen: frozenset[str]) -> frozenset[str]:
        for name in condition.names() - seen:
            seen = self._reached(self.define[name], seen | {name}) if name in self.define else seen | {name}
        return seen


@lru_cache(maxsize=8)
def load_rules(*site_tables: Path) -> RecognitionRules:
    """Read the shipped rules, with a site's own tables before them (the first named comes first).

    Raises
    ------
    InputError
        A table cannot be read or is not of the documented form; the message names the place in it.
    """
    rules = _read(SHIPPED)
    for path in reversed(site_tables):
        rules = _read(path).before(rules)
    return rules.check(str(site_tables[0] if site_tables else SHIPPED.name))


def _read(path: Path) -> RecognitionRules:
    try:
        return RecognitionRules.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = {**RecognitionRules.model_fields, **RecognitionRule.model_fields}
        what = describe_mistake(dict(first), known)
        raise InputError(f"{place}: {what}", where=str(path), do="see the head of recognition.toml") from error
