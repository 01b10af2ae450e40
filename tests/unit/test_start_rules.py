"""Starts at an instant, by the rules alone: what is accepted, and until when it is waited for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from hwsync.protocol import limits, starts
from hwsync.protocol.admission import digest_of
from hwsync.protocol.core import Draft, decide
from hwsync.protocol.effects import Decision, PublishEnvelope
from hwsync.protocol.errors import Code
from hwsync.protocol.events import (
    CancelAsked,
    Collected,
    DeadlinePassed,
    Event,
    HeartbeatReceived,
    Requested,
)
from hwsync.protocol.record import (
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    Request,
    Start,
    State,
    ends_at,
    is_over,
    latest_start_s,
    replace,
)
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.envelope import encode_envelope, encode_signed, read_envelope
from hwsync.protocol.wire.heartbeat import encode_heartbeat, read_heartbeat
from hwsync.protocol.wire.start import read_start, read_start_order, start_json, start_order_json
from hwsync.protocol.wire.status import encode_result, encode_status, read_status

S = 1_000_000  # microseconds
NOON = 1_764_500_000 * S  # of lab time
LIFE, OTHER = "life-1", "life-2"
AT = NOON + 60 * S
REQUEST = Request("print(1)", "c1", timeout=10.0, grace=5.0, start=Start(0.5, AT))


def moment(passed: float = 0.0, life: str = LIFE, *, ticks: float | None = None) -> Moment:
    """So many seconds later; ``ticks``: of connection, where the connection was away."""
    lab_us = NOON + round(passed * S)
    return Moment(1e9 + passed, 50.0 + (passed if ticks is None else ticks), "0" * 16, lab_us, life)


@dataclass
class Known:
    """A database of one user."""

    records: dict[str, Record] = field(default_factory=dict)
    devices: dict[str, HeartbeatReceived] = field(default_factory=dict)
    epoch: int = 0

    def record(self, user: str) -> Record | None:
        return self.records.get(user)

    def command(self, user: str, id: str) -> Command | None:
        return None

    def count(self) -> int:
        return len(self.records)

    def device(self, user: str) -> HeartbeatReceived | None:
        return self.devices.get(user)


class Board:
    """One board's record, which the rules move."""

    def __init__(self, request: Request | None = REQUEST) -> None:
        self.draft = Draft(Known())
        if request is not None:
            self.hear(Requested(request))
            assert self.record.state is State.REQUESTED

    def hear(self, event: Event, at: Moment | None = None) -> Decision:
        decisions = decide("pi1", event, at or moment(), self.draft, Rules())
        for decision in decisions:
            self.draft.take(decision)
        return decisions[0]

    def collect(self, at: Moment, boot: int = 1) -> Decision:
        return self.hear(Collected("c1", "j1", boot), at)

    def expire(self, at: Moment) -> Decision:
        return self.hear(DeadlinePassed("c1"), at)

    @property
    def record(self) -> Record:
        return self.draft.record_of("pi1")

    @property
    def command(self) -> Command:
        assert self.record.current is not None
        return self.record.current

    @property
    def end(self) -> tuple[State, Outcome | None, Ran | None]:
        report = self.command.report
        return self.record.state, report and report.outcome, report and report.ran

    @property
    def left(self) -> float:
        """Seconds of connection that state 2 has, from 50 ticks on."""
        assert self.record.deadline_ticks is not None
        return self.record.deadline_ticks - 50.0


EXPIRED = (State.REST, Outcome.EXPIRED, Ran.NO)
OPEN = (None, None)


def refused(decision: Decision) -> Code | None:
    return decision.refused and decision.refused.code


# -- what is accepted


