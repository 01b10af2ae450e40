"""Messages without an id that the broker sends again (DUP): answered again, performed once."""

from __future__ import annotations

import pytest

from tests.support.coordinator import PERSONS, Deed, Lab, Sent, brief, request, sent


def reconnect(lab: Lab) -> list[Deed]:
    """The connection breaks before the acknowledgement; the broker keeps the session."""
    lab.disconnect()
    return lab.connect()


@pytest.mark.parametrize(
    ("state", "kind", "payload"),
    [
        *[(state, kind, payload) for state, (kind, payload) in enumerate(PERSONS)],
        (2, "cancel", b""),
        (3, "reset", b""),
        (0, "reset", b""),
    ],
)
def test_what_was_accepted_is_performed_once_and_answered_with_the_status(
    lab: Lab, state: int, kind: str, payload: bytes
) -> None:
    lab.hand(state)
    lab.hear(kind, payload, mid=77)
    after = lab.record
    reconnect(lab)
    assert brief(lab.hear(kind, payload, mid=77, dup=True)) == [f"status {after.state:d}", 77]
    assert lab.record is after
    assert lab.coordinator.counts["duplicates"] == 1
    assert lab.rows("refused") == []


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        ("cancel", b"", "wrong_state"),
        ("response", b"{", "bad_payload"),
        ("analysis", b"\xff", "bad_payload"),
        ("reset", b'{"queue":1}', "bad_payload"),
    ],
)
def test_what_was_refused_gets_the_same_error_again_and_one_row(
    lab: Lab, kind: str, payload: bytes, code: str
) -> None:
    lab.hear("reset")
    (first,) = sent(lab.hear(kind, payload, mid=77), "error")
    lab.hear("request", b"1")  # another state would give another error
    deeds = lab.hear(kind, payload, mid=77, dup=True)
    assert brief(deeds) == ["error", "status 1", 77]
    assert deeds[0] == first
    assert (first.json["error"], first.json["state"]) == (code, 0)
    assert len(lab.rows("refused")) == 1


def test_an_invalid_user_gets_its_error_again_and_no_status(lab: Lab) -> None:
    first = lab.hear("request", b"1", user="-x", mid=77)
    assert lab.hear("request", b"1", user="-x", mid=77, dup=True) == first
    assert brief(first) == ["error", 77]
    assert len(lab.rows("refused")) == 1


def test_both_copies_in_one_step_are_one_message(lab: Lab) -> None:
    deeds = lab.step(
        lab.delivery("request", b"1", mid=7),
        lab.delivery("request", b"1", mid=7, dup=True),
    )
    assert brief(deeds) == ["status 1", "command", 7, 7]


@pytest.mark.parametrize(
    "other",
    [
        {"mid": 8},
        {"dup": False},
        {"payload": b"print(2)"},
        {"kind": "command"},
        {"user": "pi2"},
    ],
)
def test_another_packet_flag_text_or_topic_is_a_new_message(
    lab: Lab, other: dict[str, object]
) -> None:
    lab.hear("request", b"print(1)", mid=7)
    lab.hear("reset", mid=70)
    again = {"kind": "request", "payload": b"print(1)", "mid": 7, "dup": True, **other}
    deeds = lab.hear(**again)  # type: ignore[arg-type]
    assert brief(deeds)[:2] == ["status 1", "command"]
    assert lab.coordinator.counts["duplicates"] == 0


def test_a_packet_identifier_stands_for_its_last_message_only(lab: Lab) -> None:
    lab.hear("request", b"1", mid=7)
    lab.hear("collected", b"", mid=7)
    assert brief(lab.hear("collected", b"", mid=7, dup=True)) == ["status 2", 7]
    assert brief(lab.hear("request", b"1", mid=7, dup=True)) == ["error", 7]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("named", [("query", b'{"id":"c1"}'), ("cancel", b'{"id":"c9"}')])
def test_a_message_with_an_id_takes_the_packet_identifier_over(
    lab: Lab, named: tuple[str, bytes], restart: bool
) -> None:
    lab.hear("request", request("c1"))
    lab.hear("reset", b"", mid=7)
    lab.hear(*named, mid=7)
    if restart:
        lab.restart()
    seq = lab.record.seq
    lab.hear("reset", b"", mid=7, dup=True)
    assert lab.record.seq == seq + 1


def test_what_names_an_id_is_recognised_by_it_and_by_no_packet_identifier(lab: Lab) -> None:
    lab.hear("request", request("c1"), mid=7)
    assert lab.rows("packets") == []
    assert brief(lab.hear("request", request("c1"), mid=9)) == ["status 1", 9]
    assert lab.record.seq == 1


def test_messages_without_a_packet_identifier_are_never_copies(lab: Lab) -> None:
    for seq in (1, 2):
        lab.hear("reset", b"", mid=0, dup=True)
        assert lab.record.seq == seq
    assert lab.rows("packets") == []


# The memory's life


def test_the_memory_survives_a_restart_on_the_same_database(lab: Lab) -> None:
    lab.hear("request", b"1", mid=7)
    refused = lab.hear("request", b"2", mid=8)
    lab.restart()
    assert brief(lab.hear("request", b"1", mid=7, dup=True)) == ["status 1", 7]
    deeds = lab.hear("request", b"2", mid=8, dup=True)
    assert sent(deeds, "error") == sent(refused, "error")
    assert lab.record.seq == 1
    assert len(lab.rows("refused")) == 1


@pytest.mark.parametrize("restart", [False, True])
def test_a_new_session_forgets_the_packet_identifiers(lab: Lab, restart: bool) -> None:
    lab.hear("reset", b"", mid=7)
    if restart:
        lab.stop()
        lab.start()
    lab.connect(session_present=False)
    assert lab.rows("packets") == []
    lab.hear("reset", b"", mid=7, dup=True)
    assert lab.record.seq == 2


def test_what_a_new_session_brings_in_its_first_step_is_remembered(lab: Lab) -> None:
    lab.hear("reset", b"", mid=7)
    new = lab.delivery("request", b"1", mid=8)
    stale = lab.delivery("reset", b"", mid=7, dup=True)
    lab.connect(stale, new, session_present=False)
    assert lab.record.seq == 3
    assert lab.rows("packets", "mid") == [(7,), (8,)]
    assert brief(lab.hear("request", b"1", mid=8, dup=True)) == ["status 1", 8]


def test_a_kept_session_keeps_the_packet_identifiers(lab: Lab) -> None:
    lab.hear("reset", b"", mid=7)
    reconnect(lab)
    lab.hear("reset", b"", mid=7, dup=True)
    assert lab.record.seq == 1


def test_an_answer_is_repeated_for_a_user_of_whom_nothing_is_kept(lab: Lab) -> None:
    first = lab.hear("query", b"", user="pi7", mid=7)
    again = lab.hear("query", b"", user="pi7", mid=7, dup=True)
    assert again == first
    assert isinstance(again[0], Sent)
    assert not again[0].retain
