"""The queue: order, places, what takes a request out, and whom a person means just after a turn."""

from __future__ import annotations

import pytest

from hwsync.protocol import limits
from hwsync.protocol.record import State
from tests.support.coordinator import Lab, Sent, brief, request, result, sent


def queued(id: str, **keys: object) -> bytes:
    return request(id, queue=True, **keys)  # type: ignore[arg-type]


def fill(lab: Lab, *ids: str) -> None:
    """Bring pi1 to state 2 with the command c1, and these behind it."""
    lab.device(2)
    for id in ids:
        lab.hear("request", queued(id))


def finish(lab: Lab) -> list[str | int]:
    """End the present command: its result and its analysis; what was told at the analysis."""
    lab.hear("response", result(lab.record.id))
    return brief(lab.hear("analysis", b'{"analysis":"ok","id":"%s"}' % lab.record.id.encode()))


def collect(lab: Lab) -> None:
    lab.hear("collected", b'{"id":"%s","journal":"j1","boot":1}' % lab.record.id.encode())


def answers(lab: Lab, kind: str, payload: bytes, id: str) -> dict[str, object]:
    """What is answered on ``result/<id>``."""
    (answer,) = sent(lab.hear(kind, payload), f"result/{id}")
    return answer.json


def test_at_rest_a_request_that_would_wait_is_taken_at_once(lab: Lab) -> None:
    assert brief(lab.hear("request", queued("c1"), mid=7)) == ["status 1", "command", 7]
    assert lab.record.queue == ()


@pytest.mark.parametrize("state", [1, 2, 3])
def test_otherwise_it_waits_and_is_told_its_place(lab: Lab, state: int) -> None:
    lab.device(state)
    deeds = lab.hear("request", queued("c2"))
    assert brief(deeds)[:2] == [f"status {state}", "result/c2"]
    (status,) = sent(deeds, "status")
    assert (status.json["id"], status.json["queued"]) == ("c1", 1)
    (answer,) = sent(deeds, "result/c2")
    assert (answer.json["queued"], answer.json["outcome"]) == (1, None)
    assert answers(lab, "request", queued("c3"), "c3")["queued"] == 2
    assert sent(lab.hear("query", b""), "status")[0].json["queued"] == 2


def test_they_run_in_the_order_of_asking(lab: Lab) -> None:
    fill(lab, "c2", "c3")
    for id in ("c2", "c3"):
        assert finish(lab)[:3] == ["status 0", "status 1", "command"]
        assert (lab.record.id, lab.record.state) == (id, State.REQUESTED)
        collect(lab)
    assert finish(lab)[0] == "status 0"
    assert lab.record.state is State.REST
    rows = lab.rows("transitions", "row, id, command, before, state, note")
    assert [(id, before, after) for _, id, verb, before, after, _ in rows if verb == "next"] == [
        ("c2", 0, 1), ("c3", 0, 1)
    ]  # fmt: skip
    assert [note for *_, note in rows if note] == ["queued at place 1", "queued at place 2"]


@pytest.mark.parametrize("way", ["cancel", "reset", "expire"])
def test_every_way_to_rest_is_the_turn_of_the_next(lab: Lab, way: str) -> None:
    lab.hear("request", request(expires=5))
    lab.hear("request", queued("c2"))
    deeds = lab.later(5.0) if way == "expire" else lab.hear(way, b'{"id":"c1"}')
    statuses = [status.json for status in sent(deeds, "status")]
    assert [(status["id"], status["state"]) for status in statuses[:2]] == [("c1", 0), ("c2", 1)]
    assert len(sent(deeds, "command")) == 1


def test_a_repeated_request_waits_once_and_is_answered(lab: Lab) -> None:
    fill(lab, "c2", "c3")
    assert answers(lab, "request", queued("c2"), "c2")["queued"] == 1
    assert answers(lab, "request", request("c2"), "c2")["queued"] == 1
    assert answers(lab, "query", b'{"id":"c3"}', "c3")["queued"] == 2
    (error,) = sent(lab.hear("request", queued("c2", program="other")), "error")
    assert error.json["error"] == "id_reused"
    assert lab.record.queue == ("c2", "c3")


def test_expires_counts_from_leaving_the_queue(lab: Lab) -> None:
    lab.device(2, timeout=1000)
    lab.hear("request", queued("c2", expires=20))
    lab.later(500.0)
    assert lab.record.queue == ("c2",)
    finish(lab)
    assert lab.coordinator.wait() is not None
    lab.later(19.0)
    assert lab.record.state is State.REQUESTED
    lab.later(1.0)
    assert lab.record.state is State.REST
    assert lab.record.current is not None
    assert lab.record.current.report is not None
    assert lab.record.current.report.outcome == "expired"


