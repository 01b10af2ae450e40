"""One command of a board as a Future: from its request to its end, whatever happens meanwhile.

The law: a run ends with what the coordinator said of the command, or with the reason for which
nobody here will hear of it; never with a guess. All that it hears it hears in its line's thread;
whoever asks it something may be in any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, cast

from hwsync.api import notebook
from hwsync.api.callbacks import Callbacks
from hwsync.api.errors import Cancelled, NotOk, not_ok
from hwsync.api.options import Beginning, beginning_in_lab_time
from hwsync.api.output import Text
from hwsync.numbers import columns
from hwsync.operator.conversation import Conversation, Talk
from hwsync.operator.fetching import fetching
from hwsync.operator.line import Line
from hwsync.operator.offering import is_analysts
from hwsync.operator.run import Run as Command
from hwsync.operator.run import RunRequest
from hwsync.operator.streams import TEXTS, Streams
from hwsync.protocol.analysis import Verdict, verdict_of
from hwsync.protocol.errors import Closed, Code, HwsyncError, Refused, Unreachable
from hwsync.protocol.record import Analyser, State
from hwsync.protocol.wire.analyst import OWN, analysed_by_of
from hwsync.protocol.wire.ran_on import is_ran_on
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields, Result

log = logging.getLogger("hwsync.api")

MEMBER_S: Final = 5.0  # for a board's own word, beside its batch's; without a right none comes
CODES: Final = {str(code): code for code in Code}


def _in_words(error: HwsyncError) -> HwsyncError:
    """A board that is busy: what a Python program can do, in place of messages by hand."""
    if not isinstance(error, Refused) or error.code is not Code.BUSY:
        return error
    hint = "queue=True waits behind it, as lab.submit does"
    return Refused(error.code, error.message, hint, id=error.id, journal=error.journal,
                   published_error=error.published_error)  # fmt: skip


class Run(Future["Run"]):
    """A program on a board, which has been asked for.

    Its result is itself, once it has ended ``ok``; else ``result()`` raises what ``exception()``
    returns (``hwsync.NotOk`` and its kinds, ``hwsync.Refused``, ``hwsync.Unreachable``):

        run = lab.submit("pi1", "print(6*7)")
        for line in run:
            print(line)
        print(run.result().duration)

    Its other properties may be asked at any time: they say what is known so far.
    """

    def __init__(self, line: Line, callbacks: Callbacks, board: str, request: RunRequest,
                 *, beginning: Beginning | None = None, fresh: bool = True) -> None:  # fmt: skip
        """``fresh``: nobody else knows the request's id."""
        super().__init__()
        self._line, self._callbacks, self._board = line, callbacks, board
        self._beginning, self._fresh = beginning, fresh
        self._request = request
        self._text = {stream: Text() for stream in TEXTS}
        self._streams = Streams(request.id, self, exact=TEXTS)
        self._record: Mapping[str, Any] = {"id": request.id, "user": board}
        self._command: Command | None = None  # once it is asked for
        self._files: Mapping[str, bytes] = {}

    # What is known of it.

    @property
    def board(self) -> str:
        """Where it runs."""
        return self._board

    @property
    def id(self) -> str:
        """The command's."""
        return self._request.id

    @property
    def record(self) -> Mapping[str, Any]:
        """The newest status or result that named it (docs/protocol.md, sections 1 and 3)."""
        return self._record

    @property
    def outcome(self) -> str | None:
        """``ok``, ``error``, ``timeout`` and so on; None while it is open."""
        told: str | None = self._get("outcome")
        return told

    @property
    def ran(self) -> str | None:
        """``yes``, ``no``, or ``maybe`` where nobody can know; None while it is open."""
        told: str | None = self._get("ran")
        return told

    @property
    def reason(self) -> str:
        """One line, why it ended as it did; may be empty."""
        return str(self._get("reason") or "")

    @property
    def exit_code(self) -> int | None:
        """The program's."""
        told: int | None = self._get("exit_code")
        return told

    @property
    def duration(self) -> float | None:
        """Seconds of run time."""
        told: float | None = self._get("duration")
        return told

    @property
    def started(self) -> float | None:
        """When its first instruction was, in Unix seconds."""
        told: float | None = self._get("started")
        return told

    @property
    def ran_on(self) -> Mapping[str, str | float | bool]:
        """What it ran on, once it has ended: ``board``, ``os``, ``python``, ``packages``, …

        Empty where its board did not say it (docs/records.md).
        """
        told: Any = self._get("ran_on")
        return told if is_ran_on(told) else {}

    @property
    def analysis(self) -> str:
        """What was said of it: a text, or compact JSON; empty while nothing was."""
        return str(self._get("server_analysis") or "")

    @property
    def verdict(self) -> Verdict | None:
        """What its analyser said: ``passed``, ``score``, ``message``, ``fault``; None: nothing.

        Also of a person's analysis that is such an object (docs/protocol.md, section 7).
        """
        by = self._get("analysed_by")
        if by is None and not self.analysis:
            return None
        return verdict_of(self.analysis, None if by is None else analysed_by_of(by))

    @property
    def files(self) -> Mapping[str, bytes]:
        """Those that came back, by their paths, once it has ended."""
        return self._files

    @property
    def not_kept(self) -> Sequence[Mapping[str, Any]]:
        """The files that did not come back: ``path``, ``size`` and ``reason`` of each."""
        return self._get("not_kept") or ()

    @property
    def stdout(self) -> str:
        """What it has written to standard output, so far or in all."""
        return self._written("stdout", "hw_response")

    @property
    def stderr(self) -> str:
        """What it has written to standard error."""
        return self._written("stderr", "stderr")

    def numbers(self) -> dict[str, list[float]]:
        """What it has printed as ``name=value`` or as CSV, by column (``hwsync.numbers``).

        ``pandas.DataFrame(run.numbers())`` is a table of it.
        """
        return columns(self.stdout)

    def __iter__(self) -> Iterator[str]:
        """Like ``lines``, of standard output."""
        return self.lines()

    def lines(self, stream: str = "stdout") -> Iterator[str]:
        """Each line as it comes, without its end; then raises what ``result`` would.

        ``stream``: ``stdout`` or ``stderr``.
        """
        yield from self._text[stream].lines()
        self.result()

    def _repr_html_(self) -> str:
        return notebook.of_run(self)

    def __repr__(self) -> str:
        how = self.outcome or ("running" if self.running() else "open")
        if self.done() and not self.outcome:
            how = "failed"
        return f"<Run {self.id} on {self.board}: {how}>"

    # The Future.

    def result(self, timeout: float | None = None) -> Run:
        """This run, once it has ended ``ok``, for which it waits ``timeout`` seconds.

        Raises what ``exception`` returns, and ``TimeoutError`` where it has not ended by then.
        """
        with self._with_record():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Why it did not end ``ok``; None: it did. Raises ``Cancelled``, and ``TimeoutError``."""
        with self._with_record():
            return super().exception(timeout)

    def running(self) -> bool:
        """Whether its board has it now."""
        return not self.done() and self._get("state") == State.COLLECTED

    def cancel(self) -> bool:
        """Ask for its end. False: it has ended otherwise, or nobody can be asked any more.

        It ends as its board and the coordinator say: as ``cancelled``, or as it did by itself.
        """
        if self.done():
            return self.cancelled()
        try:
            self._line.order(self._cancel)
        except Closed:
            return False
        return True

    def add_done_callback(self, fn: Callable[[Future[Run]], object]) -> None:
        """Call it with this run when it has ended: in a thread that is for callbacks alone."""
        super().add_done_callback(lambda _: self._callbacks.call(lambda: fn(self)))

    @contextmanager
    def _with_record(self) -> Generator[None]:
        """A cancelled Future raises what has no record."""
        try:
            yield
        except NotOk:
            raise
        except CancelledError:
            raise Cancelled(self) from None

    def _written(self, stream: str, field: str) -> str:
        told = self._get(field) if self.done() else None
        return str(self._text[stream]) if told is None else told

    def _get(self, field: str) -> Any:
        return self._record.get(field)

    # In the line's thread.

    def when_done(self, do: Callable[[Run], object]) -> None:
        """Call what is hwsync's own, in the line's thread."""
        super().add_done_callback(lambda _: do(self))

    def begin(self, holding: object = None) -> None:
        """Ask, and follow it to its end, for which ``holding`` is held."""
        self._line.begin(self._living(holding), self.board)

    def refuse(self, error: HwsyncError) -> None:
        """It is not, or no longer, followed."""
        self._finish(error)

    def program(self, stream: str, text: str) -> None:
        """As a ``Sink``."""
        self._text[stream].add(text)

    def note(self, stream: str, text: str) -> None:
        """As a ``Sink``."""
        self._text[stream].add(f"{text}\n")

    def _living(self, _holding: object) -> Talk[None]:
        try:
            end = yield from self._following()
        except GeneratorExit:
            goes_on = f"the connection was closed; {self.id} on {self.board} goes on"
            hint = f'lab.find("{self.board}", "{self.id}") follows it again'
            self._finish(Closed(goes_on if self._command else f"{self.id} was not asked for", hint))
            raise
        except HwsyncError as error:
            self._finish(_in_words(error))
        except Exception as error:
            log.exception("hwsync failed; this is a bug")
            self._finish(HwsyncError(f"hwsync failed: {error!r}", "the log has more"))
        else:
            if end is not None:
                self._end(end)

    def _following(self) -> Talk[CommandFields | None]:
        yield from self._line.hearing_of(self.board)
        conversation = self._line.conversation(self.board)
        if self._beginning is not None:
            start = yield from beginning_in_lab_time(
                self._beginning, conversation, self._line.inquire
            )
            self._request = replace(self._request, start=start)
        if self.done():
            return None  # it was cancelled before anybody was asked
        analyser = self._request.analysis
        if is_analysts(analyser):
            yield from self._line.hearing_of_analysts(conversation, analyser)
        last = State.RETURNED if analyser == Analyser.MANUAL else State.REST
        self._command = command = Command(conversation, self._request, last)
        self._record = told = yield from self._asking(command)
        end = yield from command.following(told, on_received=self._hear)
        end = (yield from command.completing(end)) if end["truncated"] else end
        yield from self._fetching(conversation, end)
        return end

    def _fetching(self, conversation: Conversation, end: CommandFields) -> Talk[None]:
        self._files = yield from fetching(conversation, self.id, end)

    def _asking(self, command: Command) -> Talk[CommandFields]:
        return command.requesting(on_received=self._hear, fresh=self._fresh)

    def _hear(self, heard: Received) -> None:
        if heard.fields.get("id") != self.id:
            return
        self._streams.hear(heard.kind, heard.fields)
        if heard.command_fields is not None:
            self._record = heard.command_fields

    def _cancel(self) -> None:
        if self.done():
            return
        if self._command is not None:
            self._command.cancel()
            return
        self._record = {**self._record, "outcome": "cancelled", "ran": "no"}
        self._finish(None)

    def _end(self, end: CommandFields) -> None:
        self._record = end
        if "hw_response" in end:  # a batch does not say it
            self._streams.finish(end)
        cancelled = end["outcome"] == "cancelled" and self._was_cancelled
        self._finish(None if cancelled or end["outcome"] == "ok" else not_ok(self))

    @property
    def _was_cancelled(self) -> bool:
        return self._command is not None and self._command.is_cancelled

    def _finish(self, error: HwsyncError | None) -> None:
        """The end of the Future; without an error it is ``ok``, or cancelled by us."""
        if self.done():
            return
        for text in self._text.values():
            text.finish()
        if error is not None:
            self.set_exception(error)
        elif self.outcome == "ok":
            self.set_result(self)
        else:
            super().cancel()
            self.set_running_or_notify_cancel()


class FoundRun(Run):
    """A command that somebody has asked for before, by its id."""

    def _asking(self, command: Command) -> Talk[CommandFields]:
        return (yield from command.querying())


class MemberRun(Run):
    """What became of one board of a batch, which has ended: what the batch says of it, and more.

    More is what its board's own topics say, where we may hear them.
    """

    def __init__(
        self, line: Line, callbacks: Callbacks, board: str, id: str, told: Mapping[str, Any]
    ) -> None:
        super().__init__(line, callbacks, board, RunRequest(program="", id=id))
        self._record = {**self._record, **told}

    def begin(self, holding: object = None) -> None:
        """Ask for the rest, where there is more."""
        if refused := self._get("refused"):
            said = f"{self.board} has refused it: {refused}"
            self._finish(Refused(CODES.get(refused, Code.NOT_ALLOWED), said, id=self.id))
        elif self.ran == "no":
            self._finish(not_ok(self))
        else:
            super().begin(holding)

    def _following(self) -> Talk[CommandFields | None]:
        yield from self._line.hearing_of(self.board)
        conversation = self._line.conversation(self.board)
        command = Command(conversation, self._request)
        try:
            end = yield from command.querying(MEMBER_S)
            if _is_unjudged(end):  # its batch has ended already
                yield from command.following(on_received=self._hear)
                end = yield from command.querying(MEMBER_S)
        except (Refused, Unreachable):
            return cast(CommandFields, self._record)
        self._record = end  # also where its files cannot be had, which is an error of its own
        yield from self._fetching(conversation, end)
        return end


def _is_unjudged(end: Result) -> bool:
    """Whether its program has ended, and an analyst's verdict is still to come."""
    return end["state"] == State.RETURNED and end["analyser"] not in OWN
