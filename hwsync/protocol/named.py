"""Events that name an id and are no plain transition: copies, late ones, orphans, foreign results.

The law: none of them moves the state. A result is always settled, so that no device repeats it for
ever; ``ran`` is corrected to yes by any device, and to no only by the journal that held the grant
(docs/protocol.md, section 2, "Events that name an id").
"""

from __future__ import annotations

from hwsync.protocol import limits, waiting
from hwsync.protocol.analysis import noted, outcome_line
from hwsync.protocol.effects import (
    Decision,
    Effect,
    LogEntry,
    PublishError,
    PublishResult,
    PublishStatus,
)
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    Collected,
    ResetAsked,
    Returned,
)
from hwsync.protocol.record import (
    Analyser,
    Command,
    Moment,
    Ran,
    Record,
    Regrade,
    Request,
    State,
    Verb,
    replace,
)

BY_HAND = ""  # who answered, where a person did
RENAME_ONE = "give one of them another name"

# Begin the notes of results that changed no report; ``protocol.receipt`` reads them.
REFUSED = "refused: "
AGREES = "agrees: it did not run"
SETTLED_AGAIN = "settled again"
OF_NO_RESULT = (REFUSED, AGREES, SETTLED_AGAIN)

Named = Collected | Returned | Analysed | CancelAsked | ResetAsked


def is_duplicate(event: Named, known: Command) -> bool:
    """Whether the same event was accepted for this command before."""
    if isinstance(event, Collected):
        held = event.journal is not None and event.journal == known.journal
        if held and not moves_grant(event, known):
            # An earlier boot is a copy that was under way while the grant moved on.
            return True
        return (event.journal, event.boot) == known.late_collected
    if isinstance(event, Returned):
        return event.journal in known.journals_answered and not _says_more(event, known)
    if isinstance(event, Analysed):
        return _is_known_analysis(event, known)
    return event.verb in known.accepted


def _is_known_analysis(event: Analysed, known: Command) -> bool:
    """Of an analyser there is one for each version, whatever it says; of a person, the same text.

    What moves the record is its first analysis: no regrade that came before stands in its way.
    """
    if event.by is None:
        return known.analysis is not None and known.analysis == event.text
    if known.analysed_by is not None and known.analysed_by.key == event.by.key:
        return True
    return event.by.key in known.regraded and (event.regrade or known.analysis is not None)


def _says_more(event: Returned, known: Command) -> bool:
    """Whether it ran after all, though this device has said something else of it.

    It did so to a database that is no more: what it ran since was granted by another one.
    """
    known_ran = known.report.ran if known.report else Ran.YES
    return event.report.ran is Ran.YES and known_ran is not Ran.YES


def moves_grant(event: Collected, known: Command) -> bool:
    """Whether the device that was granted it has started anew since: the grant follows it."""
    if event.journal is None or event.journal != known.journal:
        return False
    return event.boot is not None and known.boot is not None and event.boot > known.boot


def is_outdated(event: Named, known: Command) -> bool:
    """Whether a result says ran no with a lower boot number than the grant's.

    It answers an earlier offer of the same command: whoever opens a closed one again counts its
    boot on (docs/protocol.md, section 2, "An outdated ``no``", and section 5).
    """
    return (
        isinstance(event, Returned)
        and event.report.ran is Ran.NO
        and event.journal == known.journal
        and None not in (event.boot, known.boot)
        and int(event.boot or 0) < int(known.boot or 0)
    )


def decide_copy(
    record: Record, event: Named, known: Command, moment: Moment, answers: tuple[Effect, ...]
) -> Decision:
    """A copy: no change and no error, but a result that fell out of ``settled`` is put back."""
    if isinstance(event, Returned) and (known.id, event.journal) not in record.settled:
        return _kept(record, event, None, moment, SETTLED_AGAIN)
    return Decision(record, effects=answers)


