"""Who may sign in, and who has? Accounts and sessions, with hashes of passwords and tokens only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from node.roles import SessionKind, UserRole
from pipeline.errors import InputError

from .access_records import Account, AuditAction
from .access_tables import sessions, users
from .audit_trail import AuditTrail
from .engine import clean, locked
from .rows import Row

SEEN_EVERY_S = 60.0
"""A session's last use is stored at most once in this time, so that not every page costs a write."""

_COLUMNS = [users.c[name] for name in Account.__dataclass_fields__]
_ADMINISTRATORS = and_(users.c.role == UserRole.ADMINISTRATOR.value, users.c.disabled_at.is_(None))


class Accounts(AuditTrail):
    """Accounts and sessions. Each change and its row in the audit are one transaction."""

    def add_account(
        self, name: str, display_name: str, role: UserRole, password_hash: str, *, actor: str, address: str = ""
    ) -> Account:
        """Add an account.

        Raises
        ------
        InputError
            If the name is taken.
        """
        now, display_name = self._clock(), clean(display_name, 200)
        values = {
            "name": name,
            "display_name": display_name,
            "role": role.value,
            "password_hash": password_hash,
            "created_at": now,
            "password_set_at": now,
        }
        with self._write() as connection:
            if not self._insert_missing(connection, users, values):
                raise InputError("this name is taken", where=f"user {name}", do="see `cmbnode users list`")
            self._insert_access(connection, actor, AuditAction.USER, detail=f"{name} added as {role}", address=address)
        return Account(name, display_name, role, now, now, None)

    def accounts(self) -> list[Account]:
        """All accounts, by name."""
        with self._read() as connection:
            return [_account(row) for row in connection.execute(select(*_COLUMNS).order_by(users.c.name)).mappings()]

    def account(self, name: str) -> Account:
        """The account of this name; :class:`InputError` if there is none."""
        with self._read() as connection:
            row = connection.execute(select(*_COLUMNS).where(users.c.name == name)).mappings().one_or_none()
        if row is None:
            raise InputError("no such user", where=f"user {name}", do="see `cmbnode users list`")
        return _account(row)

    def has_accounts(self) -> bool:
        """Whether there is an account that may sign in."""
        with self._read() as connection:
            return connection.scalar(select(users.c.name).where(users.c.disabled_at.is_(None)).limit(1)) is not None

    def is_disabled(self, name: str) -> bool:
        """Whether there is an account of this name, and it is disabled."""
        with self._read() as connection:
            where = and_(users.c.name == name, users.c.disabled_at.is_not(None))
            return connection.scalar(select(users.c.name).where(where)) is not None

    def password_hash(self, name: str) -> str | None:
        """The hash of a user's password; ``None`` if there is no such account or it is disabled."""
        with self._read() as connection:
            where = and_(users.c.name == name, users.c.disabled_at.is_(None))
            return connection.scalar(select(users.c.password_hash).where(where))

    def set_role(self, name: str, role: UserRole, *, actor: str, address: str = "") -> None:
        """Change a user's role; it applies from the next request on.

        Raises
        ------
        InputError
            If there is no such user, or no administrator would be left.
        """
        self._change_account(name, {"role": role.value}, f"{name}: role {role}", actor, address=address, keep=True)

    def disable_account(self, name: str, *, actor: str, disabled: bool = True, address: str = "") -> None:
        """Disable an account and end its sessions, or enable it again.

        Raises
        ------
        InputError
            If there is no such user, or no administrator would be left.
        """
        values = {"disabled_at": self._clock() if disabled else None}
        detail = f"{name} {'disabled' if disabled else 'enabled'}"
        self._change_account(name, values, detail, actor, address=address)

    def set_password(self, name: str, password_hash: str, *, actor: str) -> None:
        """Set a new password; all sessions and tokens of the user end."""
        values = {"password_hash": password_hash, "password_set_at": self._clock()}
        self._change_account(name, values, f"password of {name}", actor, action=AuditAction.PASSWORD)

    def renew_hash(self, name: str, password_hash: str) -> None:
        """Store a new hash of the same password."""
        with self._write() as connection:
            connection.execute(update(users).where(users.c.name == name).values(password_hash=password_hash))

    def open_session(
        self,
        token_hash: str,
        name: str,
        kind: SessionKind,
        lasts_s: float,
        *,
        address: str = "",
        detail: str = "",
        actor: str = "",
    ) -> None:
        """Make the holder of a token this user for `lasts_s`; `actor` is who did so, if not the user."""
        now = self._clock()
        values = {
            "token_hash": token_hash,
            "user_name": name,
            "kind": kind.value,
            "created_at": now,
            "seen_at": now,
            "expires_at": now + timedelta(seconds=lasts_s),
            "address": clean(address, 64),
        }
        with self._write() as connection:
            connection.execute(insert(sessions).values(values))
            action = AuditAction.SIGN_IN if kind == SessionKind.BROWSER else AuditAction.USER
            self._insert_access(connection, actor or name, action, detail=detail, address=address)

    def session_account(self, token_hash: str, idle_s: float, *, used: bool = True) -> Account | None:
        """The account of a token's holder, if the session is valid; a program's token never becomes idle.

        `used`: a person made this request, not a page that reloads itself.
        """
        now = self._clock()
        query = (
            select(*_COLUMNS, sessions.c.seen_at)
            .join(sessions, sessions.c.user_name == users.c.name)
            .where(sessions.c.token_hash == token_hash, sessions.c.expires_at > now, users.c.disabled_at.is_(None))
            .where(or_(sessions.c.kind == SessionKind.PROGRAM, sessions.c.seen_at > now - timedelta(seconds=idle_s)))
        )
        with self._read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        if used and row["seen_at"] < now - timedelta(seconds=min(SEEN_EVERY_S, idle_s / 2)):
            with self._write() as connection:
                connection.execute(update(sessions).where(sessions.c.token_hash == token_hash).values(seen_at=now))
        return _account(row)

    def close_session(self, token_hash: str, *, address: str = "") -> None:
        """End one session."""
        with self._write() as connection:
            where = sessions.c.token_hash == token_hash
            name = connection.scalar(delete(sessions).where(where).returning(sessions.c.user_name))
            if name is not None:
                self._insert_access(connection, name, AuditAction.SIGN_OUT, address=address)

    def close_sessions(self, name: str, *, kind: SessionKind, actor: str) -> int:
        """End all sessions of one kind of a user; returns how many."""
        with self._write() as connection:
            where = and_(sessions.c.user_name == name, sessions.c.kind == kind.value)
            ended = connection.execute(delete(sessions).where(where)).rowcount
            self._insert_access(connection, actor, AuditAction.USER, detail=f"{ended} {kind} sessions of {name} ended")
        return ended

    def forget_sessions(self, before: datetime) -> int:
        """Delete sessions that ended before a time; returns how many."""
        with self._write() as connection:
            return connection.execute(delete(sessions).where(sessions.c.expires_at < before)).rowcount

    def count_sessions(self, name: str) -> int:
        """How many sessions and tokens of a user have not expired."""
        where = and_(sessions.c.user_name == name, sessions.c.expires_at > self._clock())
        with self._read() as connection:
            return connection.scalar(select(func.count()).select_from(sessions).where(where)) or 0

    def _change_account(
        self,
        name: str,
        values: dict[str, Any],
        detail: str,
        actor: str,
        *,
        action: AuditAction = AuditAction.USER,
        address: str = "",
        keep: bool = False,
    ) -> None:
        with self._write() as connection:
            # Locked in one order: of two administrators who disable each other at the same time, one stays.
            query = locked(select(users.c.name).where(_ADMINISTRATORS).order_by(users.c.name))
            administrators = connection.scalars(query).all()
            if connection.execute(update(users).where(users.c.name == name).values(values)).rowcount == 0:
                raise InputError("no such user", where=f"user {name}", do="see `cmbnode users list`")
            left = connection.scalar(select(users.c.name).where(_ADMINISTRATORS).limit(1))
            if name in administrators and left is None:
                raise InputError(
                    "this is the last administrator", where=f"user {name}", do="make another user administrator first"
                )
            if not keep:
                connection.execute(delete(sessions).where(sessions.c.user_name == name))
            self._insert_access(connection, actor, action, detail=detail, address=address)


def _account(row: Row) -> Account:
    return Account(**{name: row[name] for name in Account.__dataclass_fields__} | {"role": UserRole(row["role"])})
