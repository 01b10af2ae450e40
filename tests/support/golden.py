"""What the command line shows at 80 columns, as it is kept in tests/golden.

scripts/cli-page renews it. Helps stand in docs/cli.md. Here are tables, errors, and what ``why``
says, from staged situations.
"""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsync.cli.causes import explain
from hwsync.cli.columns import table
from hwsync.cli.common import Settings, fail
from hwsync.cli.grades import said_below, shown
from hwsync.cli.members import Members
from hwsync.cli.operate import HEADS
from hwsync.cli.regraded import HAD, LAB, Version, regraded, summary
from hwsync.cli.regraded import shown as shown_anew
from hwsync.protocol.errors import (
    BadUrl,
    Code,
    Degraded,
    HwsyncError,
    NoBroker,
    NoCoordinator,
    NotFound,
    Refused,
    UsageError,
)
from tests.support.graded import CLASS, NOW, graded
from tests.support.situations import ASKED, ENDED, known

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
WIDTH = 80

ERRORS: tuple[HwsyncError, ...] = (
    Refused(
        Code.BUSY,
        "pi1 is busy with teacher's blink.py (3 s of 10)",
        "hwsync run --queue pi1 plot.py waits behind it; hwsync cancel pi1 ends it",
    ),
    NotFound("pj1 has never been seen", "did you mean pi1? --wait-for-board sends it all the same"),
    NotFound("pi1 has no command", "hwsync run pi1 FILE gives it one"),
    Refused(
        Code.WRONG_STATE,
        "teacher's blink.py (c1) of pi1 has ended already: ok",
        "hwsync why pi1",
    ),
    Refused(Code.QUEUE_FULL, "100 requests wait for pi1 already", "try again later"),
    NoBroker("no broker answers at mqtt://127.0.0.1:1883: Connection refused",
             "start one, or name it with --broker"),
    NoCoordinator("no coordinator answers at mqtt://127.0.0.1:1883 below the root hw",
                  "start one: hwsync coordinator"),
    Degraded("degraded: the coordinator cannot save anything now: disk full",
             "make space (df -h) or mend the disk, on its machine"),
    UsageError("cannot read blink.py: No such file or directory"),
    UsageError("--config and --profile contradict each other", "give one of them"),
    BadUrl("'lab' is no address of a broker", "such as mqtt://127.0.0.1:1883"),
)  # fmt: skip


def pages() -> dict[Path, str]:
    """Each page, by its file."""
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        made = {"why": _why(), "errors": _errors(), "tables": _tables()}
        return {GOLDEN / f"{name}.txt": "\n".join(lines) + "\n" for name, lines in made.items()}
    finally:
        if zone is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = zone
        time.tzset()


def _why() -> Iterator[str]:
    for title, situation in [
        *((name, seen) for name, (seen, _) in ASKED.items()),
        *((f"{one.report.outcome}: {one.report.reason}" if one.report else "", known(command=one))
          for one, _, _ in ENDED),
    ]:  # fmt: skip
        cause = explain(situation)
        yield f"# {title}".rstrip(": ")
        yield from textwrap.wrap(cause.sentences, WIDTH, break_on_hyphens=False)
        yield from (f"  {line}" for line in cause.do)
        yield ""


def _errors() -> Iterator[str]:
    for error in ERRORS:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            fail(error, Settings())
        yield said.getvalue()


def _tables() -> Iterator[str]:
    yield from table(
        HEADS,
        [
            ("pi1", "online", "collected", "cli-4c1b2f8a90d3e7f1", "38 s left", "", "±0.2 ms"),
            ("pi2", "offline", "requested", "c2", "4 min left", "2", ""),
            ("bench-1", "online", "rest", "cli-90d3e7f14c1b2f8a", "error", "", "±1.2 ms"),
        ],
    )
    yield ""
    members = Members("b1", ("pi1", "pi2", "pi3", "pi4"))
    ends: dict[str, dict[str, Any]] = {
        "pi1": {"outcome": "ok", "ran": "yes"},
        "pi2": {"outcome": "error", "ran": "yes", "exit_code": 1},
        "pi3": {"outcome": "expired", "ran": "no"},
    }
    for user, told in ends.items():
        members.of(user).told = told
    members.of("pi4").refused = Code.BUSY
    yield from members.summary("@lab1")
    for by in ("asker", "student"):
        grades = graded(CLASS, by)
        yield ""
        yield from shown(by, grades, NOW, WIDTH)
        yield from said_below(by, grades)
    check2 = Version("check2", "3f9a0c1d22e8")
    runs = [
        regraded("pi1", CLASS[0], {"passed": True, "score": 1}, check2, None),
        regraded("pi2", CLASS[2], {"passed": False, "score": 0}, check2, None),
        regraded("pi2", CLASS[4], {"error": "it ran too long"}, check2, "it ran longer than 10 s"),
    ]
    yield ""
    yield from shown_anew(runs)
    yield from summary(runs, Counter({LAB: 1, HAD: 2}), check2, dry=False)
