"""What is asked of several boards at once: a group's messages, and batches that need no group.

The law: what one message asks of all members is decided here as a whole, for one transaction. Each
member's part is then an ordinary command, decided by the same table (docs/protocol.md, "Groups and
batches"). How they are stopped stands in ``stopping``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwsync.protocol import idle, limits, machine, starts, stopping, turns
from hwsync.protocol.admission import digest_of, part_of
from hwsync.protocol.answers import refuse
from hwsync.protocol.batch import Batch, group_key, list_key, with_start
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import AnswerBatch, BatchDecision, Effect, PublishError, ReplyBatch
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import CancelAsked, Queried, Requested, ResetAsked
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.jsons import dumps, size
from hwsync.protocol.record import Analyser, Moment, Record, State, replace
from hwsync.protocol.rules import Rules

GroupEvent = Requested | CancelAsked | ResetAsked | Queried


def decide(
    draft: Draft,
    group: str,
    event: GroupEvent,
    members: Sequence[str],
    is_offline: Callable[[str], bool],
    moment: Moment,
    rules: Rules,
) -> None:
    """Take the decisions that follow from an event for a group. Raises ``Refused``.

    Then nothing of the draft counts. The arguments are those of ``core.decide_group``.
    """
    if isinstance(event, Queried):
        key = _named(draft, group, event.id).key
        draft.take(BatchDecision(None, (AnswerBatch(key),)))
    elif isinstance(event, ResetAsked):
        stopping.stop_all(draft, group, event, members, moment, rules)
    elif isinstance(event, CancelAsked) and group == ALL and event.id is None:
        stopping.cancel_all(draft, members, moment, rules)
    elif isinstance(event, CancelAsked):
        stopping.cancel(draft, _named(draft, group, event.id), event, moment, rules)
    else:
        _request(draft, group, event, tuple(members), is_offline, moment, rules)
    _mark_brief(draft)


def on_refusal(refusal: Refused) -> tuple[Effect, ...]:
    """What is published of it."""
    return (PublishError(refusal, State.REST),)


def join(draft: Draft, user: str, event: Requested, moment: Moment, rules: Rules) -> None:
    """One member's own request of a batch without a group; where it is refused, that is taken."""
    try:
        _join(draft, user, event, moment, rules)
    except Refused as refusal:
        known = None if event.id is None else draft.command(user, event.id)
        draft.take(refuse(draft.record_of(user), machine.about(refusal, event), known))


# -- requests -----------------------------------------------------------------------------------


def _request(
    draft: Draft,
    group: str,
    event: Requested,
    members: tuple[str, ...],
    is_offline: Callable[[str], bool],
    moment: Moment,
    rules: Rules,
) -> None:
    id = event.id or f"batch-{moment.nonce}"
    known = draft.batch(group_key(group, id))
    if known is not None:
        _repeat(draft, known, event)
        return
    asked = replace(event.request, id=id, analysis=event.request.analysis or Analyser.OUTCOME)
    _check_request(draft, group, event, members)
    machine.check_new(Record("u" * 64), asked, moment, rules, of_batch=True)
    _make_room(draft, group, moment)
    before, part = draft.newest(group), part_of(asked, group_key(group, id))
    batch = Batch(
        *(part.key, group, id, members, asked, part.digest, event.options),
        seq=before.seq + 1 if before else 1,
        issued=moment.wall,
        ticks=moment.ticks,
        follows=before is not None,
        replies=(event.reply,) if event.reply else (),
    )
    draft.take(BatchDecision(with_start(batch, asked.start, moment)))
    event = replace(event, request=asked, part=part)
    answers = {user: _ask(draft, user, event, is_offline, moment, rules) for user in members}
    refused = {user: code for user, code in answers.items() if code is not None}
    if len(refused) == len(members):
        raise _refused_by_all(group, list(refused.values()))
    batch = draft.batch(part.key) or batch
    draft.take(BatchDecision(replace(batch, refused=refused)))
    draft.touched[part.key] = None
    turns.of_batches(draft, moment, rules)


