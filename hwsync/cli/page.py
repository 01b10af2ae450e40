"""One command as a page for people: what it is, how it ended, what it wrote.

The law: what is empty is left out; times are this machine's, in words; what a program wrote is
shown by ``cli.screen`` and not here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hwsync.cli import say, verdicts
from hwsync.cli.past import outcome_of, took
from hwsync.protocol.jsons import dumps, is_number
from hwsync.protocol.limits import DEFAULT_NAME

NAME_WIDTH: Final = 13
HASH_SHOWN: Final = 12  # digits of a hash, for people
RAN: Final = {
    "yes": "", "no": "it did not run", "maybe": "nobody can know whether it ran",
}  # fmt: skip


def instant(seconds: float, now: float) -> str:
    """``Mon 30 Nov, 14:30:05 (2 hours ago)``."""
    then = time.localtime(seconds)
    year = "" if then[0] == time.localtime(now)[0] else f" {then[0]}"
    said = f"{time.strftime('%a %d %b', then)}{year}, {time.strftime('%H:%M:%S', then)}"
    return f"{said} ({say.span(now - seconds)} ago)" if now >= seconds else said


def headline(fields: Mapping[str, Any]) -> str:
    """``blink.py on pi1: error, exit code 1, after 0.12 s``."""
    name = fields.get("name") or DEFAULT_NAME
    parts = [outcome_of(fields)]
    if fields["exit_code"]:
        parts.append(f"exit code {fields['exit_code']}")
    if fields["duration"] is not None:
        parts.append(f"after {took(fields['duration'])}")
    if fields.get("queued") and fields["outcome"] is None:
        parts.append(f"place {fields['queued']} in the queue")
    return f"{name} on {fields['user']}: {', '.join(parts)}"


def lines(fields: Mapping[str, Any], now: float, *, by: str = "") -> Iterator[str]:
    """The page without the program and its output; ``fields``: of a result, or a status.

    ``now``: Unix seconds. ``by``: who asked, where that is known.
    """
    yield headline(fields)
    yield from _lined(_about(fields, now, by))


def common(fields: Mapping[str, Any], now: float) -> Iterator[str]:
    """What is the same of each board of a batch; ``fields``: of one of them."""
    asked = (("id", fields["id"]), *_asked(fields, now, ""), *_given(fields))
    yield from _lined((*asked, ("meta", _meta(fields))))


def _lined(about: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in about:
        if value:
            first, *more = value.split("\n")
            yield f"  {name:{NAME_WIDTH}} {first}"
            yield from (f"{'':{NAME_WIDTH + 3}}{line}" for line in more)


def _about(fields: Mapping[str, Any], now: float, by: str) -> Iterator[tuple[str, str]]:
    yield "id", fields["id"]
    yield from _asked(fields, now, by)
    started = fields["started"]
    yield "started", "" if started is None else instant(started, now)
    if (error := fields["start_error"]) is not None:
        bound = fields["clock_bound"] or 0.0
        yield "", f"{error * 1e3:+.3f} ms from its instant, give or take {bound * 1e3:.3f} ms"
    yield "on", _ran_on(fields.get("ran_on"))
    yield "why", fields["reason"]
    yield "ran", RAN.get(fields["ran"] or "yes", "")
    yield from _given(fields)
    yield "analysis", verdicts.first(fields)
    yield "regrades", "\n".join(verdicts.regrades(fields))
    yield "meta", _meta(fields)
    yield "files", ", ".join(sorted(_names(fields.get("files"))))
    notes = ("late", "something of it came after its end"), ("orphan", "only its result is known")
    yield "note", "; ".join(text for key, text in notes if fields.get(key))
    if fields.get("pruned"):
        yield "texts", "dropped with the years"


def _asked(fields: Mapping[str, Any], now: float, by: str) -> Iterator[tuple[str, str]]:
    issued = fields.get("issued")
    asked = instant(issued, now) if is_number(issued) and issued else ""
    yield "asked for", " ".join(part for part in (f"by {by}," if by else "", asked) if part)


def _given(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "arguments", " ".join(fields.get("args") or ())
    yield "input", _short(fields.get("stdin") or "")


def _meta(fields: Mapping[str, Any]) -> str:
    meta = fields.get("meta")
    return meta if isinstance(meta, str) and meta not in ("{}", "") else ""


def _names(files: object) -> Iterator[str]:
    return iter(files if isinstance(files, dict | list) else ())


def _ran_on(said: object) -> str:
    """``Raspberry Pi 4, Debian 12, …``: the hash of the packages in few digits."""
    if not isinstance(said, dict):
        return ""
    named = {
        "python": "Python",
        "packages": "packages",
        "throttled": "throttled",
        "hwsync": "hwsync",
    }
    parts = []
    for key, value in said.items():
        text = str(value)[:HASH_SHOWN] if key == "packages" else str(value)
        if value or key != "throttled":
            parts.append(f"{named[key]} {text}" if key in named else text)
    return ", ".join(parts)


def _short(text: str) -> str:
    first, _, more = text.partition("\n")
    return f"{first[:60]}{' …' if more or len(first) > 60 else ''}"


def logged(row: Mapping[str, Any]) -> str:
    """A row of the log, or a refused message, as one line."""
    if "kept" in row:
        return f"{row['refused']} messages were refused in all; the first {row['kept']} are shown"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
    payload = row["payload"][:60]
    if "error" in row:
        return f"{stamp}  refused {row['error']}: {row['message']}  [{payload}]"
    note = f"  {'late: ' if row['late'] else ''}{row['note']}" if row["note"] else ""
    move = f"{row['before']} → {row['state']}"
    return f"{stamp}  {move}  {row['command']:24} {row['id']}{note}  [{payload}]"


def every_field(fields: Mapping[str, Any]) -> Iterator[str]:
    """All that a database has of a command, a field a line."""
    for name, value in fields.items():
        yield f"{name:16} {value if isinstance(value, str) else dumps(value)}"
