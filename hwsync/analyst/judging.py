"""One run: all that is stored of it, an analyser's judgement, and the coordinator's answer to it.

The law: a run that failed for the lab's reasons is judged as neither; an analysis that is too large
and a file that is gone are faults of the analyser. None of these counts against a program. A
judgement is said until something is its answer; whoever says it twice has said it once
(docs/protocol.md, section 7).

    with Client(url, topics, "pi1") as client:
        stored = client.wait(reading_stored(client, "c1"))
        judgement = judged(engine, analyser, stored)
        client.wait(telling(client, stored.end, judgement, regrade=True))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from hwsync.analysers import Run
from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser
from hwsync.grading import is_lab_failed
from hwsync.operator.conversation import ANSWER_S, Conversation, Talk, raise_refused
from hwsync.operator.fetching import fetching
from hwsync.protocol.errors import Code, TooLarge
from hwsync.protocol.files import is_path
from hwsync.protocol.record import AnalysedBy
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_analysis
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import Result

LOOKS: Final = 2  # for files that came back and cannot be had: others may have been answered
ANSWERS: Final = 2  # results without ours, until one of them stood behind what we said

Fields = Mapping[str, Any]


class Judge(Protocol):
    """``hwsync.analysers.engine.Engine``, as far as it is needed here."""

    def judge(self, analyser: Analyser, run: Run) -> Judgement:
        """Run it; blocks."""


class End(NamedTuple):
    """How a command has ended, as it was judged: a late result may correct it meanwhile."""

    id: str
    outcome: str | None
    ran: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A command as ``result/<id>`` tells it, with the bytes of its files.

    ``gone``: paths of files that came back, and that nobody has any more.
    """

    result: Result
    files: Mapping[str, bytes]
    gone: tuple[str, ...] = ()

    @property
    def end(self) -> End:
        """What a judgement of it is of."""
        return End(self.result["id"], self.result["outcome"], self.result["ran"])

    @property
    def run(self) -> Run:
        """As an analyser sees it."""
        return replace(Run.of_result(self.result), files=dict(self.files))


def reading_stored(conversation: Conversation, id: str, patience: float = ANSWER_S) -> Talk[Stored]:
    """All that is stored of a command.

    Raises as ``Conversation.querying`` does: ``Refused`` for an id that the board never had,
    ``NoCoordinator`` where nobody answers within ``patience``.
    """
    result = yield from conversation.querying(id, patience)
    listed = [path for path in result.get("files") or {} if is_path(path)]
    found: dict[str, bytes] = {}
    for _ in range(LOOKS):
        if left := [path for path in listed if path not in found]:
            found |= yield from fetching(conversation, id, result, left)
    gone = tuple(path for path in listed if path not in found)
    return Stored(result, found, gone)


def is_judged(fields: Fields) -> bool:
    """Whether a status or result has its first analysis."""
    return fields.get("analysed_by") is not None or bool(fields["server_analysis"])


def judged(engine: Judge, analyser: Analyser, stored: Stored) -> Judgement:
    """What that analyser says of it; blocks as long as the analyser runs.

    Where there is nothing to judge it is not run: of a run that failed for the lab's reasons its
    judgement says neither, and of one that is not whole any more it is a fault. Raises
    ``CannotRun`` where this machine can run nothing now: that says nothing of the run.
    """
    result = stored.result
    if is_lab_failed(result):
        return neither(analyser, result)
    if result["pruned"]:
        return faulty(
            analyser, "its output was dropped with the years (--keep-days), and cannot be judged"
        )
    if stored.gone:
        more = f" and {len(stored.gone) - 1} more" if len(stored.gone) > 1 else ""
        return faulty(
            analyser, f"its file {stored.gone[0]}{more} came back, and is not kept any more"
        )
    return engine.judge(analyser, stored.run)


def neither(analyser: Analyser, result: Fields) -> Judgement:
    """The judgement of a run that says nothing of its program: it is nobody's fault."""
    reason = f": {result['reason']}" if result["reason"] else ""
    message = f"there is no result to judge, the run was {result['outcome']}{reason}"
    return Judgement(analyser.name, analyser.version, {"passed": None, "message": message})


def faulty(analyser: Analyser | Judgement, fault: str) -> Judgement:
    """The judgement of an analyser that has failed, or was not asked."""
    return Judgement(analyser.name, analyser.version, {"error": fault}, fault)


def telling(
    conversation: Conversation, end: End, judgement: Judgement, *, regrade: bool = False,
    patience: float = ANSWER_S,
) -> Talk[Judgement]:  # fmt: skip
    """Say a judgement until it is answered; what was said: one that is too large is a fault.

    ``regrade``: beside the first analysis, of a command that has ended. Whoever else was first, or
    has said the same, makes it a copy. Raises ``Refused`` where the coordinator refuses it
    (``wrong_state``: the command has a first analysis, and this one would be another; or it has
    not ended; ``not_current``: it has another ``end`` by now), ``NoCoordinator`` where nobody
    answers within ``patience``.
    """
    try:
        answered = yield from _telling(conversation, end, judgement, regrade, patience)
        if answered.error is None or answered.error["error"] != Code.TOO_LARGE:
            raise_refused(answered)
            return judgement
        why = answered.error["message"]
    except TooLarge as error:
        why = error.message
    small = faulty(judgement, f"its analysis is too large: {why}")
    answered = yield from _telling(conversation, end, small, regrade, patience)
    raise_refused(answered)
    return small


def _telling(
    conversation: Conversation, end: End, judgement: Judgement, regrade: bool, patience: float
) -> Talk[Received]:
    id, outcome, ran = end
    by = AnalysedBy(judgement.name, judgement.version, judgement.fault)
    payload = encode_analysis(judgement.analysis, id, by, regrade, outcome=outcome, ran=ran)
    results = 0
    refusal: Received | None = None
    is_repeated = False

    def answer(came: Received) -> bool:
        nonlocal results, refusal
        fields = came.command_fields
        if came.fields.get("id") != id:
            return False
        if came.error is not None and regrade and came.error["error"] == Code.WRONG_STATE:
            refusal = came  # or of somebody else's analysis that was under way: a repeat shows it
            return False
        if came.kind is TopicKind.ERROR:
            return True
        if not regrade:
            return fields is not None and is_judged(fields)
        if came.result is None:
            return False
        # One that was under way when it was said does not have it; the next one stood behind it.
        results += 1
        is_last = results >= ANSWERS and (refusal is None or is_repeated)
        return is_last or _has(came.result, judgement)

    def repeat() -> None:
        nonlocal refusal, is_repeated
        refusal, is_repeated = None, True

    answered = yield from conversation.asking(
        TopicKind.ANALYSIS, payload, answer, then_query=id, waiting=repeat, patience=patience
    )
    if refusal is None or answered.result is None or _has(answered.result, judgement):
        return answered
    return refusal


def _has(result: Fields, judgement: Judgement) -> bool:
    told = [*(result.get("regrades") or ()), result.get("analysed_by") or {}]
    wanted = (judgement.name, judgement.version)
    return any((one.get("name"), one.get("version")) == wanted for one in told)