def decide_unknown(record: Record, event: Named, moment: Moment) -> Decision:
    """An id that this user never had: a result is kept as an orphan, anything else refused."""
    assert event.id is not None
    if not isinstance(event, Returned):
        raise unknown_id(record, event.id)
    # Nobody knows who was granted it, and so whose no would be the truth: it is doubtful.
    orphan = Command(
        record.user,
        event.id,
        Request(""),
        issued=moment.wall,
        answered_by=event.journal,
        journals_answered=(event.journal or "",),
        late=True,
        orphan=True,
        doubtful=True,
    )
    orphan = replace(orphan, report=orphan.without_false_no(event.report))
    return _kept(record, event, orphan, moment, "orphan: no such command is known")


def unknown_id(record: Record, id: str) -> Refused:
    """The refusal of an id that nobody knows."""
    return Refused(
        Code.NOT_CURRENT,
        f"{record.user} never had a command with the id {id}",
        f"the current one is {record.id}" if record.id else f"{record.user} never had any",
    )


def decide_for_earlier(
    record: Record, event: Named, known: Command, moment: Moment, answers: tuple[Effect, ...]
) -> Decision:
    """An event for an earlier command: stored with it and marked late."""
    if isinstance(event, Returned):
        return _late_result(record, event, known, moment)
    if isinstance(event, Analysed):
        decide_analysis = _regrade if event.regrade else _late_analysis
        return decide_analysis(record, event, known, moment, answers)
    if isinstance(event, Collected):
        assert event.journal is not None
        assert event.boot is not None
        mark = (event.journal, event.boot)
        changed = replace(known, late_collected=mark, late=True)
        note = f"collected by {mark[0]}, boot {mark[1]}, after its end"
        return _kept(record, event, changed, moment, note, answers)
    # A cancel or reset of what has already ended: its end is the answer.
    return Decision(record, effects=answers)


def decide_for_queued(
    record: Record, event: Named, known: Command, moment: Moment, answers: tuple[Effect, ...]
) -> Decision:
    """An event for a command that waits, wherever: only a cancel changes anything."""
    if isinstance(event, CancelAsked):
        return waiting.cancel(record, known, moment, asked=not event.of_group)
    place = record.place(known.id)
    refusal = Refused(
        Code.WRONG_STATE,
        f"{known.id} waits {f'in the queue, at place {place}' if place else 'in its batch'}",
        "wait for its turn, or cancel it",
    )
    if isinstance(event, Returned):
        return _refused_result(record, event, None, moment, refusal)
    if isinstance(event, ResetAsked):
        return Decision(record, effects=answers)
    raise refusal


def refuse_or_correct(
    record: Record, event: Named, known: Command, moment: Moment, refusal: Refused
) -> Decision:
    """A hole of the table for the record's own command, by an event that names it."""
    if isinstance(event, Returned):
        if known.report is None:
            # Nobody holds a grant in state 1, so nothing can have run: not heard, only settled.
            return _refused_result(record, event, None, moment, refusal)
        return _late_result(record, event, known, moment)
    if isinstance(event, Analysed) and record.state is State.REST:
        decide_analysis = _regrade if event.regrade else _late_analysis
        return decide_analysis(record, event, known, moment, (PublishStatus(record),))
    if isinstance(event, Collected) and known.journal not in (None, event.journal):
        raise two_devices(known, f"was collected by {known.journal}")
    raise refusal


def refuse_foreign(record: Record, event: Returned, command: Command, moment: Moment) -> Decision:
    """A response in state 2 from elsewhere than the grant's journal."""
    if event.journal is None:
        raise Refused(
            Code.WRONG_STATE,
            f"{command.id} runs on the device with the journal {command.journal}: "
            "it answers, not a person",
            "wait for it, or cancel or reset",
        )
    return _refused_result(record, event, command, moment, _not_granted(command))


