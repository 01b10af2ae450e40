"""The files that came back from several boards, written here: each board's in a folder of its name.

The law: so many boards' files are in memory at the same time. What went wrong with one board's is
said with its name, and the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Final

from hwsync.cli import say
from hwsync.cli.brought_back import Brought, bring, not_asked_for
from hwsync.cli.request import Asked
from hwsync.operator.client import Client
from hwsync.operator.fetching import fetching
from hwsync.protocol.errors import Refused, Unreachable
from hwsync.protocol.wire.status import CommandFields

FETCHED_AT_ONCE: Final = 8  # boards whose files are in memory at the same time


def bring_each(
    operator: Client, ended: Mapping[str, CommandFields], asked: Asked, *, as_json: bool
) -> dict[str, dict[str, str]]:
    """Where the files are, by board and path; ``ended``: each board's end."""
    if not asked.request.collect:
        for line in () if as_json else not_asked_for(ended.values()):
            say.remark(line)
        return {}
    saved: dict[str, dict[str, str]] = {}
    talks: dict[str, Future[dict[str, bytes]]] = {}
    left = deque(ended)
    while left or talks:
        while left and len(talks) < FETCHED_AT_ONCE:
            talk = fetching(operator.conversation(left[0]), asked.id, ended[left[0]])
            talks[left.popleft()] = operator.switchboard.begin(talk)
        user = next(iter(talks))
        try:
            found = operator.wait_for(talks.pop(user))
        except (Refused, Unreachable) as error:
            brought = Brought(wrong=[f"hwsync: they cannot be had now: {error.message}"])
        else:
            brought = bring(ended[user], asked.request.collect, found, asked.out / user)
        saved[user] = brought.saved
        if not as_json:
            for line in brought.remarks:
                say.remark(line.replace("hwsync: ", f"{user}: ", 1))
            for line in brought.wrong:
                say.line(line.replace("hwsync: ", f"{user}: ", 1), err=True)
    return saved
