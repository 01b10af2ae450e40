"""What a person types for ``hwsync run`` and ``hwsync send``, and the request that it means.

The law: what cannot be meant is refused here, before anybody is asked. Everything behind FILE is
the program's, whatever it looks like.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from hwsync.address import BrokerUrl
from hwsync.cli.common import F, command_id, read_bytes, read_text, seconds, user_name
from hwsync.operator.run import fresh_id
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.heard import Json
from hwsync.protocol.intake import CLAIM
from hwsync.protocol.jsons import cut, dumps, loads, size
from hwsync.protocol.wire import encode_request

CODING: Final = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263
UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # how Windows marks it


class ProgramCommand(click.Command):
    """A command ``[OPTIONS] USER FILE [ARGS]...`` in which ARGS may look like options.

    Options of ours stand before FILE, before or behind USER. ``-c CODE`` stands for FILE: then what
    follows the options behind USER is ARGS. This is the way of python3, ssh and docker; click by
    itself would take options wherever they stand.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``--`` where click's own reading of options must end."""
        ours, words, ended = self._options(ctx, args)
        user, words = words[:1], words[1:]
        if not ended:
            more, words, _ = self._options(ctx, words)
            ours += more
        return super().parse_args(ctx, [*ours, "--", *user, *words])

    def _options(
        self, ctx: click.Context, words: Sequence[str]
    ) -> tuple[list[str], list[str], bool]:
        """(options with their values, the words behind them, whether ``--`` stood between)."""
        options: list[click.Parameter] = [
            one for one in self.get_params(ctx) if isinstance(one, click.Option)
        ]
        parser = click.Command(None, params=options, add_help_option=False).make_parser(ctx)
        parser.allow_interspersed_args = False
        rest = parser.parse_args(list(words))[1]
        ours = list(words[: len(words) - len(rest)])
        # A -- at their end may be an option's value: then that option takes any word in its place.
        ended = ours[-1:] == ["--"] and parser.parse_args([*ours[:-1], ""])[1] == [""]
        return ours[:-1] if ended else ours, rest, ended


def program_options(command: F) -> F:
    """The arguments of ``run`` and ``send``."""
    options = [
        click.argument("user", type=user_name),
        click.argument("file", metavar="FILE", required=False),
        click.argument("args", nargs=-1),
        click.option("-c", "code", metavar="CODE", help="The program itself, in place of FILE."),
        click.option("--name", metavar="NAME",
                     help="What the program's file is called on the board.  [default: FILE's own "
                     "name where that can be one, else program.py]"),
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
        click.option("--arg", "more", multiple=True, metavar="TEXT",
                     help="One more argument of the program, behind ARGS."),
        click.option("--meta", metavar="JSON",
                     help="Kept with the command; its key by says who asks."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is ready to be sent, and what of it is needed to speak of its end."""

    id: str
    payload: bytes
    program: str
    file: str | None  # as it was typed; None: -c
    timeout: float  # s
    stdin: bool  # whether the program has an input


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
    keys: Json = {"id": given["id"] or fresh_id(), "analysis": analysis}
    keys |= {k: given[k] for k in ("timeout", "expires", "grace") if given[k] is not None}
    keys |= {"queue": True} if given["queue"] else {}
    keys |= _name(given["name"], file)
    keys["args"] = args
    if given["stdin"] is not None:
        keys["stdin"] = read_text(given["stdin"])
    if given["meta"] is not None:
        try:
            keys["meta"] = loads(given["meta"])
            size(dumps(keys["meta"]))
        except ValueError as error:
            raise UsageError(f"--meta is no JSON: {error}") from None
    payload = encode_request(program, **_claimed(keys, by))
    timeout = keys.get("timeout", limits.DEFAULT_TIMEOUT_S)
    return Asked(keys["id"], payload, program, file, timeout, given["stdin"] is not None)


def _name(chosen: str | None, file: str | None) -> Json:
    """The key ``name``: what was chosen, else the file's own where that can be one."""
    if chosen is None:
        name = "" if file in (None, "-") else Path(file).name
        return {"name": name} if limits.is_name(name) else {}
    if not limits.is_name(chosen):
        raise UsageError(f"{chosen!r} is no name of a program: {limits.NAME_FORM}")
    return {"name": chosen}


def _read_program(file: str) -> str:
    """The program's text. Raises ``UsageError`` that says how to save it where it is not UTF-8."""
    data = read_bytes(file)
    try:
        return data.decode("utf-8-sig")  # Python passes over that mark too
    except UnicodeDecodeError as error:
        at = error.start + (len(data) - len(error.object))  # the mark is not counted
    line = data.count(b"\n", 0, at) + 1
    coding = _coding(data)
    name = "the program" if file == "-" else file
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


def _claimed(keys: Json, by: str) -> Json:
    """The keys with who asks, unless ``meta`` says so, is no object, or would be too large."""
    meta = keys.get("meta", {})
    if not isinstance(meta, dict) or CLAIM in meta:
        return keys
    claimed = {**meta, CLAIM: by}
    extras = (keys.get("stdin", ""), *keys["args"], dumps(claimed))
    fits = sum(map(size, extras)) <= limits.MAX_EXTRAS
    return {**keys, "meta": claimed} if fits else keys
