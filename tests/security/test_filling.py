"""How much one account can make the broker keep, in a lab that ``hwsync init`` made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from hwsync.lab.accounts import Operator
from hwsync.protocol.limits import MAX_MESSAGE
from tests.support.account_lab import AccountLab, folder_for_broker
from tests.support.packets import Closed, Told
from tests.support.waiting import wait_until

MIB: Final = 2**20
TRIED: Final = 10  # topics of each kind; what fitted behind a wildcard had no end
BOARDS: Final = ("pi1", "pi2")
MOST: Final = 60 * MIB  # of the 180 that were tried; the topics that are named hold 8 messages


@pytest.fixture(params=["mosquitto", "amqtt"])
def lab(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    with folder_for_broker() as path:
        operators = {"rita": Operator(None, read_only=True), "alice": Operator(("pi1",))}
        made = AccountLab(request.param, path, BOARDS, operators)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def resident(pid: int) -> int:
    """Bytes of memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def fill(lab: AccountLab, account: str, topics: list[str]) -> None:
    """Retain the largest message on each; whoever is cut comes again."""
    text = MAX_MESSAGE * "x"
    for topic in topics:
        client = lab.come_in(account)
        with contextlib.suppress(OSError, Closed):
            client.publish([Told(topic, text, retain=True)])
        client.close()


def test_what_a_read_only_account_and_a_board_can_have_kept_has_an_end(lab: AccountLab) -> None:
    assert lab.process is not None
    before = resident(lab.process.pid)
    numbers = range(TRIED)
    fill(lab, "rita", [
        *(f"replies/rita/{number}" for number in numbers),
        *(f"hw/@hwsync/echo/x/{number}" for number in numbers),
        *(f"hw/@hwsync/echo/rita/{number}" for number in numbers),
        *(f"hw/pi{number}/query" for number in numbers),
        "hw/@hwsync/query",
        "hw/@hwsync/echo/rita/there",
    ])  # fmt: skip
    kinds = ("collected", "output", "response", "heartbeat", "status", "request")
    fill(lab, "pi1", [f"hw/pi1/{kind}" for kind in kinds])
    if lab.kind == "mosquitto":
        assert resident(lab.process.pid) - before < MOST
        database = lab.path / "state/mosquitto.db"
        wait_until(database.exists, what="the broker saves")
        assert database.stat().st_size < MOST
    observer = lab.come_in("coordinator")
    observer.subscribe(["#"])
    observer.subscribe(["hw/pi1/status"])
    observer.publish([Told("hw/pi1/status", "fence")])
    came = observer.until(lambda one: one.text == "fence", "the coordinator hears itself")
    kept = {one.topic for one in came if one.retain}
    assert kept == {
        "hw/pi1/query", "hw/pi2/query", "hw/@hwsync/query", "hw/@hwsync/echo/rita/there",
        *(f"hw/pi1/{kind}" for kind in ("collected", "output", "response", "heartbeat")),
    }  # fmt: skip


def test_the_largest_message_goes_through_and_what_is_larger_ends_its_connection(
    lab: AccountLab,
) -> None:
    coordinator, pi1 = lab.come_in("coordinator"), lab.come_in("pi1")
    coordinator.subscribe(["hw/pi1/response"])
    largest = Told("hw/pi1/response", MAX_MESSAGE * "x")
    pi1.publish([largest])
    assert coordinator.until(largest.__eq__, "the largest message") == [largest]
    with pytest.raises((OSError, Closed)):
        pi1.publish([Told("hw/pi1/response", 2 * MAX_MESSAGE * "x")])
    assert lab.come_in("pi1").lives()
    assert coordinator.lives()
