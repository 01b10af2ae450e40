"""Several talks on one connection.

The law: each message is acknowledged once, and every talk that goes on hears it, whoever asked for
it; a talk that ends, or fails, takes none of the others with it. It waits for nothing: its owner
brings what came, and asks how long that may take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from typing import Any

from hwsync.operator.conversation import T, Talk
from hwsync.transport import Delivery, Signal


@dataclass(slots=True)
class _Ongoing:
    talk: Talk[Any]
    future: Future[Any]
    user: str | None = None  # whose messages it hears; None: everybody's
    until: float = 0.0  # when it has waited long enough, on the clock that never jumps


class Switchboard:
    """The talks that go on.

        board = Switchboard(connection.acknowledge)
        one, other = board.begin(first.querying("c1")), board.begin(second.querying("c2"))
        while not (one.done() and other.done()):
            board.hear(next_signal(timeout=board.patience))

    ``acknowledge`` acknowledges on the connection that they share. ``user_of`` says of whom a
    message is (None: it is for all): a talk that was begun for one user does not hear the others'.
    What a talk raises is in its future, and is raised nowhere here; but for Ctrl-C, which ends the
    talk that it hits.
    """

    def __init__(
        self,
        acknowledge: Callable[[Delivery], object],
        *,
        user_of: Callable[[Delivery], str | None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acknowledge, self._user_of, self._monotonic = acknowledge, user_of, monotonic
        self._talks: list[_Ongoing] = []

    def begin(self, talk: Talk[T], user: str | None = None) -> Future[T]:
        """Let it say its first words. The future is what it returns, or what it raises.

        ``user``: it hears no other one's messages; None: all. A future that is cancelled ends its
        talk, at the next ``hear`` or ``patience``.
        """
        one = _Ongoing(talk, Future(), user)
        self._resume(one, None)
        self._talks.append(one)
        return one.future

    @property
    def patience(self) -> float:
        """Seconds, until one of them has waited long enough; infinite where none goes on."""
        until = min((one.until for one in self._going()), default=inf)
        return max(until - self._monotonic(), 0.0)

    def hear(self, signal: Signal | None) -> None:
        """Something came, or nothing did (None) for as long as ``patience`` said."""
        user = None
        if isinstance(signal, Delivery):
            self._acknowledge(signal)
            user = self._user_of(signal)
        now = self._monotonic()
        for one in self._going():
            is_for_it = None in (user, one.user) or one.user == user
            if is_for_it if signal is not None else one.until <= now:
                self._resume(one, signal)

    def close(self) -> None:
        """No talk goes on; what they have asked does."""
        for one in self._talks:
            one.future.cancel()
        self._going()

    def _going(self) -> list[_Ongoing]:
        for one in self._talks:
            if one.future.cancelled():
                one.talk.close()
        self._talks = [one for one in self._talks if not one.future.done()]
        return list(self._talks)

    def _resume(self, one: _Ongoing, signal: Signal | None) -> None:
        if one.future.done():  # what another talk called has just cancelled it
            return
        try:
            seconds = one.talk.send(signal)
        except StopIteration as end:
            one.future.set_result(end.value)
        except Exception as error:
            one.future.set_exception(error)
        except BaseException:  # Ctrl-C: it will not go on
            one.future.cancel()
            raise
        else:
            one.until = self._monotonic() + seconds
