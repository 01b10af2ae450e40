"""What a user's messages may store that leads to no answer of a device: so much, and no more.

Such are results with unknown ids, results that are refused or told again, resets at rest, and
commands that ended before a device answered. The law: the first result and the first analysis of a
known command, every move of one that was accepted, and its end are never touched by it; and
whatever is not stored is settled and answered all the same. What was stored is given back by time,
and by the answers of devices (docs/protocol.md, section 4, "What leads to nothing").
"""

from __future__ import annotations

import math

from hwsync.protocol import limits
from hwsync.protocol.effects import Decision, LogEntry, PublishError, PublishStatus
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.files import Files, names_and_hashes
from hwsync.protocol.jsons import dumps, size
from hwsync.protocol.record import Command, Moment, Record, Request, State, Verb, replace
from hwsync.protocol.rules import Allowance


def weight(request: Request) -> int:
    """Bytes of what a request keeps: its program, stdin, args, meta and files."""
    args = size(dumps(request.args)) if request.args else 2
    texts = size(request.program) + size(request.stdin) + args + size(request.meta)
    if not request.files and not request.collect:
        return texts
    names = size(names_and_hashes(request.files)) + size(dumps(request.collect))
    return texts + names + file_bytes(request.files)


def file_bytes(files: Files) -> int:
    """Bytes of these files together."""
    return sum(one.size for one in files)


def spent(record: Record, moment: Moment) -> float:
    """Bytes that are spent now of what may be.

    A clock that was put back gives nothing back, unless by more than a day: it was wrong before,
    and what counts from then would last as long as it was ahead.
    """
    passed = max(moment.wall - record.idle_at, 0.0)
    if moment.wall < record.idle_at - limits.IDLE_BACK_S:
        return 0.0
    return max(record.idle - passed * limits.IDLE_PER_S, 0.0)


def accepts(record: Record, moment: Moment, allowance: Allowance) -> None:
    """Raises ``Refused`` for a new request where too much of what came before led to nothing.

    In the second half of the allowance what waits in the queue counts already: it may end at once.
    """
    now, half = spent(record, moment), allowance.max_idle / 2
    over = now + record.queue_bytes - allowance.max_idle
    if now <= half or over < 0:
        return
    raise _full(record, min(over, now - half), allowance)


def no_room(record: Record, bytes: float, moment: Moment, allowance: Allowance) -> Refused:
    """The refusal of a request that would have stored so many bytes (``with_row``)."""
    return _full(record, spent(record, moment) + bytes - allowance.max_idle, allowance)


def _full(record: Record, over: float, allowance: Allowance) -> Refused:
    wait = math.ceil(over / limits.IDLE_PER_S) + 1
    hint = f"is the device on? A request is taken in {wait} s"
    if record.queue or record.batched or record.state in (State.REQUESTED, State.COLLECTED):
        hint += ", or when the device has answered what waits"
    return Refused(
        Code.NOT_ALLOWED,
        f"what was asked of {record.user} lately led to no answer of its device, and fills "
        f"{allowance.max_idle // limits.KIB} KiB",
        hint,
    )


def within(
    before: Record, known: Command | None, decision: Decision, moment: Moment, allowance: Allowance
) -> Decision:
    """The decision as far as there is room for it, and what it stores for nothing counted.

    ``known``: the command that the event named. Raises ``Refused`` for what is to be refused then.
    """
    entry = decision.entry
    if entry is None or decision.regrade is not None:
        return decision  # of regrades each command has so many at most
    if entry.verb is Verb.RESPONSE and not entry.late:
        # Whatever was spent, one new request is taken after it.
        left = min(spent(before, moment), allowance.max_idle) - limits.IDLE_ANSWER
        return _with(decision, left, moment)
    if (ended := _unanswered(before, decision)) is not None:
        bytes = 3 * limits.IDLE_ROW + _texts(before, ended, entry)
        most = max(allowance.max_idle + _beyond(allowance.max_idle), spent(before, moment))
        return _with(decision, min(spent(before, moment) + bytes, most), moment)
    if _leads_to_nothing(entry):
        return _for_nothing(before, known, decision, entry, moment, allowance.max_idle)
    return decision


def turned_away(record: Record, id: str, journal: str, refusal: Refused) -> Decision:
    """A result that is not kept: refused, and settled all the same."""
    rest = [pair for pair in record.settled if pair != (id, journal)]
    after = replace(record, settled=(*rest, (id, journal))[-limits.SETTLED_PAIRS :])
    effects = (PublishError(refusal, record.state), PublishStatus(after))
    return Decision(after, effects=effects, refused=refusal, unlogged=True)


def with_row(record: Record, bytes: float, moment: Moment, allowance: Allowance) -> Record | None:
    """The record that has counted so many bytes; None: there is no room for them."""
    now = spent(record, moment)
    if now + bytes > allowance.max_idle:
        return None
    return replace(record, idle=now + bytes, idle_at=moment.wall)


