"""How often may a wrong password be given? By name and by address, over every process and restart.

The rule is a moving window of the `limits` library; the ledger is its memory.
"""

from __future__ import annotations

import hashlib
import time

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError

from node.config import WorklistSettings
from node.ledger import Ledger


class LedgerStorage(Storage, MovingWindowSupport):
    """The memory of a rate limit in the ledger. Keys are hashed: a name may be long, or a password typed too early."""

    STORAGE_SCHEME = ["ledger"]  # noqa: RUF012 - as the base class declares it

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the ledger raises when it does not answer."""
        return SQLAlchemyError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take an entry if the window has fewer than `limit`."""
        return all(self._ledger.take_attempt(_hashed(key), limit, expiry) for _ in range(amount))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        """When the window began (POSIX time), and how many entries it has."""
        first, number = self._ledger.count_attempts(_hashed(key), expiry)
        return (first.timestamp() if first is not None else time.time()), number

    def give_back(self, key: str) -> None:
        """Give back the entry taken last."""
        self._ledger.take_back_attempt(_hashed(key))

    def clear(self, key: str) -> None:
        """Forget the entries of one key."""
        self._ledger.forget_attempts(_hashed(key))

    def reset(self) -> int | None:
        """Forget every entry."""
        return self._ledger.forget_attempts()

    def check(self) -> bool:
        """Say whether the ledger answers."""
        try:
            self._ledger.ping()
        except SQLAlchemyError:
            return False
        return True

    def get(self, key: str) -> int:
        """Entries of one key, however old."""
        return self._ledger.count_attempts(_hashed(key), _EVER_S)[1]

    def get_expiry(self, key: str) -> float:
        """When the first entry of one key was: fixed windows, which this storage is not for, would end from there."""
        first, _ = self._ledger.count_attempts(_hashed(key), _EVER_S)
        return first.timestamp() if first is not None else time.time()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add entries without a limit; how many there are within `expiry`."""
        for _ in range(amount):
            self._ledger.take_attempt(_hashed(key), _NO_LIMIT, expiry)
        return self._ledger.count_attempts(_hashed(key), expiry)[1]


_EVER_S = 10.0 * 365 * 86_400
_NO_LIMIT = 2**31


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


class WrongPasswords:
    """The two limits on wrong passwords.

    An attempt counts before the password is checked, so that many at once cannot slip through; the right password
    takes its own back.
    """

    def __init__(self, ledger: Ledger, settings: WorklistSettings) -> None:
        self._storage = LedgerStorage(ledger)
        self._limiter = MovingWindowRateLimiter(self._storage)
        within = settings.wrong_within_s
        self._rules: dict[str, RateLimitItem] = {
            "account": RateLimitItemPerSecond(settings.wrong_per_account, within, namespace="account"),
            "address": RateLimitItemPerSecond(settings.wrong_per_address, within, namespace="address"),
        }

    def wait_s(self, name: str, address: str) -> float:
        """Count an attempt: 0 if it may be made, otherwise the seconds to wait. Any name counts, known or not."""
        waits = [0.0]
        for kind, value in (("address", address), ("account", name)):
            if not self._limiter.hit(self._rules[kind], value):
                until = self._limiter.get_window_stats(self._rules[kind], value).reset_time
                waits.append(max(1.0, until - time.time()))
        return max(waits)

    def was_right(self, name: str, address: str) -> None:
        """The password was right: the name is free again, and the address has not failed."""
        self._storage.clear(self._rules["account"].key_for(name))
        self._storage.give_back(self._rules["address"].key_for(address))
