"""What may a user of the node do, and who holds a token? Apart from the ledger, so that commands start quickly."""

from __future__ import annotations

from enum import StrEnum

FIRST_ACCOUNT = "cmbnode users add NAME --role administrator"
"""The command that adds the first account of a node."""


class UserRole(StrEnum):
    """What a user may do. Each role includes the ones before it."""

    VIEWER = "viewer"
    READER = "reader"
    ADMINISTRATOR = "administrator"

    def may_act_as(self, wanted: UserRole) -> bool:
        """Whether this role includes `wanted`."""
        order = list(UserRole)
        return order.index(self) >= order.index(wanted)


class SessionKind(StrEnum):
    """Who holds a token: a user's browser, or a program."""

    BROWSER = "browser"
    PROGRAM = "program"
