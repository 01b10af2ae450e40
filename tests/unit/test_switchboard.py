"""operator.switchboard: several conversations on one connection, each as if it were alone."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from inspect import GEN_CLOSED, getgeneratorstate
from math import inf
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.operator.client import Client
from hwsync.operator.conversation import ANSWER_S, Conversation, Talk
from hwsync.operator.run import Run, RunRequest
from hwsync.operator.switchboard import Switchboard
from hwsync.protocol.errors import Code, NoCoordinator, Refused, TooLarge
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.transport import Connected, Delivery, Denied, Disconnected
from hwsync.transport.signals import Sent
from tests.support.operator_line import error, result, status
from tests.support.ports import LOOPBACK

ENDED = {"state": 0, "outcome": "ok", "ran": "yes", "exit_code": 0}


class Connection:
    """One connection, pretended: what was said on it, and what was acknowledged."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[str] = []
        self.acknowledged: list[int] = []
        self.board = Switchboard(
            lambda delivery: self.acknowledged.append(delivery.mid), monotonic=lambda: self.now
        )

    def conversation(self, user: str = "pi1") -> Conversation:
        return Conversation(
            Topics(), user, lambda topic, _: self.sent.append(topic), monotonic=lambda: self.now
        )

    def begin(self, talk: Talk[Any]) -> Future[Any]:
        return self.board.begin(talk)

    def bring(self, *deliveries: Delivery) -> None:
        for number, delivery in enumerate(deliveries, 1):
            self.board.hear(replace(delivery, mid=number))

    def silence(self, seconds: float) -> None:
        until = self.now + seconds
        while (left := until - self.now) > 0:
            self.now += min(self.board.patience, left)
            self.board.hear(None)


@pytest.fixture
def connection() -> Connection:
    return Connection()


def of(user: str, delivery: Delivery) -> Delivery:
    """The same of another user."""
    return replace(delivery, topic=delivery.topic.replace("pi1", user))


def test_each_of_two_conversations_hears_its_answer_and_it_is_acknowledged_once(
    connection: Connection,
) -> None:
    first = connection.begin(connection.conversation().querying("c1"))
    second = connection.begin(connection.conversation().querying("c2"))
    connection.bring(result("two", "c2"), result("one", "c1"))
    assert first.result(0)["hw_command"] == "one"
    assert second.result(0)["hw_command"] == "two"
    assert connection.acknowledged == [1, 2]


def test_two_users_can_be_asked_at_the_same_time(connection: Connection) -> None:
    """What is said of one is no answer of the other, though ids may be the same."""
    one = connection.begin(connection.conversation("pi1").reading())
    two = connection.begin(connection.conversation("pi2").reading())
    connection.bring(of("pi2", status("two")), of("pi2", result("two")))
    assert two.result(0)["hw_command"] == "two"
    assert not one.done()
    connection.bring(status("one"), result("one"))
    assert one.result(0)["hw_command"] == "one"


def test_two_runs_are_followed_to_their_ends(connection: Connection) -> None:
    runs = {
        user: Run(connection.conversation(user), RunRequest(program="x", id="c1"))
        for user in ("pi1", "pi2")
    }
    ends = {user: connection.begin(run.following()) for user, run in runs.items()}
    connection.bring(of("pi2", result("x")), result("x", **ENDED), of("pi2", result("x", **ENDED)))
    for end in ends.values():
        assert end.result(0)["state"] == State.REST
    assert connection.sent == ["hw/pi1/query", "hw/pi2/query"]


def test_one_that_is_refused_takes_no_other_with_it(connection: Connection) -> None:
    refused = connection.begin(connection.conversation().querying("c1"))
    other = connection.begin(connection.conversation().querying("c2"))
    connection.bring(error(Code.NOT_CURRENT, "query", "c1"), result("two", "c2"))
    with pytest.raises(Refused):
        refused.result(0)
    assert other.result(0)["id"] == "c2"


def test_each_waits_as_long_as_it_would_alone(connection: Connection) -> None:
    assert connection.board.patience == inf
    first = connection.begin(connection.conversation().querying("c1"))
    connection.silence(ANSWER_S / 2)
    second = connection.begin(connection.conversation().querying("c2"))
    connection.silence(ANSWER_S / 2 + 0.1)
    assert isinstance(first.exception(0), NoCoordinator)
    assert not second.done()
    connection.silence(ANSWER_S / 2)
    assert isinstance(second.exception(0), NoCoordinator)
    assert connection.board.patience == inf
    alone = Connection()
    alone.begin(alone.conversation().querying("c1"))
    alone.silence(ANSWER_S)
    assert connection.sent == alone.sent * 2