@pytest.mark.parametrize(
    ("at_us", "code"),
    [
        (NOON - S, Code.BAD_PAYLOAD),
        (NOON, Code.BAD_PAYLOAD),
        (NOON + 1, None),
        (NOON + 86_400 * S, None),
        (NOON + 86_400 * S + 1, Code.BAD_PAYLOAD),
    ],
)
def test_an_instant_is_ahead_and_at_most_a_day(at_us: int, code: Code | None) -> None:
    board = Board(None)
    request = replace(REQUEST, start=Start(0.5, at_us))
    assert refused(board.hear(Requested(request))) == code
    assert board.record.state == (State.REQUESTED if code is None else State.REST)


def test_the_instant_and_its_life_are_stored_when_the_request_is() -> None:
    board = Board()
    assert (board.command.start_at_us, board.command.start_life) == (AT, LIFE)
    board.collect(moment(1))
    board.collect(moment(2), boot=2)  # a later boot of the same journal
    assert (board.command.start_at_us, board.command.start_life) == (AT, LIFE)
    assert (board.command.boot, board.record.state) == (2, State.COLLECTED)


def test_without_lab_time_there_is_no_start() -> None:
    decision = Board(None).hear(Requested(REQUEST), moment(life=""))
    assert refused(decision) == Code.NOT_ALLOWED


def test_a_start_together_needs_a_batch() -> None:
    decision = Board(None).hear(Requested(replace(REQUEST, start=Start())))
    assert refused(decision) == Code.NOT_ALLOWED
    assert decision.refused is not None
    assert "batch" in decision.refused.message


def beat(*can: str, online: bool = True) -> HeartbeatReceived:
    return HeartbeatReceived(online, "j1", 1, can=can)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (None, None),
        (beat("start"), None),
        (beat(), Code.NOT_ALLOWED),
        (beat(online=False), None),
    ],
)
def test_a_board_that_is_online_must_be_able_to(
    device: HeartbeatReceived | None, code: Code | None
) -> None:
    board = Board(None)
    if device is not None:
        board.draft.hear("pi1", device)
    assert refused(board.hear(Requested(REQUEST))) == code
    board = Board()
    if device is not None:
        board.draft.hear("pi1", device)
    repeat = board.hear(Requested(REQUEST))
    assert (repeat.refused, board.record.state) == (None, State.REQUESTED)


def test_a_will_of_an_earlier_boot_says_nothing_of_the_board() -> None:
    draft = Draft(Known(devices={"pi1": HeartbeatReceived(True, "j1", 2)}))
    draft.hear("pi1", HeartbeatReceived(False, "j1", 1))
    assert draft.device("pi1") == HeartbeatReceived(True, "j1", 2)
    draft.hear("pi1", HeartbeatReceived(False, "j1", 2))
    assert draft.device("pi1") == HeartbeatReceived(False, "j1", 2)


def test_a_repeat_has_the_same_start_and_others_keep_their_digest() -> None:
    board = Board()
    assert board.hear(Requested(REQUEST)).refused is None
    for other in (None, Start(0.5, AT + 1), Start(0.4, AT)):
        decision = board.hear(Requested(replace(REQUEST, start=other)))
        assert refused(decision) == Code.ID_REUSED
    # As it was before there were starts.
    assert digest_of(Request("print(6*7)")) == (
        "f9726c03abd3f424c3c42d2893289b0d63f8e65c330388a6eb20fab9390f937c"
    )
    together = [Start(), Start(need=2), Start(wait=6.0), Start(lead=2.0), Start(within=0.2)]
    digests = {digest_of(Request("p", start=start)) for start in [None, *together, Start(0.1, AT)]}
    assert len(digests) == 7


# -- state 1: until it is too late


@pytest.mark.parametrize("passed", [0.0, 59.999999, 60.0, 60.499999, 60.5, 61.0])
@pytest.mark.parametrize("life", [LIFE, OTHER])
def test_it_is_collected_until_within_after_its_instant(passed: float, life: str) -> None:
    late = passed >= 60.5 or life == OTHER
    at = moment(passed, life)
    assert is_over(Board().record, at) is late
    board = Board()
    assert refused(board.collect(at)) == (Code.WRONG_STATE if late else None)
    board = Board()
    board.expire(at)
    assert board.end == (EXPIRED if late else (State.REQUESTED, None, None))


