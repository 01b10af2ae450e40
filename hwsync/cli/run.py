"""``hwsync run`` and ``hwsync send``: a program to a board, and what became of it."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from hwsync.cli import say, verdicts
from hwsync.cli.brought_back import Brought, bring
from hwsync.cli.common import FOLDER, Settings, common, fail, may_ask
from hwsync.cli.hints import hints, of_limit
from hwsync.cli.instants import Wish, in_lab_time, wish
from hwsync.cli.looking import absent, busy_with, glance
from hwsync.cli.members import start_line
from hwsync.cli.request import Asked, ProgramCommand, make_request, program_options
from hwsync.cli.run_many import perform
from hwsync.cli.screen import Screen
from hwsync.cli.seen import Seen, refuse_strangers
from hwsync.cli.slow import AwaitedVerdict, say_slow
from hwsync.cli.targets import Target, check_words, one_or_all
from hwsync.operator.client import Client
from hwsync.operator.conversation import OnReceived
from hwsync.operator.fetching import fetching
from hwsync.operator.offering import awaiting, is_analysts
from hwsync.operator.run import NOT_RUN, Run, RunRequest, claim, exit_code
from hwsync.operator.streams import Streams, texts_of
from hwsync.protocol.errors import (
    NotFound,
    OutputError,
    Refused,
    TooLarge,
    Unreachable,
    UsageError,
)
from hwsync.protocol.output import read_kept
from hwsync.protocol.record import Analyser, State
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields

NOT_ANSWERED: Final = ("expired", "lost")  # its board may be off
HOW_TO_KEEP: Final = "to keep all of it, let the program write a file, and get that: --get FILE"


@click.command(cls=ProgramCommand)
@common
@program_options
@click.pass_obj
def send(settings: Settings, /, target: Target, everybody: bool, **given: Any) -> None:
    """Ask for a program to run on BOARD; print its id as soon as it is acknowledged.

    BOARD may be several, pi1,pi2, or a group, @lab1. Options stand before FILE; everything behind
    it is the program's. -c CODE stands for FILE.
    """
    check_words(target, everybody, given["file"], given["code"])
    target = one_or_all(target, everybody)
    wanted = _wish(target, given)
    analyser = Analyser.OUTCOME if given["analyser"] is None else given["analyser"]
    offered = is_analysts(analyser)
    asked = make_request(analyser, claim(settings.url), **given)
    may_ask(settings)
    if (user := target.board) is None:
        perform(settings, target, asked, wanted, State.REST, send=True)
    with Client(settings.url, settings.topics, user, analysts=offered) as operator:
        operator.standing.slow = say_slow
        if offered:
            operator.wait(awaiting(operator, analyser))
        if not given["wait_for_board"]:
            refuse_strangers(settings, operator, (user,))
        seen = Seen(user)
        request = _with_start(settings, operator, asked.request, wanted, seen.hear)
        try:
            fields = operator.wait(Run(operator, request).requesting(on_received=seen.hear))
        except Refused as refusal:
            raise busy_with(refusal, operator, user, asked.words) from None
        if given["wait_for_board"] and (warning := seen.warning(fields)):
            say.remark(warning)
    say.either(settings.as_json, fields, asked.id)


@click.command(cls=ProgramCommand)
@common
@program_options
@click.option("--analysis", metavar="TEXT", help="Analyse the result with this text.")
@click.option(
    "--no-analysis", is_flag=True, help="End in state 3 and leave the analysis to others."
)
@click.option("--raw", is_flag=True, help="Let the program steer this terminal.")
@click.option(
    "--out",
    type=FOLDER,
    metavar="DIR",
    help="Where files that come back are written; of several boards DIR/BOARD.  [default: here]",
)
@click.pass_obj
def run(settings: Settings, /, target: Target, everybody: bool, analysis: str | None,
        no_analysis: bool, raw: bool, **given: Any) -> None:  # fmt: skip
    """Run a program on BOARD: its output here, its exit code this command's.

    BOARD may be several, pi1,pi2, or a group, @lab1: then a terminal has a line for each board, a
    file or a pipe each line of output with its board's name before it, and the exit code is 0 where
    all have ended ok, 125 where none could run it, else 1. With --analyser the verdicts are waited
    for, and said behind that.

    Options stand before FILE; everything behind it is the program's, as with python3 and ssh.
    The FILE - is standard input. -c CODE needs no FILE: options may follow it, and -- ends them.

    Exit code 124 when its time was over, 128 + signal when it was killed, 125 when hwsync could not
    run it, 130 when it was cancelled, 74 when its output cannot be written here. The first Ctrl-C
    cancels it, which gives it some seconds to end by itself; the second leaves. Where it has ended
    and a verdict is waited for (--analyser), the first one leaves.

    Into a file or a pipe its output goes as it is. On a terminal colours and carriage returns
    (progress bars) pass, and other control characters are shown as escapes, unless --raw.
    """
    if no_analysis and analysis is not None:
        raise UsageError("--analysis and --no-analysis contradict each other", "give one of them")
    analyser = given["analyser"]
    if analyser is not None and (no_analysis or analysis is not None):
        hint = "leave --analyser out, or the other one"
        raise UsageError("--analyser says who judges, and so does the other option", hint)
    analysis = None if analysis is None else verdicts.checked(analysis)
    by_hand = no_analysis or analysis is not None or analyser == Analyser.MANUAL
    if by_hand or analyser is None:
        analyser = Analyser.MANUAL if by_hand else Analyser.OUTCOME
    is_analysts(analyser)  # that it is a name
    check_words(target, everybody, given["file"], given["code"])
    target = one_or_all(target, everybody)
    if target.board is None and (raw or analysis is not None):
        raise UsageError("--raw and --analysis are for one board", "leave them out")
    wanted = _wish(target, given)
    asked = make_request(analyser, claim(settings.url), **given)
    pass_all()
    # With an analyser it has ended at rest: then the next command is not refused as busy.
    last = State.RETURNED if by_hand else State.REST
    if (user := target.board) is None:
        try:
            may_ask(settings)
            perform(settings, target, asked, wanted, last)
        except (NotFound, Refused, TooLarge) as error:
            fail(error, settings, NOT_RUN)
    try:
        end = one_board(
            settings, user, asked, last, analysis=analysis, raw=raw, wanted=wanted,
            wait_for_board=given["wait_for_board"],
        )  # fmt: skip
    except (NotFound, Refused, TooLarge) as error:
        fail(error, settings, NOT_RUN)
    sys.exit(exit_code(end))


def pass_all() -> None:
    """Whatever a program writes can be shown: also on a terminal that lacks a character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def one_board(
    settings: Settings, user: str, asked: Asked, last: State, *, analysis: str | None = None,
    raw: bool = False, wanted: Wish | None = None, wait_for_board: bool | None = False,
) -> CommandFields:  # fmt: skip
    """Run it, show what it writes, bring its files; its end, of which all is said.

    ``last``: as in ``operator.run.Run``; ``wait_for_board`` None: the command has no such option.
    Raises ``HwsyncError``.
    """
    may_ask(settings)
    analyser = asked.request.analysis
    offered = is_analysts(analyser)
    waiting = _Waiting(user)
    screen = Screen(raw=raw, silent=settings.as_json, begin=waiting.end)
    streams = Streams(asked.id, screen, screen.files, together=screen.together)
    verdict = AwaitedVerdict(screen.remark) if offered else None
    view = _View(waiting, screen, streams, verdict)
    try:
        with Client(settings.url, settings.topics, user, live=True, analysts=offered) as operator:
            if not waiting.wanted:
                operator.standing.slow = say_slow
            try:
                if offered:
                    operator.wait(awaiting(operator, analyser))
                seen, beat = Seen(user), None
                if not wait_for_board:
                    may_wait = wait_for_board is not None
                    beat = refuse_strangers(settings, operator, (user,), may_wait=may_wait)[user]
                request = _with_start(settings, operator, asked.request, wanted, seen.hear)
                try:
                    end = _run(
                        settings, operator, Run(operator, request, last), analysis, view,
                        seen if wait_for_board else None,
                        offline=beat is not None and not beat["online"],
                    )  # fmt: skip
                except Refused as refusal:
                    raise busy_with(refusal, operator, user, asked.words) from None
            finally:
                screen.end()
            brought = _bring(operator, end, asked)
    except OutputError as error:
        hint = f"this does not end the command {asked.id}; hwsync status {user} shows its end"
        raise OutputError(error.message, hint) from None
    if settings.as_json:
        say.json_line({**end, "saved": brought.saved} if asked.request.collect else end)
    else:
        known = glance(settings, user) if end["outcome"] in NOT_ANSWERED else None
        why = absent(known) if known else ""
        _print_end(end, asked, screen, streams.missing, operator.standing.max_message, why)
        for line in brought.remarks:
            screen.remark(line)
        for line in brought.wrong:
            screen.tell(line)
    return end


