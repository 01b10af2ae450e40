"""``hwsync backup``, ``restore``, ``forget``, ``check-db``: on the coordinator's machine."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, FILE, Settings, board_name, common, the_database
from hwsync.cli.elsewhere import own_database
from hwsync.coordinator import forgetting
from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol.errors import Code, NoCoordinator, NotFound, Refused
from hwsync.protocol.limits import is_user
from hwsync.protocol.presence import is_online
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.itself import Boards
from hwsync.store import backups, checking, restoring

ANSWER_S: Final = 5.0  # for a coordinator


@click.command()
@common
@DATABASE
@click.argument("file", type=FILE)
@click.pass_obj
def backup(settings: Settings, db: Path | None, file: Path) -> None:
    """Copy the database to FILE, also while the coordinator runs."""

    def progress(left: int, all: int) -> None:
        if all:
            say.progress(f"{100 * (all - left) // all} % ")

    with own_database(settings, db) as own:
        backups.back_up(own.path, file, progress)
        size = file.stat().st_size
        say.either(
            settings.as_json,
            {"backup": str(file), "bytes": size},
            f"{own.path} → {file} ({size:,} bytes)",
        )


@click.command()
@common
@DATABASE
@click.argument("file", type=FILE)
@click.option("--damaged", is_flag=True, help="Also where check-db finds something in FILE.")
@click.pass_obj
def restore(settings: Settings, db: Path | None, file: Path, damaged: bool) -> None:
    """Put the backup FILE in the database's place; the coordinator must not run.

    A new epoch begins: what was open in the backup ends as lost, and may have run. The database
    that was there is kept beside it.
    """
    target = the_database(db)
    done = restoring.restore(file, target, damaged=damaged)
    aside = str(done.aside) if done.aside else None
    if settings.as_json:
        said = {"restored": str(target), "epoch": done.epoch, "open": done.open, "aside": aside}
        say.json_line(said)
        return
    say.line(f"{file} → {target}; epoch {done.epoch} begins when the coordinator starts")
    if done.open:
        say.line(f"{done.open} commands that were open in it will end as lost, ran maybe")
    if aside:
        say.line(f"the database that was there is {aside}")


@click.command("check-db")
@common
@DATABASE
@click.pass_obj
def check_db(settings: Settings, db: Path | None) -> None:
    """Look for damage and for changes that hwsync did not make; 1 where there is any.

    Checks the file, the chain of hashes over the log, that each record is as far as its log, and
    programs and results against their hashes.
    """
    found = 0
    with own_database(settings, db) as own:
        for line in checking.check(own.path, lambda name: say.progress(f"looking at {name} … ")):
            say.progress("")
            found += 1
            say.either(settings.as_json, {"found": line}, line)
    say.progress("")
    if found:
        sys.exit(1)
    if not settings.as_json:
        say.line("nothing was found")


@click.command()
@common
@DATABASE
@click.argument("user", metavar="BOARD", type=board_name)
@click.pass_obj
def forget(settings: Settings, db: Path | None, user: str) -> None:
    """Forget BOARD, whose name was a typing error.

    Its status and heartbeat are taken from the broker: by the coordinator, which is asked to, or
    by this command, where the coordinator is stopped and --db names its database. Its history
    stays, and it is shown again when something new is asked of it, or a board of that name comes.
    """
    online: bool | None = None
    if db is None:
        with _connection(settings, user, boards=True) as operator:
            online = _forget(operator, settings)
        _is_gone(settings, user)
    else:
        forgetting.forget(the_database(db), user, lambda: _clear(settings, user))
    say.either(settings.as_json, {"forgotten": user, "online": online}, f"{user} is forgotten")
    if online:
        say.line(
            f"but the board {user} is online: its next heartbeat brings the name back. Stop the "
            "board, then repeat this",
            err=True,
        )


def _forget(operator: Client, settings: Settings) -> bool | None:
    """By the coordinator; whether a board of that name is online, None: nobody can say.

    Raises ``NotFound``, ``Refused``, ``Unreachable``.
    """
    user = operator.user
    beats = [heard for heard in operator.hear(QUIET_S) if heard.kind is TopicKind.HEARTBEAT]
    beat = beats[-1].heartbeat if beats else None
    known = beat is not None or bool(operator.kept)
    if not operator.answers(ANSWER_S):
        raise NoCoordinator(
            f"no coordinator answers at {settings.url}",
            "start it; or, while it is stopped, name its database with --db",
        )
    if not known:
        _is_somebody(operator, settings)
    online = is_online(user, beat, _boards(operator)) if beat else False
    operator.forget()
    return online


def _is_somebody(operator: Client, settings: Settings) -> None:
    """Raises ``NotFound``, ``Refused``, ``Unreachable``."""
    user = operator.user
    try:
        seq = operator.record()["seq"]
    except Refused as refusal:  # where each board has its own rights, nobody has any for a name
        raise Refused(
            refusal.code, refusal.message, _meant(settings, user) or refusal.hint
        ) from None
    if seq == 0:
        hint = _meant(settings, user) or "hwsync status lists the boards"
        raise NotFound(f"{user} has never been seen", hint)


def _boards(operator: Client) -> Boards | None:
    """Whom the coordinator hears; None: it does not say, or we may not read it."""
    operator.ask_coordinator()
    for heard in operator.hear(ANSWER_S):
        if heard.boards is not None:
            return heard.boards
    return None


def _meant(settings: Settings, user: str) -> str:
    """The name that a person may have meant, of those that the broker shows; or nothing."""
    with Client(settings.url, settings.topics, "+", guest=False) as operator:
        names = {one.user for one in operator.hear(QUIET_S) if one.fields and is_user(one.user)}
    meant = get_close_matches(user, sorted(names), 1)
    return f"did you mean {meant[0]}?" if meant else ""


def _connection(settings: Settings, user: str, *, boards: bool = False) -> Client:
    """Perhaps with the coordinator's account: only that one may clear what it has published."""
    return Client(settings.url, settings.topics, user, boards=boards, guest=False)


def _clear(settings: Settings, user: str) -> None:
    """By ourselves. Raises ``NoBroker``, ``Refused``."""
    with _connection(settings, user) as operator:
        operator.clear(TopicKind.STATUS, TopicKind.HEARTBEAT)
    _is_gone(settings, user)


def _is_gone(settings: Settings, user: str) -> None:
    """A broker need not say that it did not let somebody. Raises ``Refused``."""
    with _connection(settings, user) as operator:
        kept = {heard.kind for heard in operator.hear(QUIET_S) if heard.fields}
    if TopicKind.STATUS in kept:
        raise Refused(
            Code.NOT_ALLOWED,
            f"the broker still keeps the status of {user}: who cleared it may not write there",
            "name the coordinator's own connection file with --config",
        )
    if TopicKind.HEARTBEAT in kept:
        raise Refused(
            Code.NOT_ALLOWED,
            f"the broker still keeps a heartbeat of {user}: a board of that name is there, or who "
            "cleared it may not write there",
            "stop the board; or name the coordinator's own connection file with --config",
        )


COMMANDS = (backup, restore, forget, check_db)
