"""What a person types for ``hwsync run`` and ``hwsync send``, and the request that it means.

The law: what cannot be meant is refused here, before anybody is asked. Everything behind FILE is
the program's, whatever it looks like.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli.common import F, command_id, read_bytes, read_text, seconds
from hwsync.cli.completion import of_broker, of_files
from hwsync.cli.metas import read_meta
from hwsync.cli.sent_along import gather, patterns
from hwsync.cli.targets import EVERYBODY, everybody_option, target
from hwsync.operator.run import RunRequest, fresh_id
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.jsons import size

CODING: Final = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263
UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # how Windows marks it


class ProgramCommand(click.Command):
    """A command ``[OPTIONS] BOARD FILE [ARGS]...`` in which ARGS may look like options.

    Options of ours stand before FILE, before or behind BOARD. ``-c CODE`` stands for FILE: then
    what follows the options behind BOARD is ARGS. With ``--all`` there is no BOARD. This is the way
    of python3, ssh and docker; click by itself would take options wherever they stand.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``--`` where click's own reading of options must end."""
        ours, words, ended, everybody = self._options(ctx, args)
        user, words = ([EVERYBODY], words) if everybody else (words[:1], words[1:])
        if not ended and not everybody:
            more, words, _, _ = self._options(ctx, words)
            ours += more
        return super().parse_args(ctx, [*ours, "--", *user, *words])

    def _options(
        self, ctx: click.Context, words: Sequence[str]
    ) -> tuple[list[str], list[str], bool, bool]:
        """Options with their values, the words behind them, whether ``--`` stood between.

        And whether ``--all`` is one of them.
        """
        options: list[click.Parameter] = [
            one for one in self.get_params(ctx) if isinstance(one, click.Option)
        ]
        parser = click.Command(None, params=options, add_help_option=False).make_parser(ctx)
        parser.allow_interspersed_args = False
        values, rest, _ = parser.parse_args(list(words))
        ours = list(words[: len(words) - len(rest)])
        # A -- at their end may be an option's value: then that option takes any word in its place.
        ended = ours[-1:] == ["--"] and parser.parse_args([*ours[:-1], ""])[1] == [""]
        return ours[:-1] if ended else ours, rest, ended, "everybody" in values


