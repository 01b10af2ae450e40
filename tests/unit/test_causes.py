"""``hwsync why``: the right cause of each situation, staged from the records that there can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsync.cli.causes import KINDS, Cause, Situation, busy, explain
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport, State
from hwsync.protocol.wire.status import status_json
from tests.support.situations import (
    ASKED,
    BEAT,
    BLINK,
    C1,
    ENDED,
    GONE,
    HEALTH,
    NOBODY,
    NOW,
    ONLINE,
    TAKEN,
    WILL,
    ended,
    known,
)


@pytest.mark.parametrize("name", ASKED)
def test_what_is_open(name: str) -> None:
    seen, words = ASKED[name]
    cause = explain(seen)
    assert cause.kind == name.partition(",")[0]
    assert cause.kind in KINDS
    told(cause, *words)
    assert cause.do
    assert cause.ran == ("yes" if name.startswith("returned") else None)


@pytest.mark.parametrize(
    ("may_judge", "do"),
    [(True, "hwsync analyse pi1 TEXT --id c1"),
     (None, "who may judge, such as a teacher, types hwsync analyse pi1 TEXT --id c1"),
     (False, "who may judge does so: an analyst, or an operator with that right, such as a "
             "teacher")],
)  # fmt: skip
def test_who_may_not_judge_is_told_who_may(may_judge: bool | None, do: str) -> None:
    seen, _ = ASKED["returned"]
    assert explain(replace(seen, may_judge=may_judge)).do == (do,)


def told(cause: Cause, *words: str) -> None:
    for word in words:
        assert word in cause.sentences, cause.sentences
    assert "  " not in cause.sentences
    assert ".." not in cause.sentences
    assert "None" not in cause.sentences


@pytest.mark.parametrize(("command", "words", "do"), ENDED)
def test_what_has_ended(command: Command, words: str, do: str) -> None:
    cause = explain(known(command=command))
    assert command.report is not None
    assert cause.kind == command.report.outcome
    assert cause.ran == command.report.ran
    told(cause, "teacher's blink.py (c1)", words)
    assert do in "\n".join(cause.do)
    assert do or not cause.do


REASONS = {
    "it is not signed, and this board runs only what is": "hwsync key list",
    "it is signed by a key that this board does not trust: ed25519:abc": "trust in its device.toml",
    "its signature is wrong: it was altered on its way": "somebody alters messages",
    "it is signed for pi2, this board is pi1": "each other's account",
    "it is older than what this board has already received: somebody sent it again": "another id",
    "it expired at 2026-01-01, and this board's clock says 2027-01-01": "says which",
    "lab time is not known here": "why it knows no lab time",
    "lab time has begun a new life since its instant was fixed": "send it again",
    "not released: its instant was past by more than `within`": "--lead",
    "not released: the coordinator was last heard more than 10 s before the instant": "network",
    "not released: the clock was not known within `within`": "--within",
    "not granted to this device": "two devices",
    "the coordinator does not know it": "older database",
    "the interpreter did not start within 10 s": "hwsync-device --check",
    "the working directory /x does not exist": "hwsync-device --check",
    "this board is called pi9 now": "by its new name",
    "the journal cannot be written: disk full": "disk is full",
    "something that nobody thought of": "hwsync doctor pi1",
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_of_a_refusal_has_something_to_do(reason: str) -> None:
    cause = explain(known(command=ended(Outcome.REJECTED, Ran.NO, reason)))
    assert cause.kind == "rejected"
    told(cause, f"The board refused teacher's blink.py (c1): {reason}.", "It did not run.")
    assert REASONS[reason] in "\n".join(cause.do)


def test_what_expired_says_that_the_board_is_offline_and_since_when() -> None:
    expired = ended(Outcome.EXPIRED, Ran.NO, "not collected within 300 s")
    cause = explain(known(command=expired, beat=WILL, boards=GONE, settled=(("c0", "j1"),)))
    told(cause, "pi1 is offline since", "(25 minutes ago)")
    assert cause.do[0] == "switch pi1 on, or look at its network"
    never = Command("pi1", "c1", BLINK, report=expired.report)
    told(
        explain(known(command=never, beat=None, boards=NOBODY)),
        "No device called pi1 was ever heard",
    )


def test_the_board_itself() -> None:
    rest = explain(known(command=ended(Outcome.OK, Ran.YES)), of_board=True)
    assert rest.kind == "rest"
    told(
        rest, "pi1 is online, and at rest: it waits for a program. The last one: teacher's blink.py"
    )
    assert rest.do == ("hwsync run pi1 FILE",)
    told(explain(known(), of_board=True), "pi1 is online, and was never asked for anything.")
    off = explain(known(command=ended(Outcome.OK, Ran.YES), beat=WILL, boards=GONE), of_board=True)
    told(off, "pi1 is offline since")
    no = explain(known(beat=BEAT | {"refusing": "its disk is full"},
                       command=ended(Outcome.OK, Ran.YES)), of_board=True)  # fmt: skip
    told(no, "But it refuses whatever it is sent: its disk is full.")
    busy_one = explain(known(State.COLLECTED, TAKEN, queue=("c2", "c3")), of_board=True)
    assert busy_one.kind == "running"
    told(busy_one, "2 requests wait behind it.")
    typo = Situation(user="pj1", now=NOW, boards=ONLINE, health=HEALTH, names=("pi1",),
                     record=status_json(Record("pj1")))  # fmt: skip
    assert explain(typo, of_board=True).kind == "never seen"
    told(explain(typo, of_board=True), "No device called pj1 was ever heard. Did you mean pi1?")


def test_with_whose_program_a_board_is_busy() -> None:
    assert busy(known(State.COLLECTED, TAKEN)) == "pi1 is busy with teacher's blink.py (3 s of 10)"
    sent = busy(known(State.REQUESTED, C1, ago=0.2))
    assert sent == "pi1 is busy with teacher's blink.py (sent 0 s ago, not begun)"
    plain = Command("pi1", "c1", Request("1"), journal="j1", boot=1)
    assert busy(known(State.COLLECTED, plain)) == "pi1 is busy with the program (3 s of 10)"
    asked = busy(known(State.RETURNED, ended(Outcome.OK, Ran.YES)))
    assert asked == "pi1 is busy with teacher's blink.py, which waits for its analysis"


def test_a_person_who_answers_by_hand_is_somebody() -> None:
    by_hand = Command("pi1", "c0", Request("1"), report=RunReport(Outcome.OK, Ran.YES))
    cause = explain(known(command=by_hand, beat=None, boards=NOBODY), of_board=True)
    assert cause.kind == "rest"


@pytest.mark.parametrize("meta", ["[]", "{", '{"by":7}', '"x"', '{"by":""}'])
def test_a_claim_that_is_none_names_nobody(meta: str) -> None:
    command = Command("pi1", "c1", Request("1", name="a.py", meta=meta), journal="j1", boot=1)
    assert busy(known(State.COLLECTED, command)).startswith("pi1 is busy with the program a.py")
