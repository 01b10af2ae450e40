"""The brokers of the fixtures are what their description says, on both sides of a kill."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.brokers import Broker, MosquittoBroker, answers
from tests.support.mqtt import Watcher, publish
from tests.support.waiting import wait_until

Watch = Callable[..., Watcher]


def test_what_is_published_is_seen_in_order(broker: Broker, watch: Watch) -> None:
    watcher = watch(broker)
    publish(broker, "hw/pi1/status", '{"state": 1, "id": "a"}')
    publish(broker, "hw/pi1/status", '{"state": 2, "id": "a"}')
    publish(broker, "hw/pi1/request")
    assert watcher.wait_for_state("pi1", 2, id="a") == {"state": 2, "id": "a"}
    assert watcher.wait_for(lambda message: not message.payload).topic == "hw/pi1/request"
    assert [status["state"] for status in watcher.statuses("pi1")] == [1, 2]


def test_after_a_mark_older_messages_do_not_count(mosquitto: MosquittoBroker, watch: Watch) -> None:
    watcher = watch(mosquitto)
    publish(mosquitto, "hw/pi1/status", '{"state": 0}')
    watcher.wait_for_state("pi1", 0)
    with pytest.raises(AssertionError, match="no message within 0 s: state 0 of pi1"):
        watcher.wait_for_state("pi1", 0, timeout=0, after=watcher.mark())


def test_a_killed_broker_comes_back_on_its_port_and_so_does_the_watcher(
    broker: Broker, watch: Watch
) -> None:
    watcher = watch(broker)
    first = broker.process.pid
    broker.kill()
    wait_until(lambda: not watcher.ready, what="the watcher notices the kill")
    assert not answers(broker.port)
    broker.restart()
    assert broker.process.pid != first
    wait_until(lambda: watcher.ready, what="the watcher is back")
    publish(broker, "hw/pi1/request", "print(6*7)")
    assert watcher.wait_for(lambda message: message.text == "print(6*7)")


def test_mosquitto_keeps_retained_messages_over_kill_9(
    mosquitto: MosquittoBroker, watch: Watch
) -> None:
    publish(mosquitto, "hw/pi1/status", '{"state": 3}', retain=True)
    saved = mosquitto.directory / "state" / "mosquitto.db"
    wait_until(
        lambda: saved.exists() and b'{"state": 3}' in saved.read_bytes(), what="mosquitto saved"
    )
    mosquitto.kill()
    mosquitto.restart()
    assert watch(mosquitto).wait_for_state("pi1", 3) == {"state": 3}


def test_a_payload_of_any_bytes_can_be_published(mosquitto: MosquittoBroker, watch: Watch) -> None:
    watcher = watch(mosquitto)
    payloads = [b"\x00\xff{", b"x" * 200_000, b"-m"]
    for payload in payloads:
        publish(mosquitto, "hw/pi1/request", payload)
    publish(mosquitto, "hw/pi1/request", "-m")
    watcher.wait_for(lambda message: len(watcher.messages()) == 4)
    assert [seen.payload for seen in watcher.messages()] == [*payloads, b"-m"]


def test_a_refused_publish_fails_the_test(start_mosquitto: Callable[..., MosquittoBroker]) -> None:
    broker = start_mosquitto(extra=["allow_anonymous false"])
    with pytest.raises(AssertionError, match="mosquitto_pub"):
        publish(broker, "hw/pi1/request", "print(6*7)")


def test_a_broker_that_cannot_start_says_why(
    start_mosquitto: Callable[..., MosquittoBroker],
) -> None:
    with pytest.raises(AssertionError, match="no_such_directive"):
        start_mosquitto(extra=["no_such_directive true"])
