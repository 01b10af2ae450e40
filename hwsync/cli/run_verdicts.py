"""The verdicts of several boards: waited for once all programs have ended, and said together.

The law: a batch has ended when its programs have (docs/protocol.md, section 9); an analyst's
verdicts come behind that, each on its board's own topics. Ctrl-C leaves them: nothing is cancelled,
since everything has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from hwsync.cli import say, verdicts
from hwsync.cli.members import Member, Members, some
from hwsync.cli.rows import Rows
from hwsync.cli.slow import somebody_waits
from hwsync.operator.client import Client
from hwsync.operator.conversation import SLOW_S, OnReceived, Talk
from hwsync.operator.run import Run, RunRequest
from hwsync.protocol.errors import Refused, Unreachable
from hwsync.protocol.record import State
from hwsync.protocol.wire.status import CommandFields

MOST_SAID: Final = 40  # different verdicts


class Verdicts:
    """``hear``: whatever is said of a board's command meanwhile; ``monotonic``: a clock, for tests.

    Verdicts(members, "check1", rows, hear).await_all(operator)
    """

    def __init__(
        self, members: Members, analyser: str, rows: Rows, hear: OnReceived,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._members, self._analyser, self._rows = members, analyser, rows
        self._hear, self._monotonic = hear, monotonic
        self._began = 0.0
        self._is_said = False

    def await_all(self, operator: Client) -> None:
        """Until nobody waits for his any more, or Ctrl-C."""
        self._began = self._monotonic()
        waiting = self._waiting()
        futures = {
            user: operator.switchboard.begin(self._awaiting(operator, user)) for user in waiting
        }
        try:
            for user, future in futures.items():
                self._take(operator, user, future)
        except KeyboardInterrupt:
            for future in futures.values():
                future.cancel()
            self._rows.clear()
            say.line("", err=True)  # behind ^C
            self.leave()

    def leave(self) -> None:
        """Say whose verdict is still to come."""
        if left := self._waiting():
            self._rows.tell(
                f"hwsync: the verdict of {some(left)} is not waited for: "
                f"hwsync show {self._members.id} has it later"
            )

    def _waiting(self) -> list[str]:
        return [user for user, one in self._members.by_user.items() if is_unjudged(one)]

    def _awaiting(self, operator: Client, user: str) -> Talk[CommandFields]:
        request = RunRequest(program="", id=self._members.id)  # it was asked for already
        run = Run(operator.conversation(user), request)
        end = yield from run.following(on_received=self._hear, waiting=self._tick)
        return (yield from run.completing(end)) if end["truncated"] else end

    def _take(self, operator: Client, user: str, future: Future[CommandFields]) -> None:
        """One board whose own word may not be asked, or does not come, holds nobody up."""
        try:
            end = operator.wait_for(future)
        except (Refused, Unreachable) as error:
            member = self._members.of(user)
            member.message = member.message or f"its verdict is not known: {error.message}"
        else:
            self._members.hear_fields(user, end, self._monotonic())

    def _tick(self) -> None:
        self._rows.tick()
        if not self._is_said and self._monotonic() - self._began >= SLOW_S:
            self._is_said = True
            if somebody_waits():
                many = len(self._waiting())
                whose = f"{many} verdicts" if many > 1 else "the verdict"
                self._rows.remark(
                    f"hwsync: the programs have ended; waiting for {whose} of {self._analyser} "
                    "(Ctrl-C leaves)"
                )


def is_unjudged(member: Member) -> bool:
    """Whether its program has ended, and its board waits for an analysis."""
    return member.get("state") == State.RETURNED and member.get("outcome") is not None


def lines(members: Members) -> list[str]:
    """What was said of each, the same together; of whoever was not judged, why."""
    alike: dict[str, list[str]] = {}
    for user, member in members.by_user.items():
        if member.fields is None or member.refused or member.fields["state"] != State.REST:
            continue
        if member.fields["outcome"] is not None:
            said = verdicts.first(member.fields) or "no analysis"
            alike.setdefault(said, []).append(user)
    found = [f"  {some(users)}: {said}" for said, users in alike.items()]
    left = len(found) - MOST_SAID
    more = [f"  … and {left} others: hwsync show {members.id}"] if left > 0 else []
    return [*found[:MOST_SAID], *more]
