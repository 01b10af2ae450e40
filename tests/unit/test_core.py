"""Several records, one event: the queue's turn, a reset of the queue, a new epoch, one too many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from hwsync.coordinator.publishing import published_once
from hwsync.protocol import core, limits
from hwsync.protocol.answers import effects_on_appearance, effects_on_connect
from hwsync.protocol.batch import Batch
from hwsync.protocol.core import Handled, Memory, handled
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import (
    Decision,
    Effect,
    PublishEnvelope,
    PublishError,
    PublishResult,
    PublishStatus,
    ReplyError,
)
from hwsync.protocol.errors import Code, DatabaseError, Refused
from hwsync.protocol.events import (
    CancelAsked,
    Collected,
    Event,
    HeartbeatReceived,
    Message,
    Queried,
    Requested,
    ResetAsked,
    Returned,
)
from hwsync.protocol.record import (
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    Reply,
    Request,
    RunReport,
    State,
    Verb,
)
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind

NOW = Moment(1_000.0, 50.0, "0123456789abcdef")
RULES = Rules()
OK = RunReport(Outcome.OK, Ran.YES)


@dataclass
class Kept:
    """What a database has."""

    records: dict[str, Record] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    epoch: int = 0
    others: int = 0  # users with a record, besides
    devices: dict[str, HeartbeatReceived] = field(default_factory=dict)

    def record(self, user: str) -> Record | None:
        return self.records.get(user)

    def command(self, user: str, id: str) -> Command | None:
        return self.commands.get((user, id))

    def count(self) -> int:
        return len(self.records) + self.others

    def device(self, user: str) -> HeartbeatReceived | None:
        return self.devices.get(user)

    def batch(self, key: str) -> Batch | None:
        return None

    def newest(self, group: str) -> Batch | None:
        return None

    def open_batches(self) -> Iterable[Batch]:
        return ()


def hear(draft: Draft, *events: Event, user: str = "pi1", moment: Moment = NOW) -> list[Decision]:
    """Decide, and take over what was decided."""
    made: list[Decision] = []
    for event in events:
        decisions = core.decide(user, event, moment, draft, RULES)
        for decision in decisions:
            draft.take(decision)
        made += decisions
    return made


def asked(*ids: str, **keys: object) -> list[Event]:
    return [Requested(Request("1", id, queue=True, **keys)) for id in ids]  # type: ignore[arg-type]


def moves(decisions: list[Decision]) -> list[tuple[str, str, int, int]]:
    """Verb, id and states of what was changed."""
    return [
        (one.entry.verb, one.entry.id, int(one.entry.before), int(one.entry.after))
        for one in decisions
        if one.entry is not None
    ]


@pytest.fixture
def draft() -> Draft:
    """c1 is collected, c2 and c3 wait."""
    draft = Draft(Kept())
    hear(draft, *asked("c1"), Collected("c1", "j1", 1), *asked("c2", "c3"))
    return draft


# The queue


def test_the_end_of_one_command_is_the_turn_of_the_next(draft: Draft) -> None:
    reset, turn = hear(draft, ResetAsked())
    assert moves([reset, turn]) == [("reset", "c1", 2, 0), ("next", "c2", 0, 1)]
    assert (reset.turn, turn.turn) == (False, True)
    assert turn.record.seq == reset.record.seq + 1
    assert draft.record_of("pi1").queue == ("c3",)


def test_the_queue_follows_until_one_may_still_run(draft: Draft) -> None:
    late = replace(NOW, wall=2_000.0)
    hear(draft, *asked("c4", expires_at=1_500.0))
    made = hear(draft, CancelAsked("c2"), CancelAsked("c3"), *asked("c5"), moment=NOW)
    assert [one.turn for one in made] == [False] * 3
    made = hear(draft, ResetAsked(), moment=late)
    assert moves(made) == [("reset", "c1", 2, 0), ("expire", "c4", 0, 0), ("next", "c5", 0, 1)]
    assert [one.turn for one in made] == [False, True, True]


def test_a_queue_whose_command_is_lost_is_an_error_of_the_database(draft: Draft) -> None:
    del draft.commands["pi1", "c2"]
    with pytest.raises(DatabaseError, match="c2 waits for pi1, and is lost"):
        core.decide("pi1", ResetAsked(), NOW, draft, RULES)


def test_a_reset_with_the_queue_cancels_each_and_then_the_record(draft: Draft) -> None:
    made = hear(draft, ResetAsked(queue=True))
    assert moves(made) == [
        ("cancel", "c2", 2, 2), ("cancel", "c3", 2, 2), ("reset", "c1", 2, 0),
    ]  # fmt: skip
    assert not any(one.turn for one in made)
    assert draft.record_of("pi1").queue == ()
    ended = draft.command("pi1", "c3")
    assert ended is not None
    assert ended.report is not None
    assert ended.report.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("id", ["c9", "c2"], ids=["unknown", "one that waits"])
def test_a_reset_with_the_queue_that_is_not_accepted_cancels_none(draft: Draft, id: str) -> None:
    (answer,) = hear(draft, ResetAsked(id, queue=True))
    assert answer.entry is None
    assert draft.record_of("pi1").queue == ("c2", "c3")


def test_deciding_changes_nothing_until_it_is_taken_over(draft: Draft) -> None:
    before = (dict(draft.records), dict(draft.commands), len(draft.decisions))
    for event in (ResetAsked(queue=True), ResetAsked(), CancelAsked("c2"), *asked("c8")):
        core.decide("pi1", event, NOW, draft, RULES)
    core.restore(["pi1"], 7, NOW, draft, RULES)
    assert (draft.records, draft.commands, len(draft.decisions)) == before


# Epochs


def test_a_restore_loses_what_waits_and_what_is_open(draft: Draft) -> None:
    hear(draft, *asked("a1"), user="pi2")
    made = core.restore(["pi1", "pi2"], 7, NOW, draft, RULES)
    assert moves(made) == [
        ("restore", "c2", 2, 2), ("restore", "c3", 2, 2), ("restore", "c1", 2, 0),
        ("restore", "a1", 1, 0),
    ]  # fmt: skip
    for decision in made:
        draft.take(decision)
    assert {draft.record_of(user).epoch for user in ("pi1", "pi2")} == {7}
    lost = draft.command("pi1", "c2")
    assert lost is not None
    assert lost.report is not None
    assert (lost.report.outcome, lost.report.ran) == (Outcome.LOST, Ran.MAYBE)


@pytest.mark.parametrize(
    ("order", "of_device", "newer", "forged"),
    [
        (None, True, None, False),
        ((0, 5), True, None, False),
        ((0, 6), True, 0, False),
        ((3, 1), False, 3, False),
        ((limits.MAX_SEEN_EPOCH + 1, 1), True, None, True),
        ((limits.MAX_SEEN_EPOCH + 1, 1), False, limits.MAX_SEEN_EPOCH + 1, False),
        ((limits.MAX_EPOCH + 1, 1), False, None, True),
    ],
)
def test_what_somebody_saw_is_compared_with_the_record(
    order: core.Order | None, of_device: bool, newer: int | None, forged: bool
) -> None:
    record = Record("pi1", seq=5)
    seen = core.compare("pi1", order, Kept({"pi1": record}), of_device=of_device)
    assert (seen.newer, seen.forged) == (newer, order if forged else None)
    # Only what stands at the broker is overwritten, and only with what is to stand there.
    ours = forged and not of_device
    assert seen.effects == ((PublishStatus(record),) if ours else ())
    gone = Kept({"pi1": replace(record, forgotten=True)})
    assert core.compare("pi1", order, gone, of_device=of_device).effects == ()


# One user more than may be


def test_one_user_too_many_is_refused_and_makes_no_record() -> None:
    draft = Draft(Kept(others=limits.MAX_USERS - 1))
    hear(draft, *asked("c1"), user="pi1")
    (refused,) = hear(draft, *asked("c1"), user="pi2")
    assert refused.refused is not None
    assert refused.refused.code is Code.NOT_ALLOWED
    assert draft.record("pi2") is None
    assert hear(draft, Queried(), user="pi2")[0].refused is None
    assert hear(draft, *asked("c2"), user="pi1")[0].refused is None


def test_a_result_of_one_user_too_many_is_settled_and_kept_by_nobody() -> None:
    draft = Draft(Kept(others=limits.MAX_USERS))
    (decision,) = hear(draft, Returned(OK, "c1", "j1", 1))
    refusal = Refused(Code.TOO_LARGE, "x", id="c1", journal="j1")
    unread = core.unreadable("pi1", TopicKind.RESPONSE, refusal, NOW, draft, RULES)
    for one in (decision, unread):
        assert [type(effect) for effect in one.effects] == [PublishError, PublishStatus]
        assert one.record.settled == (("c1", "j1"),)
        assert (one.entry, one.unlogged) == (None, False)
    assert draft.record("pi1") is None


# What cannot be read


def test_what_cannot_be_read_answers_who_named_an_id_and_settles_a_result(draft: Draft) -> None:
    known = Refused(Code.BAD_PAYLOAD, "x", id="c2")
    answer = core.unreadable("pi1", TopicKind.CANCEL, known, NOW, draft, RULES)
    assert [type(one) for one in answer.effects] == [PublishError, PublishStatus, PublishResult]
    result = Refused(Code.BAD_PAYLOAD, "x", id="c1", journal="j1")
    settled = core.unreadable("pi1", TopicKind.RESPONSE, result, NOW, draft, RULES)
    assert settled.record.settled == (("c1", "j1"),)
    assert settled.entry is not None
    nobody = core.unreadable("p i", TopicKind.CANCEL, known, NOW, draft, RULES)
    assert [type(one) for one in nobody.effects] == [PublishError]


# What follows from a record alone


def test_a_forgotten_record_is_not_published_by_itself() -> None:
    record = Record("pi1", seq=3)
    assert effects_on_connect(record) == (PublishStatus(record),)
    assert effects_on_connect(replace(record, forgotten=True)) == ()


def test_a_device_that_appears_is_sent_what_waits(draft: Draft) -> None:
    assert effects_on_appearance(draft.record_of("pi1")) == ()
    hear(draft, ResetAsked())
    waits = draft.record_of("pi1")
    assert effects_on_appearance(waits) == (PublishEnvelope(waits),)


# What is said once


def test_what_is_said_once_of_all_that_is_handled_together() -> None:
    one, two = Record("pi1", seq=1), Record("pi1", seq=2)
    result = PublishResult(Command("pi1", "c1", Request("1")), State.REST)
    reply = ReplyError(Reply("replies/a"), b"{}")
    error = PublishError(Refused(Code.BUSY, "x"), State.REST)
    effects: list[Effect] = [
        PublishStatus(one), result, reply, PublishStatus(one), error, PublishStatus(two),
        result, PublishStatus(one), replace(result, place=1), error,
    ]  # fmt: skip
    assert [effect for _, effect in published_once(("pi1", effect) for effect in effects)] == [
        PublishStatus(one), error, PublishStatus(two), result, PublishStatus(one),
        replace(result, place=1), error, reply,
    ]  # fmt: skip
    other = [("pi1", PublishStatus(one)), ("pi2", PublishStatus(one))]
    assert published_once(other) == other


# What the broker sends again


def message(text: str = "1", mid: int = 4, *, dup: bool = False) -> Message:
    return Message("hw/pi1/request", text.encode(), dup=dup, mid=mid)


def test_a_message_without_an_id_is_known_again_by_identifier_topic_and_text() -> None:
    memory = Memory({4: handled(message(), b"busy")})
    assert memory.find(message(dup=True), None) == memory.saved[4]
    for other in (message(), message("2", dup=True), message(mid=5, dup=True)):
        assert memory.find(other, None) is None
    assert memory.find(message(dup=True), "c1") is None
    assert memory.find(replace(message(dup=True), topic="hw/pi2/request"), None) is None
    memory.new_session = True
    assert memory.find(message(dup=True), None) is None
    memory.note(message(), None, named=False)
    assert memory.find(message(dup=True), None) == handled(message(), None)


def test_what_takes_over_an_identifier_ends_the_memory_of_it() -> None:
    memory = Memory({4: handled(message(), None)})
    memory.note(message(mid=4), None, named=True)
    memory.note(message(mid=9), None, named=True)
    memory.note(message(mid=0), None, named=False)
    assert memory.changed == {4: None}


def test_the_oldest_are_forgotten_where_there_are_too_many() -> None:
    one = Handled("t", b"", None)
    memory = Memory(dict.fromkeys(range(1, limits.PACKETS + 1), one))
    memory.note(message(mid=limits.PACKETS + 1), None, named=False)
    memory.note(message(mid=1), None, named=False)  # the oldest, heard anew
    memory.shorten()
    assert [mid for mid, kept in memory.changed.items() if kept is None] == [2]


def test_the_first_decision_of_a_batch_is_known_to_the_second() -> None:
    """Two messages handled together: the second finds what the first one changed."""
    draft = Draft(Kept({"pi1": Record("pi1")}))
    first, second = hear(draft, *asked("c1", "c2"))
    assert first.record.state is State.REQUESTED
    assert second.record.queue == ("c2",)
    assert second.entry is not None
    assert second.entry.verb is Verb.REQUEST
    assert [one.record.seq for one in draft.decisions] == [1, 2]
