"""``hwsync wait`` and ``hwsync logs``: a command that somebody has asked for, to its end."""

from __future__ import annotations

import sys
from typing import Final

import click

from hwsync.cli import page, say
from hwsync.cli.common import Settings, command_id, common
from hwsync.cli.completion import of_broker
from hwsync.cli.looking import find
from hwsync.cli.screen import Screen
from hwsync.cli.show import board_and_id, only_board
from hwsync.cli.slow import say_slow
from hwsync.operator.client import Client
from hwsync.operator.run import NOT_RUN, Run, RunRequest, exit_code
from hwsync.operator.streams import Streams
from hwsync.protocol.errors import NotFound
from hwsync.protocol.limits import is_user
from hwsync.protocol.record import State
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields

SEVERAL: Final = 1  # the exit code where of several boards not all have ended ok


@click.command()
@common
@click.argument("words", metavar="[BOARD] ID", nargs=-1, required=True, type=command_id,
                shell_complete=of_broker)  # fmt: skip
@click.pass_obj
def wait(settings: Settings, words: tuple[str, ...]) -> None:
    """Wait until the command ID has ended, on all boards that have it; end as run would.

    Ctrl-C ends the waiting, and not the command.
    """
    board, id = board_and_id(words)
    users = [board] if board is not None else find(settings, id)
    if not users:
        raise NotFound(f"nobody had a command {id}", "hwsync history lists them with their ids")
    with Client(settings.url, settings.topics, users[0], named=users) as operator:
        operator.standing.slow = say_slow
        futures = [
            operator.switchboard.begin(_run(operator, user, id).following()) for user in users
        ]
        ends = [operator.wait_for(future) for future in futures]
    for end in ends:
        say.either(settings.as_json, end, page.headline(end))
    codes = [exit_code(end) for end in ends]
    if len(codes) == 1:
        sys.exit(codes[0])
    sys.exit(0 if not any(codes) else NOT_RUN if set(codes) == {NOT_RUN} else SEVERAL)


def _run(operator: Client, user: str, id: str) -> Run:
    """One that was asked for already: its request is of no interest."""
    return Run(operator.conversation(user), RunRequest(program="", id=id), State.RETURNED)


@click.command()
@common
@click.argument("words", metavar="BOARD|ID", nargs=-1, required=True, type=command_id,
                shell_complete=of_broker)  # fmt: skip
@click.option("--follow", "-f", is_flag=True, help="What it writes from now on, until it ends.")
@click.option("--raw", is_flag=True, help="Let the program steer this terminal.")
@click.pass_obj
def logs(settings: Settings, words: tuple[str, ...], follow: bool, raw: bool) -> None:
    """What BOARD's command, or the command ID, has written.

    While it runs, only what it writes from then on can be shown, with -f; at its end all of it is
    there. Ctrl-C ends the looking on, and not the command.
    """
    user, id = _meant(settings, words)
    with Client(settings.url, settings.topics, user, live=True) as operator:
        operator.standing.slow = say_slow
        if id is None:
            id = str(operator.record()["id"])
            if not id:
                if operator.beat is None:
                    raise NotFound(
                        f"there is no board and no command {user}",
                        "hwsync status lists the boards, hwsync history the commands",
                    )
                raise NotFound(f"{user} has no command", f"hwsync run {user} FILE gives it one")
        whole = operator.query(id)
        end: CommandFields = whole
        screen = Screen(raw=raw)
        streams = Streams(id, screen, screen.files, together=screen.together)
        try:
            if whole["outcome"] is None:
                if not follow:
                    say.line(page.headline(whole), err=True)
                    say.line(
                        "what it has written is told at its end; -f shows what it writes from now "
                        "on",
                        err=True,
                    )
                    return
                end = _followed(operator, user, id, streams)
            streams.finish(end)
        finally:
            screen.end()


def _followed(operator: Client, user: str, id: str, streams: Streams) -> CommandFields:
    run = _run(operator, user, id)

    def hear(heard: Received) -> None:
        streams.hear(heard.kind, heard.fields)

    end = operator.wait(run.following(on_received=hear))
    return operator.wait(run.completing(end)) if end["truncated"] else end


def _meant(settings: Settings, words: tuple[str, ...]) -> tuple[str, str | None]:
    """A board and an id; None: the board's present command."""
    if len(words) != 1:
        board, id = board_and_id(words)
        return str(board), id
    (word,) = words
    if having := find(settings, word):
        return (having[0] if len(having) == 1 else only_board(settings, word)), word
    if not is_user(word):
        raise NotFound(f"nobody had a command {word}", "hwsync history lists them with their ids")
    return word, None


COMMANDS = (wait, logs)
