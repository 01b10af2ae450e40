"""How much one account can make the broker keep, in a lab that ``hwsync init`` made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from hwsync.lab.accounts import OperatorRights
from hwsync.protocol.limits import MAX_MESSAGE
from tests.support.account_lab import OBSERVER, AccountLab, account_lab
from tests.support.lab import HWSYNC
from tests.support.packets import Closed, Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

MIB: Final = 2**20
TRIED: Final = 40  # topics of each kind; what fitted behind a wildcard had no end
BOARDS: Final = ("pi1", "pi2")
OWN: Final = {f"hw/{board}/status" for board in BOARDS} | {"hw/@hwsync/coordinator"}
MOST: Final = 20 * MIB  # of the 80 that were tried; the topics that are named hold 8 messages


@pytest.fixture(params=["mosquitto", "amqtt"])
def lab(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    operators = {"rita": OperatorRights(None, read_only=True), "alice": OperatorRights(("pi1",))}
    with account_lab(request.param, BOARDS, operators) as made:
        yield made


def resident(pid: int) -> int:
    """Bytes of memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def fill(lab: AccountLab, account: str, topics: list[str], size: int = MAX_MESSAGE) -> None:
    """Retain such a message on each; whoever is cut comes again."""
    text = size * "x"
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
    ], MIB // 2)  # fmt: skip
    kinds = ("collected", "output", "response", "heartbeat", "status", "request")
    fill(lab, "pi1", [f"hw/pi1/{kind}" for kind in kinds], MIB // 2)
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


def test_a_coordinator_takes_from_the_broker_what_nobody_is_to_retain(
    tmp_path: Path, start: Callable[..., Process]
) -> None:
    """On mosquitto, where it speaks MQTT 5; what was kept while it was away, and later."""
    topics = [f"hw/{board}/{kind}" for board in BOARDS for kind in
              ("request", "cancel", "reset", "analysis", "query")]  # fmt: skip
    topics.append("hw/@hwsync/query")
    with account_lab("mosquitto", BOARDS, {"alice": OperatorRights(None)}, start=False) as lab:
        lab.add_observer()
        lab.start()
        fill(lab, "alice", topics, MIB // 4)  # together less than its queue may hold
        fill(lab, "pi1", ["hw/pi1/response", "hw/pi1/collected"], MIB // 4)
        lab.come_in("pi1").publish([Told("hw/pi1/heartbeat", "kept", retain=True)])
        own = ["--config", str(lab.path / "lab/coordinator.toml"), "--db", str(tmp_path / "db")]
        coordinator = start([*HWSYNC, "coordinator", *own], name="coordinator")
        coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
        left = {"hw/pi1/heartbeat", "hw/@hwsync/health", "hw/@hwsync/boards"}
        wait_until(lambda: kept(lab) - OWN <= left, what="they are gone")
        fill(lab, "alice", topics, MIB // 4)
        wait_until(lambda: kept(lab) - OWN <= left, what="they are gone again")
        assert "hw/pi1/heartbeat" in kept(lab)


def kept(lab: AccountLab) -> set[str]:
    """On which topics the broker keeps something."""
    observer = lab.come_in(OBSERVER)
    observer.subscribe(["hw/#"])
    observer.subscribe(["hw/observer/fence"])
    observer.publish([Told("hw/observer/fence", "fence")])
    came = observer.until(lambda one: one.text == "fence", "the observer hears itself")
    observer.close()
    return {one.topic for one in came if one.retain}


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