def _bring(operator: Client, end: CommandFields, asked: Asked) -> Brought:
    """The files that came back, written here."""
    try:
        found = operator.wait(fetching(operator, asked.id, end))
    except (Refused, Unreachable) as error:
        said = f"hwsync: the files that came back cannot be had now: {error.message}"
        return Brought(wrong=[said, f"  hwsync get {asked.id} asks again"])
    except KeyboardInterrupt:
        return Brought(wrong=[f"hwsync: hwsync get {asked.id} has the files that came back"])
    return bring(end, asked.request.collect, found, asked.out)


def _wish(target: Target, given: Mapping[str, Any]) -> Wish | None:
    """When it is to begin. Raises ``UsageError``, also for what is a group's alone."""
    if not target.group:
        for name in ("parallel", "abort", "online"):
            if given[name] is not None and given[name] is not False:  # 0 is given too
                hint = "hwsync group set makes one"
                raise UsageError(f"--{name} is for a group, such as @lab1", hint)
    wanted = wish(given, len(target.boards), now=time.time())
    if wanted is not None and (given["parallel"] is not None or given["queue"]):
        other = "--queue" if given["queue"] else "--parallel"
        raise UsageError(f"{other} and a start contradict each other", "leave one of them out")
    if given["parallel"] is not None and given["queue"]:
        raise UsageError("--parallel and --queue contradict each other", "leave one of them out")
    return wanted


