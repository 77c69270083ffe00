"""`cmbnode users`: who may sign in to the worklist, and in which role. Passwords come from a prompt or stdin only."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from node.roles import SessionKind, UserRole
from pipeline.command_help import PlainCommand
from pipeline.errors import InputError

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from node.ledger import Ledger

users = typer.Typer(help="Manage who may sign in to the worklist.", rich_markup_mode=None, no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The user's sign-in name.")]
RoleOption = Annotated[
    UserRole,
    typer.Option(
        "--role",
        help="viewer sees results, reader also corrects them, administrator also sees the audit and manages users.",
    ),
]
DAY_S = 86_400.0


@contextmanager
def _ledger(data: Path | None, config: Path | None) -> Iterator[Ledger]:
    with open_ledger(settings_of(data, config)) as ledger:
        ledger.upgrade()
        yield ledger


def _new_password(name: str) -> str:
    """Ask twice on a terminal; otherwise read one line from stdin."""
    from node.web.passwords import check_new_password

    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {name}: ")
        if password != getpass.getpass("Repeat it: "):
            raise InputError("the two passwords differ", do="try again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    check_new_password(password, name)
    return password


@users.command(cls=PlainCommand)
def add(
    name: NameArgument,
    role: RoleOption = UserRole.VIEWER,
    display_name: Annotated[str, typer.Option("--display-name", help="Name on pages and in reports.")] = "",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a user. The command asks for the password, or reads it from stdin."""
    from node.web.passwords import hash_password, user_name

    name = user_name(name)
    with _ledger(data, config) as ledger:
        if any(account.name == name for account in ledger.accounts()):
            raise InputError("this name is taken", where=f"user {name}", do="see `cmbnode users list`")
        ledger.add_account(name, display_name.strip(), role, hash_password(_new_password(name)), actor=actor())
    print(f"{name} can sign in as {role}")


@users.command("list", cls=PlainCommand)
def list_users(data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List all users, disabled ones included."""
    from node.web.documents import iso
    from node.web.labels import clock

    with _ledger(data, config) as ledger:
        accounts = ledger.accounts()
        live = {account.name: ledger.count_sessions(account.name) for account in accounts}
    if json:
        print_json(
            {
                "users": [
                    {
                        "name": one.name,
                        "display_name": one.display_name,
                        "role": one.role.value,
                        "created": iso(one.created_at),
                        "password_set": iso(one.password_set_at),
                        "disabled": iso(one.disabled_at),
                        "sessions": live[one.name],
                    }
                    for one in accounts
                ]
            }
        )
        return
    rows = [
        [
            one.name,
            one.display_name,
            one.role,
            "disabled" if one.disabled_at else "enabled",
            clock(one.created_at),
            clock(one.password_set_at),
            live[one.name],
        ]
        for one in accounts
    ]
    print_table(["name", "display name", "role", "state", "added", "password set", "sessions"], rows)


@users.command("set-role", cls=PlainCommand)
def set_role(
    name: NameArgument,
    role: Annotated[UserRole, typer.Argument(metavar="ROLE", help="viewer, reader or administrator.")],
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Change a user's role. The change takes effect at once, even if the user is signed in."""
    with _ledger(data, config) as ledger:
        ledger.set_role(name.strip().lower(), role, actor=actor())
    print(f"{name} now has the role {role}")


@users.command(cls=PlainCommand)
def disable(
    name: NameArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Enable the user again.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Disable a user's sign-in. Sessions and tokens end at once; the user's audit entries stay."""
    with _ledger(data, config) as ledger:
        ledger.disable_account(name.strip().lower(), actor=actor(), disabled=not undo)
    print(f"{name} is enabled" if undo else f"{name} is disabled")


@users.command("reset-password", cls=PlainCommand)
def reset_password(name: NameArgument, data: DataOption = None, config: ConfigOption = None) -> None:
    """Set a new password, from a prompt or stdin. The user's sessions and tokens end."""
    from node.web.passwords import hash_password

    name = name.strip().lower()
    with _ledger(data, config) as ledger:
        ledger.account(name)
        ledger.set_password(name, hash_password(_new_password(name)), actor=actor())
    print(f"{name} has a new password")


@users.command(cls=PlainCommand)
def token(
    name: NameArgument,
    days: Annotated[float, typer.Option("--days", min=0.01, max=3660, help="Days until the token expires.")] = 365.0,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke all tokens of this user instead.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Create an API token for a program and print it once. The program sends `Authorization: Bearer TOKEN`."""
    from node.web.auth import new_token, token_hash

    name = name.strip().lower()
    with _ledger(data, config) as ledger:
        account = ledger.account(name)
        if revoke:
            ended = ledger.close_sessions(name, kind=SessionKind.PROGRAM, actor=actor())
            print(f"{ended} tokens of {name} revoked")
            return
        if account.disabled_at is not None:
            raise InputError("this user is disabled", where=f"user {name}", do="`cmbnode users disable --undo`")
        made = new_token()
        detail = f"token for {name}, expires after {days:g} days"
        ledger.open_session(token_hash(made), name, SessionKind.PROGRAM, days * DAY_S, detail=detail, actor=actor())
    print(made)