def test_it_expires_by_lab_time_also_while_nobody_was_connected() -> None:
    board = Board()
    board.expire(moment(60.5, ticks=0.0))
    assert board.end == EXPIRED
    assert board.command.report is not None
    assert board.command.report.reason == "not collected before its start"


def test_in_another_life_the_reason_says_so() -> None:
    board = Board()
    board.expire(moment(1.0, OTHER))
    assert board.command.report is not None
    assert "began anew" in board.command.report.reason


def test_the_earlier_end_counts() -> None:
    board = Board(replace(REQUEST, expires=20.0))
    assert ends_at(board.record, moment(5)) == 1e9 + 20
    board = Board()
    assert ends_at(board.record, moment(5)) == 1e9 + 60.5
    assert ends_at(board.record, moment(5, OTHER)) == 1e9 + 5
    board = Board(replace(REQUEST, expires_at=1e9 + 30))
    assert ends_at(board.record, moment(5)) == 1e9 + 30
    assert latest_start_s(board.record, moment(5)) == 55.5
    board.collect(moment(6))
    assert latest_start_s(board.record, moment(7)) is None


# -- state 2: the run, from the instant on


@pytest.mark.parametrize(
    ("collected", "life_then", "left"),
    [
        (1.0, LIFE, 60 + 15),  # from the instant
        (60.25, LIFE, 60.25 + 15),  # from the grant, which came later
    ],
)
def test_state_2_counts_from_the_instant_or_from_the_grant(
    collected: float, life_then: str, left: float
) -> None:
    board = Board()
    board.collect(moment(collected, life_then))
    assert board.left == pytest.approx(left)
    board.expire(moment(left - 0.001))
    assert board.record.state is State.COLLECTED
    board.expire(moment(left + 0.001))
    assert board.end == (State.RETURNED, Outcome.LOST, Ran.MAYBE)


def test_the_instant_of_another_life_is_past() -> None:
    command = Board().command
    assert starts.ahead_s(command, moment(10)) == 50
    assert starts.ahead_s(command, moment(70)) == 0
    assert starts.ahead_s(command, moment(10, OTHER)) == 0
    assert starts.ahead_s(replace(command, start_at_us=None), moment(10)) == 0


def test_what_is_left_in_state_2_is_no_matter_of_lab_time_any_more() -> None:
    board = Board()
    board.collect(moment(1))
    board.expire(moment(2, OTHER))  # a dead board, and a coordinator of another boot
    assert board.record.state is State.COLLECTED
    board.expire(moment(100, OTHER))
    assert board.end == (State.RETURNED, Outcome.LOST, Ran.MAYBE)


def test_a_cancel_leaves_the_grace_however_far_the_instant_is() -> None:
    board = Board()
    board.collect(moment(1))
    board.hear(CancelAsked("c1"), moment(2))
    assert board.left == pytest.approx(2 + 5)


# -- on the wire


def test_the_envelope_says_what_the_device_needs() -> None:
    board = Board()
    text = encode_envelope(board.record).decode()
    assert '"v":2,' in text
    assert (
        '"start":{"within":0.5,"together":false,"start_at":1764500060.000000,"start_life":"life-1"}'
        in text
    )
    envelope = read_envelope(text.encode())
    assert envelope is not None
    order = read_start_order(json.loads(text)["start"])
    assert order is not None
    assert (order.within, order.together) == (0.5, False)
    assert (order.start_at_us, order.start_life) == (AT, LIFE)
    assert envelope.start == order
    plain = Board(replace(REQUEST, start=None))
    fields = json.loads(encode_envelope(plain.record))
    assert (fields["v"], fields["start"]) == (1, None)
    assert json.loads(encode_signed(text, "k", "s", 2))["v"] == 2