def keeps_payload(entry: LogEntry, command: Command | None, payload: bytes) -> bool:
    """Whether a row of the log has its message itself, or only the message's hash.

    The texts stand with the command; what pads them is not kept, nor what moved nothing. Of a
    request they are kept by their content, once whoever else has them, and so are files.
    """
    if len(payload) <= limits.LOG_PAYLOAD:
        return True
    if entry.before is entry.after or command is None or entry.verb is Verb.REQUEST:
        return False
    texts = size(command.analysis or "")
    if command.report is not None:
        if command.report.files:
            return False
        texts += size(command.report.response) + size(command.report.stderr)
    return len(payload) <= limits.LOG_PAYLOAD + 2 * texts


def _for_nothing(
    before: Record,
    known: Command | None,
    decision: Decision,
    entry: LogEntry,
    moment: Moment,
    most: int,
) -> Decision:
    """What leads to nothing: stored as it is where there is room, else settled and answered."""
    room = most - spent(before, moment)
    again = entry.verb is Verb.RETRIEVAL and not entry.late
    if again:
        room += 2 * _beyond(most)  # a device that starts again must not lose its grant
    orphan = decision.command if known is None and decision.command else None
    if orphan is not None:
        return _orphan(before, orphan, decision, moment, room, most)
    forgets = decision.record.forgotten and not before.forgotten
    if room >= limits.IDLE_ROW or forgets or _is_first(known, decision):
        return _counted(before, decision, moment, limits.IDLE_ROW)
    if again:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{entry.id} was collected anew too often",
            "does the device start again and again? See its log",
        )
    if entry.verb is Verb.RESET:
        return Decision(before, effects=(PublishStatus(before),), unlogged=True)
    return _without_row(before, decision)


def _leads_to_nothing(entry: LogEntry) -> bool:
    again = (Verb.RESET, State.REST), (Verb.RETRIEVAL, State.COLLECTED)
    same = entry.verb is Verb.RESTORE and entry.before is entry.after
    return entry.late or same or (entry.verb, entry.before) in again


def _unanswered(before: Record, decision: Decision) -> Command | None:
    """The command that this ended before anybody answered it."""
    was, now, other = before.current, decision.record.current, decision.command
    if other and other.report and before.is_waiting(other.id):
        return other
    ended = was and now and was.id == now.id and not was.report and now.report
    return now if ended and now and now.answered_by is None else None


def _texts(before: Record, ended: Command, entry: LogEntry) -> int:
    """Bytes that the texts of a command have in the database, as far as its user stored them.

    Long ones are kept once, a request below 1 KiB in the record and in the log too, unless it came
    from the queue or is of a batch. For what a new epoch ends its user can do nothing.
    """
    if entry.verb is Verb.RESTORE:
        return 0
    once = weight(ended.request)
    queued = before.is_waiting(ended.id) or before.taken_at is not None or ended.batch
    return once if queued else once + 2 * min(once, limits.LOG_PAYLOAD)


def _beyond(most: int) -> float:
    """Bytes beyond the allowance that are counted: time gives them back before long."""
    return min(limits.IDLE_PER_S * limits.IDLE_WAIT_S, most)


def _is_first(known: Command | None, decision: Decision) -> bool:
    """Whether it says of a known command what nobody had said: its end, its analysis."""
    own = decision.record.current
    now = decision.command or (own if known and own and own.id == known.id else None)
    if known is None or now is None:
        return False
    new = (now.report, now.analysis) != (known.report, known.analysis)
    return new or (bool(now.journals_answered) and not known.journals_answered)


def _orphan(
    before: Record, orphan: Command, decision: Decision, moment: Moment, room: float, most: int
) -> Decision:
    """An orphan as a whole, without its texts, or not at all.

    Half of the room is for rows alone: that an id is known counts more than what it printed.
    """
    rows = 2 * limits.IDLE_ROW
    report = orphan.report
    assert report is not None
    texts = size(report.response) + size(report.stderr) + file_bytes(report.files)
    if room - most / 2 >= rows + texts:
        return _counted(before, decision, moment, rows + texts)
    if room >= rows:
        bare = replace(report, response="", stderr="", truncated=True, order=None, not_kept=())
        decision = replace(decision, command=replace(orphan, report=bare, pruned=True))
        return _counted(before, decision, moment, rows)
    refusal = Refused(
        Code.NOT_ALLOWED,
        f"no more results with unknown ids are kept of {before.user}: {orphan.id} is not stored",
        "was an older database put back? The board's own journal knows what ran",
        id=orphan.id,
        journal=orphan.answered_by,
    )
    return turned_away(before, orphan.id, orphan.answered_by or "", refusal)


def _counted(before: Record, decision: Decision, moment: Moment, bytes: float) -> Decision:
    return _with(decision, spent(before, moment) + bytes, moment)


def _with(decision: Decision, idle: float, moment: Moment) -> Decision:
    record = replace(decision.record, idle=max(idle, 0.0), idle_at=moment.wall)
    return replace(decision, record=record)


def _without_row(before: Record, decision: Decision) -> Decision:
    """The same without its row: settled and answered under the number that the record had."""
    record = replace(decision.record, seq=before.seq, time=before.time, forgotten=before.forgotten)
    effects = tuple(
        PublishStatus(record) if isinstance(effect, PublishStatus) else effect
        for effect in decision.effects
    )
    return replace(decision, record=record, entry=None, effects=effects, unlogged=True)
