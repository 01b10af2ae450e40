"""How a command moves on a device: the table, and what each step of it does.

The law: ``TABLE`` is the only way a command moves on a device; a pair that is not in it is a hole,
and a hole does nothing. The words say what an event means to one command; ``core`` finds them.
"""

from hwsync.protocol.device import values
from hwsync.protocol.device.values import (
    ARMED,
    CLOSED,
    ENDING,
    FINISHED,
    NEW,
    PREPARING,
    RECEIVED,
    RUNNING,
    SETTLED,
    STARTING,
    TIME_S,
    UNKNOWN_S,
    Action,
    Decision,
    Moment,
    repetition,
)

# What an event means to one command: the rows of the table.
OFFER = "an envelope"
NEWER_OFFER = "a newer envelope"
SAME_OFFER = "an envelope again"
TIMED_OFFER = "an envelope with a start, new or newer"
DOUBTED_OFFER = "an envelope that may not run"
MISSENT_OFFER = "an envelope signed for another journal"
BUSY_OFFER = "an envelope, while it is busy"
GRANT = "the grant"
TIMED_GRANT = "the grant, and its instant"
BARRED_GRANT = "the grant of what may not run"
CANCEL = "the grant, and cancelling"
PENDING = "no grant yet"
OTHER = "another status"
UNHEARD_OF = "only older statuses for " + str(int(UNKNOWN_S)) + " s"
SETTLING = "its pair in settled"
PREPARED = "its process is ready"
READY = "it is ready, and the time is known, or " + str(int(TIME_S)) + " s are over"
NEW_LIFE = "lab time begins a new life"
HALT = "a stop of the device"
START = "its process exists"
END = "its end"
FAILURE = "it cannot be started"
TIME_OVER = "its time at a stop is over"
RESTART = "a restart"
TIMED_RESTART = "a restart, of a start"
RENAMED = "a restart under another name"

WORDS = (
    OFFER, NEWER_OFFER, TIMED_OFFER, SAME_OFFER, DOUBTED_OFFER, MISSENT_OFFER, BUSY_OFFER,
    GRANT, TIMED_GRANT, BARRED_GRANT, CANCEL, PENDING, OTHER, UNHEARD_OF, SETTLING,
    PREPARED, READY, NEW_LIFE, HALT,
    START, END, FAILURE, TIME_OVER, RESTART, TIMED_RESTART, RENAMED,
)  # fmt: skip

RAN = {"ok": "yes", "error": "yes", "timeout": "yes", "killed": "yes", "interrupted": "maybe"}
"""What follows from the outcome; of a cancelled run whether it began decides."""


class Case:
    """What a step of the table looks at. ``order``: of the envelope or status that came.

    ``start_at``, ``life``: the instant, and whose time that is.
    """

    def __init__(
        self,
        id: str,
        order: "tuple[int, int]" = (0, 0),
        reason: str = "",
        *,
        outcome: str = "rejected",
        began: bool = False,
        reopened: bool = False,
        start_at: "int | None" = None,
        life: str = "",
    ) -> None:
        self.id = id
        self.order = order
        self.reason = reason
        self.outcome = outcome
        self.began = began
        self.reopened = reopened
        self.start_at = start_at
        self.life = life


def publish_results(decision: Decision, moment: Moment) -> None:
    decision.do(Action(values.PUBLISH_RESULTS))
    decision.change(results=repetition(moment))


