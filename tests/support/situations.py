"""Situations of a board and its commands, staged from the records that there can be."""

from __future__ import annotations

from typing import Any

from hwsync.cli.causes import Situation
from hwsync.protocol.record import (
    AnalysedBy,
    Command,
    Outcome,
    Ran,
    Record,
    Request,
    RunReport,
    Start,
    State,
    Verb,
    replace,
)
from hwsync.protocol.wire.status import result_json, status_json

NOW = 1_800_000_000.0
HEALTH: Any = {"condition": "ok", "reason": "", "time": NOW, "lab_time": NOW + 5.0, "life": "l1"}
BEAT: Any = {"online": True, "journal": "j1", "boot": 1, "busy": None, "running": None}
WILL: Any = {"online": False, "journal": "j1", "boot": 1}
META = '{"by":"teacher"}'
BLINK = Request("print(1)", name="blink.py", meta=META, timeout=10.0)


def listed(seconds: float | None = 3.0, gone: float | None = None) -> Any:
    """Whom the coordinator hears: pi1, so many seconds ago, or None: it went."""
    boards = {"time": NOW, "listening": 9_000.0, "left_out": 0, "boards": {"pi1": seconds}}
    return boards | {"gone": {} if gone is None else {"pi1": gone}}


ONLINE = listed()
GONE = listed(None, 1_500.0)
NOBODY: Any = {"time": NOW, "listening": 9_000.0, "left_out": 0, "boards": {}, "gone": {}}


def known(
    state: State = State.REST,
    command: Command | None = None,
    *,
    asked: Command | None = None,
    place: int = 0,
    ago: float = 3.0,
    **given: Any,
) -> Situation:
    """A board in that state with that command, of which ``asked`` (else that one) is asked."""
    outside = {"beat": BEAT, "boards": ONLINE, "health": HEALTH}
    outside |= {name: given.pop(name) for name in list(given) if name in (*outside, "said")}
    names = given.pop("names", ("pi1", "pi2", "bench-1"))
    moved = given.pop("verb", Verb.RETRIEVAL if state is State.COLLECTED else Verb.REQUEST)
    deadline = NOW + 40.0 if state is not State.REST else None
    record = Record("pi1", state, seq=3, verb=moved, time=NOW - ago, current=command,
                    deadline_wall=given.pop("deadline_wall", deadline), **given)  # fmt: skip
    current = None if command is None else result_json(command, state)
    told = current if asked is None else result_json(asked, State.REST, place)
    return Situation(user="pi1", now=NOW, record=status_json(record), current=current, command=told,
                     names=names, **outside)  # fmt: skip


def ended(
    outcome: Outcome, ran: Ran, reason: str = "", *, stderr: str = "", code: int | None = None
) -> Command:
    report = RunReport(outcome, ran, reason, stderr=stderr, exit_code=code, duration=0.25)
    return Command("pi1", "c1", BLINK, journal="j1", boot=1, report=report)


C1 = Command("pi1", "c1", BLINK)
TAKEN = Command("pi1", "c1", BLINK, journal="j1", boot=1)
TOGETHER = Command("pi1", "c1", Request("1", start=Start(wait=5.0)), journal="j1", boot=1)
AT = Command("pi1", "c1", Request("1", start=Start(at_us=int(NOW + 35) * 10**6)), journal="j1",
             boot=1, start_at_us=int(NOW + 35) * 10**6, start_life="l1")  # fmt: skip
QUEUED = Command("pi1", "c2", Request("2", name="plot.py", meta='{"by":"anna"}'))

JUDGED_BY = replace(ended(Outcome.OK, Ran.YES), request=replace(BLINK, analysis="check1"))

