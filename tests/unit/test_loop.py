"""What the coordinator answers: the order of its deeds, errors, every connect, queries, analyses.

Saving, redelivery, deadlines and repetitions have files of their own (test_loop_*.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import TooLarge
from hwsync.protocol.record import Ran, State
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import INBOUND
from hwsync.transport import Connected, Subscribed
from tests.support.coordinator import (
    COLLECTED,
    NONCE,
    PERSONS,
    Acknowledged,
    Deed,
    Lab,
    Sent,
    brief,
    heartbeat,
    request,
    result,
    sent,
)

# The order within a step


def test_a_whole_cycle_in_one_step_is_told_status_by_status_and_then_acknowledged(
    lab: Lab,
) -> None:
    deeds = lab.step(*[lab.delivery(kind, payload) for kind, payload in PERSONS])
    assert brief(deeds) == [
        "status 1", "command", "status 2", "status 3", "status 0", 1, 2, 3, 4
    ]  # fmt: skip
    assert [status.json["seq"] for status in sent(deeds, "status")] == [1, 2, 3, 4]


def test_users_of_one_step_are_told_in_the_order_of_their_messages(lab: Lab) -> None:
    deeds = lab.step(
        lab.delivery("request", b"1", user="b"),
        lab.delivery("cancel", b"", user="a"),
        lab.delivery("request", b"1", user="a"),
        lab.delivery("cancel", b"", user="b"),
    )
    assert [deed.topic for deed in deeds if isinstance(deed, Sent)] == [
        "hw/b/status", "hw/b/command", "hw/a/error", "hw/a/status", "hw/a/command", "hw/b/status"
    ]  # fmt: skip
    assert [deed.mid for deed in deeds if isinstance(deed, Acknowledged)] == [1, 2, 3, 4]


def test_one_step_remembers_the_command_that_it_ended_itself(lab: Lab) -> None:
    lab.hear("request", request("c1"))
    lab.step(
        lab.delivery("collected", COLLECTED),
        lab.delivery("reset"),
        lab.delivery("request", request("c2")),
        lab.delivery("response", result("c1")),
    )
    assert lab.record.id == "c2"
    late = lab.store.command("pi1", "c1")
    assert late is not None
    assert late.late
    assert late.report is not None
    assert late.report.ran is Ran.YES


def test_what_is_too_large_to_publish_holds_up_nothing_else(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    def limit(deed: Deed) -> None:
        if isinstance(deed, Sent) and deed.kind == "command":
            raise TooLarge("a message of 5000000 bytes on hw/pi1/command")

    lab.wire.before = limit
    assert brief(lab.step(lab.delivery("request", b"1"), lab.delivery("collected"))) == [
        "status 1", "status 2", 1, 2
    ]  # fmt: skip
    assert "cannot publish on hw/pi1/command: a message of 5000000 bytes" in caplog.text


# Errors

FIELDS = ["error", "message", "hint", "topic", "id", "journal", "state"]


@pytest.mark.parametrize(
    ("state", "kind", "payload", "expected"),
    [
        (1, "request", request("c2"), ("busy", "c2", None)),
        (1, "request", b"print(1)", ("busy", None, None)),
        (0, "cancel", b"", ("wrong_state", None, None)),
        (3, "collected", b"", ("wrong_state", None, None)),
        (2, "collected", b'{"id":"c1","journal":"j2","boot":1}', ("not_current", "c1", "j2")),
        (1, "analysis", b'{"analysis":"x","id":"c9"}', ("not_current", "c9", None)),
        (2, "request", request("c1", "print(0)"), ("id_reused", "c1", None)),
        (1, "request", b'{"program":1,"id":"c3"}', ("bad_payload", "c3", None)),
        (0, "request", request("c3", start={"together": True}), ("not_allowed", "c3", None)),
        (0, "request", request("c3", colour=1), ("unknown_field", "c3", None)),
        (0, "heartbeat", b'{"journal":"j1","boot":1}', ("bad_payload", None, "j1")),
    ],
)
def test_an_error_says_what_where_and_what_to_do(
    lab: Lab, state: int, kind: str, payload: bytes, expected: tuple[str, str | None, str | None]
) -> None:
    lab.device(state)
    (error,) = sent(lab.hear(kind, payload), "error")
    assert list(error.json) == FIELDS
    assert (error.json["error"], error.json["id"], error.json["journal"]) == expected
    assert (error.json["topic"], error.json["state"]) == (f"hw/pi1/{kind}", state)
    assert error.topic == "hw/pi1/error"
    assert error.json["message"]


def test_the_error_of_a_second_request_has_the_line_that_helps(lab: Lab) -> None:
    lab.hand(3)
    (error,) = sent(lab.hear("request", b"2"), "error")
    assert "mosquitto_pub -q 1 -t hw/pi1/analysis -m TEXT" in error.json["hint"]


def test_who_named_an_id_hears_the_status_after_the_error(lab: Lab) -> None:
    lab.hand(1)
    assert brief(lab.hear("request", b"print(1)", mid=7)) == ["error", 7]
    assert brief(lab.hear("request", request("c2"), mid=8)) == ["error", "status 1", 8]


def test_a_refused_message_leaves_a_row(lab: Lab) -> None:
    lab.hand(1)
    (error,) = sent(lab.hear("request", request("c2", "#" * 2_000)), "error")
    columns = "user, time, error, message, hint, topic, id, journal, state, payload"
    (row,) = lab.rows("refused", columns)
    said = error.json
    assert row[:9] == (
        "pi1", lab.clock.wall(), "busy", said["message"], said["hint"], "hw/pi1/request", "c2",
        None, 1,
    )  # fmt: skip
    assert row[9] == request("c2", "#" * 2_000)[: limits.REFUSED_PAYLOAD]
    assert lab.record.seq == 1


def test_rows_of_refused_messages_have_a_cap_for_each_user_also_across_a_restart(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSED_ROWS", 3)
    lab.hear("reset")
    lab.hear("reset", user="pi2")
    lab.step(*[lab.delivery("cancel") for _ in range(4)])
    lab.restart()
    assert brief(lab.hear("cancel", mid=9)) == ["error", 9]
    lab.hear("cancel", user="pi2")
    assert lab.rows("refused", "user") == [("pi1",)] * 3 + [("pi2",)]
    assert lab.rows("refused_counts", "user, total") == [("pi1", 5), ("pi2", 1)]


def test_names_of_no_user_share_one_allowance_and_get_errors_where_they_wrote(lab: Lab) -> None:
    names = ["-x", "a b", "é", "x" * 65, ""]
    deeds = lab.step(*[lab.delivery("request", request(), user=name) for name in names])
    assert [deed.topic for deed in deeds[:-5] if isinstance(deed, Sent)] == [
        f"hw/{name}/error" for name in names
    ]
    assert {deed.json["error"] for deed in deeds if isinstance(deed, Sent)} == {"bad_user"}
    assert lab.rows("refused", "user, state") == [("", None)] * len(names)
    assert lab.rows("refused_counts", "user, total") == [("", len(names))]
    assert lab.coordinator.records == {}


BESIDE = {"status", "heartbeat", "clock", "history", "history/all"}  # other parts hear of these


@pytest.mark.parametrize("kind", sorted({*INBOUND} - BESIDE))
def test_what_no_group_can_be_told_is_refused_on_its_own_topic(lab: Lab, kind: str) -> None:
    payload = b"" if kind in ("cancel", "reset", "query") else b"print(1)"
    deeds = lab.hear(kind, payload, user="@nobodies", mid=7)
    assert brief(deeds) == ["error", 7]
    (error,) = sent(deeds, "error")
    assert error.topic == "hw/@nobodies/error"
    assert (error.json["error"], error.json["topic"]) == ("not_allowed", f"hw/@nobodies/{kind}")
    assert lab.rows("refused", "user, error") == [("", "not_allowed")]
    assert lab.coordinator.records == {}


@pytest.mark.parametrize(
    ("kind", "payload", "retain"),
    [
        ("request", b"", False),
        ("command", b'{"v":1,"id":"c1","program":"1"}', False),
        ("cancel", b"", True),
        ("heartbeat", b"", True),
        ("status", b"{}", True),
    ],
)
def test_what_is_to_be_ignored_is_acknowledged_and_counted_only(
    lab: Lab, kind: str, payload: bytes, retain: bool
) -> None:
    lab.hand(1)
    assert brief(lab.hear(kind, payload, retain=retain, mid=7)) == [7]
    assert lab.coordinator.counts["ignored"] == 1
    assert lab.rows("refused") == []


def test_a_retained_message_is_refused_unless_it_names_an_id(lab: Lab) -> None:
    (error,) = sent(lab.hear("request", b"print(1)", retain=True), "error")
    assert error.json["error"] == "retained"
    assert "mosquitto_pub -r -n -q 1 -t hw/pi1/request" in error.json["hint"]
    assert brief(lab.hear("request", request(), retain=True, mid=7)) == ["status 1", "command", 7]


@pytest.mark.parametrize("kind", ["cancel", "reset"])
def test_a_retained_cancel_or_reset_stops_nothing(lab: Lab, kind: str) -> None:
    lab.hear("request", request())
    deeds = lab.hear(kind, b'{"id":"c1"}', retain=True, mid=7)
    assert brief(deeds) == ["error", "status 1", 7]
    assert (deeds[0].json["error"], deeds[0].json["id"]) == ("retained", "c1")  # type: ignore[union-attr]
    assert lab.rows("refused", "error, id") == [("retained", "c1")]
    assert brief(lab.hear(kind, b"", retain=True, mid=8)) == [8]  # cleared
    assert brief(lab.hear(kind, b'{"id":"c1"}', mid=9)) == ["status 0", 9]


# Every connect


@pytest.mark.parametrize("session_present", [False, True])
def test_every_connect_publishes_every_status_and_the_waiting_envelopes(
    lab: Lab, session_present: bool
) -> None:
    for state in range(4):
        for kind, payload in PERSONS[:state] or [("reset", b"")]:
            lab.hear(kind, payload, user=f"pi{state}")
    lab.disconnect()
    deeds = lab.connect(session_present=session_present)
    told = [(deed.topic, deed.json.get("state")) for deed in deeds if isinstance(deed, Sent)]
    assert sorted(told, key=str) == [
        ("hw/pi0/status", 0), ("hw/pi1/command", None), ("hw/pi1/status", 1),
        ("hw/pi2/status", 2), ("hw/pi3/status", 3),
    ]  # fmt: skip
    assert [status.json["seq"] for status in sent(deeds, "status")] == [1, 1, 2, 3]


def test_a_connection_without_subscriptions_is_told_nothing_yet(lab: Lab) -> None:
    lab.hand(1)
    lab.disconnect()
    lab.wire.connected = True
    assert lab.step(Connected(True, 5)) == []
    assert brief(lab.step(Subscribed())) == ["status 1", "command"]


def test_what_happened_without_a_connection_is_told_at_the_next(lab: Lab) -> None:
    lab.wire.connected = False
    assert lab.hear("request", request()) == []
    assert lab.record.state is State.REQUESTED
    assert brief(lab.connect()) == ["status 1", "command"]


def test_only_the_status_of_a_record_that_ever_changed_is_retained(lab: Lab) -> None:
    messages = [
        ("query", b""), ("request", request()), ("cancel", b'{"id":"c9"}'),
        ("heartbeat", heartbeat()), ("collected", COLLECTED), ("response", result()),
        ("analysis", b"ok"), ("request", request("c2")), ("request", request("c1")),
        ("query", b'{"id":"c1"}'), ("query", b"{}"),
    ]  # fmt: skip
    deeds = [deed for kind, payload in messages for deed in lab.hear(kind, payload)]
    deeds += [*lab.disconnect(), *lab.connect()]
    published = [deed for deed in deeds if isinstance(deed, Sent)]
    for deed in published:
        assert deed.retain == (deed.kind == "status" and deed.json["seq"] > 0)
    assert not published[0].retain
    assert {deed.kind for deed in published} == {
        "status", "command", "error", "result/c1"
    }  # fmt: skip


# Queries


def test_a_query_for_an_unknown_user_is_answered_and_nothing_is_kept(lab: Lab) -> None:
    deeds = lab.hear("query", b"", user="pi7", mid=7)
    assert brief(deeds) == ["status 0", 7]
    (status,) = sent(deeds, "status")
    assert (status.topic, status.retain) == ("hw/pi7/status", False)
    assert (status.json["user"], status.json["seq"], status.json["login"]) == ("pi7", 0, True)
    assert lab.coordinator.records == {}
    for table in ("hw_status", "commands", "transitions", "refused"):
        assert lab.rows(table) == []
    assert lab.restart() == []


def test_a_query_for_an_unknown_id_is_refused_and_creates_no_record(lab: Lab) -> None:
    deeds = lab.hear("query", b'{"id":"c9"}', mid=7)
    assert brief(deeds) == ["error", "status 0", 7]
    assert not sent(deeds, "status")[0].retain
    assert lab.rows("hw_status") == []


def test_a_query_changes_nothing_and_names_the_end_of_an_earlier_command(lab: Lab) -> None:
    lab.hand(4)
    lab.hear("request", request("c2"))
    first = f"1-{NONCE}"
    before = lab.record
    deeds = lab.hear("query", b'{"id":"%b"}' % first.encode(), mid=7)
    assert brief(deeds) == ["status 1", f"result/{first}", 7]
    assert sent(deeds, f"result/{first}")[0].json["server_analysis"] == "ok"
    assert lab.record is before


# The coordinator's own analyser


def test_state_3_is_published_before_the_analysis_brings_rest(lab: Lab) -> None:
    lab.device(2, analysis="outcome")
    assert brief(lab.hear("response", result(duration=0.12), mid=7)) == ["status 3", 7]
    assert lab.coordinator.wait() == 0.0
    assert brief(lab.step()) == ["status 0"]
    assert lab.record.current is not None
    assert lab.record.current.analysis == "ok: exit 0 in 0.12 s"
    assert lab.step() == []


def test_a_restart_in_state_3_analyses_after_the_connect(lab: Lab) -> None:
    lab.device(3, analysis="outcome")
    assert lab.record.state is State.RETURNED
    lab.stop()
    lab.start()
    assert lab.step() == []
    assert brief(lab.connect()) == ["status 3", "status 0"]
    assert lab.record.state is State.REST


def test_every_connect_starts_the_analysers_that_are_due_and_no_other(lab: Lab) -> None:
    lab.device(3)
    assert brief(lab.connect()) == ["status 3"]
    assert lab.coordinator.wait() != 0.0


def test_an_analyser_of_the_coordinator_serves_requests_that_name_none(tmp_path: Path) -> None:
    with Lab(tmp_path / "hwsync.db", rules=Rules(analysis="outcome")) as lab:
        lab.device(3)
        assert brief(lab.step()) == ["status 0"]


def test_an_analyser_that_comes_after_a_reset_is_kept_with_its_command(lab: Lab) -> None:
    lab.device(3, analysis="outcome")
    assert brief(lab.hear("reset", b"", mid=7))[0] == "status 0"
    lab.step()
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert command.analysis == "ok: exit 0"
