"""What to do next, after a run that did not end well.

The law: a hint follows from how the run ended and from what was asked for; where neither says why,
there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hwsync.cli.request import Asked
from hwsync.operator.streams import texts_of
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.output import read_kept
from hwsync.protocol.wire.status import CommandFields

TIME_LIMIT: Final = re.compile(r"time limit of (\d[0-9.e+]*) s")  # the device's words
NO_MODULE: Final = re.compile(r"^ModuleNotFoundError: No module named '(\w{1,200})")
MORE: Final = re.compile(r"exit code \d+ \(.+?\)")  # why, as far as the device knows


def hints(end: CommandFields, asked: Asked) -> Iterator[str]:
    """One line each, for people, behind what ``run`` says of the end."""
    if end["outcome"] == "timeout":
        yield _of_time(end["reason"], asked)
    if end["outcome"] == "error":
        last = end["stderr"].rstrip().rpartition("\n")[2]
        if last.startswith("EOFError: EOF when reading a line") and asked.request.stdin is None:
            yield (
                "hwsync: it asked for input and had none: --stdin FILE gives it one, "
                "--stdin - what is typed here"
            )
        if beside := _not_sent(last, asked):
            yield f"hwsync: {beside} stands beside {asked.file} and was not sent: --with {beside}"
        if more := MORE.match(end["reason"]):
            yield f"hwsync: {more[0]}"


def _not_sent(last: str, asked: Asked) -> Path | None:
    """What the program wanted to import, where it stands beside it here."""
    found = NO_MODULE.search(last)
    if found is None or asked.file in (None, "-"):
        return None
    folder = Path(str(asked.file)).parent
    for name in (f"{found[1]}.py", found[1]):
        if (folder / name).exists():
            return folder / name
    return None


def of_limit(end: CommandFields, max_message: int) -> str:
    """A line that names the broker's limit, where that is what cut the output; else empty.

    As JSON an output may be twice as long.
    """
    texts = [(text, read_kept(text, True)) for text in texts_of(end).values()]
    size = sum(len(text.encode()) + kept.left_out for text, kept in texts)
    if max_message >= MAX_MESSAGE or size <= max_message // 2:
        return ""
    return (
        f"hwsync: the broker takes messages of at most {max_message:,} bytes, and a result is one: "
        "a larger limit there keeps more (mosquitto: max_packet_size)"
    )


def _of_time(reason: str, asked: Asked) -> str:
    said = TIME_LIMIT.search(reason)
    wanted = f"{asked.timeout:g}"
    try:
        shorter = said is not None and float(said[1]) < float(wanted)
    except ValueError:
        shorter = False
    if shorter:
        return f"  that is the board's own limit (max_timeout_s); {wanted} s were asked for"
    where = "" if asked.file is None else " before FILE"
    return f"  --timeout SECONDS{where} lets it run longer; it was {wanted}"
