"""What is known of a board by an account that may not ask it, and with what it is busy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.cli import doctor, looking
from hwsync.cli.looking import absent, busy_with
from hwsync.findings import Result
from hwsync.protocol.errors import Code, Refused, Unreachable
from hwsync.protocol.record import Outcome, Ran, Record, State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.status import result_json, status_json
from tests.support.situations import BEAT, GONE, NOBODY, NOW, TAKEN, WILL, ended, known

DENIED = Refused(Code.NOT_ALLOWED, "the broker does not let us publish for pi1")
KEPT = status_json(Record("pi1", State.COLLECTED, seq=2, time=NOW, current=TAKEN))

RETURNED = ended(Outcome.OK, Ran.YES)


class Operator:
    """A connection whose waits end as they were told to."""

    def __init__(self, *ends: Any, kept: Any = None) -> None:
        self._ends, self.kept = list(ends), kept
        self.user = "pi1"

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, _: object) -> Any:
        end = self._ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def record(self) -> Any:
        return self.wait(None)

    def hear(self, _: float) -> list[Any]:
        return []

    def ask_coordinator(self) -> None:
        pass

    def conversation(self, _: str) -> Any:
        return SimpleNamespace(reading=lambda: None, querying=lambda _: None)


def test_who_may_not_ask_sees_what_the_broker_keeps() -> None:
    operator: Any = Operator(DENIED, kept=KEPT)
    assert looking._record(operator, operator.conversation("pi1")) == (KEPT, None)
    nothing: Any = Operator(DENIED)
    with pytest.raises(Refused, match="does not let us"):
        looking._record(nothing, nothing.conversation("pi1"))
    told = result_json(TAKEN, State.COLLECTED)
    both: Any = Operator(KEPT, told)
    assert looking._record(both, both.conversation("pi1")) == (KEPT, told)


@pytest.mark.parametrize(
    ("end", "result"), [(DENIED, Result.WARNING), (Unreachable("nobody"), Result.ERROR)]
)
def test_the_doctor_goes_on_where_it_may_not_ask(
    end: Exception, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "Client", lambda *_, **__: Operator(end))
    url = BrokerUrl("mqtt", "broker.lab", 1883)
    found = list(doctor._user(url, Topics(), "pi1", answers=True))
    assert next(one.result for one in found if one.check == "record") is result
    assert found[0].check == "device", "the others are said as well"


def test_a_refusal_for_being_busy_says_with_what() -> None:
    refusal = Refused(Code.BUSY, "pi1 is in state 2", "wait", published_error={"error": "busy"})
    told = result_json(TAKEN, State.COLLECTED)
    operator: Any = Operator(KEPT, told)
    said = busy_with(refusal, operator, "pi1", "plot.py")
    assert said.message == "pi1 is busy with teacher's blink.py"
    assert said.hint == "hwsync run --queue pi1 plot.py waits behind it; hwsync cancel pi1 ends it"
    assert said.published_error == {"error": "busy"}
    unknown: Any = Operator(DENIED)
    assert busy_with(refusal, unknown, "pi1", "plot.py") is refusal
    other = Refused(Code.QUEUE_FULL, "full")
    assert busy_with(other, unknown, "pi1", "plot.py") is other


class Judging(Operator):
    """With an account; ``bring``: what the broker says to an empty analysis."""

    def __init__(self, account: str | None, protocol: int, denied: Refused | None) -> None:
        told = result_json(RETURNED, State.RETURNED)
        record = Record("pi1", State.RETURNED, seq=3, time=NOW, current=RETURNED)
        super().__init__(status_json(record), told)
        self.url = BrokerUrl("mqtt", "broker.lab", 1883).with_credentials(account, "x")
        self.standing, self._denied = SimpleNamespace(protocol=protocol), denied

    def bring(self, user: str, kind: TopicKind) -> None:
        assert (user, kind) == ("pi1", TopicKind.ANALYSIS)
        if self._denied is not None:
            raise self._denied


@pytest.mark.parametrize(
    ("account", "protocol", "denied", "end"),
    [(None, 4, None, "to end it: hwsync analyse pi1 TEXT"),
     ("anna", 5, None, "to end it: hwsync analyse pi1 TEXT"),
     ("anna", 5, DENIED, "with that right, such as a teacher"),
     ("anna", 4, None, "who may judge, such as a teacher, types hwsync analyse pi1 TEXT")],
)  # fmt: skip
def test_who_may_not_judge_is_not_told_to(
    account: str | None, protocol: int, denied: Refused | None, end: str
) -> None:
    operator: Any = Judging(account, protocol, denied)
    said = busy_with(Refused(Code.BUSY, "pi1 is in state 3", "wait"), operator, "pi1", "plot.py")
    assert said.hint.startswith("hwsync run --queue pi1 plot.py waits behind it; ")
    assert said.hint.endswith(end)


def test_why_nobody_answers() -> None:
    assert absent(known(beat=BEAT)) == ""
    assert absent(known(beat=WILL, boards=GONE)).startswith("pi1 is offline since")
    assert absent(known(beat=None, boards=NOBODY)) == "no device called pi1 was ever heard"
