"""``hwsync replay``: the program of an earlier run once more, on the same board or another.

The law: it runs with what it ran with then, and with nothing else: where a text or a file is not
there any more, or is not whole, that is said and nothing is asked for. Files that went along are
only in the database; over MQTT they are given again, and must be the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import FILE, FOLDER, Settings, board_name, common, fail
from hwsync.cli.completion import of_broker
from hwsync.cli.request import Asked
from hwsync.cli.run import one_board, pass_all
from hwsync.cli.sent_along import gather
from hwsync.cli.show import board_and_id, only_board
from hwsync.cli.slow import say_slow
from hwsync.operator.client import Client
from hwsync.operator.run import NOT_RUN, RunRequest, claim, exit_code, fresh_id
from hwsync.protocol.admission import CLAIM, digest_of
from hwsync.protocol.errors import HwsyncError, NotFound, Refused, TooLarge, UsageError
from hwsync.protocol.files import File
from hwsync.protocol.jsons import loads
from hwsync.protocol.record import Analyser, Request, State
from hwsync.protocol.wire.start import read_start

REPLAY_OF: Final = "replay_of"  # the key of ``meta`` that names the run of before


@click.command()
@common
@click.argument("words", metavar="[BOARD] ID", nargs=-1, required=True, shell_complete=of_broker)
@click.option("--on", "user", metavar="BOARD", type=board_name, shell_complete=of_broker,
              help="Run it there.  [default: the same board]")  # fmt: skip
@click.option("--with", "sent", multiple=True, metavar="PATH",
              help="A file that went along then, as with run; it must be the same.")  # fmt: skip
@click.option("--out", type=FOLDER, metavar="DIR",
              help="Where files that come back are written.  [default: here]")  # fmt: skip
@click.option("--queue", is_flag=True, help="Wait behind the present command, if need be.")
@click.option("--raw", is_flag=True, help="Let the program steer this terminal.")
@click.option("--db", type=FILE, metavar="FILE",
              help="What it ran with is in this database; else it is asked for over "
              "MQTT.")  # fmt: skip
@click.pass_obj
def replay(
    settings: Settings, words: tuple[str, ...], user: str | None, sent: tuple[str, ...],
    out: Path | None, queue: bool, raw: bool, db: Path | None,
) -> None:  # fmt: skip
    """Run the program of the command ID again: same files, arguments, input, limits and meta.

    It has a new id, and `replay_of` in its meta. Output and exit code are as with `hwsync run`.
    What the new run ran on and the old did not is said at its end.
    """
    board, id = board_and_id(words)
    if db is not None and board is None:
        raise UsageError("with --db the board must be named", f"hwsync replay BOARD {id} --db {db}")
    board = board or only_board(settings, id)
    told, files = (
        _of_database(db, board, id) if db is not None else (_told(settings, board, id), {})
    )
    files = files or gather(sent, None, told.get("name") or "")
    check(told, files)
    asked = Asked(again(told, files, by=claim(settings.url), queue=queue), told.get("name"),
                  out=out or Path())  # fmt: skip
    last = State.RETURNED if told["analyser"] == Analyser.MANUAL else State.REST
    pass_all()
    if not settings.as_json:
        say.remark(f"hwsync: {asked.id} runs {told.get('name')} again, as {id} of {board} did")
    try:
        end = one_board(settings, user or board, asked, last, raw=raw, wait_for_board=None)
    except (NotFound, Refused, TooLarge) as error:
        fail(error, settings, NOT_RUN)
    for line in differences(told.get("ran_on"), end.get("ran_on")):
        say.remark(line)
    sys.exit(exit_code(end))


def _told(settings: Settings, user: str, id: str) -> Mapping[str, Any]:
    with Client(settings.url, settings.topics, user) as operator:
        operator.standing.slow = say_slow
        return operator.query(id)


def _of_database(db: Path, user: str, id: str) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    from hwsync.store.reader import Reader  # who asks over MQTT does not wait for it

    with Reader(db) as reader:
        return reader.show(user, id), reader.sent(user, id)


def check(told: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Raises ``HwsyncError`` where it cannot be run again as it was."""
    id, user = told["id"], told["user"]
    again = f"hwsync run {user} FILE runs a program of yours"
    if told["pruned"]:
        raise HwsyncError(f"the program of {id} was dropped with the years (--keep-days)", again)
    if told["orphan"]:
        raise HwsyncError(f"only the result of {id} is known, not what ran", again)
    if told.get("digest") is None or told.get("sent") is None:
        raise HwsyncError(
            "this coordinator does not say all that a program was run with",
            "install this version of hwsync there",
        )
    if digest_of(_asked(told)) != told["digest"]:
        raise HwsyncError(
            f"the program of {id}, its input or its arguments are not whole in this answer",
            "on the coordinator's machine: --db FILE reads all of it",
        )
    wanted = {path: one["sha256"] for path, one in told["sent"].items()}
    given = {path: File.of(path, data).sha256 for path, data in files.items()}
    if wanted == given:
        return
    lacking = [path for path in wanted if path not in given]
    if lacking:
        raise HwsyncError(
            f"{', '.join(lacking[:3])}{' …' * (len(lacking) > 3)} went along with {id}",
            f"give it again: --with {lacking[0]}; or on the coordinator's machine: --db FILE",
        )
    other = next(path for path in given if given[path] != wanted.get(path))
    raise HwsyncError(
        f"{other} is not what went along with {id}",
        f"its SHA-256 was {wanted[other]}" if other in wanted else "no such file did: leave it out",
    )


def _asked(told: Mapping[str, Any]) -> Request:
    """What of the request is in its digest."""
    start = told.get("start")
    return Request(
        told["hw_command"], stdin=told["stdin"], args=tuple(told["args"]),
        name=told.get("name") or None, start=None if start is None else read_start(start),
        files=tuple(File(path, one["size"], one["sha256"]) for path, one in told["sent"].items()),
        collect=tuple(told.get("collect") or ()),
    )  # fmt: skip


def again(
    told: Mapping[str, Any], files: Mapping[str, bytes], *, by: str, queue: bool = False
) -> RunRequest:
    """The request that asks for the same once more; ``told``: its result."""
    meta = loads(told["meta"])
    if not isinstance(meta, dict):
        meta = {"meta": meta}
    meta = {key: value for key, value in meta.items() if key != CLAIM}
    return RunRequest(
        program=told["hw_command"],
        id=fresh_id(),
        analysis=told["analyser"],
        timeout=told["timeout"],
        queue=queue,
        name=told.get("name") or None,
        args=tuple(told["args"]),
        stdin=told["stdin"] or None,
        meta={**meta, REPLAY_OF: told["id"]},
        by=by,
        files=files,
        collect=tuple(told.get("collect") or ()),
    )


def differences(before: object, now: object) -> list[str]:
    """What the two ran on, where it is not the same; a line each."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return ["hwsync: what one of the two ran on is not known"]
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not keys:
        return ["hwsync: it ran on the same as before"]
    return [f"hwsync: {key} was {before.get(key, 'not known')}, and is {now.get(key, 'not known')}"
            for key in keys]  # fmt: skip


COMMANDS = (replay,)
