"""What a broker keeps of a board that was removed from a lab: taken away, or said how to.

The law: the board is removed whatever comes of this; nothing here ends in an error.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from hwsync.address import BrokerUrl, Tls
from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.client import Operator
from hwsync.lab.folder import Folder, Visitor
from hwsync.protocol.errors import HwsyncError, NoBroker, Refused
from hwsync.protocol.topics import Kind, Topics

TOLD_S: Final = 5.0  # for a broker to have read its files again
PAUSE_S: Final = 0.2  # between two looks whether it has
ANSWER_S: Final = 3.0  # for a coordinator


def take_away(settings: Settings, folder: Folder, board: str, *, served: bool) -> None:
    """``served``: whether a broker of this folder was told that the board is removed."""
    left = f"no broker of this lab runs here: hwsync forget {board} has it forget the board"
    if served:
        try:
            with folder.visitor(board) as visitor:
                folder.reload()
                left = _visit(folder, board, visitor)
        except HwsyncError as error:
            left = f"the broker still keeps status and heartbeat of {board} ({error.message}): "
            left += f"hwsync forget {board}"
        folder.reload()
    if settings.as_json:
        say.json_line({"forgotten": board if not left else None, "left": left})
    elif left:
        say.line(left, err=True)
    else:
        say.line(f"the broker keeps nothing of {board}")


def _visit(folder: Folder, board: str, visitor: Visitor) -> str:
    """What is left to do, for people; empty: nothing. Raises ``HwsyncError``."""
    accounts = folder.accounts
    own = visitor.own
    tls = Tls(visitor.ca, own.certificate, own.key) if own else Tls(visitor.ca)
    url = BrokerUrl("mqtts", "localhost", accounts.operators_port)
    url = url.with_credentials(visitor.account, visitor.password or None).with_tls(tls)
    with ExitStack() as stack:
        operator = _come_in(stack, url, Topics(accounts.root), board)
        if not operator.answers(ANSWER_S):
            operator.clear(Kind.STATUS, Kind.HEARTBEAT, Kind.OUTPUT)
            return (f"no coordinator answers, which will publish the status of {board} again: "
                    f"hwsync forget {board}, when it runs")  # fmt: skip
        operator.clear(Kind.HEARTBEAT, Kind.OUTPUT)
        try:
            operator.forget()
        except Refused as refusal:
            return f"{refusal.message}: hwsync reset {board} --queue, then hwsync forget {board}"
    return ""


def _come_in(stack: ExitStack, url: BrokerUrl, topics: Topics, board: str) -> Operator:
    """Connected until the end of the stack. Raises ``NoBroker``."""
    limit = time.monotonic() + TOLD_S
    while True:
        try:
            return stack.enter_context(Operator(url, topics, board))
        except NoBroker:
            if time.monotonic() > limit:
                raise
        time.sleep(PAUSE_S)