def with_report(record: Record, command: Command, event: Returned) -> Record:
    """The record with a device's (or a person's) report of its own command."""
    current = replace(
        command,
        report=command.without_false_no(event.report),
        answered_by=event.journal or BY_HAND,
        journals_answered=_answered_too(command, event.journal),
    )
    return replace(record, current=current, settled=_settled(record, event))


def settle_refused(
    record: Record, id: str, journal: str, moment: Moment, refusal: Refused
) -> Decision:
    """A result that could not be read, of which id and journal could: settled with its error."""
    after = replace(record, settled=_pair(record, id, journal))
    entry = LogEntry(
        Verb.RESPONSE, record.state, record.state, id, True, f"{REFUSED}{refusal.code}"
    )
    return _changed(record, after, None, moment, entry, refusal)


def _late_result(record: Record, event: Returned, known: Command, moment: Moment) -> Decision:
    """The first result of a command that ended without one, or somebody's second."""
    report, held = known.report, event.journal == known.journal
    said = event.report.ran
    # That it ran is the truth whoever saw it, so a yes corrects even an answer that was stored.
    again_yes = said is Ran.YES and report is not None and report.ran is not Ran.YES
    if report is None or (known.answered_by is not None and not again_yes):
        return _refused_result(record, event, known, moment, _not_granted(known))
    noted = replace(known, journals_answered=_answered_too(known, event.journal), late=True)
    if said is Ran.NO and report.ran is Ran.NO:
        # The record's own outcome (expired, cancelled) says more than the device's refusal.
        return _kept(record, event, noted, moment, AGREES)
    if said is Ran.YES or held or (said is Ran.MAYBE and report.ran is Ran.NO):
        corrected = known.without_false_no(event.report)
        changed = replace(noted, report=corrected, answered_by=event.journal)
        if known.analyser == Analyser.OUTCOME and known.analysis == outcome_line(report):
            # The coordinator's own line about the assumed end: it must not contradict the record.
            changed = replace(changed, analysis=outcome_line(corrected))
        changed, withdrawn = _without_verdicts(changed)
        note = f"corrected from {report.outcome}, ran {report.ran}{withdrawn}"
        decided = _kept(record, event, changed, moment, note)
        return replace(decided, withdrawn=known.id) if known.regraded else decided
    return _refused_result(record, event, known, moment, _not_granted(known))


def _without_verdicts(command: Command) -> tuple[Command, str]:
    """Without what analysers said of an end that was only assumed; and the note of it.

    They may say it again, of what is known now (docs/decisions.md, 303).
    """
    first = command.analysed_by
    keys = (*((first.key,) if first else ()), *command.regraded)
    if not keys:
        return command, ""
    names = ", ".join(f"{name} {version}" for name, version in keys)
    without = replace(command, regraded=())
    if first is not None:
        without = replace(without, analysis=None, analysed_by=None)
    return without, f"; withdrawn, since it was said of what was assumed: {names}"


def _not_granted(command: Command) -> Refused:
    holder = f"the journal {command.journal}" if command.journal else "no device"
    return two_devices(command, f"was granted to {holder}")


def two_devices(command: Command, why: str, hint: str = RENAME_ONE) -> Refused:
    """The refusal of a device that a command is not, or no longer, for; ``why``: of the command."""
    text = f"two devices answer for {command.user}: {command.id} {why}"
    return Refused(Code.NOT_CURRENT, text, hint)


def _late_analysis(
    record: Record, event: Analysed, known: Command, moment: Moment, answers: tuple[Effect, ...]
) -> Decision:
    if known.analysis is not None:
        raise Refused(
            Code.WRONG_STATE,
            f"{known.id} has its analysis already",
            "the first one stays; see hwsync show",
        )
    changed = replace(with_analysis(known, event), late=True)
    said = f"{noted(event.by, event.text)}; " if event.by else ""
    note = f"{said}analysed after its end"
    return _kept(record, event, changed, moment, note, _told_anew(answers, changed))