def _check_request(draft: Draft, group: str, event: Requested, members: tuple[str, ...]) -> None:
    """Raises ``Refused`` where nothing of that kind may be asked of the group."""
    if not members:
        raise Refused(
            Code.NOT_ALLOWED,
            f"there are no boards in {SIGN}{group} now",
            "is a board of it switched on? hwsync status lists the boards",
        )
    starts.check_need(event.request, len(members))
    bytes = len(members) * idle.weight(event.request)
    if len(members) > limits.MAX_USERS or bytes > limits.MAX_BATCH_BYTES:
        raise Refused(
            Code.TOO_LARGE,
            f"{len(members):,} boards are to have {bytes:,} bytes together",
            f"at most {limits.MAX_USERS:,} boards and {limits.MAX_BATCH_BYTES:,} bytes",
        )


def _make_room(draft: Draft, group: str, moment: Moment) -> None:
    """Raises ``Refused`` where too many batches are open.

    The oldest one without a group ends first, of which nobody is under way: whoever of its list has
    not asked yet is waited for no longer.
    """
    open = list(draft.open_batches())
    if group and sum(one.group == group for one in open) >= limits.MAX_OPEN_OF_GROUP:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{limits.MAX_OPEN_OF_GROUP} batches of {SIGN}{group} are open already",
            "wait until one has ended, or cancel one",
        )
    if len(open) < limits.MAX_OPEN_BATCHES:
        return
    idle_one = next((one for one in open if not one.group and one.is_idle), None)
    if idle_one is None:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{limits.MAX_OPEN_BATCHES:,} batches are open already",
            "wait until one has ended, or cancel one",
        )
    draft.take(BatchDecision(replace(idle_one, ended=moment.wall)))


def _ask(
    draft: Draft,
    user: str,
    event: Requested,
    is_offline: Callable[[str], bool],
    moment: Moment,
    rules: Rules,
) -> Code | None:
    """Ask one member; why it refuses, None: it begins, or waits."""
    assert event.part is not None
    if event.options.online and is_offline(user):
        return Code.MISSING
    if draft.command(user, event.request.id or "") is not None:
        return Code.ID_REUSED
    batch = draft.batch(event.part.key)
    is_busy = draft.record_of(user).state is not State.REST
    if is_busy and not event.request.queue:
        return Code.BUSY
    waits = not is_busy and batch is not None and not batch.has_place
    asked = replace(event, part=replace(event.part, waits=True)) if waits else event
    decision = turns.one(draft, user, asked, moment, rules)
    if decision.refused is not None:
        return decision.refused.code
    draft.take(decision)
    return None


def _refused_by_all(group: str, codes: list[Code]) -> Refused:
    numbers = {code: codes.count(code) for code in dict.fromkeys(codes)}
    said = ", ".join(f"{number} {code}" for code, number in numbers.items())
    return Refused(
        codes[0],
        f"no board of {SIGN}{group} takes it: {said}",
        'nothing was stored. A request may wait: {"queue": true}',
    )


def _repeat(draft: Draft, known: Batch, event: Requested) -> None:
    """A known id starts nothing; its status answers, and the reply is owed too, or due now."""
    if digest_of(event.request) != known.digest:
        raise Refused(
            Code.ID_REUSED,
            f"the id {known.id} belongs to another program, stdin, args or name of "
            f"{SIGN}{known.group}",
            "take a new id for a new batch",
        )
    changed, effects = None, tuple[Effect, ...]((AnswerBatch(known.key),))
    if event.reply is not None and event.reply not in known.replies:
        if known.ended is None and len(known.replies) < limits.MAX_REPLIES:
            changed = replace(known, replies=(*known.replies, event.reply))
        else:
            effects = (*effects, ReplyBatch(known.key, (event.reply,)))
    draft.take(BatchDecision(changed, effects))


