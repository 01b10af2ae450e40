"""MQTT 5 replies: who is told what and when, once surely, and never under the root."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsync.coordinator.loop import REPLY_LOOK_S
from hwsync.protocol import limits
from hwsync.transport import Delivery
from tests.support.coordinator import Deed, Lab, Sent, request, result, sent

ME, DATA = "replies/me", b"\x00\xff"


def asking(lab: Lab, payload: bytes, topic: str = ME, kind: str = "request") -> Delivery:
    return replace(lab.delivery(kind, payload), reply_topic=topic, correlation=DATA)


def replies(deeds: list[Deed], topic: str = ME) -> list[Sent]:
    return sent(deeds, topic)


def ask(lab: Lab, payload: bytes | None = None) -> list[Deed]:
    return lab.step(asking(lab, request() if payload is None else payload))


def collect(lab: Lab) -> list[Deed]:
    return lab.hear("collected", b'{"id":"c1","journal":"j1","boot":1}')


def end(lab: Lab) -> list[Deed]:
    return lab.hear("response", result())


def test_the_end_of_the_run_is_replied_once_with_the_correlation_data(lab: Lab) -> None:
    assert replies(ask(lab)) == []
    assert replies(collect(lab)) == []
    (reply,) = replies(end(lab))
    assert (reply.correlation, reply.retain) == (DATA, False)
    assert (reply.json["state"], reply.json["outcome"], reply.json["ran"]) == (3, "ok", "yes")
    assert replies(lab.hear("analysis", b"fine")) == []
    lab.later(REPLY_LOOK_S)
    assert replies(lab.restart()) == []


def test_a_retained_request_is_replied_and_its_asker_is_known(lab: Lab) -> None:
    lab.step(replace(asking(lab, request()), retain=True))
    collect(lab)
    assert len(replies(end(lab))) == 1
    assert lab.rows("commands", "asked_by, asked_known_by") == [("me", "reply topic")]


@pytest.mark.parametrize(
    ("way", "outcome", "state"),
    [("cancel", "cancelled", 0), ("reset", "cancelled", 0), ("expire", "expired", 0)],
)
def test_what_never_ran_is_replied_too(lab: Lab, way: str, outcome: str, state: int) -> None:
    ask(lab, request(expires=5))
    deeds = lab.later(5.0) if way == "expire" else lab.hear(way, b"")
    (reply,) = replies(deeds)
    assert (reply.json["outcome"], reply.json["state"], reply.json["id"]) == (outcome, state, "c1")


def test_a_lost_command_is_replied_and_a_late_truth_is_not(lab: Lab) -> None:
    ask(lab)
    collect(lab)
    (reply,) = replies(lab.hear("reset", b""))
    assert (reply.json["outcome"], reply.json["state"]) == ("lost", 0)
    assert replies(end(lab)) == []


def test_a_request_names_its_reply_topic_where_there_is_no_mqtt_5(lab: Lab) -> None:
    lab.hear("request", request(reply="replies/anna/1"))
    collect(lab)
    (reply,) = [one for one in end(lab) if isinstance(one, Sent) and one.kind == "replies/anna/1"]
    assert (reply.json["outcome"], reply.correlation) == ("ok", b"")
    assert lab.rows("commands", "asked_by, asked_known_by") == [("anna", "reply topic")]


@pytest.mark.parametrize("topic", ["elsewhere", "replies", "replies/@x", "hw/pi1/status"])
def test_a_reply_topic_in_a_request_is_an_accounts(lab: Lab, topic: str) -> None:
    (error,) = sent(lab.hear("request", request(reply=topic)), "error")
    assert (error.json["error"], error.json["id"]) == ("not_allowed", "c1")
    assert "is no account's" in error.json["message"]
    (error,) = sent(lab.hear("request", request(reply="replies/anna/+")), "error")
    assert error.json["error"] == "bad_payload"


def test_the_response_topic_counts_where_both_are_there(lab: Lab) -> None:
    ask(lab, request(reply="replies/anna/1"))
    assert lab.rows("commands", "asked_by") == [("me",)]


@pytest.mark.parametrize("kind", ["request", "command"])
def test_a_refusal_is_replied(lab: Lab, kind: str) -> None:
    lab.device(2)
    for payload, code in ((b"print(1)", "busy"), (b'{"program":1}', "bad_payload")):
        (reply,) = replies(lab.step(asking(lab, payload, kind=kind)))
        assert (reply.json["error"], reply.correlation) == (code, DATA)


def test_a_refusal_that_the_broker_brings_again_is_replied_again(lab: Lab) -> None:
    lab.device(2)
    refused = replace(asking(lab, b"print(1)"), mid=77)
    for delivery in (refused, replace(refused, dup=True)):
        assert len(replies(lab.step(delivery))) == 1


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("hw/pi1/status", "not_allowed"),
        ("hw", "not_allowed"),
        ("$SYS/x", "not_allowed"),
        ("replies/+", "bad_payload"),
        ("replies/#", "bad_payload"),
        ("x" * (limits.MAX_REPLY_TOPIC + 1), "bad_payload"),
    ],
)
def test_a_topic_where_nobody_may_be_told_is_refused(lab: Lab, topic: str, code: str) -> None:
    deeds = lab.step(asking(lab, request(), topic))
    (error,) = sent(deeds, "error")
    assert (error.json["error"], error.json["id"]) == (code, "c1")
    assert [deed.kind for deed in deeds if isinstance(deed, Sent)] == ["error", "status"]
    assert lab.store.command("pi1", "c1") is None


def test_too_much_correlation_data_is_refused(lab: Lab) -> None:
    asked = replace(asking(lab, request()), correlation=b"x" * (limits.MAX_CORRELATION + 1))
    (error,) = sent(lab.step(asked), "error")
    assert error.json["error"] == "too_large"


def test_a_topic_that_only_begins_like_the_root_is_none_of_ours(lab: Lab) -> None:
    lab.step(asking(lab, request(), "hwx/me"))
    collect(lab)
    assert len(replies(end(lab), "hwx/me")) == 1


def test_other_messages_have_no_reply(lab: Lab) -> None:
    lab.device(1)
    assert replies(lab.step(asking(lab, b"", kind="cancel"))) == []
    assert replies(lab.step(asking(lab, b"", kind="cancel"))) == []


def test_everybody_who_asks_for_the_same_id_is_told(lab: Lab) -> None:
    ask(lab)
    for number in range(limits.MAX_REPLIES - 1):
        assert replies(lab.step(asking(lab, request(), f"r/{number}")), f"r/{number}") == []
    # One more than is kept is told how it stands now.
    (early,) = replies(lab.step(asking(lab, request(), "r/late")), "r/late")
    assert early.json["state"] == 1
    lab.restart()
    collect(lab)
    told = end(lab)
    assert len(replies(told)) == 1
    for number in range(limits.MAX_REPLIES - 1):
        assert len(replies(told, f"r/{number}")) == 1
    (late,) = replies(lab.step(asking(lab, request(), "r/after")), "r/after")
    assert late.json["outcome"] == "ok"
    lab.hear("analysis", b"fine")
    lab.hear("request", request("c2"))
    (old,) = replies(lab.step(asking(lab, request(), "r/old")), "r/old")
    assert (old.json["id"], old.json["state"], old.json["outcome"]) == ("c1", 0, "ok")


def test_what_waits_in_the_queue_is_replied_at_its_end(lab: Lab) -> None:
    lab.device(2)
    assert replies(lab.step(asking(lab, request("c2", queue=True)))) == []
    (reply,) = replies(lab.hear("cancel", b'{"id":"c2"}'))
    assert (reply.json["id"], reply.json["outcome"], reply.json["state"]) == ("c2", "cancelled", 0)


def test_a_reply_is_owed_until_it_surely_arrived(lab: Lab) -> None:
    ask(lab)
    collect(lab)
    lab.wire.all_acknowledged = False
    assert len(replies(end(lab))) == 1
    lab.later(REPLY_LOOK_S)
    assert lab.rows("commands", "replies") != [("[]",)]
    lab.hear("analysis", b"fine")
    lab.hear("request", request("c2"))
    (again,) = replies(lab.restart())
    assert (again.json["id"], again.json["state"], again.json["outcome"]) == ("c1", 0, "ok")
    assert lab.coordinator.wait() is not None
    lab.wire.all_acknowledged = True
    lab.later(REPLY_LOOK_S)
    assert replies(lab.restart()) == []
    assert set(lab.rows("commands", "replies")) == {("[]",)}


def test_a_reply_of_another_connection_proves_nothing(lab: Lab) -> None:
    ask(lab)
    collect(lab)
    assert len(replies(end(lab))) == 1
    lab.wire.connection = 2
    lab.later(REPLY_LOOK_S)
    assert lab.rows("commands", "replies") != [("[]",)]
    lab.disconnect()
    assert len(replies(lab.connect())) == 1
