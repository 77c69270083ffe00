"""Which setting is wrong, where was it set, and which one was probably meant?"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from pipeline.errors import CmbError, describe_mistake

from .destinations import KINDS
from .secrets import SECRETS_DIR

PREFIX = "CMBNODE_"
OTHER_VARIABLES = ("CMBNODE_CONFIG", SECRETS_DIR, "CMBNODE_ALIVE_FILE")
"""Variables of the node that hold no setting."""
EVERY_SETTING = "see docs/settings.md for every setting"
RENAMED: dict[str, str] = {}
"""Settings that a release has renamed: the old name and the new one. They are refused with the new name."""


class ConfigError(CmbError):
    """A setting is missing or impossible."""


def check_variables(model: type[BaseModel]) -> None:
    """Refuse environment variables of the node that name no setting: a mistyped one would be ignored.

    Raises
    ------
    ConfigError
        Naming the variable and the one that was probably meant.
    """
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if name.removeprefix(PREFIX).lower().split("__")[0] not in model.model_fields:
            raise _unknown(variable, name.removeprefix(PREFIX).lower().replace("__", "."), list(setting_names(model)))


def explain_mistake(error: ValidationError, model: type[BaseModel], config_file: Path | None) -> ConfigError:
    """Describe the first mistake in one line: where it was set, what is wrong, what to do.

    A setting that does not exist comes before one that is missing: it is the same mistake, seen from both sides.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    words = [word for word in first["loc"] if not (isinstance(word, str) and "[" in word)]  # a branch of a union
    name = ".".join(map(str, words))
    where = _origin(words, config_file)
    if first["type"] == "extra_forbidden":
        return _unknown(where, name, _candidates(words, model))
    if name and where.upper() != variable_of(name):
        where = f"{where}: {name}"
    if first["type"] == "missing":
        return ConfigError("this setting is required", where=where, do=EVERY_SETTING)
    what = describe_mistake(dict(first))
    return ConfigError(what.split(", unable to parse")[0], where=where, do=EVERY_SETTING)


def explain_source(error: SettingsError, model: type[BaseModel]) -> ConfigError:
    """Describe a source that cannot be read: malformed JSON in a variable, a folder of secrets."""
    found = re.match(r'error parsing value for field "(\w+)" from source "Env', str(error))
    if found is None:
        return ConfigError(str(error), do=EVERY_SETTING)
    table = variable_of(found[1])
    if (variable := _spelling(table)) is not None:
        do = f"write one variable for each setting ({table}__NAME), or a JSON object"
        return ConfigError("its value is not valid JSON", where=variable, do=do)
    several = [variable_of(name) for name in setting_names(model) if name.startswith(f"{found[1]}.")]
    broken = [name for one in several if (name := _spelling(one)) and not _is_json(os.environ[name])]
    return ConfigError(
        "its value is not valid JSON",
        where=" or ".join(broken) or table,
        do='write a list as ["10.1.2.0/24", "10.1.3.0/24"]',
    )


def _unknown(where: str, name: str, known: Sequence[str]) -> ConfigError:
    """Make the error for a setting that does not exist; `known` are those that it could have been."""
    is_variable = where.startswith(PREFIX)
    shown = where if is_variable else f"{where}: {name}"

    def spelt(setting: str) -> str:
        return setting if setting.startswith(PREFIX) or not is_variable else variable_of(setting)

    if (renamed := RENAMED.get(name)) is not None:
        return ConfigError(f"this setting is now called {spelt(renamed)}", where=shown, do="write the new name")
    elsewhere = sorted(
        (one for one in known if one.endswith("." + name.rpartition(".")[2])), key=lambda s: s.count(".")
    )
    if likely := get_close_matches(name, known, n=1, cutoff=0.7) or elsewhere[:2]:
        meant = " or ".join(map(spelt, likely))
        return ConfigError(f"there is no such setting; did you mean {meant}?", where=shown)
    do = f"unset it; {EVERY_SETTING}" if is_variable else EVERY_SETTING
    return ConfigError("there is no such setting", where=shown, do=do)


def variable_of(setting: str) -> str:
    """The environment variable of a setting.

    >>> variable_of("receiver.port")
    'CMBNODE_RECEIVER__PORT'
    """
    return PREFIX + setting.upper().replace(".", "__")


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of a table and of the tables in it; tables with names of the site's own count as one."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from setting_names(kind, f"{prefix}{name}.")


def _candidates(loc: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """The settings that an unknown one could have been: those of any destination, or all."""
    if len(loc) == 3 and loc[0] == "destinations":
        named = {name for kind in KINDS.values() for name in kind.model_fields}
        return [f"{loc[0]}.{loc[1]}.{name}" for name in sorted(named)]
    return list(setting_names(model))


def _origin(loc: Sequence[str | int], config_file: Path | None) -> str:
    """Where a setting comes from: the variable that holds it or a part of it, else a secret, else the file."""
    for length in range(len(loc), 0, -1):
        variable = _spelling(variable_of(".".join(map(str, loc[:length]))))
        if variable is not None and _holds(os.environ[variable], loc[length:]):
            return variable
    folder = os.environ.get(SECRETS_DIR)
    if folder is not None and loc and (secret := Path(folder, "__".join(map(str, loc)))).is_file():
        return str(secret)
    return str(config_file or "settings")


def _spelling(variable: str) -> str | None:
    """The variable as the environment spells it: small letters count as capitals."""
    return next((name for name in os.environ if name.upper() == variable.upper()), None)


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _holds(value: str, words: Sequence[str | int]) -> bool:
    """Whether the value of a variable, a JSON document, has an entry at this place."""
    if not words:
        return True
    document: Any = json.loads(value) if _is_json(value) else None
    for word in words:
        if isinstance(document, Mapping) and word in document:
            document = document[word]
        elif not (isinstance(document, list) and isinstance(word, int)):
            return False
    return True
