"""What broker and coordinator keep of a removed board or analyst: ended, and taken away.

The law: the account is removed whatever comes of this; nothing here ends in an error. Nobody has
rights on its topics any more but the visitor: what he cannot do is said with a cure that works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hwsync.address import BrokerUrl, Tls
from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.lab.folder import Folder, Visitor
from hwsync.operator.client import Client
from hwsync.protocol.errors import HwsyncError, NoBroker, Refused
from hwsync.protocol.record import State
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.asking import encode_reset

TOLD_S: Final = 5.0  # for a broker to have read its files again
PAUSE_S: Final = 0.2  # between two looks whether it has
ANSWER_S: Final = 3.0  # for a coordinator
TRIES: Final = 3  # another command may have become the present one meanwhile


def take_away(settings: Settings, folder: Folder, board: str, *, served: bool) -> None:
    """``served``: whether a broker of this folder was told that the board is removed."""
    ended: dict[str, Any] = {}
    left = "no broker of this lab runs here"
    if served:
        try:
            with folder.visitor(board) as visitor:
                left = _let_in(folder, lambda: _visit(folder, board, visitor, ended))
        except HwsyncError as error:
            left = error.message
        folder.reload()
    if left:
        left = (
            f"{left}: it may still keep status and heartbeat of {board}. When broker and "
            f"coordinator run: hwsync device add {board}, then hwsync device remove {board} again"
        )
    if settings.as_json:
        ended_id = ended.get("id")
        say.json_line({"forgotten": None if left else board, "ended": ended_id, "left": left})
        return
    if ended:
        behind = f", and {ended['queued']} behind it" if ended["queued"] else ""
        say.line(f"{ended['id']} was open: {ended['outcome']} (ran: {ended['ran']}){behind}")
    if left:
        say.line(left, err=True)
    else:
        say.line(f"the broker keeps nothing of {board}")


def take_presence_away(settings: Settings, folder: Folder, analyst: str, *, served: bool) -> None:
    """What an analyst has said of himself: else he would be there for ever."""

    def visit(visitor: Visitor) -> str:
        with _client(folder, ITSELF, visitor) as operator:
            operator.clear_analyst(analyst)
        return ""

    left = "no broker of this lab runs here"
    if served:
        try:
            with folder.visitor(analyst) as visitor:
                left = _let_in(folder, lambda: visit(visitor))
        except HwsyncError as error:
            left = error.message
        folder.reload()
    if left:
        left = (
            f"{left}: it may still keep that {analyst} is there. When it runs: hwsync analyst add "
            f"{analyst}, then hwsync analyst remove {analyst} again"
        )
    if settings.as_json:
        say.json_line({"forgotten": None if left else analyst, "left": left})
        return
    say.line(left or f"the broker keeps nothing of {analyst}", err=bool(left))


def _let_in(folder: Folder, visit: Callable[[], str]) -> str:
    """What the visit says, once the broker knows the visitor's rights. Raises ``HwsyncError``.

    mosquitto is told by a signal, and forgets one that comes while it still reads its files: here
    it has just been told that the board is removed. So it is told again until it knows him; with a
    certificate he comes in before that, and may do nothing.
    """
    limit = time.monotonic() + TOLD_S
    while True:
        folder.reload()
        try:
            return visit()
        except (NoBroker, Refused):
            if time.monotonic() > limit:
                raise
        time.sleep(PAUSE_S)


def _visit(folder: Folder, board: str, visitor: Visitor, ended: dict[str, Any]) -> str:
    """What went wrong, for people; empty: nothing. Raises ``HwsyncError``.

    ``ended`` gets how the command ended that was open, and as ``queued`` how many were behind it.
    """
    with _client(folder, board, visitor) as operator:
        if not operator.answers(ANSWER_S):
            operator.clear(TopicKind.STATUS, TopicKind.HEARTBEAT, TopicKind.OUTPUT)
            return "no coordinator answers"
        _end(operator, ended)
        operator.clear(TopicKind.HEARTBEAT, TopicKind.OUTPUT)
        operator.forget()
    return ""


def _client(folder: Folder, name: str, visitor: Visitor) -> Client:
    accounts = folder.accounts
    own = visitor.own
    tls = Tls(visitor.ca, own.certificate, own.key) if own else Tls(visitor.ca)
    url = BrokerUrl("mqtts", "localhost", accounts.operators_port)
    url = url.with_credentials(visitor.account, visitor.password or None).with_tls(tls)
    return Client(url, Topics(accounts.root), name)


def _end(operator: Client, ended: dict[str, Any]) -> None:
    """What the board was asked for and has not answered: it will not. Raises ``HwsyncError``."""
    for _ in range(TRIES):
        record = operator.record()
        if record["state"] == State.REST:
            return
        with suppress(Refused):
            fields = operator.tell(
                TopicKind.RESET, encode_reset(record["id"], queue=True), record["id"]
            )
            ended.update(fields, queued=record["queued"])
