"""Messages that come twice, too late or after everything was forgotten: the coordinator's side.

mosquitto, which keeps the coordinator's session, a proxy between the two that loses what it is
told to, and the real coordinator. Whoever else takes part does so with ``mosquitto_pub``.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.faults import FaultyLab, collected, result
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.proxy import PUBLISH, TO_CLIENT, Proxy
from tests.support.waiting import wait_until

REQUEST, COLLECTED = ("hw_command_request", 1), ("hw_command_retrieval", 2)
RESPONSE, ANALYSIS = ("hw_response_provide", 3), ("server_analysis_provide", 0)
RESET = ("reset", 0)
CYCLE = [REQUEST, COLLECTED, RESPONSE, ANALYSIS]

BY_ID = [
    ("request", '{"id": "c1", "program": "print(6*7)"}'),
    ("collected", collected("c1")),
    ("response", result("c1", response="42\n")),
    ("analysis", '{"id": "c1", "analysis": "right"}'),
]
BY_HAND = [
    ("request", "print(6*7)"), ("collected", ""), ("response", "42"), ("analysis", "right")
]  # fmt: skip


def record(status: dict[str, Any]) -> dict[str, Any]:
    """What it says of the record: when the state ends is told anew each time."""
    return {name: value for name, value in status.items() if name != "deadline"}


@contextmanager
def no_commit(lab: FaultyLab) -> Iterator[None]:
    """Another process has the database: for five seconds a commit waits."""
    with closing(sqlite3.connect(lab.db, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


# -- an acknowledgement that is lost --------------------------------------------------------------


def test_a_request_without_an_id_that_comes_again_is_one_command_with_the_same_answer(
    lab: FaultyLab,
) -> None:
    lost = lab.lose_acknowledgements(1)
    lab.pub("request", "print(6*7)")
    first = lab.state(1)
    (again,) = lab.deliver_again(lost)
    assert again.topic == "hw/pi1/request"
    told = [record(status) for status in lab.watcher.statuses("pi1")]
    assert told == [record(first)] * 3  # the second one at the connect
    assert lab.moves() == [REQUEST]
    assert lab.errors() == []


def test_a_refused_message_that_comes_again_has_the_same_error_again_and_one_row(
    lab: FaultyLab,
) -> None:
    lost = lab.lose_acknowledgements(1)
    lab.pub("cancel")
    (first,) = lab.wait_for_errors(1)
    lost.wait()
    lab.pub("request", "print(1)")  # now a cancel would be accepted
    lab.state(1)
    lab.deliver_again(lost)
    assert lab.errors() == [first, first]
    assert (first["error"], first["state"]) == ("wrong_state", 0)
    assert lab.refusals() == ["wrong_state"]
    assert lab.moves() == [REQUEST]


@pytest.mark.parametrize("messages", [BY_ID, BY_HAND], ids=["with ids", "by hand"])
@pytest.mark.parametrize("at_once", [True, False], ids=["in one round", "one by one"])
def test_a_whole_cycle_that_comes_again_changes_nothing(
    lab: FaultyLab, messages: list[tuple[str, str]], at_once: bool
) -> None:
    lost = lab.lose_acknowledgements(4)
    if at_once:
        lab.proxy.hold()
    for kind, payload in messages:
        lab.pub(kind, payload)
    if at_once:
        lab.proxy.release()
    end = lab.status(lambda status: status["seq"] == 4)
    again = lab.deliver_again(lost)
    assert [packet.topic for packet in again] == [f"hw/pi1/{kind}" for kind, _ in messages]
    assert lab.moves() == CYCLE
    assert lab.refusals() == []
    assert (end["state"], end["ran"], end["server_analysis"]) == (0, "yes", "right")
    told = [status["seq"] for status in lab.watcher.statuses("pi1")]
    # Once more at the connect, and for what came again: once for all of it in one round.
    assert (told[:4], set(told[4:])) == ([1, 2, 3, 4], {4})
    assert 6 <= len(told) <= 9
    assert record(lab.last()) == record(end)
    assert lab.errors() == []


def test_what_comes_again_to_the_next_coordinator_is_still_a_copy(lab: FaultyLab) -> None:
    lost = lab.lose_acknowledgements(2)
    lab.pub("request", "print(6*7)")
    lab.pub("reset")
    lab.status(lambda status: status["seq"] == 2)
    lost.wait(2)
    lab.processes["coordinator"].kill()
    lab.coordinator()
    wait_until(lambda: [*map(lab.proxy.acknowledged, lab.dups())] == [True, True], what="both")
    lab.hear_all()
    assert lab.moves() == [REQUEST, RESET]
    assert lab.last()["seq"] == 2


# -- a commit that does not come ------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["print(6*7)", '{"id": "c1", "program": "print(6*7)"}'])
def test_a_coordinator_killed_between_delivery_and_commit_is_one_command(
    lab: FaultyLab, payload: str
) -> None:
    with no_commit(lab):
        lab.pub("request", payload)
        wait_until(lambda: lab.proxy.seen(PUBLISH, TO_CLIENT, "hw/pi1/request"), what="delivery")
        lab.processes["coordinator"].kill()
        assert lab.watcher.statuses("pi1") == []
    lab.coordinator()
    first = lab.state(1)
    (again,) = lab.dups()
    wait_until(lambda: lab.proxy.acknowledged(again), what="its acknowledgement")
    lab.hear_all()
    assert lab.moves() == [REQUEST]
    assert record(lab.last()) == record(first)


def test_a_connection_cut_between_delivery_and_commit_makes_one_command(lab: FaultyLab) -> None:
    with no_commit(lab):
        lab.pub("request", "print(6*7)")
        wait_until(lambda: lab.proxy.seen(PUBLISH, TO_CLIENT, "hw/pi1/request"), what="delivery")
        lab.proxy.cut()
        wait_until(lab.dups, what="the message again, on the next connection")
        assert lab.watcher.statuses("pi1") == []
    first = lab.state(1)
    wait_until(lambda: lab.proxy.acknowledged(lab.dups()[0]), what="its acknowledgement")
    lab.hear_all()
    assert lab.moves() == [REQUEST]
    assert record(lab.last()) == record(first)
    assert lab.errors() == []


# -- what is new ----------------------------------------------------------------------------------


def test_the_same_text_sent_anew_is_a_new_message(lab: FaultyLab) -> None:
    lost = lab.lose_acknowledgements(1)
    lab.pub("request", "print(6*7)")
    lost.wait()
    for _ in range(2):
        lab.pub("reset")
        lab.pub("request", "print(6*7)")
    last = lab.status(lambda status: status["seq"] == 5)
    lab.deliver_again(lost)
    assert lab.moves() == [REQUEST, RESET, REQUEST, RESET, REQUEST]
    assert len({row["id"] for row in lab.history()}) == 3
    assert record(lab.last()) == record(last)


def test_an_id_used_for_another_text_is_refused_and_the_first_one_stays(lab: FaultyLab) -> None:
    lost = lab.lose_acknowledgements(2)
    lab.request("c1", "print(1)")
    lab.request("c1", "print(2)")
    (error,) = lab.wait_for_errors(1)
    lab.deliver_again(lost)
    assert lab.errors() == [error, error]
    assert (error["error"], error["id"], error["state"]) == ("id_reused", "c1", 1)
    assert lab.moves() == [REQUEST]
    assert lab.last()["hw_command"] == "print(1)"


# -- what comes too late --------------------------------------------------------------------------


def test_a_late_result_corrects_a_lost_command(lab: FaultyLab) -> None:
    lab.request("c1", timeout=0.1, grace=1)
    lab.pub("collected", collected("c1"))
    lab.status(lambda status: (status["outcome"], status["ran"]) == ("lost", "maybe"))
    lost = lab.lose_acknowledgements(1)
    lab.pub("response", result("c1", response="42\n"))
    corrected = lab.status(lambda status: status["ran"] == "yes")
    lab.deliver_again(lost)
    assert (corrected["state"], corrected["outcome"], corrected["hw_response"]) == (3, "ok", "42\n")
    assert corrected["settled"] == [["c1", "j1"]]
    assert record(lab.last()) == record(corrected)
    assert lab.command("c1")["late"]


def test_a_late_result_corrects_a_command_that_was_reset(lab: FaultyLab) -> None:
    lab.request("c1")
    lab.pub("collected", collected("c1"))
    lab.pub("reset")
    lab.status(lambda status: (status["outcome"], status["ran"]) == ("lost", "maybe"))
    lab.request("c2", "print(2)")
    lab.state(1, id="c2")
    lost = lab.lose_acknowledgements(1)
    lab.pub("response", result("c1", outcome="cancelled", ran="no", exit_code=None))
    settled = lab.status(lambda status: status["settled"] == [["c1", "j1"]])
    lab.deliver_again(lost)
    shown = lab.command("c1")
    assert (shown["outcome"], shown["ran"], shown["late"]) == ("cancelled", "no", True)
    # The next command is not touched by it.
    assert (settled["state"], settled["id"], settled["outcome"]) == (1, "c2", None)
    assert record(lab.last()) == record(settled)


def test_a_late_result_corrects_an_expired_command(lab: FaultyLab) -> None:
    lab.request("c1", expires=1)
    lab.status(lambda status: (status["outcome"], status["ran"]) == ("expired", "no"))
    lost = lab.lose_acknowledgements(1)
    lab.pub("response", result("c1", response="42\n"))
    corrected = lab.status(lambda status: status["ran"] == "yes")
    lab.deliver_again(lost)
    assert (corrected["state"], corrected["outcome"], corrected["seq"]) == (0, "ok", 3)
    assert record(lab.last()) == record(corrected)


def test_a_result_that_nobody_asked_for_is_kept_settled_and_shown(lab: FaultyLab) -> None:
    lost = lab.lose_acknowledgements(1)
    lab.pub("response", result("ghost", "j9", response="boo\n"))
    settled = lab.status(lambda status: status["settled"] == [["ghost", "j9"]])
    assert (settled["state"], settled["id"], settled["seq"]) == (0, "", 1)
    lab.deliver_again(lost)
    assert record(lab.last()) == record(settled)
    db = ["--db", str(lab.db)]
    history, show = lab.cli("history", "pi1", "--log", *db), lab.cli("show", "pi1", "ghost", *db)
    assert (history.wait(), show.wait()) == (0, 0)
    (line,) = history.stdout.splitlines()
    assert "ghost  late: orphan" in line
    shown = [row.split() for row in show.stdout.splitlines()]
    assert all(row in shown for row in (["orphan", "true"], ["ran", "yes"]))
    assert ["hw_response", "boo\\n"] in shown
    assert lab.command("ghost")["history"][0]["late"]


# -- a broker that forgets ------------------------------------------------------------------------


def retained(watcher: Watcher) -> dict[str, dict[str, Any]]:
    """The statuses that the broker keeps."""
    return {
        message.topic: json.loads(message.payload)
        for message in watcher.messages()
        if message.retain and message.topic.endswith("/status")
    }


def test_after_a_broker_that_forgot_all_every_status_is_retained_again_and_all_goes_on(
    start_mosquitto: Callable[..., MosquittoBroker],
    start_proxy: Callable[..., Proxy],
    watch: Callable[..., Watcher],
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    broker = start_mosquitto(extra=["persistence false"])
    proxies = start_proxy(broker), start_proxy(broker)
    lab = FaultyLab(broker, *proxies, watch(broker), start, tmp_path)
    coordinator = lab.coordinator()
    lab.device()
    for kind, payload in BY_HAND:
        lab.pub(kind, payload, user="pi2")
    lab.watcher.wait_for_status("pi2", lambda status: status["server_analysis"] == "right")
    lab.request_waiting("c1", timeout=60)
    open_one = lab.state(2)
    for proxy in proxies:
        proxy.refuse()
    broker.kill()
    shutil.rmtree(broker.directory / "state", ignore_errors=True)
    broker.start()
    empty = watch(broker)
    lab.pub("marker")
    empty.wait_for(lambda message: message.topic == "hw/pi1/marker")
    assert retained(empty) == {}
    for proxy in proxies:
        proxy.accept()
    coordinator.wait_for_log(r"\bready\b", count=2)
    wait_until(lambda: len(empty.messages("hw/pi1/status")) > 0, what="a status")
    lab.watcher.wait_for_status("pi2", lambda status: status["seq"] == 4)
    kept = retained(watch(broker))
    assert record(kept["hw/pi1/status"]) == record(open_one)
    assert (kept["hw/pi2/status"]["state"], kept["hw/pi2/status"]["seq"]) == (0, 4)
    lab.open_gate()
    end = empty.wait_for_state("pi1", 3)
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n")
    assert lab.lines() == ["begun", "ended"]