ASKED = {
    "sent": (known(State.REQUESTED, C1), ["teacher's blink.py (c1) was sent 3 s ago", "online"]),
    "offline": (
        known(State.REQUESTED, C1, ago=90.0, beat=WILL, boards=GONE),
        ["pi1 is offline since", "(25 minutes ago)", "Else it ends as expired in 40 s"],
    ),
    "offline, silent": (
        known(State.REQUESTED, C1, boards=listed(400.0)),
        ["is offline since", "(7 minutes ago)"],
    ),
    "offline, unknown since when": (
        known(State.REQUESTED, C1, beat=WILL, boards=listed(None)),
        ["was sent, and pi1 is offline."],
    ),
    "never seen": (
        known(State.REQUESTED, C1, beat=None, boards=NOBODY, names=("pi2", "p1")),
        ["No device called pi1 was ever heard.", "Did you mean p1?", "(c1) waits for one."],
    ),
    "refusing": (
        known(State.REQUESTED, C1, beat=BEAT | {"refusing": "its journal cannot be written"}),
        ["pi1 refuses whatever it is sent: its journal cannot be written."],
    ),
    "device is busy": (
        known(State.REQUESTED, C1, beat=BEAT | {"busy": "c0"}),
        ["still at work on c0"],
    ),
    "not taken": (known(State.REQUESTED, C1, ago=80.0), ["sent 80 s ago", "has not taken it"]),
    "running": (known(State.COLLECTED, TAKEN), ["pi1 runs teacher's blink.py (c1) (3 s of 10)."]),
    "overdue": (known(State.COLLECTED, TAKEN, ago=25.0), ["its time is over, and no answer came"]),
    "cancelling": (known(State.COLLECTED, TAKEN, cancelling=True), ["was cancelled"]),
    "by hand": (known(State.COLLECTED, C1), ["was collected by a person"]),
    "offline, it runs": (
        known(State.COLLECTED, TAKEN, beat=WILL, boards=GONE),
        ["pi1 took teacher's blink.py (c1), and is offline since", "Its result comes when pi1 is"],
    ),
    "waits for others": (
        known(State.COLLECTED, TOGETHER),
        ["ready on pi1", "together with other boards", "5 s"],
    ),
    "instant": (known(State.COLLECTED, AT, verb=Verb.RETRIEVAL), ["ready on pi1", "(in 30 s)"]),
    "instant, not taken yet": (known(State.REQUESTED, AT), ["is to begin at", "(in 30 s)"]),
    "returned": (
        known(State.RETURNED, ended(Outcome.OK, Ran.YES)),
        ["ended well after 0.25 s", "waits for somebody's analysis", "takes nothing else until"],
    ),
    "returned, and nobody offers its analyser": (
        known(State.RETURNED, JUDGED_BY, unoffered_ticks=40.0),
        ["waits for the analyser check1, and no analyst offers check1 now", "Else it ends in 40 s"],
    ),
    "queued": (
        known(State.COLLECTED, TAKEN, asked=QUEUED, place=2, queue=("c9", "c2")),
        [
            "anna's plot.py (c2) is in the queue, at place 2 of pi1.",
            "pi1 has teacher's blink.py now (3 s of 10).",
        ],
    ),
    "waits for its batch": (
        known(State.COLLECTED, TAKEN, asked=QUEUED),
        ["waits for its place in its batch"],
    ),
    "no coordinator": (
        known(
            State.COLLECTED,
            TAKEN,
            health=None,
            boards=None,
            said={"condition": "stopped", "time": NOW - 600.0},
        ),
        [
            "No coordinator answers",
            "It was stopped.",
            "(10 minutes ago)",
            "state 2 (collected) with c1",
        ],
    ),
    "no coordinator, killed": (
        known(health=None, boards=None, said={"condition": "gone"}),
        ["It was killed, or its"],
    ),
    "degraded": (
        known(
            State.REQUESTED, C1, health=HEALTH | {"condition": "degraded", "reason": "disk full"}
        ),
        ["cannot save anything now (disk full)", "teacher's blink.py (c1) was sent"],
    ),
}

