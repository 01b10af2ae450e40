"""``hwsync init``, ``device`` and ``operator``: who may come into a lab.

A password is never printed and never an argument: it stands in one file for each account.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import FILE, FOLDER, JSON, Settings, account_name, board_name
from hwsync.cli.completion import of_lab
from hwsync.cli.labs import LAB, OF_BEFORE, reload, report_change, say_unsettled
from hwsync.cli.removed import take_away
from hwsync.lab.accounts import (
    ALL,
    BOARDS_PORT,
    COORDINATOR,
    OPERATORS_PORT,
    Accounts,
    OperatorRights,
)
from hwsync.lab.certificates import Given
from hwsync.lab.folder import Folder
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import SIGN
from hwsync.protocol.topics import DEFAULT_ROOT, Topics

PORT: Final = click.IntRange(1, 65_535)
NAME = click.argument("name", type=board_name)
ACCOUNT = click.argument("name", type=account_name)  # of a person or an analyst


# -- init ------------------------------------------------------------------------------------------


@click.command()
@JSON
@click.argument("directory", type=FOLDER)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name or address of the broker's machine, as boards reach it; may be repeated. "
    "The first is the one that they are told.  [default: this host's name]",
)
@click.option(
    "--root", default=DEFAULT_ROOT, show_default=True, metavar="ROOT", help="Root of the topics."
)
@click.option(
    "--port",
    "boards_port",
    type=PORT,
    default=BOARDS_PORT,
    show_default=True,
    help="For boards and the coordinator.",
)
@click.option(
    "--operators-port", type=PORT, default=OPERATORS_PORT, show_default=True, help="For operators."
)
@click.option(
    "--mutual-tls",
    is_flag=True,
    help="Everybody comes in with a certificate of the lab, in place of a password.",
)
@click.option(
    "--sign",
    "signing",
    is_flag=True,
    help="The coordinator signs commands, and boards run nothing else (needs PyNaCl).",
)
@click.option(
    "--cert",
    type=FILE,
    metavar="FILE",
    help="The broker's certificate, where it is not the lab's own; with --key, --ca.",
)
@click.option(
    "--key",
    type=FILE,
    metavar="FILE",
    help="Its private key.",
)
@click.option(
    "--ca",
    type=FILE,
    metavar="FILE",
    help="The authority that signed it.",
)
@click.option(
    "--renew", is_flag=True, help="Of a lab that is there: its certificates anew, for these hosts."
)
@click.pass_obj
def init(settings: Settings, directory: Path, hosts: tuple[str, ...], root: str, boards_port: int,
         operators_port: int, mutual_tls: bool, signing: bool, cert: Path | None, key: Path | None,
         ca: Path | None, renew: bool) -> None:  # fmt: skip
    """Make a lab in DIRECTORY that lets nobody in but its accounts.

    A broker's configuration with TLS, its certificates, an account for the coordinator. Then
    `hwsync device add` and `hwsync operator add`.
    """
    Topics(root)
    given = None
    if cert or key or ca:
        if not (cert and key and ca):
            raise UsageError("--cert, --key and --ca go together", "or leave them all out")
        given = Given(cert, key, ca)
    folder = Folder(directory)
    if renew:
        if (root, boards_port, operators_port) != (DEFAULT_ROOT, BOARDS_PORT, OPERATORS_PORT) or (
            mutual_tls or signing
        ):
            raise UsageError(
                "--root, --port, --operators-port, --mutual-tls and --sign are for a new lab",
                "--renew goes with --host, or with --cert, --key and --ca",
            )
        draft = folder.renew(hosts, given)
        report_change(settings, folder, draft, "the certificates are new: restart the broker")
        return
    if boards_port == operators_port:
        raise UsageError(f"boards and operators cannot share the port {boards_port}")
    accounts = Accounts(hosts or (socket.gethostname(),), root, boards_port, operators_port,
                        mutual_tls)  # fmt: skip
    draft = folder.create(accounts, given, signing=signing)
    if settings.as_json:
        say.json_line({"lab": str(folder.path), "hosts": list(accounts.hosts)})
        return
    conf, own = folder.path / "broker.conf", folder.file_of(COORDINATOR, accounts)
    say.line(f"a lab in {folder.path}; boards reach its broker as {accounts.hosts[0]}")
    say.line(f"  cd {folder.state} && mosquitto -c {conf}          (or: hwsync broker {conf})")
    if folder.closed:
        say.line(f"    {folder.closed} is closed to the account that mosquitto becomes: "
                 "make the lab in another folder, such as /etc/hwsync")  # fmt: skip
    say.line(f"  hwsync coordinator --config {own}")
    say.line(f"  hwsync device add pi1 --lab {folder.path}")
    say.line(
        f"  hwsync operator add {_person()} --boards all --history --analyse --lab {folder.path}"
    )


def _person() -> str:
    name = os.environ.get("USER", "")
    return name if name and name != "root" else "teacher"


# -- device ----------------------------------------------------------------------------------------


@click.group()
def device() -> None:
    """The boards of a lab: their accounts, and one file for each."""


@device.command("add")
@JSON
@LAB
@click.argument("names", nargs=-1, required=True, type=board_name)
@click.pass_obj
def add_device(settings: Settings, names: tuple[str, ...], folder: Folder) -> None:
    """Let boards in: an account for each NAME, and the file to put on it."""
    added = False
    try:
        for name in names:
            draft = folder.add_board(name)
            added = True
            report_change(settings, folder, draft, f"{name} may come in", quiet=True)
    finally:
        if added:  # be it that a later one was refused
            reload(settings, folder)


@device.command("remove")
@JSON
@LAB
@NAME
@click.pass_obj
def remove_device(settings: Settings, name: str, folder: Folder) -> None:
    """Let a board in no more; its connection ends, and what the broker keeps of it goes.

    What it was asked for ends: as cancelled what waits, as lost what runs. Its history stays.
    """
    take_away(settings, folder, name, served=remove_account(settings, folder, name, "boards"))


@device.command("rotate")
@JSON
@LAB
@click.argument("name")
@click.pass_obj
def rotate_device(settings: Settings, name: str, folder: Folder) -> None:
    """Give a board (or `coordinator`) a new password and file; the old one is worth nothing."""
    rotate_account(settings, folder, name, "boards")


@device.command("list")
@JSON
@LAB
@click.pass_obj
def list_devices(settings: Settings, folder: Folder) -> None:
    """The boards that may come in."""
    list_accounts(settings, folder, folder.accounts.boards)


# -- operator --------------------------------------------------------------------------------------


@click.group()
def operator() -> None:
    """The people and programs that send programs: their accounts and rights."""


BOARDS = click.option(
    "--boards",
    metavar="NAMES|all",
    help="Which, with commas between; or all, and all groups.",
    shell_complete=of_lab("boards"),
)
GROUPS = click.option(
    "--groups",
    metavar="NAMES",
    help="Groups to send programs to, with commas between, and to see what becomes of each of "
    "their boards; all is everybody.",
    shell_complete=of_lab("groups"),
)
HISTORY = click.option(
    "--history",
    is_flag=True,
    help="To read what everybody has run on these boards; else it is his own.",
)
READ_ONLY = click.option("--read-only", is_flag=True, help="To look on, and ask for nothing.")
ANALYSE = click.option(
    "--analyse",
    "--analyze",
    is_flag=True,
    help="To judge what was run on these boards; else nobody judges but analysts.",
)


def _rights(
    boards: str | None, groups: str | None, read_only: bool, history: bool, analyse: bool
) -> OperatorRights:
    if boards is None and groups is None:
        raise UsageError("for which boards?", "--boards pi1,pi2, or --boards all, or --groups lab1")
    named = _listed(groups, SIGN)
    if boards == ALL:
        return OperatorRights(None, read_only, named, history, analyse)
    return OperatorRights(_listed(boards), read_only, named, history, analyse)


def _listed(words: str | None, sign: str = "") -> tuple[str, ...]:
    """The names of a list with commas between, each once; ``sign`` may stand before them."""
    if words is None:
        return ()
    names = (name.strip().removeprefix(sign) for name in words.split(","))
    return tuple(dict.fromkeys(map(board_name, names)))


@operator.command("add")
@JSON
@LAB
@ACCOUNT
@BOARDS
@GROUPS
@READ_ONLY
@HISTORY
@ANALYSE
@click.pass_obj
def add_operator(
    settings: Settings, name: str, boards: str | None, groups: str | None, read_only: bool,
    history: bool, analyse: bool, folder: Folder,
) -> None:  # fmt: skip
    """Let a person in: an account, and the file that it needs."""
    draft = folder.add_operator(name, _rights(boards, groups, read_only, history, analyse))
    report_change(settings, folder, draft, f"{name} may come in")


@operator.command("change")
@JSON
@LAB
@ACCOUNT
@BOARDS
@GROUPS
@READ_ONLY
@HISTORY
@ANALYSE
@click.pass_obj
def change_operator(
    settings: Settings, name: str, boards: str | None, groups: str | None, read_only: bool,
    history: bool, analyse: bool, folder: Folder,
) -> None:  # fmt: skip
    """Give a person other rights, in place of those before; the password stays."""
    draft = folder.change_operator(name, _rights(boards, groups, read_only, history, analyse))
    report_change(settings, folder, draft, f"{name} has other rights")


@operator.command("remove")
@JSON
@LAB
@ACCOUNT
@click.pass_obj
def remove_operator(settings: Settings, name: str, folder: Folder) -> None:
    """Let a person in no more; his connections end."""
    remove_account(settings, folder, name, "operators")


@operator.command("rotate")
@JSON
@LAB
@ACCOUNT
@click.pass_obj
def rotate_operator(settings: Settings, name: str, folder: Folder) -> None:
    """Give a person a new password, and a new file; the old one is worth nothing."""
    rotate_account(settings, folder, name, "operators")


@operator.command("list")
@JSON
@LAB
@click.pass_obj
def list_operators(settings: Settings, folder: Folder) -> None:
    """The people that may come in, and what they may do."""
    accounts = folder.accounts
    for name, one in sorted(accounts.operators.items()):
        boards: Any = ALL if one.boards is None else list(one.boards)
        named = [*([ALL] if one.boards is None else one.boards),
                 *(f"{SIGN}{group}" for group in one.groups)]  # fmt: skip
        shown = ", ".join(named) or "no board"
        more = ((one.read_only, "read only"), (one.history, "everybody's history"),
                (one.judges, "judges" if one.analyse else OF_BEFORE))  # fmt: skip
        text = ", ".join([f"{name}: {shown}", *(word for there, word in more if there)])
        value = {"name": name, "boards": boards, "groups": list(one.groups),
                 "read_only": one.read_only, "history": one.history,
                 "analyse": one.judges}  # fmt: skip
        say.either(settings.as_json, value, text)
    say_unsettled(accounts)


def remove_account(settings: Settings, folder: Folder, name: str, kind: str) -> bool:
    """``kind``: of the lab's list; whether a broker knows. Raises ``UsageError``."""
    _is_of(folder, name, kind)
    return report_change(settings, folder, folder.remove(name), f"{name} may come in no more")


