"""What of a request goes into the audit? Every action, and each look at a study or a list once in ten minutes."""

from __future__ import annotations

import time

from fastapi import Request

from node.ledger.access_records import AuditAction

from .auth import address_of, session_token, token_hash
from .context import MOST_LOOKS, context_of

REPEAT_S = 600.0
"""A session that repeats a look within this time adds no row to the audit."""


def audit(
    request: Request, action: AuditAction, study_uid: str = "", detail: str = "", *, repeats: bool = False
) -> None:
    """Record what the user does.

    Parameters
    ----------
    repeats : bool
        The request only continues a look: a page reloads itself, or fetches its pictures. It is not recorded if this
        session's same look was recorded within :data:`REPEAT_S`. The node remembers that itself, so no header of a
        request can hide a look from the audit.
    """
    user, shared = request.state.user, context_of(request)
    list_view = detail if action is AuditAction.LIST else ""
    look = (token_hash(session_token(request)), user.name, address_of(request), action, study_uid, list_view)
    now = time.monotonic()
    if repeats and now - shared.looks.get(look, -REPEAT_S) < REPEAT_S:
        return
    shared.ledger.record_access(user.name, action, study_uid, detail, address_of(request))
    if len(shared.looks) >= MOST_LOOKS:
        shared.looks.clear()
    shared.looks[look] = now