def test_a_cancel_takes_a_request_out_of_the_queue(lab: Lab) -> None:
    fill(lab, "c2", "c3")
    end = answers(lab, "cancel", b'{"id":"c2"}', "c2")
    assert (end["outcome"], end["ran"], end["queued"]) == ("cancelled", "no", 0)
    assert lab.record.queue == ("c3",)
    assert lab.record.state is State.COLLECTED
    assert answers(lab, "cancel", b'{"id":"c2"}', "c2")["outcome"] == "cancelled"  # a copy
    finish(lab)
    assert lab.record.id == "c3"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("collected", b'{"id":"c2","journal":"j1","boot":1}'),
        ("analysis", b'{"id":"c2","analysis":"x"}'),
        ("response", result("c2")),
    ],
)
def test_nothing_else_is_accepted_for_what_waits(lab: Lab, kind: str, payload: bytes) -> None:
    fill(lab, "c2")
    deeds = lab.hear(kind, payload)
    (error,) = sent(deeds, "error")
    assert error.json["error"] == "wrong_state"
    assert "c2 waits in the queue, at place 1" in error.json["message"]
    if kind == "response":
        assert ["c2", "j1"] in sent(deeds, "status")[0].json["settled"]
    assert lab.record.queue == ("c2",)
    # And its own result counts when its turn has come.
    finish(lab)
    collect(lab)
    assert finish(lab)[0] == "status 0"


def test_a_reset_of_what_waits_only_answers(lab: Lab) -> None:
    fill(lab, "c2")
    assert answers(lab, "reset", b'{"id":"c2"}', "c2")["queued"] == 1
    assert (lab.record.state, lab.record.queue) == (State.COLLECTED, ("c2",))


def test_a_full_queue_is_said_to_be_full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE", 2)
    fill(lab, "c2", "c3")
    (error,) = sent(lab.hear("request", queued("c4")), "error")
    assert (error.json["error"], error.json["id"]) == ("queue_full", "c4")
    assert error.json["hint"]
    assert lab.store.command("pi1", "c4") is None


@pytest.mark.parametrize("payload", [b'{"queue":true}', b'{"queue":true,"id":"c1"}'])
def test_a_reset_may_empty_the_queue_too(lab: Lab, payload: bytes) -> None:
    fill(lab, "c2", "c3")
    deeds = lab.hear("reset", payload)
    assert [deed.kind for deed in deeds if isinstance(deed, Sent) and "result" in deed.kind] == [
        "result/c2", "result/c3"
    ]  # fmt: skip
    assert (lab.record.state, lab.record.id, lab.record.queue) == (State.REST, "c1", ())
    assert sent(deeds, "command") == []
    for id in ("c2", "c3"):
        command = lab.store.command("pi1", id)
        assert command is not None
        assert command.report is not None
        assert (command.report.outcome, command.report.ran) == ("cancelled", "no")


def test_a_reset_of_an_earlier_command_empties_nothing(lab: Lab) -> None:
    fill(lab, "c2")
    finish(lab)
    lab.hear("request", queued("c3"))
    lab.hear("reset", b'{"queue":true,"id":"c1"}')
    assert (lab.record.id, lab.record.queue) == ("c2", ("c3",))


@pytest.mark.parametrize("kind", ["collected", "response", "analysis", "cancel", "reset"])
def test_a_person_who_may_mean_the_last_command_is_asked_which(lab: Lab, kind: str) -> None:
    fill(lab, "c2")
    finish(lab)
    lab.later(limits.AMBIGUOUS_S - 0.5)
    before = lab.record
    (error,) = sent(lab.hear(kind, b"x" if kind in ("response", "analysis") else b""), "error")
    assert error.json["error"] == "ambiguous"
    assert '{"id": "c2"}' in error.json["hint"]
    assert lab.record is before
    lab.later(0.5)
    after = lab.hear(kind, b"x" if kind in ("response", "analysis") else b"")
    assert "ambiguous" not in str([error.json for error in sent(after, "error")])


def test_a_person_without_a_queue_is_never_asked(lab: Lab) -> None:
    lab.hear("request", b"1")
    assert brief(lab.hear("cancel", b""))[0] == "status 0"


def test_naming_the_command_is_never_ambiguous(lab: Lab) -> None:
    fill(lab, "c2")
    finish(lab)
    assert brief(lab.hear("cancel", b'{"id":"c2"}'))[0] == "status 0"


def test_queue_and_turn_survive_a_restart(lab: Lab) -> None:
    fill(lab, "c2", "c3")
    finish(lab)
    lab.restart()
    assert (lab.record.id, lab.record.queue) == ("c2", ("c3",))
    (error,) = sent(lab.hear("cancel", b""), "error")
    assert error.json["error"] == "ambiguous"
    assert lab.hear("cancel", b'{"id":"c2"}')
    assert (lab.record.id, lab.record.queue) == ("c3", ())