def with_analysis(command: Command, event: Analysed) -> Command:
    """The command with its first analysis."""
    return replace(command, analysis=event.text, analysed_by=event.by, no_analysis="")


def regrade(record: Record, event: Analysed, known: Command, moment: Moment) -> Decision:
    """A further analysis of the record's own command, which has ended."""
    return _regrade(record, event, known, moment, (PublishStatus(record),))


def _regrade(
    record: Record, event: Analysed, known: Command, moment: Moment, answers: tuple[Effect, ...]
) -> Decision:
    """It stands beside the first analysis, and beside what came before it."""
    assert event.by is not None
    if len(known.regraded) >= limits.MAX_REGRADES:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{known.id} was regraded {limits.MAX_REGRADES} times already",
            "hwsync show has what they said",
        )
    changed = replace(known, regraded=(*known.regraded, event.by.key), late=True)
    note = noted(event.by, event.text, regrade=True)
    decided = _kept(record, event, changed, moment, note, _told_anew(answers, changed))
    return replace(decided, regrade=(known.id, Regrade(event.by, event.text, moment.wall)))


def _told_anew(answers: tuple[Effect, ...], changed: Command) -> tuple[Effect, ...]:
    return tuple(
        replace(effect, command=changed) if isinstance(effect, PublishResult) else effect
        for effect in answers
    )


def _refused_result(
    record: Record, event: Returned, known: Command | None, moment: Moment, refusal: Refused
) -> Decision:
    assert event.id is not None
    assert event.journal is not None
    refusal = refusal.about(event.id, event.journal)
    changed = known and replace(known, journals_answered=_answered_too(known, event.journal))
    after, other = _put(record, changed)
    after = replace(after, settled=_pair(record, event.id, event.journal))
    note = f"{REFUSED}{refusal.code}, from {event.journal}: {event.report.outcome}"
    entry = LogEntry(event.verb, record.state, record.state, event.id, True, note)
    return _changed(record, after, other, moment, entry, refusal)


def _kept(
    record: Record,
    event: Named,
    changed: Command | None,
    moment: Moment,
    note: str,
    answers: tuple[Effect, ...] = (),
) -> Decision:
    after, other = _put(record, changed)
    if isinstance(event, Returned):
        after = replace(after, settled=_settled(record, event))
    entry = LogEntry(event.verb, record.state, record.state, event.id or "", True, note)
    # The first of the answers is the status as it was before: ``_changed`` has the new one.
    return _changed(record, after, other, moment, entry, None, answers[1:])


def _changed(
    record: Record,
    after: Record,
    other: Command | None,
    moment: Moment,
    entry: LogEntry,
    refusal: Refused | None,
    more: tuple[Effect, ...] = (),
) -> Decision:
    after = replace(after, seq=record.seq + 1, time=moment.wall, forgotten=False)
    effects: tuple[Effect, ...] = (PublishStatus(after), *more)
    if refusal is not None:
        effects = (PublishError(refusal, record.state), *effects)
    return Decision(after, entry, other, effects, refusal)


def _put(record: Record, changed: Command | None) -> tuple[Record, Command | None]:
    """The changed command in the record where it is its own, else beside it."""
    if changed is not None and changed.id == record.id:
        return replace(record, current=changed), None
    return record, changed


def _answered_too(command: Command, journal: str | None) -> tuple[str, ...]:
    if journal is None or journal in command.journals_answered:
        return command.journals_answered
    return (*command.journals_answered, journal)[-limits.ANSWERED_JOURNALS :]


def _settled(record: Record, event: Returned) -> tuple[tuple[str, str], ...]:
    if event.id is None or event.journal is None:
        return record.settled
    return _pair(record, event.id, event.journal)


def _pair(record: Record, id: str, journal: str) -> tuple[tuple[str, str], ...]:
    rest = [pair for pair in record.settled if pair != (id, journal)]
    return (*rest, (id, journal))[-limits.SETTLED_PAIRS :]
