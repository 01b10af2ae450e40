"""Which runs of the past are meant: the options of ``history`` and others, and what they mean.

The law: what cannot be meant is refused here, before anybody is asked. ``2d`` is so long ago by the
coordinator's clock; a time of day is this machine's.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from hwsync.cli.common import F
from hwsync.cli.metas import read_meta
from hwsync.operator.filters import Filters
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.history import OUTCOMES

FORMS: Final = "such as 2d, 3h, 30m, yesterday, 14:30, 2026-11-30 or 2026-11-30T14:30"
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_TIME: Final = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


def filter_options(*without: str) -> Callable[[F], F]:
    """The options that choose runs, without those of these names."""
    options = {
        "since": click.option("--since", metavar="TIME", help=f"Asked for since then: {FORMS}."),
        "until": click.option("--until", metavar="TIME", help="Asked for until then."),
        "last": click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N."),
        "outcome": click.option("--outcome", metavar="OUTCOMES",
                                help="With one of these, with commas between: error,timeout; open "
                                "is what has not ended."),
        "by": click.option("--by", metavar="ACCOUNT", help="That this account asked for."),
        "meta": click.option("--meta", multiple=True, metavar="KEY=VALUE",
                             help="That --meta of run was given for; may be repeated."),
        "name": click.option("--name", metavar="NAME", help="Whose program is called so; * and ? "
                             "stand for any characters, and for one."),
        "analyser": click.option("--analyser", metavar="NAME", help="Whose request names this "
                                 "analyser."),
        "judged": click.option("--judged/--not-judged", default=None, help="That have an analysis, "
                               "if only a line; that have ended without one."),
    }  # fmt: skip

    def decorate(command: F) -> F:
        for name, option in reversed(options.items()):
            if name not in without:
                command = option(command)
        return command

    return decorate


def read_filters(given: Mapping[str, Any], now: datetime.datetime) -> Filters:
    """What was typed; ``now``: this machine's time of day. Raises ``UsageError``."""
    analyser = given.get("analyser")
    if analyser is not None and not limits.is_analyser(analyser):
        raise UsageError(f"--analyser: {analyser!r} is no analyser's name", limits.ANALYSER_FORM)
    meta = read_meta(given["meta"]) if given["meta"] else {}
    if not isinstance(meta, dict):
        raise UsageError("--meta is KEY=VALUE here, as often as you like")
    return Filters(
        since=_time("--since", given["since"], now),
        until=_time("--until", given["until"], now),
        last=given.get("last"),
        outcome=_outcomes(given.get("outcome")),
        by=given.get("by"),
        meta=meta,
        name=given["name"],
        analyser=analyser,
        judged=given.get("judged"),
    )


def _outcomes(words: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in words.split(",")) if words is not None else ()
    for name in names:
        if name not in OUTCOMES:
            raise UsageError(
                f"--outcome: {name!r} is no outcome", f"there are {', '.join(sorted(OUTCOMES))}"
            )
    return names


def _time(option: str, text: str | None, now: datetime.datetime) -> float | None:
    if text is None:
        return None
    try:
        return moment(text, now)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is no time", FORMS) from None


def moment(text: str, now: datetime.datetime) -> float:
    """Unix seconds, or below 0: so many before the coordinator's now. Raises ``ValueError``."""
    text = text.strip().lower()
    if ago := _AGO.fullmatch(text):
        return -float(ago[1]) * _SECONDS[ago[2]] or -0.001
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return (midnight - datetime.timedelta(days=text == "yesterday")).timestamp()
    if _TIME.fullmatch(text):
        time = datetime.time.fromisoformat(text.zfill(8) if text.count(":") == 2 else text.zfill(5))
        return datetime.datetime.combine(now.date(), time).timestamp()
    return datetime.datetime.fromisoformat(text.upper()).timestamp()
