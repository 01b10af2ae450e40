"""A group of boards: one request for all of them, and what became of each.

The law: what became of a batch is what the coordinator says of it. Nothing here needs a right to
any of the boards; where there is one, their outputs are had too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

from hwsync.api.callbacks import Callbacks
from hwsync.api.options import (
    Beginning,
    GroupOptions,
    Program,
    beginning,
    beginning_in_lab_time,
    check_options,
    make_request,
)
from hwsync.api.run import MemberRun, Run
from hwsync.api.runs import Runs
from hwsync.api.waiting import wait_for
from hwsync.operator.batch import Batch, answering
from hwsync.operator.conversation import Talk
from hwsync.operator.line import Line
from hwsync.operator.offering import is_analysts
from hwsync.operator.run import RunRequest
from hwsync.protocol.errors import Closed, HwsyncError
from hwsync.protocol.groups import SIGN
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.group import BatchFields

log = logging.getLogger("hwsync.api")


class GroupRun(Future[Runs]):
    """A program on a group's boards, which has been asked for; its result are their runs."""

    def __init__(self, line: Line, callbacks: Callbacks, user: str, request: RunRequest,
                 begins: Beginning | None) -> None:  # fmt: skip
        super().__init__()
        self._line, self._callbacks, self._user = line, callbacks, user
        self._request, self._begins = request, begins
        self._batch: Batch | None = None  # once it is asked for
        self._is_cancelled = False
        self.record: Mapping[str, Any] = {}  # the newest status of the batch

    @property
    def id(self) -> str:
        """The batch's, and of each board's command."""
        return self._request.id

    def running(self) -> bool:
        """Whether it is known and has not ended."""
        return bool(self.record) and not self.done()

    def cancel(self) -> bool:
        """Ask for its end: nobody begins any more, and each command is cancelled.

        Its result says then what became of each board. False: it has ended, or the lab is closed.
        """
        if self.done():
            return False
        try:
            self._line.order(self._cancel)
        except Closed:
            return False
        return True

    def add_done_callback(self, fn: Callable[[Future[Runs]], object]) -> None:
        """Call it with this one when it has ended: in a thread that is for callbacks alone."""
        super().add_done_callback(lambda _: self._callbacks.call(lambda: fn(self)))

    def __repr__(self) -> str:
        return f"<GroupRun {self.id} on {self._user}: {self.record.get('state', 'asked')}>"

    # In the line's thread.

    def begin(self, holding: object) -> None:
        """Ask, and follow it to its end, for which ``holding`` is held."""
        self._line.begin(self._living(holding), self._user)

    def refuse(self, error: HwsyncError) -> None:
        """It is not, or no longer, followed."""
        if not self.done():
            self.set_exception(error)

    def _living(self, holding: object) -> Talk[None]:
        try:
            end = yield from self._following()
            self._take(end, holding)
        except GeneratorExit:
            self.refuse(Closed(f"the connection was closed; {self.id} on {self._user} goes on"))
            raise
        except HwsyncError as error:
            self.refuse(error)
        except Exception as error:
            log.exception("hwsync failed; this is a bug")
            self.refuse(HwsyncError(f"hwsync failed: {error!r}", "the log has more"))

    def _following(self) -> Talk[BatchFields]:
        line = self._line
        yield from line.hearing_of(self._user)
        conversation = line.conversation(self._user)
        start = yield from beginning_in_lab_time(self._begins, conversation, line.inquire)
        self._request = replace(self._request, start=start)
        if is_analysts(self._request.analysis):
            yield from line.hearing_of_analysts(conversation, self._request.analysis)
        self._batch = batch = Batch(conversation, self.id)
        self.record = yield from batch.requesting(self._request)
        if self._is_cancelled:
            batch.cancel()
        return (yield from batch.following())

    def _take(self, end: BatchFields, holding: object) -> None:
        """It has ended: now what each board says itself."""
        self.record = end
        runs = [
            MemberRun(self._line, self._callbacks, board, self.id, told)
            for board, told in end["members"].items()
        ]
        if not runs:
            self.set_result(Runs((), self.id))
        left: set[Run] = set(runs)

        def ended(run: Run) -> None:
            left.discard(run)
            if not left and not self.done():
                self.set_result(Runs(runs, self.id, end.get("spread")))

        for run in runs:
            run.when_done(ended)
        for run in runs:
            run.begin(holding)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._batch is not None:
            self._batch.cancel()


class Group:
    """A group of boards, by its name in the lab's file of groups; ``all`` is everybody.

    runs = lab.group("lab1").run("print(6*7)")
    print(runs["pi1"].stdout, runs.counts)
    """

    def __init__(self, lab: object, line: Line, callbacks: Callbacks, by: str, name: str) -> None:
        self._lab = lab  # is held
        self._line, self._callbacks, self._by = line, callbacks, by
        self.name, self._user = name, f"{SIGN}{name}"

    def __repr__(self) -> str:
        return f"<Group {self._user}>"

    def submit(self, program: Program, **options: Unpack[GroupOptions]) -> GroupRun:
        """Ask for a program to run on its boards, and do not wait for it.

        Options are those of ``Lab.submit``, and ``together``, ``wait``, ``lead``, ``need``,
        ``parallel``, ``abort``, ``online`` (docs/python.md). Raises ``UsageError``, ``Closed``.
        """
        check_options(options, GroupOptions)
        request = make_request(program, options, self._by)
        run = GroupRun(self._line, self._callbacks, self._user, request, beginning(options))
        self._line.order(partial(run.begin, self._lab), run.refuse)
        return run

    def run(self, program: Program, **options: Unpack[GroupOptions]) -> Runs:
        """Run a program on its boards, and wait until each has ended; options as of ``submit``.

        What became of each says its run; ``check()`` raises where one did not end ``ok``. Raises
        ``Refused`` where there is no such group. Ctrl-C cancels it, and is raised then.
        """
        run = self.submit(program, **options)
        wait_for([run])
        return run.result()

    def stop(self) -> None:
        """Stop all: each of its boards comes to rest, and nothing that waits begins.

        Returns when a coordinator has heard it. Raises ``Refused``, ``NoCoordinator``, ``Closed``.
        """
        self._line.ask(self._stopping, self._user).result()

    def _stopping(self) -> Talk[None]:
        line = self._line
        yield from line.hearing_of(self._user)
        conversation = line.conversation(self._user)
        yield from line.bringing(conversation, TopicKind.RESET, b"")
        yield from answering(conversation, TopicKind.RESET)
