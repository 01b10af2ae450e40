"""A device that loses messages and its connection: what it runs it runs once, and says so truly.

mosquitto, the real coordinator and the real daemon, each with a proxy between it and the broker.
The witness is a file outside hwsync, to which each program adds a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.faults import FaultyLab, said
from tests.support.proxy import ALWAYS, PUBACK, PUBLISH, TO_BROKER, TO_CLIENT, Packet, Proxy, Rule
from tests.support.waiting import wait_until


@pytest.fixture
def lab(lab: FaultyLab) -> FaultyLab:
    """With a device, whose programs do not wait."""
    lab.device()
    lab.open_gate()
    return lab


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


COLLECTED, RESULT = "hw/pi1/collected", "hw/pi1/response"
ENVELOPE: dict[str, Any] = {"topic": "hw/pi1/command"}
GRANT: dict[str, Any] = {"topic": "hw/pi1/status", "where": is_grant}

FAULTS: dict[str, Callable[[Proxy], Rule]] = {
    "no acknowledgement": lambda board: board.drop(PUBACK, TO_CLIENT, times=ALWAYS),
    "two acknowledgements": lambda board: board.repeat(PUBACK, TO_CLIENT, times=ALWAYS),
    "no acknowledgement of the envelope": lambda board: board.drop(PUBACK, TO_BROKER, times=1),
    "cut before the envelope": lambda board: board.cut_before(PUBLISH, TO_CLIENT, **ENVELOPE),
    "cut after the envelope": lambda board: board.cut_after(PUBLISH, TO_CLIENT, **ENVELOPE),
    "cut before collected": lambda board: board.cut_before(PUBLISH, TO_BROKER, topic=COLLECTED),
    "cut after collected": lambda board: board.cut_after(PUBLISH, TO_BROKER, topic=COLLECTED),
    "two of collected": lambda board: board.repeat(PUBLISH, TO_BROKER, topic=COLLECTED),
    "cut before the grant": lambda board: board.cut_before(PUBLISH, TO_CLIENT, **GRANT),
    "cut after the grant": lambda board: board.cut_after(PUBLISH, TO_CLIENT, **GRANT),
    "no grant": lambda board: board.drop(PUBLISH, TO_CLIENT, **GRANT),
    "cut before the result": lambda board: board.cut_before(PUBLISH, TO_BROKER, topic=RESULT),
    "cut after the result": lambda board: board.cut_after(PUBLISH, TO_BROKER, topic=RESULT),
    "no result": lambda board: board.drop(PUBLISH, TO_BROKER, topic=RESULT),
    "two of the result": lambda board: board.repeat(PUBLISH, TO_BROKER, topic=RESULT),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_device_loses_it_runs_once_and_the_record_is_true(
    lab: FaultyLab, fault: str
) -> None:
    rule = FAULTS[fault](lab.board)
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
