"""What the commands about a lab's folder share: where it is, and what is said of a change."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import click

from hwsync.cli import say
from hwsync.cli.common import FOLDER, USUAL, Settings, fail
from hwsync.lab.accounts import ALL, COORDINATOR, Accounts
from hwsync.lab.folder import Draft, Folder
from hwsync.protocol.errors import HwsyncError

VARIABLE: Final = "HWSYNC_LAB"
RELOADS_S: Final = 0.5  # in which a broker has read its files; mosquitto takes milliseconds
UNBOUND: Final = (
    "this lab is of an earlier hwsync: any of its certificates, also one of an account that was "
    "removed, goes with any account's password; hwsync init {lab} --renew gives each account its "
    "own: restart the broker then, and put the new files on the boards"
)


OF_BEFORE: Final = "judges, as in a lab of before"
UNSETTLED: Final = (
    "this lab is of an earlier hwsync: {names} may judge what was run, also what they asked for "
    "themselves, until that is settled"
)


def folder_of(lab: Path | None) -> Folder:
    """The lab that is meant."""
    named = lab or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    return Folder(named or (Path(".") if _is_ours(Path(".")) else USUAL))


def _is_ours(folder: Path) -> bool:
    """Whether there is a lab of this account: root must not take what somebody left in a folder."""
    try:
        return all(path.stat().st_uid == os.geteuid() for path in (folder, folder / "lab.json"))
    except OSError:
        return False


LAB: Final = click.option(
    "--lab",
    "folder",
    type=FOLDER,
    callback=lambda _, __, lab: folder_of(lab),
    metavar="DIR",
    help=f"The lab (or {VARIABLE}; default this folder where it is one, else {USUAL}).",
)


def report_change(
    settings: Settings, folder: Folder, draft: Draft, what: str, *, quiet: bool = False
) -> bool:
    """What was done, which files are to be carried where, and whether the broker knows.

    Returns whether one does.
    """
    if settings.as_json:
        files = [str(file) for file in draft.written]
        gains = [{"operator": one.operator, "group": one.group, "boards": list(one.boards),
                  "read_only": one.read_only} for one in draft.gains]  # fmt: skip
        said = {"done": what, "files": files, "missing": draft.missing, "gains": gains}
        say.json_line(said)
    else:
        for line in what.split("\n"):
            say.line(line)
        for gain in draft.gains:
            say.line(f"  {gain}")
        for file in draft.written:
            say.line(f"  {file}")
        if any(file.name == f"{COORDINATOR}.toml" for file in draft.written):
            say.line("  the coordinator reads its file when it connects; under systemd: "
                     "systemctl restart hwsync-coordinator")  # fmt: skip
        for name in draft.missing:
            say.line(f"  the file of {name} is not here: rotate {name} makes a new one")
    if draft.accounts.mutual_tls and not draft.accounts.bound:
        say.line(UNBOUND.format(lab=folder.path), err=True)
    say_unsettled(draft.accounts)
    told = not quiet and reload(settings, folder)
    if draft.groups_file is not None:
        _tell_coordinator(settings, folder, draft.groups_file)
    return told


def unsettled(accounts: Accounts) -> tuple[str, str] | None:
    """Who judges in a lab of before because nobody has said that he may not; and how to end it."""
    if not (names := accounts.unsettled):
        return None
    one = accounts.operators[names[0]]
    given = ALL if one.boards is None else ",".join(one.boards)
    options = [f"--boards {given}" if given or not one.groups else ""]
    options += [f"--groups {','.join(one.groups)}" if one.groups else ""]
    options += ["--history" if one.history else ""]
    line = " ".join(["hwsync operator change", names[0], *filter(None, options)])
    cure = f"not any more: {line}; a teacher may go on: the same with --analyse"
    return UNSETTLED.format(names=", ".join(names)), cure


def say_unsettled(accounts: Accounts) -> None:
    """The same, for people."""
    if said := unsettled(accounts):
        say.line("; ".join(said), err=True)


def reload(settings: Settings, folder: Folder) -> bool:
    """Have the broker read its files again, and say whether it did.

    mosquitto forgets a signal that comes while it still reads: another command may have told it
    just now. So it is told twice: a reading that swallows the second began after the first, and has
    what was written before that.
    """
    reached, denied = folder.reload()
    if reached:
        time.sleep(RELOADS_S)
        folder.reload()
    if denied:
        fail(HwsyncError(
            f"the broker (process {denied[0]}) has not heard of this yet: it is another account's",
            f"sudo kill -HUP {denied[0]}, or: sudo systemctl reload hwsync-broker",
        ), settings)  # fmt: skip
    if reached and not settings.as_json:
        say.line("the broker has been told")
    elif not settings.as_json:
        say.line("no broker of this lab runs here: one that does elsewhere must be told (SIGHUP)")
    return bool(reached)


def _tell_coordinator(settings: Settings, folder: Folder, file: Path) -> None:
    """Have the coordinator read the groups again, and say whether it did."""
    reached, denied = folder.tell_coordinator()
    if denied:
        fail(HwsyncError(
            f"the coordinator (process {denied[0]}) has not heard of this yet: it is another "
            "account's",
            f"sudo kill -HUP {denied[0]}, or: sudo systemctl reload hwsync-coordinator",
        ), settings)  # fmt: skip
    if settings.as_json:
        return
    if reached:
        say.line("the coordinator has been told")
    else:
        say.line(
            "no coordinator of this lab runs here: one that does elsewhere needs this file, and a "
            f"SIGHUP: {file}"
        )
