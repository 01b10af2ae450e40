"""``hwsync run`` and ``hwsync send``: a program to a board, and what became of it."""

from __future__ import annotations

import getpass
import io
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click

from hwsync.address import BrokerUrl
from hwsync.cli import say
from hwsync.cli.common import F, Settings, command_id, common, fail, read_text, seconds, user_name
from hwsync.client import ANSWER_S, Json, Operator, fresh_id, raise_refused
from hwsync.protocol import limits
from hwsync.protocol.analysis import MANUAL, OUTCOME
from hwsync.protocol.asker import CLAIM
from hwsync.protocol.errors import Code, NoCoordinator, Refused, TooLarge, UsageError
from hwsync.protocol.jsons import cut, dumps, loads, size
from hwsync.protocol.record import State
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire import encode_analysis, encode_id, encode_request

LOOK_AGAIN_S: Final = 5.0  # a query while nothing is heard: a status may have been lost
TICK_S: Final = 0.5  # between two looks at the clock
NOT_RUN: Final = 125
CODES: Final = {"ok": 0, "timeout": 124, "cancelled": 130}


def exit_code(end: Json) -> int:
    """The exit code of ``run``: the program's own where it had one."""
    outcome = end["outcome"]
    if outcome == "error":
        return int(end["exit_code"] or 1)
    if outcome == "killed":
        return int(end["exit_code"] or 137)
    return CODES.get(outcome, NOT_RUN)


class Streams:
    """Live pieces of one command as they come, the final text whole: nothing twice or left out."""

    def __init__(self, id: str, write: Callable[[str, str], None]) -> None:
        self._id = id
        self._write = write
        self._next = 0
        self._printed = {"stdout": "", "stderr": ""}

    def hear(self, kind: Kind, fields: Json) -> None:
        """Print a piece, if this is one and none before it was missed."""
        stream, text = fields.get("stream"), fields.get("text")
        if (
            kind is not Kind.OUTPUT
            or (fields.get("id"), fields.get("n")) != (self._id, self._next)
            or stream not in self._printed
            or not isinstance(text, str)
        ):
            return
        self._next += 1
        self._printed[stream] += text
        self._write(stream, text)

    def finish(self, end: Json) -> None:
        """Print what is still missing of the final texts."""
        for stream, name in (("stdout", "hw_response"), ("stderr", "stderr")):
            whole, printed = end[name], self._printed[stream]
            if whole.startswith(printed):
                self._write(stream, whole[len(printed) :])
            elif not printed.startswith(whole):
                self._write(stream, "\n" + whole)