def _join(draft: Draft, user: str, event: Requested, moment: Moment, rules: Rules) -> None:
    listed, id = event.listed or (), event.id or ""
    if user not in listed:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"the list 'batch' does not have {user}",
            "each board of the list is asked on its own topic, with the same list and id",
        )
    key = list_key(id, listed)
    event = replace(event, listed=None, part=part_of(event.request, key))
    if draft.command(user, id) is not None:
        draft.take(turns.one(draft, user, event, moment, rules))
        return
    known = draft.batch(key)
    if known is not None and user in known.refused:
        raise Refused(
            known.refused[user],
            f"{user} is not in the batch {id} any more: {known.refused[user]}",
            "take a new id for a new batch",
        )
    if known is not None and known.ended is not None:
        raise Refused(
            Code.WRONG_STATE, f"the batch {id} has ended", "take a new id for a new batch"
        )
    if known is None:
        _begin_list(draft, user, event, Batch(key, "", id, listed), moment, rules)
    else:
        _join_known(draft, user, event, known, moment, rules)


def _begin_list(
    draft: Draft, user: str, event: Requested, batch: Batch, moment: Moment, rules: Rules
) -> None:
    """The first member to ask: it pays for the list, also where it is refused itself."""
    starts.check_need(event.request, len(batch.members))
    machine.check_new(draft.record_of(user), event.request, moment, rules, of_batch=True)
    decision = turns.one(draft, user, event, moment, rules)
    is_refused = decision.refused is not None
    bytes = limits.IDLE_ROW + size(dumps(batch.members))
    paid = idle.with_row(decision.record, bytes, moment, rules.allowance)
    if paid is None and not is_refused:
        raise idle.no_room(decision.record, bytes, moment, rules.allowance)
    if paid is None or (is_refused and draft.record(user) is None):
        draft.take(decision)  # there is nowhere to keep it
        return
    _make_room(draft, "", moment)
    batch = replace(batch, issued=moment.wall, ticks=moment.ticks)
    batch = with_start(batch, event.request.start, moment)
    if decision.refused is not None:
        _note_refusal(draft, user, batch, decision.refused.code)
    else:
        draft.take(BatchDecision(batch))
    draft.take(replace(decision, record=paid, unlogged=is_refused))


def _join_known(
    draft: Draft, user: str, event: Requested, batch: Batch, moment: Moment, rules: Rules
) -> None:
    """A further member: whatever refuses it, it is waited for no longer."""
    try:
        starts.check_need(event.request, len(batch.members))
        machine.check_new(draft.record_of(user), event.request, moment, rules, of_batch=True)
        _check_same_start(batch, event, moment)
    except Refused as refusal:
        decision = refuse(draft.record_of(user), machine.about(refusal, event))
    else:
        decision = turns.one(draft, user, event, moment, rules)
    if decision.refused is not None:
        _note_refusal(draft, user, batch, decision.refused.code)
    draft.take(decision)


def _note_refusal(draft: Draft, user: str, batch: Batch, code: Code) -> None:
    draft.take(BatchDecision(replace(batch, refused={**batch.refused, user: code})))
    draft.touched[batch.key] = None


def _check_same_start(batch: Batch, event: Requested, moment: Moment) -> None:
    """Raises ``Refused`` where a further member does not begin as the others do."""
    if event.request.start != batch.start:
        raise Refused(
            Code.ID_REUSED,
            f"the batch {batch.id} has another 'start'",
            "the same 'start' in each member's request",
        )
    if batch.start_life and batch.start_life != moment.life:
        raise Refused(
            Code.BAD_PAYLOAD,
            "'at' is past: the lab's clock began anew since the batch was asked",
            "take a new id for a new batch",
        )


# -- what is meant --------------------------------------------------------------------------------


def _named(draft: Draft, group: str, id: str | None) -> Batch:
    """The batch that is meant: that with the id, else the newest. Raises ``Refused``."""
    found = draft.newest(group) if id is None else draft.batch(group_key(group, id))
    if found is not None:
        return found
    newest = draft.newest(group)
    never = f"{SIGN}{group} never had a batch"
    raise Refused(
        Code.NOT_CURRENT,
        never if id is None else f"{never} with the id {id}",
        f"the newest one is {newest.id}" if newest else f"ask one: {SIGN}{group}/request",
        id=id,
    )


def _mark_brief(draft: Draft) -> None:
    """Only the first row of the log keeps a request: the others have its hash."""
    first = True
    for number, one in enumerate(draft.decisions):
        if isinstance(one, BatchDecision) or one.entry is None:
            continue
        if not first:
            entry = replace(one.entry, brief=True)
            draft.decisions[number] = replace(one, entry=entry)
        first = False
