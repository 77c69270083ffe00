"""How is a password stored and checked? As its Argon2id hash (RFC 9106), with the library's parameters."""

from __future__ import annotations

import re
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pipeline.errors import InputError

SHORTEST = 12
LONGEST = 256
_CONCURRENT = threading.BoundedSemaphore(2)  # a check uses 64 MiB: many sign-ins at once must not exhaust the memory
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_hasher = PasswordHasher()


def user_name(text: str) -> str:
    """The name of an account as it is stored: without surrounding spaces, in lower case.

    Raises
    ------
    InputError
        If it is not a valid name.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise InputError(
            "not a valid user name", where=repr(text[:64]), do="use up to 64 characters: a–z, 0–9, . _ - @"
        )
    return name


def check_new_password(password: str, name: str) -> None:
    """Refuse a password that is easy to guess. Length matters most (NIST SP 800-63B-4, 3.1.1.2).

    Raises
    ------
    InputError
        If it is too short, too long or too simple.
    """
    if len(password) < SHORTEST:
        raise InputError(f"the password has fewer than {SHORTEST} characters", do="choose a sentence of several words")
    if len(password) > LONGEST:
        raise InputError(f"the password has more than {LONGEST} characters")
    if len(set(password)) < 5 or password.strip().lower() == name:
        raise InputError("the password is easy to guess", do="choose a sentence of several words")


def hash_password(password: str) -> str:
    """The hash to store; it includes salt and parameters."""
    with _CONCURRENT:
        return _hasher.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Whether a password matches a hash. Without a hash it takes as long, so that timing reveals no user names."""
    with _CONCURRENT:
        try:
            return _hasher.verify(stored or _unknown_hash(), password[: LONGEST + 1]) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(stored: str) -> bool:
    """Whether a hash was made with parameters other than the current ones."""
    return _hasher.check_needs_rehash(stored)


def _unknown_hash() -> str:
    """The hash of a random password, made once per process."""
    global _unknown
    if _unknown is None:
        _unknown = _hasher.hash(secrets.token_urlsafe())
    return _unknown


_unknown: str | None = None
