"""What is sent when, and what is made smaller or given up, after the broker hung up."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from hwsync.protocol.limits import KIB, MAX_MESSAGE
from hwsync.transport import Connected, Disconnected, Sent, Subscribed
from hwsync.transport.outbox import (
    AT_ONCE_S,
    CALM_S,
    FLOOR,
    HEADER,
    LEARNED_S,
    MOST_EACH,
    MOST_HELD,
    MOST_REFUSED,
    SMALL,
    Capacity,
    Message,
    Outbox,
)


class Broker:
    """Takes what ``takes`` says; hangs up on anything else, and on what was sent beside it."""

    def __init__(self, takes: Callable[[str, int], bool]) -> None:
        self.takes = takes
        self.taken: list[tuple[str, int]] = []
        self.under_way_now: list[tuple[str, int]] = []
        self.all_acknowledged = True
        self.up = True

    def under_way(self, topic: str) -> bool:
        return any(one == topic for one, _ in self.under_way_now)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        assert qos == 1
        if not self.up:
            return False
        self.under_way_now.append((topic, len(payload)))
        self.all_acknowledged = False
        return True

    def answer(self) -> Disconnected | None:
        """Look at what came: the end of the connection, or None."""
        for number, (topic, size) in enumerate(self.under_way_now):
            if not self.takes(topic, size):
                left = tuple(Sent(*one) for one in self.under_way_now[number:])
                self.under_way_now, self.up = [], False
                return Disconnected("hung up", True, hung_up=True, unanswered=left)
            self.taken.append((topic, size))
        self.under_way_now = []
        self.all_acknowledged = True
        return None


class Owner:
    """Says statuses again at each connect, as everybody does, and courtesies once."""

    def __init__(self, takes: Callable[[str, int], bool], configured: int = MAX_MESSAGE) -> None:
        self.now = 100.0
        self.broker = Broker(takes)
        self.given_up: list[str] = []
        self.outbox = Outbox(
            *(self.broker, Capacity(configured), lambda: self.now),
            lambda message: self.given_up.append(message.topic),
        )
        self.level: dict[str, int] = {}  # by topic: bytes

    def connect(self) -> None:
        """A connection, which is subscribed a little later."""
        self.broker.up = self.broker.all_acknowledged = True
        self.outbox.note_connection(Connected(False, 4))
        self.outbox.flush()
        self.outbox.note_connection(Subscribed())
        for topic, size in self.level.items():
            self.outbox.send(message(topic, size))

    def cut(self) -> None:
        """The broker hangs up on what it was sent."""
        end = self.broker.answer()
        assert end is not None
        self.outbox.note_connection(end)

    def courtesy(self, topic: str, size: int, *, foreign: bool = False) -> None:
        self.outbox.send(message(topic, size, courtesy=True, foreign=foreign))

    def run(self, most: int = 60) -> int:
        """Until all is quiet; the number of connections that this took."""
        for topic, size in self.level.items():
            self.outbox.send(message(topic, size))
        for connects in range(1, most):
            while (end := self.broker.answer()) is None:
                self.now += 0.01
                self.outbox.flush()
                if self.outbox.all_acknowledged and self.outbox.wait() is None:
                    self.now += CALM_S
                    self.outbox.flush()
                    return connects
            self.outbox.note_connection(end)
            self.outbox.flush()  # a round goes on while nobody is connected
            self.connect()
        raise AssertionError(f"still not quiet: {self.broker.taken[-5:]}")


def message(topic: str, size: int, *, courtesy: bool = False, foreign: bool = False) -> Message:
    return Message(
        topic, lambda limit: b"x" * min(size, limit), topic, courtesy=courtesy, foreign=foreign
    )


def test_as_long_as_all_is_taken_everything_goes_at_once_in_its_order() -> None:
    owner = Owner(lambda *_: True)
    for topic in ("a", "b", "c"):
        owner.courtesy(topic, 3_000_000)
        owner.outbox.send(message(f"status {topic}", 900_000))
    assert [topic for topic, _ in owner.broker.under_way_now] == [
        *("a", "status a", "b", "status b", "c", "status c")
    ]
    assert owner.run() == 1
    assert owner.given_up == []


def test_a_reply_on_a_topic_that_the_broker_refuses_is_given_up_and_all_else_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    owner.level = {"status": 500}
    owner.courtesy("deep", 500, foreign=True)
    owner.courtesy("result", 50_000)
    assert owner.run() == 4  # in the crowd, by itself twice, and the one that stands
    assert owner.given_up == ["deep"]
    assert owner.outbox.given_up == 1
    assert "deep" in owner.outbox.last_given_up
    assert {"status", "result"} <= {topic for topic, _ in owner.broker.taken}
    assert owner.outbox.limit == MAX_MESSAGE, "a foreign topic says nothing of sizes"
    errors = [one.message for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "deep" in errors[0]
    assert "500 bytes" in errors[0]


@pytest.mark.parametrize("limit", [1_048_576, 131_072, 10_000, FLOOR])
def test_what_is_no_courtesy_is_made_smaller_until_it_is_taken(limit: int) -> None:
    owner = Owner(lambda _, size: size <= limit)
    owner.level = {"large": 4_000_000, "small": 600}
    owner.run()
    sizes = [size for topic, size in owner.broker.taken if topic == "large"]
    assert sizes
    assert limit / 4 <= sizes[-1] <= limit
    assert owner.given_up == []
    owner.level["other"] = 3_000_000
    assert owner.run() == 1, "the limit is known from now on"


def test_an_answer_that_is_too_large_is_made_smaller_too() -> None:
    owner = Owner(lambda _, size: size <= 131_072)
    owner.courtesy("result", 4_000_000)
    owner.run()
    assert [topic for topic, size in owner.broker.taken if size > SMALL] == ["result"]
    assert owner.given_up == []


def test_a_courtesy_that_is_refused_at_a_kilobyte_is_given_up() -> None:
    owner = Owner(lambda topic, _: topic != "error")
    owner.courtesy("error", FLOOR)
    owner.run()
    assert owner.given_up == ["error"]
    assert owner.outbox.limit == MAX_MESSAGE


def test_a_network_that_is_lost_twice_costs_nothing() -> None:
    owner = Owner(lambda *_: True)
    owner.level = {"response": 300_000}
    owner.outbox.send(message("response", 300_000))
    for _ in range(5):
        unanswered = tuple(Sent(*one) for one in owner.broker.under_way_now)
        owner.broker.under_way_now = []
        owner.outbox.note_connection(Disconnected("no answer", True, unanswered=unanswered))
        owner.connect()
    owner.level = {}
    owner.run()
    assert owner.broker.taken == [("response", 300_000)]


def test_a_broker_that_ends_by_itself_once_while_one_is_under_way_costs_nothing() -> None:
    died: list[bool] = []

    def takes(topic: str, size: int) -> bool:
        dies = size > SMALL and len(died) < 2
        died.extend([True] * dies)
        return not dies

    owner = Owner(takes)
    owner.level = {"response": 300_000}
    owner.run()
    assert owner.broker.taken == [("response", 300_000)]


def test_a_newer_status_takes_the_place_of_one_that_waits() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    owner.courtesy("deep", 10, foreign=True)
    owner.cut()
    owner.connect()
    owner.outbox.send(message("status", 50_000))
    owner.outbox.send(message("status", 700))
    assert owner.broker.under_way_now == [("status", 700)]
    owner.run()
    assert [size for topic, size in owner.broker.taken if topic == "status"] == [700]


def test_what_cannot_be_made_smaller_and_is_too_large_is_not_sent_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner = Owner(lambda *_: True, configured=10_000)
    envelope = Message("command", lambda _: b"x" * 20_000, "command")
    for _ in range(3):
        assert owner.outbox.send(envelope) == 0
    assert owner.broker.under_way_now == []
    assert [one.message for one in caplog.records] == [
        "NOT SENT, 20000 bytes on command: the broker takes at most 10000 bytes"
    ]


def test_what_is_said_again_while_it_is_under_way_is_given_up_once() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    for _ in range(3):
        owner.courtesy("deep", 5, foreign=True)
        owner.cut()
        owner.connect()
        owner.outbox.flush()
    assert owner.given_up == ["deep"]


def test_a_topic_that_somebody_chose_and_the_broker_refuses_is_never_tried_again() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    for number in range(20):
        owner.outbox.send(
            Message("deep", lambda _: b"x", f"deep {number}", courtesy=True, foreign=True)
        )
    assert owner.run() == 4
    assert owner.given_up == 20 * ["deep"]
    owner.courtesy("deep", 5, foreign=True)
    owner.courtesy("replies/me", 5, foreign=True)
    assert owner.run() == 1
    assert ("replies/me", 5) in owner.broker.taken
    owner.now += LEARNED_S
    owner.courtesy("deep", 5, foreign=True)
    assert owner.run() == 4, "an hour later it is tried again"


def test_many_such_topics_are_no_way_to_cut_a_coordinator_off_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner = Owner(lambda topic, _: not topic.startswith("bad"))
    for number in range(200):
        owner.courtesy(f"bad/{number}", 5, foreign=True)
    owner.courtesy("hw/pi1/error", 5)
    connects = owner.run()
    assert connects <= 2 * MOST_REFUSED + 3
    assert len(owner.given_up) == 200
    assert ("hw/pi1/error", 5) in owner.broker.taken
    owner.courtesy("replies/me", 5, foreign=True)
    assert owner.given_up[-1] == "replies/me"
    owner.now += LEARNED_S
    owner.courtesy("replies/me", 5, foreign=True)
    owner.run()
    assert ("replies/me", 5) in owner.broker.taken


def test_nobody_is_careless_between_the_connect_and_what_follows_it() -> None:
    owner = Owner(lambda _, size: size <= 131_072)
    owner.outbox.send(message("status", 500_000))
    owner.cut()
    owner.connect()
    owner.broker.all_acknowledged = True
    owner.outbox.flush()  # before the owner has said its statuses again
    owner.outbox.send(message("status", 500_000))
    assert owner.broker.under_way_now == [], "it goes by itself, in its turn"


def test_an_answer_that_was_lost_in_the_crowd_is_not_lost_for_good() -> None:
    owner = Owner(lambda _, size: size <= 1_000_000)
    for number in range(3):
        owner.outbox.send(message(f"hw/pi1/result/q{number}", 1_570_000, courtesy=True))
    owner.run()
    assert {topic for topic, _ in owner.broker.taken} == {f"hw/pi1/result/q{n}" for n in range(3)}
    assert all(250_000 < size <= 1_000_000 for _, size in owner.broker.taken)
    assert (owner.outbox.dropped, owner.given_up) == (0, [])


def test_what_is_no_courtesy_goes_before_all_of_them() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    for number in range(30):
        owner.courtesy(f"replies/{number}", 5, foreign=True)
    owner.courtesy("deep", 5, foreign=True)
    owner.cut()
    owner.level = {"grant": 20_000}
    owner.connect()
    owner.outbox.flush()
    assert owner.broker.under_way_now == [("grant", 20_000)]
    owner.broker.answer()
    owner.outbox.flush()
    owner.outbox.send(message("another grant", 19_000))
    assert ("another grant", 19_000) in owner.broker.under_way_now, "that size went through"


def test_resets_of_a_network_while_something_long_is_sent_prove_nothing() -> None:
    owner = Owner(lambda *_: True)
    owner.level = {"response": 400_000}
    owner.outbox.send(message("response", 400_000))
    for _ in range(6):
        unanswered = tuple(Sent(*one) for one in owner.broker.under_way_now)
        owner.broker.under_way_now = []
        owner.now += AT_ONCE_S + 0.1  # it was long under way
        owner.outbox.note_connection(
            Disconnected("reset", True, hung_up=True, unanswered=unanswered)
        )
        owner.connect()
        owner.outbox.flush()
    owner.level = {}
    owner.run()
    assert owner.broker.taken == [("response", 400_000)]


def test_a_stream_of_other_messages_keeps_nothing_waiting() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    owner.courtesy("deep", 10, foreign=True)
    owner.cut()
    owner.connect()
    owner.outbox.send(message("hw/pi1/result/c1", 10, courtesy=True))
    waiting = ["deep", "hw/pi1/result/c1"]
    for _ in range(2):
        owner.outbox.send(message("status", 10))  # there is always one on its way
        owner.outbox.flush()
        assert owner.broker.under_way_now[-1][0] == waiting.pop(0)
        owner.broker.under_way_now = [("status", 10)]
    assert not owner.broker.all_acknowledged


def told(broker: Broker) -> list[str]:
    """The topics of all that was sent, in their order."""
    return [topic for topic, _ in (*broker.taken, *broker.under_way_now)]


def answer(number: int, size: int, owner: str = "pi1", topic: str = "") -> Message:
    topic = topic or f"{owner} {number}"
    key = f"{topic} {number}"
    return Message(topic, lambda _: b"x" * size, key, courtesy=True, owner=owner)


def careful(proven: int) -> Owner:
    """Cut off once; something of so many bytes has gone through by itself since."""
    owner = Owner(lambda topic, _: topic != "deep")
    owner.courtesy("deep", 10, foreign=True)
    owner.cut()
    owner.level = {"grant": proven}
    owner.connect()
    owner.outbox.flush()
    assert owner.broker.answer() is None
    owner.outbox.flush()  # the deep one is under way
    assert told(owner.broker) == ["grant", "deep"]
    owner.broker.taken, owner.broker.under_way_now = [], [("deep", 10)]
    return owner


def test_a_smaller_answer_does_not_overtake_an_older_one_of_the_same_board() -> None:
    owner = careful(proven=20_000)
    owner.outbox.send(answer(1, 50_000, topic="hw/pi1/result/c1"))  # as it was a moment ago
    owner.outbox.send(answer(2, 500, topic="hw/pi1/result/c1"))  # as it is now
    owner.outbox.send(answer(3, 500, owner="pi2"))
    owner.outbox.send(message("status", 500))
    assert told(owner.broker) == ["deep", "pi2 3", "status"], "nobody else waits for that"
    owner.cut()
    owner.level = {}
    owner.connect()
    owner.run()
    sizes = [size for topic, size in owner.broker.taken if topic == "hw/pi1/result/c1"]
    assert sizes == [50_000, 500], "what is said last is what is true"


def test_answers_behind_one_that_goes_by_itself_wait_for_it_and_go_all_at_once() -> None:
    owner = careful(proven=20_000)
    owner.broker.under_way_now = []  # the deep one is taken this time
    owner.outbox.send(answer(0, 50_000))
    owner.outbox.flush()
    assert told(owner.broker) == ["pi1 0"]
    for number in range(1, 4):
        owner.outbox.send(answer(number, 500))
    owner.outbox.send(answer(4, 60_000))
    owner.outbox.send(answer(5, 500))
    assert told(owner.broker) == ["pi1 0"], "it may be lost, and said again"
    owner.broker.answer()
    owner.outbox.flush()
    assert told(owner.broker) == [f"pi1 {n}" for n in range(5)], "the larger one by itself"
    owner.broker.answer()
    owner.outbox.flush()
    assert told(owner.broker) == [f"pi1 {n}" for n in range(6)]


@pytest.mark.parametrize(("hung_up", "sizes"), [(False, (50_000, 500)), (True, (500, 50_000))])
def test_what_was_sent_and_lost_is_said_again_before_what_waits(
    *, hung_up: bool, sizes: tuple[int, int]
) -> None:
    owner = careful(proven=20_000)
    owner.broker.under_way_now = []
    owner.outbox.flush()
    owner.outbox.send(answer(1, sizes[0]))
    if not hung_up:
        owner.outbox.flush()  # the first goes by itself
    owner.outbox.send(answer(2, sizes[1]))
    assert told(owner.broker) == ["pi1 1"]
    lost = tuple(Sent(*one) for one in owner.broker.under_way_now)
    owner.broker.under_way_now = []
    owner.outbox.note_connection(Disconnected("it ended", True, hung_up=hung_up, unanswered=lost))
    owner.level = {}
    owner.connect()
    owner.run()
    assert told(owner.broker) == ["pi1 1", "pi1 2"]


def test_what_waits_has_a_limit() -> None:
    owner = Owner(lambda topic, _: topic != "deep")
    owner.courtesy("deep", 10, foreign=True)
    owner.cut()
    for user in range(MOST_HELD // MOST_EACH + 1):
        for number in range(MOST_EACH + 10):
            topic = f"hw/pi{user}/result/{number}"
            result = Message(topic, lambda _: b"x", topic, courtesy=True, owner=f"pi{user}")
            owner.outbox.send(result)
    # Nobody has more than his share; the deep one waits too.
    asked = (MOST_HELD // MOST_EACH + 1) * (MOST_EACH + 10)
    assert owner.outbox.dropped == asked - (MOST_HELD - 1)


def test_the_limit_is_the_smallest_that_is_known() -> None:
    capacity = Capacity(100_000)
    assert capacity.bytes(0.0) == 100_000
    capacity.connected(50_000)
    assert capacity.bytes(0.0) == 50_000 - HEADER
    capacity.connected(None)
    assert capacity.bytes(0.0) == 100_000
    capacity.learn(4_000_000, 10.0)
    assert capacity.bytes(11.0) == 64 * KIB - HEADER
    capacity.learn(30_000, 12.0)
    assert capacity.bytes(12.0) == 16 * KIB - HEADER
    assert capacity.bytes(12.0 + LEARNED_S) == 100_000
    for _ in range(20):
        capacity.learn(1, 5_000.0)
    assert capacity.bytes(5_000.0) == FLOOR