ENDED = [
    (ended(Outcome.OK, Ran.YES, code=0), "ended well after 0.25 s", ""),
    (
        replace(
            JUDGED_BY,
            analysis='{"passed":false,"score":0,"message":"no 42"}',
            analysed_by=AnalysedBy("check1", "3f0c"),
        ),
        "check1 3f0c: not passed, score 0: no 42.",
        "",
    ),
    (
        replace(JUDGED_BY, no_analysis="no analyst offers check1"),
        "It has no analysis: no analyst offers check1.",
        "",
    ),
    (
        ended(Outcome.ERROR, Ran.YES, "exit code 3", code=3),
        "exit code 3 after 0.25 s.",
        "status pi1",
    ),
    (
        ended(
            Outcome.ERROR,
            Ran.YES,
            "exit code 1",
            code=1,
            stderr="Traceback\nModuleNotFoundError: No module named 'numpy'\n",
        ),
        "its last line of errors: ModuleNotFoundError: No module named 'numpy'",
        "hwsync modules pi1",
    ),
    (
        ended(
            Outcome.ERROR,
            Ran.YES,
            "exit code 1",
            code=1,
            stderr="FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'",
        ),
        "No such file or directory: 'data.csv'.",
        "--with FILE",
    ),
    (
        ended(
            Outcome.ERROR,
            Ran.YES,
            "exit code 1 (MemoryError; memory_mb = 64)",
            code=1,
            stderr="MemoryError",
        ),
        "exit code 1 after 0.25 s (exit code 1 (MemoryError; memory_mb = 64))",
        "memory_mb",
    ),
    (
        ended(Outcome.TIMEOUT, Ran.YES, "time limit of 10 s"),
        "was ended: time limit of 10 s",
        "--timeout",
    ),
    (ended(Outcome.TIMEOUT, Ran.YES, "time limit of 4 s"), "time limit of 4 s", "max_timeout_s"),
    (ended(Outcome.KILLED, Ran.YES, "memory limit of 64 MB"), "memory limit", "memory_mb"),
    (ended(Outcome.KILLED, Ran.YES, "killed by SIGKILL"), "killed by SIGKILL", "out of memory"),
    (ended(Outcome.KILLED, Ran.YES, "CPU time limit of 5 s"), "CPU time limit", "cpu_s"),
    (ended(Outcome.KILLED, Ran.YES, "output limit of 8 MB"), "output limit", "print less"),
    (
        ended(Outcome.CANCELLED, Ran.NO, "cancelled before it was collected"),
        "was cancelled before it was collected. It did not run.",
        "",
    ),
    (
        ended(Outcome.CANCELLED, Ran.YES, "cancelled while it ran"),
        "was cancelled while it ran.",
        "",
    ),
    (
        ended(Outcome.CANCELLED, Ran.NO, "reset before it was collected"),
        "was cancelled: reset before it was collected. It did not run.",
        "",
    ),
    (
        ended(Outcome.INTERRUPTED, Ran.MAYBE, "the device stopped mid-run"),
        "was interrupted: the device stopped mid-run.",
        "look whether it has done its work",
    ),
    (
        ended(Outcome.LOST, Ran.MAYBE, "no answer within 40 s of its collection"),
        "is lost: no answer within 40 s of its collection. It may have run",
        "still comes",
    ),
    (
        ended(Outcome.LOST, Ran.MAYBE, "reset after it was collected"),
        "It may have run",
        "hwsync why pi1 c1",
    ),
    (
        ended(Outcome.LOST, Ran.MAYBE, "an older database was put back while it was open"),
        "an older database was put back",
        "send it again",
    ),
    (
        ended(Outcome.EXPIRED, Ran.NO, "not collected within 300 s"),
        "expired: not collected within 300 s. It did not run.",
        "--expires",
    ),
    (
        ended(Outcome.EXPIRED, Ran.NO, "not collected before its expires_at"),
        "expires_at",
        "a later time",
    ),
    (ended(Outcome.EXPIRED, Ran.NO, "not collected before its start"), "start", "a later instant"),
    (
        ended(
            Outcome.EXPIRED, Ran.NO, "not begun: it was not ready when the others were, within 5 s"
        ),
        "never began: it was not ready when the others were, within 5 s. It did not run.",
        "--wait",
    ),
    (
        ended(Outcome.CANCELLED, Ran.NO, "not begun: 1 board was ready within 5 s, and 3 must be"),
        "never began: 1 board was ready within 5 s, and 3 must be.",
        "--need",
    ),
]