def _receive(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """Into the hand: on the disk first, or in memory where it may not run or nothing is written."""
    _drop(decision)
    if case.reason:
        decision.do(Action(values.KEEP_REFUSED, case.id, reason=case.reason))
    else:
        _write_received(decision, case)
    decision.do(Action(values.PUBLISH_COLLECTED, case.id), Action(values.PUBLISH_HEARTBEAT))
    decision.change(
        id=case.id, stage=to, order=case.order, refusal=case.reason, collect=repetition(moment)
    )


def _write_received(decision: Decision, case: Case) -> None:
    if case.reopened:
        # What was said of it may still be under way, and be taken for the answer.
        decision.write(Action(values.NEXT_BOOT))
    decision.write(Action(values.WRITE_RECEIVED, case.id))


def _prepare(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """Into the hand, on the disk; nothing is said of it before its process is ready."""
    _write_received(decision, case)
    decision.do(Action(values.PUBLISH_HEARTBEAT))
    _prepare_again(decision, to, case, moment)


def _prepare_again(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.PREPARE_RUN, case.id))
    decision.change(id=case.id, stage=to, order=case.order, refusal="", collect=None)
    decision.change(timed=True, prepared=False, patience=moment.now + TIME_S)


def _drop(decision: Decision) -> None:
    """What was prepared and not granted."""
    state = decision.state
    if state.timed and not state.runs:
        decision.do(Action(values.DROP_RUN, state.id))
    decision.change(timed=False, prepared=False, start_at=None, life="")


def _prepared(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.change(prepared=True)


def _collect(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """Only now: who has said `collected` is ready."""
    decision.do(Action(values.PUBLISH_COLLECTED, case.id))
    decision.change(stage=to, prepared=True, collect=repetition(moment))


def _unprepared(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """It is collected, and rejected at its grant."""
    decision.do(Action(values.NOTE_REFUSAL, case.id, reason=case.reason))
    decision.do(Action(values.PUBLISH_COLLECTED, case.id))
    decision.change(stage=to, refusal=case.reason, collect=repetition(moment))


def _refuse(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """It is collected, and rejected at its grant."""
    decision.do(Action(values.NOTE_REFUSAL, case.id, reason=case.reason))
    _receive(decision, to, case, moment)


def _pass_over(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """The heartbeat says which journal is here; upon it the coordinator signs for that one."""
    decision.do(Action(values.NOTE_REFUSAL, case.id, reason=case.reason))
    decision.do(Action(values.PUBLISH_HEARTBEAT))


def _collect_again(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.PUBLISH_COLLECTED, case.id))


def _answer_again(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.PUBLISH_RESULT, case.id))


def _start(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.START_RUN, case.id))
    decision.change(stage=to, collect=None)


def _started(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.write(Action(values.WRITE_STARTED, case.id))
    if to == ENDING or decision.state.stopping:
        decision.do(Action(values.STOP_RUN, case.id))
    decision.change(stage=to)


def _arm(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """On the disk first: from here on nobody starts it again."""
    decision.write(Action(values.WRITE_STARTED, case.id))
    decision.do(Action(values.ARM_RUN, case.id, number=case.start_at or 0))
    decision.change(stage=to, collect=None, start_at=case.start_at, life=case.life)


def _disarm(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.DISARM_RUN, case.id))


def _stop(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.STOP_RUN, case.id))
    decision.change(stage=to)


def _end(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """After a run, also one that never began."""
    state, outcome, reason = decision.state, case.outcome, case.reason
    if outcome == "cancelled" and case.began and state.stopping and state.stage != ENDING:
        outcome, reason = "interrupted", "the device was stopped"
    ran = RAN.get(outcome, "yes" if case.began else "no")
    _answer(decision, case.id, outcome, ran, reason, None, moment)


def _reject(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    _answer(decision, case.id, "rejected", "no", case.reason, case.order, moment)


def _cancel(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    _answer(decision, case.id, "cancelled", "no", case.reason, case.order, moment)


def _answer(
    decision: Decision,
    id: str,
    outcome: str,
    ran: str,
    reason: str,
    order: "tuple[int, int] | None",
    moment: Moment,
) -> None:
    """Out of the hand: the result is kept, and then said."""
    _drop(decision)
    decision.do(
        Action(values.WRITE_END, id, outcome=outcome, ran=ran, reason=reason, order=order),
        Action(values.PUBLISH_HEARTBEAT),
        Action(values.PUBLISH_RESULT, id),
    )
    decision.change(id="", stage=NEW, order=(0, 0), refusal="", collect=None)
    decision.change(results=repetition(moment))


def _settle(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.WRITE_SETTLED, case.id))


def _wait_again(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """Collected with this life's boot, once there is a connection."""
    decision.change(id=case.id, stage=to, order=case.order)


def _interrupted(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    decision.do(Action(values.END_LEFTOVERS, case.id))
    reason = "the device stopped mid-run"
    decision.do(
        Action(values.WRITE_END, case.id, outcome="interrupted", ran="maybe", reason=reason)
    )


def _renamed(decision: Decision, to: str, case: Case, moment: Moment) -> None:
    """Under its new name it would belong to no command."""
    decision.do(
        Action(
            values.WRITE_END,
            case.id,
            outcome="rejected",
            ran="no",
            reason=case.reason,
            order=case.order,
        )
    )


TABLE = {
    (OFFER, NEW): (RECEIVED, _receive, "written down, `collected`"),
    (NEWER_OFFER, PREPARING): (RECEIVED, _receive, "replaces the older one"),
    (NEWER_OFFER, RECEIVED): (RECEIVED, _receive, "replaces the older one"),
    (NEWER_OFFER, CLOSED): (RECEIVED, _receive, "with the next boot"),
    (NEWER_OFFER, SETTLED): (RECEIVED, _receive, "with the next boot, where it was closed"),
    (TIMED_OFFER, NEW): (PREPARING, _prepare, "written down, its process is made"),
    (TIMED_OFFER, PREPARING): (PREPARING, _prepare, "prepared anew"),
    (TIMED_OFFER, RECEIVED): (PREPARING, _prepare, "prepared anew"),
    (TIMED_OFFER, CLOSED): (PREPARING, _prepare, "with the next boot"),
    (TIMED_OFFER, SETTLED): (PREPARING, _prepare, "with the next boot, where it was closed"),
    (SAME_OFFER, RECEIVED): (RECEIVED, _collect_again, "`collected` again"),
    (SAME_OFFER, FINISHED): (FINISHED, _answer_again, "the result again"),
    (SAME_OFFER, CLOSED): (CLOSED, _answer_again, "the result again"),
    (SAME_OFFER, SETTLED): (SETTLED, _answer_again, "the result again"),
    (DOUBTED_OFFER, NEW): (RECEIVED, _refuse, "in memory, `collected`"),
    (DOUBTED_OFFER, RECEIVED): (RECEIVED, _collect_again, "`collected` again"),
    (DOUBTED_OFFER, FINISHED): (FINISHED, _answer_again, "the result again"),
    (DOUBTED_OFFER, CLOSED): (CLOSED, _answer_again, "the result again"),
    (DOUBTED_OFFER, SETTLED): (SETTLED, _answer_again, "the result again"),
    (MISSENT_OFFER, NEW): (NEW, _pass_over, "the heartbeat"),
    (MISSENT_OFFER, RECEIVED): (RECEIVED, _collect_again, "`collected` again"),
    (MISSENT_OFFER, FINISHED): (FINISHED, _answer_again, "the result again"),
    (MISSENT_OFFER, CLOSED): (CLOSED, _answer_again, "the result again"),
    (MISSENT_OFFER, SETTLED): (SETTLED, _answer_again, "the result again"),
    (GRANT, RECEIVED): (STARTING, _start, "its process is made"),
    (TIMED_GRANT, RECEIVED): (ARMED, _arm, "`started` is written, released at its instant"),
    (BARRED_GRANT, RECEIVED): (CLOSED, _reject, "rejected, ran no"),
    (CANCEL, PREPARING): (CLOSED, _cancel, "cancelled, ran no"),
    (CANCEL, RECEIVED): (CLOSED, _cancel, "cancelled, ran no"),
    (CANCEL, STARTING): (ENDING, _stop, "told to end"),
    (CANCEL, RUNNING): (ENDING, _stop, "told to end"),
    (CANCEL, ARMED): (ENDING, _stop, "disarmed, told to end"),
    (PENDING, STARTING): (ENDING, _stop, "told to end"),
    (PENDING, RUNNING): (ENDING, _stop, "told to end"),
    (PENDING, ARMED): (ENDING, _stop, "disarmed, told to end"),
    (OTHER, PREPARING): (CLOSED, _reject, "rejected, ran no"),
    (OTHER, RECEIVED): (CLOSED, _reject, "rejected, ran no"),
    (OTHER, STARTING): (ENDING, _stop, "told to end"),
    (OTHER, RUNNING): (ENDING, _stop, "told to end"),
    (OTHER, ARMED): (ENDING, _stop, "disarmed, told to end"),
    (UNHEARD_OF, RECEIVED): (CLOSED, _reject, "rejected, ran no"),
    (SETTLING, FINISHED): (SETTLED, _settle, ""),
    (SETTLING, CLOSED): (SETTLED, _settle, ""),
    (PREPARED, PREPARING): (PREPARING, _prepared, "waits for the time to be known"),
    (READY, PREPARING): (RECEIVED, _collect, "`collected`"),
    (NEW_LIFE, ARMED): (ARMED, _disarm, "disarmed"),
    (HALT, ARMED): (ARMED, _disarm, "disarmed"),
    (START, STARTING): (RUNNING, _started, "`started` is written, the program handed over"),
    (START, ENDING): (ENDING, _started, "`started` is written, told to end"),
    (END, STARTING): (FINISHED, _end, "its outcome"),
    (END, RUNNING): (FINISHED, _end, "its outcome"),
    (END, ARMED): (FINISHED, _end, "its outcome"),
    (END, ENDING): (FINISHED, _end, "its outcome"),
    (FAILURE, PREPARING): (RECEIVED, _unprepared, "`collected`; rejected at its grant"),
    (FAILURE, STARTING): (FINISHED, _end, "rejected, ran no"),
    (FAILURE, RUNNING): (FINISHED, _end, "rejected, ran no"),
    (FAILURE, ARMED): (FINISHED, _end, "rejected, ran no"),
    (FAILURE, ENDING): (FINISHED, _end, "rejected, ran no"),
    (TIME_OVER, STARTING): (STARTING, _stop, "told to end"),
    (TIME_OVER, RUNNING): (RUNNING, _stop, "told to end"),
    (TIME_OVER, ARMED): (ARMED, _stop, "told to end"),
    (TIME_OVER, ENDING): (ENDING, _stop, "told to end"),
    (RESTART, RECEIVED): (RECEIVED, _wait_again, "`collected` with the next boot"),
    (TIMED_RESTART, RECEIVED): (PREPARING, _prepare_again, "prepared anew"),
    (RESTART, RUNNING): (FINISHED, _interrupted, "interrupted, ran maybe"),
    (RENAMED, RECEIVED): (CLOSED, _renamed, "rejected, ran no"),
    (RENAMED, RUNNING): (FINISHED, _interrupted, "interrupted, ran maybe"),
}
"""Every move there is: the stage that it leads to, what is done, and one line for the reader."""


def move(decision: Decision, word: str, stage: str, case: Case, moment: Moment) -> None:
    if (word, stage) in TABLE:
        to, step, _ = TABLE[word, stage]
        step(decision, to, case, moment)
