"""`cmbnode users`: who may sign in to the worklist, and as what. Passwords come from a prompt or stdin only."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands.options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from node.commands.output import print_json, print_table
from node.ledger.access_records import Role, SessionKind
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from node.ledger import Ledger

users = typer.Typer(help="Who may sign in to the worklist, and as what.", rich_markup_mode=None, no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name to sign in with.")]
RoleOption = Annotated[
    Role, typer.Option("--role", help="viewer looks; reader corrects findings too; administrator sees the audit too.")
]
DAY_S = 86_400.0


@contextmanager
def _ledger(data: Path | None, config: Path | None) -> Iterator[Ledger]:
    ledger = open_ledger(settings_of(data, config))
    try:
        ledger.upgrade()
        yield ledger
    finally:
        ledger.close()


def _new_password(name: str) -> str:
    """Ask twice on a terminal; elsewhere read one line from stdin."""
    from node.passwords import check_new_password

    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {name}: ")
        if password != getpass.getpass("Again: "):
            raise InputError("the two passwords differ", do="try again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    check_new_password(password, name)
    return password


@users.command()
def add(
    name: NameArgument,
    role: RoleOption = Role.VIEWER,
    display_name: Annotated[str, typer.Option("--display-name", help="As pages and reports show it.")] = "",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Add someone. The password is asked for, or read from stdin."""
    from node.passwords import hash_password, user_name

    name = user_name(name)
    with _ledger(data, config) as ledger:
        if any(account.name == name for account in ledger.accounts()):
            raise InputError("this name is taken", where=f"user {name}", do="`cmbnode users list` shows all")
        ledger.add_account(name, display_name.strip(), role, hash_password(_new_password(name)), actor=actor())
    print(f"{name} may sign in as {role}")


@users.command("list")
def list_users(data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List everyone who may sign in, or might."""
    from node.worklist.documents import iso
    from node.worklist.words import clock

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
            "disabled" if one.disabled_at else "",
            clock(one.created_at),
            clock(one.password_set_at),
            live[one.name],
        ]
        for one in accounts
    ]
    print_table(["name", "display name", "role", "", "added", "password set", "sessions"], rows)


@users.command("set-role")
def set_role(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(help="viewer, reader or administrator.")],
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Give someone another role. It counts at once, also for who is signed in."""
    with _ledger(data, config) as ledger:
        ledger.set_role(name.strip().lower(), role, actor=actor())
    print(f"{name} is {role} now")


@users.command()
def disable(
    name: NameArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let that person sign in again.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Let someone in no more. Sessions and tokens end at once; what was written down stays."""
    with _ledger(data, config) as ledger:
        ledger.disable_account(name.strip().lower(), actor=actor(), disabled=not undo)
    print(f"{name} may sign in again" if undo else f"{name} may not sign in any more")


@users.command("reset-password")
def reset_password(name: NameArgument, data: DataOption = None, config: ConfigOption = None) -> None:
    """Set a new password. Asked for, or read from stdin; that person's sessions and tokens end."""
    from node.passwords import hash_password

    name = name.strip().lower()
    with _ledger(data, config) as ledger:
        ledger.account(name)
        ledger.set_password(name, hash_password(_new_password(name)), actor=actor())
    print(f"{name} has a new password")


@users.command()
def token(
    name: NameArgument,
    days: Annotated[float, typer.Option("--days", min=0.01, max=3660, help="It is good for so long.")] = 365.0,
    revoke: Annotated[bool, typer.Option("--revoke", help="End all tokens of that name instead.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a token for a program. It is printed once; the API takes it as `Authorization: Bearer TOKEN`."""
    from node.worklist.access import new_token, token_hash

    name = name.strip().lower()
    with _ledger(data, config) as ledger:
        account = ledger.account(name)
        if revoke:
            ended = ledger.close_sessions(name, kind=SessionKind.PROGRAM, actor=actor())
            print(f"{ended} tokens of {name} ended")
            return
        if account.disabled_at is not None:
            raise InputError("this user is disabled", where=f"user {name}", do="`cmbnode users disable --undo`")
        made = new_token()
        detail = f"token for {name}, good for {days:g} days"
        ledger.open_session(token_hash(made), name, SessionKind.PROGRAM, days * DAY_S, detail=detail, actor=actor())
    print(made)
