"""Write docs/settings.md from the settings themselves: ``python docs/make_settings.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from node.config import Settings
from node.destination_settings import KINDS
from node.prior_settings import DicomPacs, DicomWebPacs

HEAD = """# Settings

Every setting, as `config.toml` names it. Give the file with `--config FILE`; anything in it can be overridden by an
environment variable: `CMBNODE_` and the name in capitals, with two underscores for a table
(`receiver.port` is `CMBNODE_RECEIVER__PORT`). This page is written by `python docs/make_settings.py`.
"""


_FACTORY_DEFAULTS = {"data_dir": "the platform's user data folder", "destinations": "none"}


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return _FACTORY_DEFAULTS[name] if field.default_factory is not None else "required"
    if field.default in (None, (), ""):
        return "none"
    return f"`{field.default}`"


def _table(title: str, prefix: str, model: type[BaseModel]) -> str:
    rows = [f"\n## {title}\n", "| setting | default | meaning |", "|---|---|---|"]
    own = inspect.get_annotations(model)
    fields = sorted(model.model_fields.items(), key=lambda item: item[0] not in own)  # what is inherited comes last
    rows += [
        f"| `{prefix}{name}` | {_default(name, field)} | {field.description} |"
        for name, field in fields
        if field.description
    ]
    return "\n".join(rows) + "\n"


def reference() -> str:
    """Return the page as Markdown."""
    page = HEAD + _table("General", "", Settings)
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            page += _table((field.annotation.__doc__ or name).strip().rstrip("."), f"{name}.", field.annotation)
    for name, asked in (("dicom", DicomPacs), ("dicomweb", DicomWebPacs)):
        page += _table((asked.__doc__ or name).strip().rstrip("."), f"priors.{name}.", asked)
    for kind, model in KINDS.items():
        page += _table(f"A destination of kind `{kind}`, `[destinations.NAME]`", "", model)
    return page


if __name__ == "__main__":
    (Path(__file__).parent / "settings.md").write_text(reference())