def _with_start(
    settings: Settings, operator: Client, request: RunRequest, wanted: Wish | None,
    on_received: OnReceived,
) -> RunRequest:  # fmt: skip
    if wanted is None:
        return request
    start, said = in_lab_time(operator, wanted, on_received)
    if not settings.as_json:
        say.remark(said)
    return replace(request, start=start)


def _print_end(
    end: CommandFields, asked: Asked, screen: Screen, missing: int, max_message: int, why: str = ""
) -> None:
    """How it ended, and what to do then; nothing where all is well."""
    if end["outcome"] not in ("ok", "error"):
        screen.tell(f"hwsync: {end['outcome']}: {end['reason']} (ran: {end['ran']})")
    if line := start_line(end):
        screen.remark(f"hwsync: {line}")
    if why:
        screen.remark(f"  {why}")
    if is_analysts(asked.request.analysis) and end["state"] == State.REST:
        screen.tell(f"hwsync: {verdicts.first(end) or 'no analysis'}")
    for hint in hints(end, asked):
        screen.remark(hint)
    if end["truncated"]:
        screen.tell(f"hwsync: the output was longer than is kept: {_kept(end, missing)}")
        screen.tell(f"  {HOW_TO_KEEP}")
        if limit := of_limit(end, max_message):
            screen.remark(limit)
    elif missing:
        screen.tell(
            f"hwsync: {missing:,} bytes of its output were not shown while it ran; "
            f"hwsync status {end['user']} shows all of it"
        )


def _kept(end: CommandFields, missing: int) -> str:
    """What of a longer output is shown here, and what is in the record."""
    texts = {stream: read_kept(text, True) for stream, text in texts_of(end).items()}
    sizes = [f"{text.left_out:,} bytes of {stream}" for stream, text in texts.items() if text.line]
    if not sizes:
        return "this is its beginning"
    if missing:
        return f"{missing:,} bytes of it are missing, where a line [hwsync: … left out] stands"
    return f"all of it is here; the record has its ends, without {' and '.join(sizes)}"