def test_one_that_was_cancelled_says_nothing_more(connection: Connection) -> None:
    talk = connection.conversation().querying("c1")
    connection.begin(talk).cancel()
    assert connection.board.patience == inf
    assert getgeneratorstate(talk) == GEN_CLOSED
    connection.now += ANSWER_S
    connection.board.hear(None)
    connection.bring(result("one"))
    assert connection.sent == ["hw/pi1/query"]
    assert connection.acknowledged == [1]


def test_ctrl_c_ends_the_talk_that_it_reached(connection: Connection) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    request = RunRequest(program="x", id="c1")
    run = Run(connection.conversation(), request)
    future = connection.begin(run.requesting(waiting=interrupted))
    with pytest.raises(KeyboardInterrupt):
        connection.silence(ANSWER_S)
    assert future.cancelled()


def test_a_large_message_of_another_is_not_why_the_broker_hung_up(connection: Connection) -> None:
    large = Disconnected("hung up", True, hung_up=True, unanswered=(Sent("hw/pi2/request", 10**6),))
    one = connection.begin(connection.conversation("pi1").querying("c1"))
    two = connection.begin(connection.conversation("pi2").querying("c1"))
    for _ in range(2):
        connection.board.hear(replace(large))
    assert isinstance(two.exception(0), TooLarge)
    assert not one.done()


def test_the_coordinators_health_is_heard_by_all(connection: Connection) -> None:
    conversations = [connection.conversation(user) for user in ("pi1", "pi2")]
    for conversation in conversations:
        connection.begin(conversation.querying("c1"))
    health = dumps({"condition": "ok", "time": 1.0, "max_message": 100_000}).encode()
    connection.bring(Delivery("hw/@hwsync/health", health, 1, True, False, 1, 1))
    assert [one.standing.max_message for one in conversations] == [100_000, 100_000]


def test_two_talks_of_one_conversation_count_one_end_once(connection: Connection) -> None:
    conversation = connection.conversation("pi1")
    both = [connection.begin(conversation.querying(id)) for id in ("c1", "c2")]
    ends = [
        Disconnected("hung up", True, hung_up=True, unanswered=(Sent("hw/pi1/request", 10**6),))
        for _ in range(2)
    ]
    connection.board.hear(ends[0])
    assert not any(future.done() for future in both)
    connection.board.hear(ends[1])
    assert all(isinstance(future.exception(0), TooLarge) for future in both)


def test_a_talk_that_another_has_just_cancelled_hears_no_more(connection: Connection) -> None:
    def cancels(later: list[Future[Any]]) -> Talk[None]:
        yield 1.0
        later[0].cancel()

    def answers() -> Talk[str]:
        yield 1.0
        return "done"

    def waits() -> Talk[str]:
        yield 1.0
        return "heard"

    later: list[Future[Any]] = []
    connection.begin(cancels(later))
    later.append(connection.begin(answers()))
    last = connection.begin(waits())
    connection.board.hear(Connected(True, 5))
    assert later[0].cancelled()
    assert last.result(0) == "heard"


def test_a_refused_message_ends_the_talk_that_said_it_and_no_other(connection: Connection) -> None:
    one = connection.conversation("pi1")
    run = Run(one, RunRequest(program="x", id="c1"))
    requests = connection.begin(run.requesting())
    queries = connection.begin(one.querying("c2"))
    of_another = connection.begin(connection.conversation("pi2").querying("c1"))
    connection.board.hear(Denied("hw/pi1/cancel", "not authorized"))
    assert not requests.done()
    connection.board.hear(Denied("hw/pi1/request", "not authorized"))
    assert isinstance(requests.exception(0), Refused)
    assert not queries.done()
    connection.board.hear(Denied("hw/pi1/query", "not authorized"))
    assert isinstance(queries.exception(0), Refused)
    assert not of_another.done()


def test_conversations_on_one_connection_know_what_broker_and_coordinator_said() -> None:
    client = Client(BrokerUrl("mqtt", LOOPBACK, 1), Topics(), "+", named=("pi1", "pi2"))
    client.hear_of_connection(Connected(False, 5, max_packet=20_000))
    client.standing.degraded = "the disk is full"
    later = client.conversation("pi1")
    assert later.standing.degraded == "the disk is full"
    with pytest.raises(TooLarge):
        later.publish(TopicKind.REQUEST, b"x" * 30_000)