@pytest.mark.parametrize(
    "said",
    [
        {"within": 0.5, "together": False, "start_at": 5.0},
        {"within": 0.5, "together": False, "start_life": "x"},
        {"within": 0, "together": True},
        {"within": 0.5},
        {"together": True},
        {"within": 0.5, "together": True, "start_at": -1, "start_life": "x"},
        {"within": 0.5, "together": True, "start_at": 1e300, "start_life": "x"},
    ],
)
def test_a_start_that_is_none_is_not_obeyed(said: dict[str, object]) -> None:
    assert read_start_order(said) is None


@pytest.mark.parametrize("us", [AT, AT + 1, AT + 123_456, AT + 999_999, AT + 100_000])
def test_a_status_has_the_instant_in_six_decimals_and_its_life(us: int) -> None:
    command = replace(Board().command, start_at_us=us)
    record = Record("pi1", State.COLLECTED, 1, 2, current=command)
    digits = f"{us // S}.{us % S:06}"
    payload = encode_status(record)
    assert f'"boot":null,"start_at":{digits},"cancelling"'.encode() in payload
    head = read_status(payload)
    assert head is not None
    assert (head.start_at_us, head.start_life) == (us, LIFE)
    assert list(json.loads(payload)).index("queued") < list(json.loads(payload)).index("start_life")
    assert f',"start_at":{digits},"start":'.encode() in encode_result(command, State.REST)
    last = encode_status(record, 10)  # the smallest that there is
    assert read_status(last) == head
    assert f'"start_at":{digits},'.encode() in last


def test_a_text_that_looks_like_the_field_is_left_alone() -> None:
    text = ',"start_at":5,"started":5,'
    command = replace(
        Board().command, request=replace(REQUEST, program=text, meta=json.dumps(text))
    )
    payload = json.loads(encode_status(Record("pi1", State.COLLECTED, current=command)))
    assert payload["hw_command"] == text
    assert payload["start_at"] == AT / S


@pytest.mark.parametrize("life", [None, "", 5, "missing"])
def test_an_instant_without_its_life_is_none(life: object) -> None:
    fields = json.loads(encode_status(Record("pi1", current=Board().command)))
    fields["start_life"] = life
    if life == "missing":
        del fields["start_life"]
    head = read_status(json.dumps(fields).encode())
    assert head is None if life == 5 else head is not None and head.start_at_us is None


def test_a_request_says_its_start_again_as_it_was_read() -> None:
    for said in (
        {"at": 1764500060.123456, "within": 0.25},
        {"together": True, "wait": 6.0, "lead": 2.0, "within": 0.2, "need": 3},
    ):
        assert start_json(read_start(said)) == said
    assert read_start({"together": True}) == Start(0.1, None, 5.0, 1.0, 1)
    assert start_order_json(Command("pi1", "c1", Request("p"))) is None


def test_a_heartbeat_says_what_its_device_can() -> None:
    def can(**more: object) -> object:
        heard = read_heartbeat(encode_heartbeat(online=True, journal="j", boot=1, **more))
        assert isinstance(heard, HeartbeatReceived)
        return heard.can

    assert can(can=["more", "start", "start"]) == ("start",)
    assert can() == can(can=["more"]) == can(can="start") == can(can=None) == can(can=[1]) == ()


def test_everything_up_to_settled_fits_with_the_longest_names() -> None:
    latest = int(limits.EXPIRES_AT_S[1] * S) + S - 1
    command = replace(
        Board().command, id="i" * 64, start_at_us=latest, journal="j" * 64, boot=2**53
    )
    pairs = tuple(("i" * 64, f"{n}".rjust(64, "j")) for n in range(4))
    record = Record("u" * 64, State.COLLECTED, 2**53, 2**53, settled=pairs, current=command)
    payload = encode_status(record).decode()
    assert payload.index(',"user":') <= limits.STATUS_FIRST


def test_an_envelope_goes_out_only_while_it_may_be_collected() -> None:
    board = Board(None)
    decision = board.hear(Requested(REQUEST))
    assert any(isinstance(effect, PublishEnvelope) for effect in decision.effects)