@dataclass(frozen=True, slots=True)
class _View:
    """Where a person sees the run."""

    waiting: _Waiting
    screen: Screen
    streams: Streams
    verdict: AwaitedVerdict | None

    def hear(self, heard: Received) -> None:
        """What came of the command."""
        self.streams.hear(heard.kind, heard.fields)
        if heard.command_fields is not None:
            self.waiting.place = heard.result["queued"] if heard.result else 0
            if self.verdict is not None:
                self.verdict.hear(heard.command_fields)

    def tick(self) -> None:
        """Time passes."""
        self.waiting.tick()
        if self.verdict is not None:
            self.verdict.tick()


def _run(
    settings: Settings, operator: Client, run: Run, analysis: str | None, view: _View,
    seen: Seen | None, *, offline: bool,
) -> CommandFields:  # fmt: skip
    """Ask, show the output, analyse where that was asked for; the command's end.

    ``seen``: what is heard of the board, where it may never have been there; ``offline``: so it
    was when it was asked.
    """
    try:

        def hear(heard: Received) -> None:
            if seen is not None:
                seen.hear(heard)
            view.streams.hear(heard.kind, heard.fields)

        fields = operator.wait(run.requesting(on_received=hear, waiting=view.waiting.tick))
        if seen is not None and (warning := seen.warning(fields)):
            view.screen.remark(warning)
        if offline and fields["state"] == State.REQUESTED and not settings.as_json:
            known = glance(settings, run.user)
            if known is not None and (said := absent(known)):
                said = f"hwsync: {said}; the program waits for it (Ctrl-C takes it back)"
                view.screen.remark(said)
        end = operator.wait(run.following(on_received=view.hear, waiting=view.tick))
    except KeyboardInterrupt:
        view.screen.begin_line()  # behind ^C
        returned = view.verdict.returned if view.verdict is not None else None
        if returned is not None:
            end = returned
        else:
            view.screen.tell(
                f"hwsync: cancelling {run.id}: it may end by itself, which can take some seconds; "
                "Ctrl-C again leaves"
            )
            last = None if view.verdict is None else State.RETURNED
            talk = run.cancelling(on_received=view.hear, waiting=view.waiting.tick, last=last)
            end = operator.wait(talk)
        if view.verdict is not None and end["state"] == State.RETURNED:
            later = f"hwsync show {run.id} has it later"
            view.screen.tell(f"hwsync: the verdict is not waited for: {later}")
    view.waiting.end()
    if analysis is not None and end["state"] == State.RETURNED:
        try:
            end = operator.wait(run.analysing(analysis))
        except Refused as refusal:  # one that came first stays
            view.screen.tell(f"hwsync: the analysis was refused: {refusal}")
            end = operator.wait(run.querying())
            if end["state"] == State.RETURNED:  # nobody else has judged it
                waits = f"hwsync: {run.user} waits for an analysis of {run.id}"
                view.screen.tell(f"{waits}; without one: hwsync reset {run.user}")
    if end["truncated"]:
        end = operator.wait(run.completing(end))
    view.streams.finish(end)
    return end


class _Waiting:
    """One line that says for how long it waits, until there is output; on a terminal only."""

    def __init__(self, user: str) -> None:
        self._user, self._began, self._shown = user, time.monotonic(), False
        self.wanted = sys.stderr is not None and sys.stderr.isatty()
        self.place = 0  # in the queue

    def tick(self) -> None:
        if self.wanted:
            seconds = time.monotonic() - self._began
            place = f" (place {self.place} in the queue)" if self.place else ""
            say.progress(f"waiting for {self._user}{place} … {seconds:.0f} s ")
            self._shown = True

    def end(self) -> None:
        self.wanted = False
        if self._shown:
            say.progress("")
            self._shown = False


COMMANDS = (run, send)