def program_options(command: F) -> F:
    """The arguments of ``run`` and ``send``."""
    options = [
        click.argument("user", type=user_name),
        click.argument("file", required=False),
        click.argument("args", nargs=-1),
        click.option("-c", "code", metavar="CODE", help="The program itself."),
        click.option("--id", type=command_id, metavar="ID",
                     help="The command's id; the same id runs once."),
        click.option("--queue", is_flag=True, help="Wait behind the present command, if need be."),
        click.option("--timeout", type=seconds(limits.TIMEOUT_S), metavar="SECONDS",
                     help="Run time.  [default: 10]"),
        click.option("--expires", type=seconds(limits.EXPIRES_S, zero=True), metavar="SECONDS",
                     help="Until it must be collected; 0: no limit.  [default: 300]"),
        click.option("--grace", type=seconds(limits.GRACE_S), metavar="SECONDS",
                     help="Past the timeout, until it is lost.  [default: 30]"),
        click.option("--stdin", "stdin", metavar="FILE", help="Standard input; - is this one's."),
        click.option("--arg", "more", multiple=True, help="An argument of the program."),
        click.option("--meta", metavar="JSON",
                     help="Kept with the command; its key by says who asks."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def claim(url: BrokerUrl) -> str:
    """Who asks, by our own word: the account at the broker, else the login and its machine."""
    name = url.username
    if name is None:
        try:
            login = getpass.getuser()
        except (KeyError, OSError):  # this account has no name
            login = str(os.getuid())
        name = f"{login}@{socket.gethostname()}"
    return cut(name.encode(errors="replace").decode(), limits.MAX_CLAIM)


def _claimed(keys: Json, by: str) -> Json:
    """The keys with who asks, unless ``meta`` says so, is no object, or would be too large."""
    meta = keys.get("meta", {})
    if not isinstance(meta, dict) or CLAIM in meta:
        return keys
    claimed = {**meta, CLAIM: by}
    extras = (keys.get("stdin", ""), *keys["args"], dumps(claimed))
    fits = sum(map(size, extras)) <= limits.MAX_EXTRAS
    return {**keys, "meta": claimed} if fits else keys


def _request(analysis: str, by: str, **given: Any) -> tuple[str, bytes]:
    """(id, request). Raises ``UsageError``."""
    file, code, args = given["file"], given["code"], list(given["args"])
    if code is not None and file is not None:
        file, args = None, [file, *args]
    if code is None and file is None:
        raise UsageError("no program", "name a FILE, - for standard input, or -c CODE")
    if file == "-" and given["stdin"] == "-":
        raise UsageError("standard input cannot be the program and its input", "name a file")
    program = read_text(file) if code is None else code
    try:
        size(program + "".join([*args, *given["more"]]))
    except ValueError:
        raise UsageError("the program or its arguments are not UTF-8") from None
    keys: Json = {"id": given["id"] or fresh_id(), "analysis": analysis}
    keys |= {k: given[k] for k in ("timeout", "expires", "grace") if given[k] is not None}
    keys |= {"queue": True} if given["queue"] else {}
    keys["args"] = [*args, *given["more"]]
    if given["stdin"] is not None:
        keys["stdin"] = read_text(given["stdin"])
    if given["meta"] is not None:
        try:
            keys["meta"] = loads(given["meta"])
            size(dumps(keys["meta"]))
        except ValueError as error:
            raise UsageError(f"--meta is no JSON: {error}") from None
    return keys["id"], encode_request(program, **_claimed(keys, by))


@click.command()
@common
@program_options
@click.pass_obj
def send(settings: Settings, /, user: str, **given: Any) -> None:
    """Ask for a program to run on USER; print its id as soon as it is acknowledged."""
    id, request = _request(OUTCOME, claim(settings.url), **given)
    with Operator(settings.url, settings.topics, user) as operator:
        present = _Present(user)
        fields = operator.tell(Kind.REQUEST, request, id, heard=present.hear)
        present.tell(fields)
    say.either(settings.as_json, fields, id)


@click.command()
@common
@program_options
@click.option("--analysis", metavar="TEXT", help="Analyse the result with this text.")
@click.option(
    "--no-analysis", is_flag=True, help="End in state 3 and leave the analysis to others."
)
@click.option("--raw", is_flag=True, help="Let the program steer this terminal.")
@click.pass_obj
def run(settings: Settings, /, user: str, analysis: str | None, no_analysis: bool, raw: bool,
        **given: Any) -> None:  # fmt: skip
    """Run a program on USER: its output here, its exit code this command's.

    124 when its time was over, 128 + signal when it was killed, 125 when hwsync could not run
    it, 130 when it was cancelled (the first Ctrl-C cancels, the second leaves).

    Into a file or a pipe its output goes as it is; on a terminal control characters other than
    newline and tab are shown as escapes, unless --raw.
    """
    if no_analysis and analysis is not None:
        raise UsageError("--analysis and --no-analysis contradict each other", "give one of them")
    by_hand = no_analysis or analysis is not None
    id, request = _request(MANUAL if by_hand else OUTCOME, claim(settings.url), **given)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character
    try:
        end = _run(settings, user, id, request, analysis, by_hand, raw)
    except (Refused, TooLarge) as error:
        fail(error, settings, NOT_RUN)
    if settings.as_json:
        say.json_line(end)
    elif end["outcome"] not in ("ok", "error"):
        say.line(f"hwsync: {end['outcome']}: {end['reason']} (ran: {end['ran']})", err=True)
    if end["truncated"]:
        say.line("hwsync: the output was longer than is kept; this is its start", err=True)
    sys.exit(exit_code(end))


def _run(settings: Settings, user: str, id: str, request: bytes, analysis: str | None,
         by_hand: bool, raw: bool) -> Json:  # fmt: skip
    """Ask, show the output, analyse where that was asked for; the command's end."""
    waiting = _Waiting(user)

    def write(stream: str, text: str) -> None:
        waiting.end()
        if not settings.as_json:
            say.program(text, sys.stdout if stream == "stdout" else sys.stderr, raw=raw)

    streams = Streams(id, write)
    with Operator(settings.url, settings.topics, user, live=True) as operator:
        # With an analyser it has ended at rest: then the next command is not refused as busy.
        last = State.RETURNED if by_hand else State.REST
        try:
            present = _Present(user)

            def hear(kind: Kind, fields: Json) -> None:
                present.hear(kind, fields)
                streams.hear(kind, fields)

            present.tell(operator.tell(Kind.REQUEST, request, id, heard=hear, waiting=waiting.tick))
            end = _follow(operator, id, waiting, streams, last)
        except KeyboardInterrupt:
            say.line("", err=True)
            say.line(f"hwsync: cancelling {id}; Ctrl-C again leaves", err=True)
            end = _follow(operator, id, waiting, streams, last, ask=Kind.CANCEL)
        waiting.end()
        if analysis is not None and end["state"] == State.RETURNED:
            end = _analysed(operator, id, analysis)
        if end["truncated"]:
            # A status is cut sooner than a result.
            whole = operator.query(id)
            end |= {name: whole[name] for name in end.keys() & whole.keys()}
    streams.finish(end)
    return end


class _Present:
    """Says so where a device of that name was never heard: the name may be a typing error."""

    def __init__(self, user: str) -> None:
        self._user, self._heard = user, False

    def hear(self, kind: Kind, fields: Json) -> None:
        self._heard |= kind is Kind.HEARTBEAT and bool(fields)

    def tell(self, status: Json) -> None:
        """``status``: what acknowledged the request."""
        if not self._heard and status["state"] == State.REQUESTED:
            say.line(
                f"hwsync: a device {self._user} has never been seen; the program waits for one",
                err=True,
            )


class _Waiting:
    """One line that says for how long it waits, until there is output; on a terminal only."""

    def __init__(self, user: str) -> None:
        self._user, self._began, self._shown = user, time.monotonic(), False
        self._wanted = sys.stderr.isatty()
        self.place = 0  # in the queue

    def tick(self) -> None:
        if self._wanted:
            seconds = time.monotonic() - self._began
            place = f" (place {self.place} in the queue)" if self.place else ""
            say.progress(f"waiting for {self._user}{place} … {seconds:.0f} s ")
            self._shown = True

    def end(self) -> None:
        self._wanted = False
        if self._shown:
            say.progress("")
            self._shown = False


def _follow(
    operator: Operator, id: str, waiting: _Waiting, streams: Streams, last: State,
    *, ask: Kind = Kind.QUERY,
) -> Json:  # fmt: skip
    """Until the command has ended and its record is at rest, or in ``last``; its end.

    Raises ``NoCoordinator`` after ``ANSWER_S`` seconds without an answer.
    """
    asked, heard = -LOOK_AGAIN_S, time.monotonic()
    while True:
        now = time.monotonic()
        if now - heard > ANSWER_S:
            raise NoCoordinator(
                f"the coordinator has not answered for {ANSWER_S:g} s; the command {id} goes on",
                f"on the coordinator's machine hwsync show {operator.user} {id} tells its end",
            )
        if now - asked > LOOK_AGAIN_S:
            asked = now
            operator.publish(ask, encode_id(id))
        for _, kind, fields in operator.hear(TICK_S):
            if fields.get("id") != id or operator.is_foreign(ask, kind, fields):
                continue
            streams.hear(kind, fields)
            if kind is Kind.ERROR and fields["error"] == Code.NOT_CURRENT:
                raise_refused(kind, fields)  # it is not, or no longer, known there
            elif kind in (Kind.STATUS, Kind.RESULT):
                heard = time.monotonic()
                waiting.place = fields["queued"] if kind is Kind.RESULT else 0
                if fields["outcome"] is not None and fields["state"] in (State.REST, last):
                    return fields
        waiting.tick()


def _analysed(operator: Operator, id: str, analysis: str) -> Json:
    """Publish the analysis; the command's end then. One that came first stays, and it is said."""
    try:
        return operator.tell(Kind.ANALYSIS, encode_analysis(analysis, id), id)
    except Refused as refusal:
        say.line(f"hwsync: the analysis was refused: {refusal.message}", err=True)
        return operator.query(id)


COMMANDS = (run, send)
