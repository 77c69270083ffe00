"""Who may sign in, and who has? Accounts and their sessions; only hashes of passwords and tokens are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from node.ledger.access_records import Account, Action, Role, SessionKind
from node.ledger.access_tables import sessions, users
from node.ledger.audit_trail import AuditTrail
from node.ledger.engine import clean
from node.ledger.rows import Row
from pipeline.errors import InputError

SEEN_EVERY_S = 60.0
"""A session's last use is written down at most so often: a page must not cost a write each time."""

_COLUMNS = [users.c[name] for name in Account.__dataclass_fields__]


class Accounts(AuditTrail):
    """Accounts and sessions. Each change is one transaction with its row in the audit."""

    def add_account(self, name: str, display_name: str, role: Role, password_hash: str, *, actor: str) -> Account:
        """Add someone who may sign in.

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
                raise InputError("this name is taken", where=f"user {name}", do="`cmbnode users list` shows all")
            self._note_access(connection, actor, Action.USER, detail=f"{name} added as {role}")
        return Account(name, display_name, role, now, now, None)

    def accounts(self) -> list[Account]:
        """Everyone, by name."""
        with self._read() as connection:
            return [_account(row) for row in connection.execute(select(*_COLUMNS).order_by(users.c.name)).mappings()]

    def account(self, name: str) -> Account:
        """The account of this name; :class:`InputError` if there is none."""
        with self._read() as connection:
            row = connection.execute(select(*_COLUMNS).where(users.c.name == name)).mappings().one_or_none()
        if row is None:
            raise InputError("no such user", where=f"user {name}", do="`cmbnode users list` shows all")
        return _account(row)

    def has_accounts(self) -> bool:
        """Whether anybody may sign in."""
        with self._read() as connection:
            return connection.scalar(select(users.c.name).where(users.c.disabled_at.is_(None)).limit(1)) is not None

    def password_hash(self, name: str) -> str | None:
        """Hash of the password of someone who may sign in; ``None`` if there is nobody of this name, or disabled."""
        with self._read() as connection:
            where = and_(users.c.name == name, users.c.disabled_at.is_(None))
            return connection.scalar(select(users.c.password_hash).where(where))

    def set_role(self, name: str, role: Role, *, actor: str) -> None:
        """Give someone another role; it counts from the next page on."""
        self._change_account(name, {"role": role.value}, f"{name} is {role} now", actor, keep=True)

    def disable_account(self, name: str, *, actor: str, disabled: bool = True) -> None:
        """Let someone sign in no more, and end their sessions; or let them again."""
        values = {"disabled_at": self._clock() if disabled else None}
        self._change_account(name, values, f"{name} {'disabled' if disabled else 'enabled again'}", actor)

    def set_password(self, name: str, password_hash: str, *, actor: str) -> None:
        """Set another password; every session and program's token of that person ends."""
        values = {"password_hash": password_hash, "password_set_at": self._clock()}
        self._change_account(name, values, f"password of {name}", actor, action=Action.PASSWORD)

    def renew_hash(self, name: str, password_hash: str) -> None:
        """Keep the same password under newer parameters of the hash."""
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
        """Let the holder of a token be this person for so long; `actor`, if it was not that person who asked."""
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
            action = Action.SIGNED_IN if kind == SessionKind.BROWSER else Action.USER
            self._note_access(connection, actor or name, action, detail=detail, address=address)

    def session_account(self, token_hash: str, idle_s: float, *, used: bool = True) -> Account | None:
        """Who the holder of a token is, if the session lives; a program's token knows no idleness.

        `used`: this is a sign of a person, not of a page that asks for itself again.
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
                self._note_access(connection, name, Action.SIGNED_OUT, address=address)

    def close_sessions(self, name: str, *, kind: SessionKind, actor: str) -> int:
        """End every session of one kind of a person; how many."""
        with self._write() as connection:
            where = and_(sessions.c.user_name == name, sessions.c.kind == kind.value)
            ended = connection.execute(delete(sessions).where(where)).rowcount
            self._note_access(connection, actor, Action.USER, detail=f"{ended} {kind} sessions of {name} ended")
        return ended

    def forget_sessions(self, before: datetime) -> int:
        """Remove sessions that were over before a time; how many."""
        with self._write() as connection:
            return connection.execute(delete(sessions).where(sessions.c.expires_at < before)).rowcount

    def count_sessions(self, name: str) -> int:
        """How many sessions and tokens of a person have not run out."""
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
        action: Action = Action.USER,
        keep: bool = False,
    ) -> None:
        with self._write() as connection:
            if connection.execute(update(users).where(users.c.name == name).values(values)).rowcount == 0:
                raise InputError("no such user", where=f"user {name}", do="`cmbnode users list` shows all")
            if not keep:
                connection.execute(delete(sessions).where(sessions.c.user_name == name))
            self._note_access(connection, actor, action, detail=detail)


def _account(row: Row) -> Account:
    return Account(**{name: row[name] for name in Account.__dataclass_fields__} | {"role": Role(row["role"])})