def program_options(command: F) -> F:
    """The arguments of ``run`` and ``send``."""
    options = [
        click.argument("target", metavar="BOARD", type=target, shell_complete=of_broker),
        click.argument("file", metavar="FILE", required=False, shell_complete=of_files),
        click.argument("args", nargs=-1),
        everybody_option("Every board that was heard in the last 24 hours, in BOARD's place."),
        click.option("-c", "code", metavar="CODE", help="The program itself, in place of FILE."),
        click.option("--name", metavar="NAME",
                     help="What the program's file is called on the board.  [default: FILE's own "
                     "name where that can be one, else program.py]"),
        click.option("--id", type=command_id, metavar="ID",
                     help="The command's id; the same id runs once."),
        click.option("--queue", is_flag=True, help="Wait behind the present command, if need be."),
        click.option("--wait-for-board", is_flag=True,
                     help="Send it also to a board that was never seen, and wait for one."),
        click.option("--timeout", type=seconds(limits.TIMEOUT_S), metavar="SECONDS",
                     help="Run time.  [default: 10]"),
        click.option("--expires", type=seconds(limits.EXPIRES_S, zero=True), metavar="SECONDS",
                     help="Until it must be collected; 0: no limit.  [default: 300]"),
        click.option("--grace", type=seconds(limits.GRACE_S), metavar="SECONDS",
                     help="Past the timeout, until it is lost.  [default: 30]"),
        click.option("--with", "sent", multiple=True, metavar="PATH", shell_complete=of_files,
                     help="A file or folder that goes along, called there as it is beside FILE; "
                     "PATH=NAME calls it NAME."),
        click.option("--get", "collect", multiple=True, metavar="PATTERN",
                     help="Files that come back: plot.png, 'data/*.csv', results/."),
        click.option("--stdin", "stdin", metavar="FILE", help="Standard input; - is this one's."),
        click.option("--arg", "more", multiple=True, metavar="TEXT",
                     help="One more argument of the program, behind ARGS."),
        click.option("--meta", multiple=True, metavar="KEY=VALUE|JSON",
                     help="Kept with the command, to find it by: --meta course=1b --meta team=3. "
                     "Or all of it as JSON."),
        click.option("--analyser", metavar="NAME",
                     help="Who judges the result: an analyser that an analyst offers, or manual: "
                     "somebody does.  [default: outcome, a line that says how it ended]"),
        click.option("--parallel", type=click.IntRange(1), metavar="N",
                     help="Of a group, at most so many boards at the same time."),
        click.option("--abort", type=share, metavar="SHARE",
                     help="Of a group, begin on no more boards once more than this share (0 to 1) "
                     "of them has not ended ok."),
        click.option("--online", is_flag=True,
                     help="Of a group, leave out who is offline now, in place of waiting. Within "
                     "90 s of the coordinator's start it waits for who was not heard since."),
        click.option("--together", is_flag=True,
                     help="All boards begin at one instant, once they are ready."),
        click.option("--wait", type=seconds(limits.START_WAIT_S), metavar="SECONDS",
                     help="For them to get ready, with --together.  [default: 5]"),
        click.option("--lead", type=seconds(limits.START_LEAD_S), metavar="SECONDS",
                     help="From then to the instant, with --together.  [default: 1]"),
        click.option("--need", type=click.IntRange(1), metavar="N",
                     help="So many must be ready, else none begins, with --together.  [default: 1 "
                     "of a group, all of boards that are named]"),
        click.option("--at", "at", metavar="TIME",
                     help="Begin at that time of day: 14:30, 14:30:05.5, 2026-12-01T14:30, or +10 "
                     "(in 10 s)."),
        click.option("--within", type=seconds(limits.START_WITHIN_S), metavar="SECONDS",
                     help="How late or uncertain a start may be, with --together or --at; else "
                     "that board does not begin.  [default: 0.1]"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def share(text: str) -> float:
    """For an option: a share."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise click.BadParameter(f"{text!r} is no share: 0.25 is a quarter of the boards")
    return value


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed: the request, and what else is needed to speak of its end."""

    request: RunRequest
    file: str | None  # as it was typed; None: -c
    seen_only: bool = True  # it is not sent to a board that was never seen
    out: Path = Path()  # where the files go that come back

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def words(self) -> str:
        """The program, as it was typed."""
        return "-c CODE" if self.file is None else shlex.quote(self.file)

    @property
    def timeout(self) -> float:
        """Seconds."""
        timeout = self.request.timeout
        return limits.DEFAULT_TIMEOUT_S if timeout is None else timeout


def make_request(analysis: str, by: str, **given: Any) -> Asked:
    """The request that the words of ``program_options`` mean. Raises ``UsageError``."""
    file, code, args = given["file"], given["code"], list(given["args"])
    if code is not None and file is not None:
        file, args = None, [file, *args]
    if code is None and file is None:
        raise UsageError("no program", "name a FILE, - for standard input, or -c CODE")
    if file == "-" and given["stdin"] == "-":
        raise UsageError("standard input cannot be the program and its input", "name a file")
    program = _read_program(file) if code is None else code
    args += given["more"]
    try:
        size(program + "".join(args))
    except ValueError:
        raise UsageError("the program or its arguments are not UTF-8") from None
    if (length := size(program)) > limits.MAX_PROGRAM:
        raise UsageError(
            f"{_called(file)} has {length:,} bytes; a program has at most {limits.MAX_PROGRAM:,}",
            "data can go along in files of its own: --with FILE",
        )
    name = _name(given["name"], file)
    request = RunRequest(
        program=program,
        id=given["id"] or fresh_id(),
        analysis=analysis,
        timeout=given["timeout"],
        expires=given["expires"],
        grace=given["grace"],
        queue=given["queue"],
        name=name,
        args=tuple(args),
        stdin=None if given["stdin"] is None else read_text(given["stdin"]),
        meta=read_meta(given["meta"]),
        by=by,
        parallel=given.get("parallel"),
        abort=given.get("abort"),
        online=given.get("online", False),
        files=gather(given.get("sent", ()), file, name or limits.DEFAULT_NAME),
        collect=patterns(given.get("collect", ())),
    )
    seen_only = not given.get("wait_for_board")
    return Asked(request, file, seen_only, given.get("out") or Path())


def _called(file: str | None) -> str:
    return "the program" if file in (None, "-") else str(file)


def _name(chosen: str | None, file: str | None) -> str | None:
    """What was chosen, else the file's own name where that can be one."""
    if chosen is None:
        name = "" if file in (None, "-") else Path(file).name
        return name if limits.is_name(name) else None
    if not limits.is_name(chosen):
        raise UsageError(f"{chosen!r} is no name of a program: {limits.NAME_FORM}")
    return chosen


def _read_program(file: str) -> str:
    """The program's text. Raises ``UsageError`` that says how to save it where it is not UTF-8."""
    data = read_bytes(file)
    try:
        return data.decode("utf-8-sig")  # Python passes over that mark too
    except UnicodeDecodeError as error:
        at = error.start + (len(data) - len(error.object))  # the mark is not counted
    line = data.count(b"\n", 0, at) + 1
    coding = _coding(data)
    name = _called(file)
    said = f"{name} is not UTF-8: byte {at} (0x{data[at]:02x}), in line {line}"
    kind = "UTF-16" if data.startswith(UTF_16) else coding or "ISO-8859-1"
    hint = (
        f"save it as UTF-8 in the editor, or: iconv -f {kind} -t UTF-8 {shlex.quote(file)} > new.py"
    )
    if coding:
        said += f"; its first lines name {coding}, but a program is sent as UTF-8"
        hint += ", and take that line out"
    raise UsageError(said, hint)


def _coding(data: bytes) -> str:
    """What one of the first two lines says of the file's encoding (PEP 263); empty: nothing."""
    found = [match for line in data.splitlines()[:2] if (match := CODING.match(line))]
    return found[0][1].decode() if found else ""
