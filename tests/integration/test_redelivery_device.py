"""A device that loses messages and its connection: what it runs it runs once, and says so truly.

mosquitto, the real coordinator and the real daemon, each with a proxy between it and the broker.
The witness is a file outside hwsync, to which each program adds a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.faults import FaultyLab, said
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.proxy import ALWAYS, PUBACK, PUBLISH, TO_BROKER, TO_CLIENT, Packet, Proxy, Rule
from tests.support.waiting import wait_until


@pytest.fixture
def lab(
    mosquitto: MosquittoBroker,
    start_proxy: Callable[..., Proxy],
    watch: Callable[..., Watcher],
    start: Callable[..., Process],
    tmp_path: Path,
) -> FaultyLab:
    proxies = start_proxy(mosquitto), start_proxy(mosquitto)
    one = FaultyLab(mosquitto, *proxies, watch(mosquitto), start, tmp_path)
    one.coordinator()
    one.device()
    one.open_gate()
    return one


def run(lab: FaultyLab, id: str) -> None:
    """One command from its request to its end: it ran once, and the record says so."""
    lab.witness.write_text("")
    program = f"open({str(lab.witness)!r}, 'a').write('ran\\n'); print(6*7)"
    lab.request(id, program, timeout=10, analysis="outcome")
    end = lab.status(lambda status: (status["id"], status["state"]) == (id, 0))
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n")
    assert lab.lines() == ["ran"]
    assert not lab.command(id)["late"]


def is_grant(packet: Packet) -> bool:
    status = said(packet)
    return status.get("state") == 2 and status.get("journal") is not None


def no_acknowledgement(board: Proxy) -> Rule:
    return board.drop(PUBACK, TO_CLIENT, times=ALWAYS)


def two_acknowledgements(board: Proxy) -> Rule:
    return board.repeat(PUBACK, TO_CLIENT, times=ALWAYS)


def no_acknowledgement_of_the_envelope(board: Proxy) -> Rule:
    return board.drop(PUBACK, TO_BROKER, times=1)


def cut_before_the_envelope(board: Proxy) -> Rule:
    return board.cut_before(PUBLISH, TO_CLIENT, topic="hw/pi1/command")


def cut_after_the_envelope(board: Proxy) -> Rule:
    return board.cut_after(PUBLISH, TO_CLIENT, topic="hw/pi1/command")


def cut_before_collected(board: Proxy) -> Rule:
    return board.cut_before(PUBLISH, TO_BROKER, topic="hw/pi1/collected")


def cut_after_collected(board: Proxy) -> Rule:
    return board.cut_after(PUBLISH, TO_BROKER, topic="hw/pi1/collected")


def two_of_collected(board: Proxy) -> Rule:
    return board.repeat(PUBLISH, TO_BROKER, topic="hw/pi1/collected")


def cut_before_the_grant(board: Proxy) -> Rule:
    return board.cut_before(PUBLISH, TO_CLIENT, topic="hw/pi1/status", where=is_grant)


def cut_after_the_grant(board: Proxy) -> Rule:
    return board.cut_after(PUBLISH, TO_CLIENT, topic="hw/pi1/status", where=is_grant)


def no_grant(board: Proxy) -> Rule:
    return board.drop(PUBLISH, TO_CLIENT, topic="hw/pi1/status", where=is_grant)


def cut_before_the_result(board: Proxy) -> Rule:
    return board.cut_before(PUBLISH, TO_BROKER, topic="hw/pi1/response")


def cut_after_the_result(board: Proxy) -> Rule:
    return board.cut_after(PUBLISH, TO_BROKER, topic="hw/pi1/response")


def no_result(board: Proxy) -> Rule:
    return board.drop(PUBLISH, TO_BROKER, topic="hw/pi1/response")


def two_of_the_result(board: Proxy) -> Rule:
    return board.repeat(PUBLISH, TO_BROKER, topic="hw/pi1/response")


@pytest.mark.parametrize(
    "fault",
    [
        no_acknowledgement,
        two_acknowledgements,
        no_acknowledgement_of_the_envelope,
        cut_before_the_envelope,
        cut_after_the_envelope,
        cut_before_collected,
        cut_after_collected,
        two_of_collected,
        cut_before_the_grant,
        cut_after_the_grant,
        no_grant,
        cut_before_the_result,
        cut_after_the_result,
        no_result,
        two_of_the_result,
    ],
)
def test_whatever_a_device_loses_it_runs_once_and_the_record_is_true(
    lab: FaultyLab, fault: Callable[[Proxy], Rule]
) -> None:
    rule = fault(lab.board)
    run(lab, "c1")
    rule.wait()
    # Nothing of it is left over: the next command is an ordinary one.
    run(lab, "c2")
    assert lab.refusals() == []
    lab.processes["device"].kill()  # a stop waits five seconds for acknowledgements that were lost


# -- partitions -----------------------------------------------------------------------------------


@pytest.fixture
def waiting(lab: FaultyLab) -> FaultyLab:
    """The lab whose programs wait for the gate."""
    lab.gate.unlink()
    return lab


def ended(lab: FaultyLab) -> None:
    lab.open_gate()
    wait_until(lambda: lab.lines() == ["begun", "ended"], what="the program's end")


def test_while_the_coordinator_is_cut_off_a_device_finishes_and_is_heard_afterwards(
    waiting: FaultyLab,
) -> None:
    lab = waiting
    lab.request_waiting("c1", timeout=30)
    grant = lab.state(2)
    lab.proxy.refuse()
    ended(lab)
    lab.watcher.wait_for(lambda _: True, topic="hw/pi1/response", what="the result")
    assert lab.last() == grant
    lab.proxy.accept()
    end = lab.state(3)
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n")
    assert end["seq"] == grant["seq"] + 1
    assert lab.lines() == ["begun", "ended"]


def test_while_a_device_is_cut_off_it_finishes_and_its_result_comes_afterwards(
    waiting: FaultyLab,
) -> None:
    lab = waiting
    lab.request_waiting("c1", timeout=30)
    grant = lab.state(2)
    lab.board.refuse()
    ended(lab)
    assert lab.last() == grant
    lab.board.accept()
    end = lab.state(3)
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n")
    assert end["seq"] == grant["seq"] + 1
    assert lab.lines() == ["begun", "ended"]


def test_a_device_that_is_cut_off_beyond_the_deadline_corrects_the_lost_command(
    waiting: FaultyLab,
) -> None:
    lab = waiting
    lab.request_waiting("c1", timeout=1.5, grace=1, analysis="outcome")
    lab.board.refuse()
    ended(lab)
    lost = lab.status(lambda status: (status["outcome"], status["state"]) == ("lost", 0))
    assert lost["ran"] == "maybe"
    lab.board.accept()
    end = lab.status(lambda status: status["ran"] == "yes")
    assert (end["state"], end["outcome"], end["hw_response"]) == (0, "ok", "42\n")
    assert end["server_analysis"].startswith("ok: exit 0")
    assert lab.lines() == ["begun", "ended"]
    run(lab, "c2")


def test_a_device_that_is_cut_off_before_it_collects_does_not_run_what_has_expired(
    lab: FaultyLab,
) -> None:
    lab.board.refuse()
    program = f"open({str(lab.witness)!r}, 'a').write('ran\\n')"
    lab.request("c1", program, expires=1)
    lab.status(lambda status: (status["outcome"], status["ran"]) == ("expired", "no"))
    lab.board.accept()
    run(lab, "c2")
    assert (lab.command("c1")["outcome"], lab.command("c1")["ran"]) == ("expired", "no")


def test_no_deadline_passes_while_the_coordinator_is_cut_off(waiting: FaultyLab) -> None:
    lab = waiting
    lab.request_waiting("c1", timeout=1, grace=1)
    granted = time.monotonic()
    lab.proxy.refuse()
    wait_until(lambda: time.monotonic() > granted + 2.2, what="the deadline, were it connected")
    lab.proxy.accept()
    # The device ended it at its own limit meanwhile; that, and not the deadline, is the end.
    end = lab.state(3)
    assert (end["outcome"], end["ran"]) == ("timeout", "yes")
