"""``hwsync run`` and ``hwsync send``: a program to a board, and what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli.common import F, Settings, common
from hwsync.client import Json, Operator, fresh_id, raise_refused
from hwsync.protocol import limits
from hwsync.protocol.analysis import MANUAL, OUTCOME
from hwsync.protocol.errors import UsageError
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire import encode_analysis, encode_id, encode_request

LOOK_AGAIN_S: Final = 5.0  # a query while nothing is heard: a status may have been lost
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
    """Live pieces as they come, the final text whole: nothing twice, nothing left out."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._next = 0
        self._printed = {"stdout": "", "stderr": ""}

    def piece(self, fields: Json) -> None:
        """Print a piece, if none before it was missed."""
        stream, text = fields.get("stream"), fields.get("text")
        if (
            fields.get("n") != self._next
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


def _write(stream: str, text: str) -> None:
    target = sys.stdout if stream == "stdout" else sys.stderr
    target.write(text)
    target.flush()


def program_options(command: F) -> F:
    """The arguments of ``run`` and ``send``."""
    seconds = click.FloatRange
    options = [
        click.argument("user"),
        click.argument("file", required=False),
        click.argument("args", nargs=-1),
        click.option("-c", "code", metavar="CODE", help="The program itself."),
        click.option("--id", metavar="ID", help="The command's id; the same id runs once."),
        click.option("--timeout", type=seconds(*limits.TIMEOUT_S), help="Seconds of run time."),
        click.option("--expires", type=seconds(0.0, limits.EXPIRES_S[1]),
                     help="Seconds until it must be collected; 0: no limit."),
        click.option("--grace", type=seconds(*limits.GRACE_S),
                     help="Seconds past the timeout until it is lost."),
        click.option("--stdin", "stdin", metavar="FILE", help="Standard input; - is this one's."),
        click.option("--arg", "more", multiple=True, help="An argument of the program."),
        click.option("--meta", metavar="JSON", help="Kept with the command."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _request(analysis: str, **given: Any) -> tuple[str, bytes]:
    """(id, request). Raises ``UsageError``."""
    file, code, args = given["file"], given["code"], list(given["args"])
    if code is not None and file is not None:
        file, args = None, [file, *args]
    if code is None and file is None:
        raise UsageError("no program", "name a FILE, - for standard input, or -c CODE")
    if file == "-" and given["stdin"] == "-":
        raise UsageError("standard input cannot be the program and its input", "name a file")
    keys: Json = {"id": given["id"] or fresh_id(), "analysis": analysis}
    keys |= {k: given[k] for k in ("timeout", "expires", "grace") if given[k] is not None}
    keys["args"] = [*args, *given["more"]]
    if given["stdin"] is not None:
        keys["stdin"] = _text(given["stdin"])
    if given["meta"] is not None:
        try:
            keys["meta"] = loads(given["meta"])
        except ValueError as error:
            raise UsageError(f"--meta is no JSON: {error}") from None
    return keys["id"], encode_request(_text(file) if code is None else code, **keys)


def _text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 (byte {error.start})") from None


@click.command(context_settings={"ignore_unknown_options": False})
@common
@program_options
@click.pass_obj
def send(settings: Settings, /, user: str, **given: Any) -> None:
    """Ask for a program to run on USER; print its id as soon as it is acknowledged."""
    id, request = _request(OUTCOME, **given)
    with Operator(settings.url, settings.topics, user) as operator:
        fields = _acknowledged(operator, id, request, lambda: None)
    click.echo(dumps(fields) if settings.as_json else id)


@click.command()
@common
@program_options
@click.option("--analysis", metavar="TEXT", help="Analyse the result with this text.")
@click.option(
    "--no-analysis", is_flag=True, help="End in state 3 and leave the analysis to others."
)
@click.pass_obj
def run(settings: Settings, /, user: str, analysis: str | None, no_analysis: bool,
        **given: Any) -> None:  # fmt: skip
    """Run a program on USER: its output here, its exit code this command's.

    124 when its time was over, 128 + signal when it was killed, 125 when hwsync could not run
    it, 130 when it was cancelled (the first Ctrl-C cancels, the second leaves).
    """
    by_hand = no_analysis or analysis is not None
    id, request = _request(MANUAL if by_hand else OUTCOME, **given)
    streams = Streams((lambda *_: None) if settings.as_json else _write)
    waiting = _Waiting(user)
    with Operator(settings.url, settings.topics, user, live=True) as operator:
        try:
            _acknowledged(operator, id, request, waiting.tick, streams)
            end = _follow(operator, id, waiting, streams)
        except KeyboardInterrupt:
            click.echo(f"\nhwsync: cancelling {id}; Ctrl-C again leaves", err=True)
            operator.publish(Kind.CANCEL, encode_id(id))
            end = _follow(operator, id, waiting, streams, cancel=True)
        waiting.clear()
        if analysis is not None and end["state"] == 3:
            operator.ask(
                Kind.ANALYSIS,
                encode_analysis(analysis, id),
                lambda _, fields: fields.get("id") == id and fields.get("server_analysis") != "",
            )
            end = operator.query(id)
        if end["truncated"] or not end["hw_response"]:
            end = operator.query(id)
    streams.finish(end)
    if settings.as_json:
        click.echo(dumps(end))
    elif end["outcome"] not in ("ok", "error"):
        click.echo(f"hwsync: {end['outcome']}: {end['reason']} (ran: {end['ran']})", err=True)
    if end["truncated"]:
        click.echo("hwsync: the output was longer than is kept; this is its start", err=True)
    sys.exit(exit_code(end))


class _Waiting:
    """One line that says for how long it waits; on a terminal only."""

    def __init__(self, user: str) -> None:
        self._user, self._began, self._shown = user, time.monotonic(), False

    def tick(self) -> None:
        if sys.stderr.isatty():
            seconds = time.monotonic() - self._began
            sys.stderr.write(f"\rwaiting for {self._user} … {seconds:.0f} s ")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._shown = False


def _acknowledged(
    operator: Operator, id: str, request: bytes, waiting: Callable[[], None],
    streams: Streams | None = None,
) -> Json:  # fmt: skip
    """Repeat the request until a status, a result or an error names its id."""

    def answer(kind: Kind, fields: Json) -> bool:
        if kind is Kind.OUTPUT and streams is not None and fields.get("id") == id:
            streams.piece(fields)
        return kind in (Kind.STATUS, Kind.RESULT, Kind.ERROR) and fields.get("id") == id

    kind, fields = operator.ask(Kind.REQUEST, request, answer, waiting=waiting)
    if kind is not Kind.ERROR and fields["outcome"] is not None and streams is not None:
        operator.publish(Kind.QUERY, encode_id(id))
    return raise_refused(kind, fields)


def _follow(
    operator: Operator, id: str, waiting: _Waiting, streams: Streams, *, cancel: bool = False
) -> Json:
    """Until the command has ended; its end."""
    asked = time.monotonic()
    operator.publish(Kind.QUERY, encode_id(id))
    while True:
        for _, kind, fields in operator.hear(0.5):
            if fields.get("id") != id:
                continue
            if kind is Kind.OUTPUT:
                waiting.clear()
                streams.piece(fields)
            elif kind in (Kind.STATUS, Kind.RESULT) and fields["outcome"] is not None:
                return fields
        waiting.tick()
        if time.monotonic() - asked > LOOK_AGAIN_S:
            asked = time.monotonic()
            operator.publish(Kind.CANCEL if cancel else Kind.QUERY, encode_id(id))


COMMANDS = (run, send)
