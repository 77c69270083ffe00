"""Where do passwords and tokens come from, if not from the configuration? A folder with a file for each."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from pydantic_settings import SettingsError

SECRETS_DIR = "CMBNODE_SECRETS_DIR"
"""Environment variable that names the folder; each file is named for a setting and holds its value."""


def secrets_folder(settings: Container[str]) -> Path | None:
    """Name the folder of secrets, if there is one; nothing in it may be overlooked.

    Raises
    ------
    SettingsError
        If the folder or a file cannot be read, or a file is named for none of these settings.
    """
    name = os.environ.get(SECRETS_DIR)
    if name is None:
        return None
    try:
        for file in Path(name).iterdir():
            if not file.name.startswith("."):
                file.read_bytes()  # pydantic passes over what it may not read
                if file.name.split("__")[0] not in settings:
                    raise SettingsError(f"{file}: there is no setting of this name")
    except OSError as error:
        raise SettingsError(f"{error.filename}: the secret cannot be read ({error.strerror})") from error
    return Path(name)


def with_password(url: str, password: str | SecretStr) -> str:
    """Add the password to a URL such as ``redis://host:6379/0`` or ``postgresql://user@host/name``."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not host:
        raise ValueError("a password needs a URL that names a host")
    if ":" in user:
        raise ValueError("the password is in the URL and in its own setting; remove one of them")
    secret = password.get_secret_value() if isinstance(password, SecretStr) else password
    return parts._replace(netloc=f"{user}:{quote(secret, safe='')}@{host}").geturl()
