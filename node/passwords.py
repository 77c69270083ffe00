"""How is a password kept and checked? Argon2id (RFC 9106) with the library's parameters; never the password itself."""

from __future__ import annotations

import re
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pipeline.errors import InputError

SHORTEST = 12
LONGEST = 256
_AT_ONCE = threading.BoundedSemaphore(2)  # one check takes 64 MiB: a flood of sign-ins must not take the memory
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_hasher = PasswordHasher()


def user_name(text: str) -> str:
    """The name of an account as it is kept: without space around it, in small letters.

    Raises
    ------
    InputError
        If it cannot be a name.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise InputError(
            "not a user name", where=repr(text[:64]), do="use up to 64 letters a–z, digits, dots, dashes, @"
        )
    return name


def check_new_password(password: str, name: str) -> None:
    """Refuse a password that is easy to guess; length is what counts (NIST SP 800-63B-4, 3.1.1.2).

    Raises
    ------
    InputError
        Saying what to choose instead.
    """
    if len(password) < SHORTEST:
        raise InputError(f"the password has fewer than {SHORTEST} characters", do="take a sentence of several words")
    if len(password) > LONGEST:
        raise InputError(f"the password has more than {LONGEST} characters")
    if len(set(password)) < 5 or password.strip().lower() == name:
        raise InputError("the password is easy to guess", do="take a sentence of several words")


def hash_password(password: str) -> str:
    """The hash to keep, with salt and parameters in it."""
    with _AT_ONCE:
        return _hasher.hash(password)


def verify_password(kept: str | None, password: str) -> bool:
    """Say whether it is the password of this hash. Without a hash it takes as long, so that time tells no names."""
    with _AT_ONCE:
        try:
            return _hasher.verify(kept or _nobody(), password[: LONGEST + 1]) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def outdated(kept: str) -> bool:
    """Say whether a hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(kept)


def _nobody() -> str:
    """A hash that no password is known for, made once a process."""
    global _unknown
    if _unknown is None:
        _unknown = _hasher.hash(threading.current_thread().name + str(id(_AT_ONCE)))
    return _unknown


_unknown: str | None = None