def list_accounts(settings: Settings, folder: Folder, names: Iterable[str]) -> None:
    """These accounts, each with its file where that is still here."""
    accounts = folder.accounts
    for name in names:
        file = folder.file_of(name, accounts)
        here = str(file) if os.path.exists(file) else None
        say.either(settings.as_json, {"name": name, "file": here}, name)


def rotate_account(settings: Settings, folder: Folder, name: str, kind: str) -> None:
    """The same, with a new password."""
    if not (kind == "boards" and name == COORDINATOR):
        _is_of(folder, name, kind)
    report_change(settings, folder, folder.rotate(name), f"{name} has a new password")
    if settings.as_json or name == COORDINATOR:
        return
    say.line(f"{name} is shut out until it has its new file")
    if kind == "boards":
        say.line(
            f"  on the board: /etc/hwsync/device.toml, then systemctl reload hwsync-device@{name}"
        )
        say.line(f"  hwsync status may call it online for {limits.OFFLINE_AFTER_S:g} s still")
    elif kind == "analysts":
        say.line(f"  under systemd, on this machine: systemctl restart hwsync-analyst@{name}")
    else:
        say.line("  with that person: ~/.config/hwsync/hwsync.toml, mode 600")


def _is_of(folder: Folder, name: str, kind: str) -> None:
    if name not in getattr(folder.accounts, kind):
        command = "device" if kind == "boards" else kind.removesuffix("s")
        raise UsageError(f"there is no {command} {name}", f"hwsync {command} list")


COMMANDS = (init, device, operator)
