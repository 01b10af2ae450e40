"""What the embedded broker mends of amqtt, as far as it needs no connection."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hwsync.broker.mended import Live, MendedBroker


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
