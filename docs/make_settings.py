"""Write docs/settings.md from the settings themselves: ``python docs/make_settings.py``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from node.settings import Settings
from node.settings.audit_repository import AuditRepositorySettings
from node.settings.connections import ReceiverTlsSettings
from node.settings.destinations import KINDS
from node.settings.dicomweb import DicomWebClientSettings
from node.settings.notices import EmailSettings, WebhookSettings
from node.settings.pacs import DicomPacs, DicomWebPacs
from node.settings.pull import PullSettings
from node.settings.work_items import WorkItemImages, WorkItemSettings
from node.settings.worklist import ProxySignInSettings

HEAD = """# Settings

Every setting, as the configuration file (TOML) names it. Give the file with `--config FILE` or in `CMBNODE_CONFIG`.
Restart the node after a change.

- An environment variable overrides the file: `CMBNODE_` and the name in capitals, with two underscores after each table
  (`receiver.port` is `CMBNODE_RECEIVER__PORT`). A list is JSON (`CMBNODE_RECEIVER__PEERS='["10.1.2.0/24"]'`).
  The node refuses to start with a variable that names no setting, such as a mistyped one. `CMBNODE_CONFIG`,
  `CMBNODE_SECRETS_DIR` and `CMBNODE_ALIVE_FILE` are the node's, too, but not settings.
- A password or token can be in its own file, in the folder that `CMBNODE_SECRETS_DIR` names. The file is named like
  the setting (`redis_password`, `destinations__vna__token`) and contains nothing else. The environment overrides it and
  it overrides the configuration file.

`python docs/make_settings.py` writes this page from the code.
"""


_FACTORY_DEFAULTS = {
    "data_dir": "the platform's user data folder",
    "destinations": "none",
    "pull": "none",
    "roles": "none",
}


def _toml(value: object) -> str:
    """A default as the configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return _FACTORY_DEFAULTS[name] if field.default_factory is not None else "required"
    if field.default in (None, (), "", {}):
        return "none"
    return f"`{_toml(field.default)}`"


def _table(title: str, prefix: str, model: type[BaseModel]) -> str:
    rows = [f"\n## {title}\n", "| setting | default | meaning |", "|---|---|---|"]
    own = [inspect.get_annotations(kind) for kind in model.__mro__]  # what is inherited from afar comes last
    fields = sorted(model.model_fields.items(), key=lambda item: [item[0] in names for names in own].index(True))
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
    page += _table("The receiver's TLS port", "receiver.tls.", ReceiverTlsSettings)
    title = (ProxySignInSettings.__doc__ or "").strip().rstrip(".")
    page += _table(title, "worklist.proxy_sign_in.", ProxySignInSettings)
    pull = (PullSettings.__doc__ or "").strip().rstrip(".")
    page += _table(f"{pull}, `[pull.NAME]`", "", PullSettings)
    for name, asked in (("dicom", DicomPacs), ("dicomweb", DicomWebPacs)):
        where = f"`[priors.{name}]`, `[pull.NAME.{name}]`"
        page += _table(f"{(asked.__doc__ or name).strip().rstrip('.')}, {where}", "", asked)
    client = (DicomWebClientSettings.__doc__ or "").strip().rstrip(".")
    page += _table(f"{client}, `[dicomweb.clients.NAME]`", "", DicomWebClientSettings)
    for name, channel in (("webhook", WebhookSettings), ("email", EmailSettings)):
        page += _table((channel.__doc__ or name).strip().rstrip("."), f"notices.{name}.", channel)
    title = (AuditRepositorySettings.__doc__ or "").strip().rstrip(".")
    page += _table(title, "audit_repository.", AuditRepositorySettings)
    for prefix, manager in (("work_items.", WorkItemSettings), ("work_items.images.", WorkItemImages)):
        page += _table((manager.__doc__ or prefix).strip().rstrip("."), prefix, manager)
    for kind, model in KINDS.items():
        page += _table(f"A destination of kind `{kind}`, `[destinations.NAME]`", "", model)
    return page


if __name__ == "__main__":
    (Path(__file__).parent / "settings.md").write_text(reference())
