"""What the embedded broker mends of amqtt, as far as it needs no connection."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwsync.broker.door import ENTRY, Door
from hwsync.broker.mended import Entrance, Live, MendedBroker


class Handler:
    """amqtt's, of a connection; ``over``: it was read to its end before it was served."""

    def __init__(self, *, over: bool = False) -> None:
        self._reader_stopped = asyncio.Event()
        if over:
            self._reader_stopped.set()
        self._closed = asyncio.Event()

    async def handle_connection_closed(self) -> None:
        self._closed.set()

    async def wait_disconnect(self) -> None:
        await self._closed.wait()

    conversation = type("Conversation", (), {"farewell": None})


def served(handler: Handler, live: dict[str, Live]) -> bool:
    """Whether the connection of ``pi1`` has ended, with its will."""
    broker = object.__new__(MendedBroker)
    broker._live = live
    ended: list[object] = []

    async def end(*of: object) -> None:
        ended.append(of)

    broker._handle_disconnect = end  # type: ignore[method-assign]

    async def run() -> bool:
        session = type("S", (), {"client_id": "pi1"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(broker._client_message_loop(session, handler), 0.2)
        return bool(ended)

    return asyncio.run(run())


def test_a_connection_that_ended_before_it_was_served_is_ended() -> None:
    """amqtt would wait for ever for its end, and keep its will and its name."""
    over, well = Handler(over=True), Handler()
    assert served(over, {"pi1": Live(over)})
    assert not served(well, {"pi1": Live(well)})


def test_a_connection_whose_client_came_again_before_it_was_served_is_ended() -> None:
    first = Handler()
    assert served(first, {"pi1": Live(first, ending=True)})
    assert served(Handler(), {"pi1": Live(Handler())})


def test_a_connection_that_cannot_be_ended_in_order_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsync.broker.mended.TAKEOVER_S", 0.01)

    async def run() -> bool:
        live = Live(Handler())

        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                live.ended.set()

        live.work = asyncio.ensure_future(hang())
        await asyncio.sleep(0)
        await asyncio.wait_for(live.end(), 5)
        await asyncio.gather(live.work, return_exceptions=True)
        return live.work.cancelled()

    assert asyncio.run(run())


def away(owner: str, since: float) -> Any:
    """A session whose client is away."""
    state = SimpleNamespace(is_connected=lambda: False)
    entry = SimpleNamespace(owner=owner)
    return SimpleNamespace(
        transitions=state, last_disconnect_time=since, attributes={ENTRY: entry}, clean_session=True
    )


def left(sessions: dict[str, Any], reserved: set[str], most: int) -> set[str]:
    """The sessions that are left where only ``most`` clients may be away."""
    broker = object.__new__(MendedBroker)
    door = SimpleNamespace(reserves=reserved.__contains__)
    broker._entrances = {"all": Entrance(None, cast("Door", door))}
    broker._sessions = {name: (one, None) for name, one in sessions.items()}

    async def delete(name: str) -> None:
        del broker._sessions[name]

    broker._delete_session = delete
    last = SimpleNamespace(
        transitions=SimpleNamespace(is_connected=lambda: False), clean_session=False
    )

    async def run() -> None:
        for _ in range(len(sessions) - most):
            await broker._left("last", last)

    asyncio.run(run())
    return set(broker._sessions)


@pytest.mark.parametrize(
    "owners",
    [
        {"coordinator": "coordinator", "noise": "op"},
        {"coordinator": "other", "noise": "op"},
        {"hwsync-coordinator": "", "hwsync-device-pi1": "", "noise": ""},
        {"hwsync-coordinator@lab": "", "noise": ""},
        {"coordinator": "", "noise": "op"},
        {"op": "op", "noise": "op"},  # the account's own id, and others of it
    ],
    ids=str,
)
def test_whoever_has_most_sessions_away_loses_them_first(
    owners: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsync.broker.mended.AWAY", 10)
    owners = dict(owners)
    noisy = owners.pop("noise")
    sessions = {name: away(owner, 1.0) for name, owner in owners.items()}
    sessions |= {f"e{number:02}": away(noisy, 2.0 + number) for number in range(30)}
    newest = {f"e{number:02}" for number in range(20 + len(owners), 30)}
    assert left(sessions, {"coordinator", "op"}, 10) == {*owners} | newest


def test_where_each_has_one_session_away_no_accounts_own_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hwsync.broker.mended.AWAY", 2)
    sessions = {"pi1": away("pi1", 1.0), "mine": away("op", 3.0), "pi2": away("pi2", 2.0)}
    assert left(sessions, {"pi1", "pi2"}, 2) == {"pi1", "pi2"}
