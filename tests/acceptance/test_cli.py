"""The commands as a person or a script uses them: exit codes, streams, JSON, errors.

On mosquitto, and on both brokers where what the broker keeps decides what a command can say.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.protocol.wire.heartbeat import encode_heartbeat
from tests.support.brokers import Broker
from tests.support.lab import HWSYNC, Lab, here
from tests.support.mqtt import Watcher, publish
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

TIME_S = 40.0  # for a command that waits for a coordinator that is not there
BOTH = pytest.mark.parametrize("broker", ["mosquitto", "amqtt_broker"], indirect=True)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    """mosquitto, or the one that the test asks for (``BOTH``)."""
    started: Broker = request.getfixturevalue(getattr(request, "param", "mosquitto"))
    return started


@pytest.fixture
def bare(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    """A broker and a coordinator, no device."""
    lab = Lab(broker, start, tmp_path)
    lab.coordinator("--settle", "0")
    return lab


@pytest.fixture
def lab(bare: Lab, watch: Callable[..., Watcher]) -> Lab:
    """With a device that is there."""
    bare.device()
    heartbeats = watch(bare.broker, "hw/pi1/heartbeat")
    heartbeats.wait_for(lambda message: True, START_PATIENCE, "the device")
    return bare


def ended(process: Process, code: int, timeout: float = 20.0) -> Process:
    assert process.wait(timeout) == code, process.account()
    # A program that is ended says where it was; hwsync's commands never do.
    assert "hwsync/cli/" not in process.stdout + process.stderr
    assert "this is a bug" not in process.stderr
    return process


def one(process: Process) -> dict[str, Any]:
    """The one JSON object that it printed."""
    fields: dict[str, Any] = json.loads(process.stdout)
    return fields


# run


ENDS: Final[list[tuple[str, list[str], int]]] = [
    ("print(1)", [], 0),
    ("import sys; sys.exit(3)", [], 3),
    ("raise SystemExit('no')", [], 1),
    ("import time\nwhile True: time.sleep(9)", ["--timeout", "0.3"], 124),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", [], 143),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", [], 137),
]


def test_run_ends_with_the_programs_exit_code(lab: Lab) -> None:
    for code, options, exit_code in ENDS:
        ended(lab.cli("run", "pi1", "-c", code, *options), exit_code)


@BOTH
def test_run_takes_files_arguments_and_input(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint(sys.argv[1:], sys.stdin.read(), 'é')\n")
    given = tmp_path / "input"
    given.write_text("from a file")
    run = lab.cli("run", "pi1", "--stdin", str(given), str(program), "a", "b c")
    assert ended(run, 0).stdout == "['a', 'b c'] from a file é\n"
    run = lab.cli("--json", "run", "pi1", "--arg", "x", str(program), "-c", "my.ini", "--timeout")
    assert one(ended(run, 0))["hw_response"] == "['-c', 'my.ini', '--timeout', 'x']  é\n"
    assert one(run)["name"] == "program.py"
    run = lab.cli("--json", "run", "pi1", "--name", "other.py", str(program))
    assert one(ended(run, 0))["name"] == "other.py"
    piped = [*HWSYNC, "run", "pi1", "--arg", "x", "-"]
    run = lab.start(piped, stdin=b"import sys; print(sys.argv[1:])", name="piped",
                    variables={"HWSYNC_BROKER": lab.url})  # fmt: skip
    assert ended(run, 0).stdout == "['x']\n"
    run = lab.start([*HWSYNC, "run", "pi1", "-c", "print(input())", "--stdin", "-"], stdin=b"typed",
                    name="typed", variables={"HWSYNC_BROKER": lab.url})  # fmt: skip
    assert ended(run, 0).stdout == "typed\n"


def test_run_shows_output_while_the_program_runs_and_all_of_it_at_the_end(
    lab: Lab, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = (
        "import os, sys, time\nprint('first', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "print('x' * 100_000)\nprint('last', file=sys.stderr)"
    )
    run = lab.cli("run", "pi1", "-c", code)
    wait_until(lambda: run.stdout == "first\n", what="the first line while it runs")
    assert run.running
    go.touch()
    ended(run, 0)
    assert run.stdout == "first\n" + "x" * 100_000 + "\n"
    assert run.stderr == "last\n"


def test_what_would_help_is_said(lab: Lab, tmp_path: Path) -> None:
    long = ended(lab.cli("run", "pi1", "--timeout", "0.3", "-c", "while True: pass"), 124)
    assert long.stderr.endswith(
        "hwsync: timeout: time limit of 0.3 s (ran: yes)\n"
        "  --timeout SECONDS lets it run longer; it was 0.3\n"
    )
    (tmp_path / "x.sh").write_text("#!/bin/bash\necho $HOME\n")
    (tmp_path / "asks.py").write_text("print(input())\n")
    shell = lab.cli("run", "pi1", str(tmp_path / "x.sh"))
    assert shell.wait(20) == 1
    assert shell.stderr.endswith(
        "hwsync: exit code 1 (its first line asks for /bin/bash, and this board runs Python)\n"
    )
    asks = lab.cli("run", "pi1", str(tmp_path / "asks.py"))
    assert asks.wait(20) == 1
    assert asks.stderr.splitlines()[-1].startswith("hwsync: it asked for input")
    for silent in (["--json", str(tmp_path / "asks.py")], ["-c", "1/0"]):
        run = lab.cli("run", "pi1", *silent)
        assert run.wait(20) == 1
        assert "hwsync: " not in run.stderr


def test_what_is_longer_than_is_kept_is_said(lab: Lab) -> None:
    code = "for n in range({}): print(f'{{n:099}}', flush=True)"
    assert ended(lab.cli("run", "pi1", "-c", code.format(2_000)), 0).stderr == ""
    long = ended(lab.cli("run", "pi1", "-c", code.format(4_000)), 0)
    assert "hwsync: the output was longer than is kept: " in long.stderr


@BOTH
def test_the_next_run_is_never_busy(lab: Lab) -> None:
    for number in range(5):
        run = lab.cli("run", "pi1", "-c", f"print({number})")
        assert ended(run, 0).stdout == f"{number}\n"


def test_an_id_runs_once_and_another_program_under_it_is_refused(lab: Lab, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    code = f"open({str(witness)!r}, 'a').write('ran\\n'); print('once')"
    for _ in range(2):
        assert ended(lab.cli("run", "pi1", "--id", "c1", "-c", code), 0).stdout == "once\n"
    assert witness.read_text() == "ran\n"
    for command, exit_code in (("run", 125), ("send", 1)):
        refused = ended(lab.cli(command, "pi1", "--id", "c1", "-c", "print(2)"), exit_code)
        assert "belongs to another program" in refused.stderr
        assert refused.stdout == ""


def test_run_analyses_by_hand_where_asked(lab: Lab) -> None:
    run = lab.cli("--json", "run", "pi1", "-c", "print(1)", "--analysis", "well done")
    assert (one(ended(run, 0))["state"], one(run)["server_analysis"]) == (0, "well done")
    run = lab.cli("run", "pi1", "-c", "print(2)", "--no-analysis", "--json")
    assert (one(ended(run, 0))["state"], one(run)["hw_response"]) == (3, "2\n")
    busy = ended(lab.cli("run", "pi1", "-c", "print(3)"), 125)
    assert "is busy with " in busy.stderr
    assert "program, which waits for its analysis" in busy.stderr
    assert "--queue pi1 -c CODE waits behind it; to end it: hwsync analyse pi1 TEXT" in busy.stderr
    rows = ended(lab.cli("history", "pi1", "--log", "--db", str(lab.db)), 0).stdout
    assert (rows.count("refused busy"), rows.count("refused")) == (1, 1)
    ended(lab.cli("analyse", "pi1", "at last"), 0)
    long = ended(lab.cli("run", "pi1", "-c", "print(3)", "--analysis", "x" * 70_000), 0)
    assert "the analysis was refused" in long.stderr


def test_ctrl_c_cancels_the_run(lab: Lab) -> None:
    run = lab.cli("run", "pi1", "-c", "print('on', flush=True)\nimport time\ntime.sleep(60)")
    wait_until(lambda: run.stdout == "on\n", what="the program's first line")
    run.interrupt()
    ended(run, 130)
    assert "cancelling" in run.stderr
    assert "cancelled: cancelled while it ran (ran: yes)" in run.stderr


@BOTH
def test_what_cannot_run_ends_with_125(bare: Lab) -> None:
    expired = ended(bare.cli("run", "pi1", "--wait-for-board", "-c", "1", "--expires", "1"), 125)
    assert "expired: not collected within 1 s (ran: no)" in expired.stderr
    bare.pub("request", "print(1)")
    busy = ended(bare.cli("--json", "run", "pi1", "--wait-for-board", "-c", "1"), 125)
    assert one(busy)["error"] == "busy"
    assert set(one(busy)) == {"error", "message", "hint", "topic", "id", "journal", "state"}


@pytest.mark.slow
def test_without_a_coordinator_it_is_said_within_half_a_minute(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher, gate = watch(lab.broker, "hw/pi1/status"), lab.folder / "gate"
    code = "import os, time\nprint('on')\n"
    code += f"while not os.path.exists({str(gate)!r}): time.sleep(0.1)"
    run = lab.cli("run", "pi1", "--id", "c1", "-c", code, "--timeout", "120")
    watcher.wait_for_state("pi1", 2)
    wait_until(lambda: "on" in run.stdout, what="its output, so it knows that it was accepted")
    lab.processes["coordinator"].kill()
    waiting = [
        lab.cli("run", "pi1", "-c", "1"),
        lab.cli("send", "pi1", "-c", "1"),
        lab.cli("cancel", "pi1", "c1"),
        lab.cli("status", "pi1"),  # which is retained, and all that is left of the coordinator
    ]
    for process in waiting:
        assert "no coordinator answers" in ended(process, 125, TIME_S).stderr
    for process in waiting[:2]:
        assert "may still be accepted later" in process.stderr
    assert "the command c1 goes on" in ended(run, 125, TIME_S).stderr
    gate.touch()  # else the device would give it ten seconds at its own end


def test_without_a_broker_it_is_said_at_once(start: Callable[..., Process]) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    for arguments in (["run", "pi1", "-c", "1"], ["send", "pi1", "-c", "1"], ["status"]):
        process = ended(start([*HWSYNC, *arguments, "--broker", url]), 125)
        assert process.stderr == (
            f"hwsync: no broker answers at {url}: Connection refused\n"
            "  start one, or name it with --broker\n"
        )
    said = one(ended(start([*HWSYNC, "--json", "status", "--broker", url]), 125))
    assert said["error"] == "NoBroker"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "pi1"], "no program"),
        (["run", "pi1", "/no/such/file"], "cannot read /no/such/file: No such file"),
        (["run", "pi 1", "-c", "1"], "'pi 1' is no board's name"),
        (["run", "+", "-c", "1"], "'+' is no board's name"),
        (["run", "@a/b", "-c", "1"], "'@a/b' is no group"),
        (["run", "pi1,@lab1", "-c", "1"], "a group stands by itself: @lab1"),
        (["run", "pi1", "-c", "1", "--id", "a b"], "'a b' is no id"),
        (["run", "pi1", "-c", "1", "--timeout", "nan"], "nan is not 0.1 to 2592000 seconds"),
        (["run", "pi1", "-c", "1", "--timeout", "0"], "0 is not 0.1 to 2592000 seconds"),
        (["run", "pi1", "-c", "1", "--expires", "0.5"], "0.5 is not 0 or 1 to"),
        (["run", "pi1", "-c", "1", "--grace", "x"], "'x' is no number of seconds"),
        (["run", "pi1", "-c", "1", "--meta", "{"], "--meta is no JSON"),
        (["run", "pi1", "-c", "1", "--analysis", "x", "--no-analysis"], "contradict each other"),
        (["run", "pi1", "--stdin", "-", "-"], "cannot be the program and its input"),
        (["run", "pi1", "-c", os.fsdecode(b"\xff")], "not UTF-8"),
        (["run", "pi1", "-c", "1", "--name", "a/b"], "'a/b' is no name of a program"),
        (["status", "#"], "'#' is no board's name"),
        (["cancel", "pi1", "a", "--id", "b"], "two ids: a and b"),
        (["coordinator", "--analysis-within", "inf"], "inf is not 0 or 0.1 to"),
        (["coordinator", "--settle", "nan"], "nan is not 0 to 3600 seconds"),
        (["coordinator", "--analysis", "magic"], "'magic' is not one of"),
        (["status", "--broker", "http://x"], "is no broker's address"),
        (["status", "--broker", "mqtt://a:secret@x"], "a password in --broker is seen"),
        (["status", "--root", "a/#"], "cannot be the root"),
        (["status", "--credentials", "/no/such"], "cannot read /no/such: No such file"),
        (["broker", "/no/such.conf"], "cannot read /no/such.conf: No such file"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = here(*arguments, HOME=str(tmp_path))
    assert done.exit_code == 2
    assert "hwsync/cli/" not in done.stdout + done.stderr
    assert said in done.stderr
    assert "secret" not in done.stderr


# The other commands


def test_send_prints_the_id_and_the_record_goes_its_way(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    sent = ended(lab.cli("send", "pi1", "-c", "print(6*7)"), 0)
    watcher = watch(lab.broker, "hw/pi1/status")
    end = watcher.wait_for_state("pi1", 0, id=sent.stdout.strip())
    assert end["hw_response"] == "42\n"
    assert end["server_analysis"].startswith("ok: exit 0 in ")
    status = one(ended(lab.cli("send", "pi1", "-c", "print(1)", "--json"), 0))
    assert {"id", "state", "seq", "hw_command"} <= set(status)


@BOTH
def test_cancel_analyse_and_reset_say_what_became_of_it(bare: Lab) -> None:
    at_rest = ended(bare.cli("cancel", "pi1"), 1)
    assert "pi1 has never been seen" in at_rest.stderr
    nobody = ended(bare.cli("logs", "pi1"), 1)
    assert "there is no board and no command pi1" in nobody.stderr
    ended(bare.cli("send", "pi1", "--wait-for-board", "--id", "c1", "-c", "1"), 0)
    cancelled = one(ended(bare.cli("cancel", "pi1", "--json"), 0))
    assert (cancelled["state"], cancelled["outcome"], cancelled["ran"]) == (0, "cancelled", "no")
    for arguments in (["cancel", "pi1"], ["cancel", "pi1", "c1"], ["cancel", "pi1", "--id", "c1"]):
        ended(bare.cli(*arguments), 0)  # a copy
    for arguments in (["analyse", "pi1", "x"], ["analyze", "pi1", "x", "--id", "c1"]):
        ended(bare.cli(*arguments), 0)  # late, and then a copy
    refused = ended(bare.cli("--json", "analyse", "pi1", "other"), 1)
    assert one(refused)["error"] == "wrong_state"
    unknown = ended(bare.cli("cancel", "pi1", "never"), 1)
    assert "pi1 never had a command with the id never" in unknown.stderr
    ended(bare.cli("send", "pi1", "--wait-for-board", "--id", "c2", "-c", "1"), 0)
    assert one(ended(bare.cli("reset", "pi1", "--json"), 0))["state"] == 0
    earlier = one(ended(bare.cli("cancel", "pi1", "c1", "--json"), 0))
    assert (earlier["id"], earlier["outcome"]) == ("c1", "cancelled")


def test_analyse_reads_standard_input(bare: Lab) -> None:
    for kind, payload in (("request", "1"), ("collected", ""), ("response", "42")):
        bare.pub(kind, payload)
    command = [*HWSYNC, "analyse", "pi1", "-", "--json"]
    options = {"variables": {"HWSYNC_BROKER": bare.url}, "name": "cli"}
    assert "not UTF-8" in ended(bare.start(command, stdin=b"\xff", **options), 2).stdout
    done = one(ended(bare.start(command, stdin="très\nbien".encode(), **options), 0))
    assert done["server_analysis"] == "très\nbien"


@BOTH
def test_a_queue_runs_in_order_and_is_shown(lab: Lab, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint(1)"
    one_runs = lab.cli("run", "pi1", "--id", "one", "--queue", "-c", first)
    watching = lab.cli("status", "--watch")
    wait_until(lambda: "collected" in watching.stdout, what="the first one")
    two = lab.cli("run", "pi1", "--id", "two", "--queue", "-c", "print(2)")

    def queued() -> int:
        return int(one(ended(lab.cli("status", "pi1", "--json"), 0))["queued"])

    wait_until(lambda: queued() == 1, what="one behind it")
    assert "QUEUED" in ended(lab.cli("status"), 0).stdout
    three = ended(lab.cli("send", "pi1", "--id", "three", "--queue", "-c", "print(3)"), 0)
    assert three.stdout == "three\n"
    show = lab.cli("show", "pi1", "three", "--db", str(lab.db), "--json")
    assert one(ended(show, 0))["queued"] == 2
    cancelled = one(ended(lab.cli("cancel", "pi1", "three", "--json"), 0))
    assert (cancelled["id"], cancelled["outcome"]) == ("three", "cancelled")
    go.touch()
    assert ended(one_runs, 0).stdout == "1\n"
    assert ended(two, 0).stdout == "2\n"
    history = ended(lab.cli("history", "pi1", "--log", "--db", str(lab.db)), 0).stdout
    assert "queued at place 2" in history
    assert "next" in history
    ended(lab.cli("send", "pi1", "-c", "import time; time.sleep(60)"), 0)
    ended(lab.cli("send", "pi1", "--queue", "-c", "1"), 0)
    assert one(ended(lab.cli("reset", "pi1", "--queue", "--json"), 0))["queued"] == 0
    assert "0 rest" in ended(lab.cli("status", "pi1"), 0).stdout


@BOTH
def test_why(lab: Lab, watch: Callable[..., Watcher]) -> None:
    run = lab.cli("run", "pi1", "--meta", '{"by": "anna"}', "-c", "raise SystemExit(3)")
    ended(run, 3)
    said = ended(lab.cli("why", "pi1"), 0).stdout
    assert said.startswith("pi1 is online, and at rest: it waits for a program.")
    told = one(ended(lab.cli("--json", "why", "pi1"), 0))
    assert (told["board"], told["kind"], told["ran"]) == ("pi1", "rest", "yes")
    assert "anna's program" in told["happened"]
    assert "ended with exit code 3" in told["happened"]

    wills = watch(lab.broker, "hw/pi1/heartbeat")
    lab.processes["device"].terminate()
    wills.wait_for(lambda message: b'"online":false' in message.payload, 20, "its last word")
    id = ended(lab.cli("send", "pi1", "-c", "1"), 0).stdout.strip()
    by_id = one(ended(lab.cli("--json", "why", id), 0))
    assert (by_id["board"], by_id["id"], by_id["kind"]) == ("pi1", id, "offline")
    assert "pi1 is offline since" in by_id["happened"]
    typo = one(ended(lab.cli("--json", "why", "pi2"), 0))
    assert (typo["kind"], typo["ran"]) == ("never seen", None)
    assert "Did you mean pi1?" in typo["happened"]
    assert "nobody had a command cli-0" in ended(lab.cli("why", "cli-0"), 1).stderr
    assert "never had" in ended(lab.cli("why", "pi1", "c0"), 1).stderr

    lab.processes["coordinator"].terminate()
    assert lab.processes["coordinator"].wait(20) == 0
    away = one(ended(lab.cli("--json", "why", "pi1"), 0))
    assert away["kind"] == "no coordinator"
    assert "It was stopped." in away["happened"]
    there = one(ended(lab.cli("--json", "--broker", "mqtt://127.0.0.1:1", "why", "pi1"), 125))
    assert there["kind"] == "no broker"


def test_modules_are_those_of_the_board(lab: Lab) -> None:
    asked = ended(lab.cli("modules", "pi1", "json", "no_such_module", "--json"), 1)
    assert one(asked)["modules"] == {"json": "", "no_such_module": None}
    assert "click" in ended(lab.cli("modules", "pi1"), 0).stdout
    never = ended(lab.cli("modules", "pi2"), 1).stderr
    assert "has never been seen" in never
    assert "--wait-for-board" not in never  # it has no such option


def test_status_shows_one_or_everybody_and_watches(lab: Lab) -> None:
    ended(lab.cli("run", "pi1", "-c", "print('\\x1b[31mred')"), 0)
    whole = ended(lab.cli("status", "pi1"), 0).stdout
    assert "pi1: 0 rest" in whole
    assert "\\x1b[31mred" in whole
    assert "\x1b" not in whole
    assert one(ended(lab.cli("status", "pi1", "--json"), 0))["outcome"] == "ok"
    row = one(ended(lab.cli("status", "--json"), 0))
    assert (row["user"], row["online"], row["state"]) == ("pi1", True, 0)
    assert "online" in ended(lab.cli("status"), 0).stdout
    nobody = ended(lab.cli("status", "pi9"), 1)
    assert "pi9 has never been seen" in nobody.stderr
    watching = lab.cli("status", "pi1", "--watch")
    wait_until(lambda: "pi1: 0 rest" in watching.stdout, what="the record")
    ended(lab.cli("run", "pi1", "--id", "seen", "-c", "1"), 0)
    wait_until(lambda: watching.stdout.count("seen") >= 4, what="every change")
    watching.interrupt()
    ended(watching, 0)


def test_history_and_show_read_the_database_also_without_a_coordinator(lab: Lab) -> None:
    ended(lab.cli("run", "pi1", "--id", "c1", "-c", "print(1)", "--meta", '{"who":"me"}'), 0)
    lab.pub("cancel")
    refused = lambda: lab.cli("history", "pi1", "--log", "--db", str(lab.db), "--json")  # noqa: E731
    wait_until(lambda: "wrong_state" in ended(refused(), 0).stdout, what="the refused cancel")
    lab.processes["coordinator"].terminate()
    assert lab.processes["coordinator"].wait() == 0
    rows = [json.loads(line) for line in ended(refused(), 0).stdout.splitlines()]
    assert [row["state"] for row in rows if "command" in row] == [1, 2, 3, 0]
    shown = one(ended(lab.cli("show", "pi1", "c1", "--db", str(lab.db), "--json"), 0))
    meta = {"who": "me", "by": shown["asked_by"]}
    assert (shown["hw_response"], json.loads(shown["meta"])) == ("1\n", meta)
    assert (shown["asked_known_by"], shown["asked_by"].count("@")) == ("claim", 1)
    assert len(shown["history"]) == 4
    text = ended(lab.cli("show", "pi1", "c1", "--db", str(lab.db)), 0).stdout
    assert "hw_command_request" in text
    ended(lab.cli("show", "pi1", "c9", "--db", str(lab.db)), 1)
    ended(lab.cli("history", "pi9", "--log", "--db", str(lab.db)), 1)
    ended(lab.cli("history", "pi1", "--log", "--db", "/no/such.db"), 1)


def test_the_database_is_backed_up_and_checked_while_it_is_used(lab: Lab, tmp_path: Path) -> None:
    ended(lab.cli("run", "pi1", "--id", "c1", "-c", "print(1)"), 0)
    db, copy = ["--db", str(lab.db)], tmp_path / "backup.db"
    assert ended(lab.cli("check-db", *db), 0).stdout == "nothing was found\n"
    assert one(ended(lab.cli("backup", str(copy), *db, "--json"), 0))["bytes"] > 0
    assert "exists already" in ended(lab.cli("backup", str(copy), *db), 1).stderr
    here = tmp_path / "here/hwsync.db"
    here.parent.mkdir()
    here.write_bytes(copy.read_bytes())
    variables = {"HWSYNC_BROKER": lab.url, "STATE_DIRECTORY": str(here.parent)}
    words = ["history", "pi1", "--log"]
    show = ended(lab.start([*HWSYNC, *words], variables=variables), 0)
    assert "print(1)" in show.stdout
    assert f"looked at {here}; the coordinator's database is {lab.db} on" in show.stderr
    show = ended(lab.cli("show", "pi1", "c1", "--db", str(copy)), 0)
    assert "print(1)" in show.stdout
    assert show.stderr == "", "it was named"
    data = copy.read_bytes()
    copy.write_bytes(data.replace(b'"outcome":"ok"', b'"outcome":"no"', 1))
    found = ended(lab.cli("check-db", "--db", str(copy)), 1)
    assert "was changed (board pi1, seq 3)" in found.stdout
    assert "there is no database" in ended(lab.cli("check-db", "--db", "/no/such.db"), 1).stderr


def test_a_backup_is_restored_with_a_command_open_at_the_device(
    lab: Lab, watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    copy, witness, go = tmp_path / "backup.db", tmp_path / "witness", tmp_path / "go"
    code = (
        f"import os, time\nopen({str(witness)!r}, 'a').write('ran\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('done')"
    )
    db = ["--db", str(lab.db)]
    ended(lab.cli("send", "pi1", "--id", "c1", "-c", code, "--timeout", "60"), 0)
    watcher = watch(lab.broker, "hw/pi1/status")
    watcher.wait_for_state("pi1", 2, id="c1")
    ended(lab.cli("backup", str(copy), *db), 0)
    assert "another coordinator" in ended(lab.cli("restore", str(copy), *db), 1).stderr
    go.touch()
    watcher.wait_for_state("pi1", 0, id="c1")
    ended(lab.cli("run", "pi1", "--id", "c2", "-c", "print(2)"), 0)
    lab.processes["coordinator"].kill()
    done = one(ended(lab.cli("restore", str(copy), *db, "--json"), 0))
    assert done["open"] == 1
    lab.coordinator("--settle", "0")
    # The device sends what it holds: the truth about c1, and c2, of which the backup knows nothing.
    end = watcher.wait_for_status(
        "pi1", lambda s: (s["id"], s["epoch"], s["outcome"]) == ("c1", done["epoch"], "ok"), 30
    )
    assert (end["state"], end["ran"], end["hw_response"]) == (0, "yes", "done\n")
    shown = lambda: lab.cli("show", "pi1", "c2", *db, "--json")  # noqa: E731
    wait_until(lambda: shown().wait() == 0, 20, what="the orphan")
    orphan = one(ended(shown(), 0))
    assert (orphan["orphan"], orphan["hw_response"]) == (True, "2\n")
    assert ended(lab.cli("run", "pi1", "--id", "c1", "-c", code, "--timeout", "60"), 0).stdout == (
        "done\n"
    )
    assert witness.read_text() == "ran\n"
    assert ended(lab.cli("run", "pi1", "-c", "print(3)"), 0).stdout == "3\n"


@BOTH
def test_a_typing_error_is_noticed_and_forgotten(lab: Lab, watch: Callable[..., Watcher]) -> None:
    sent = ended(lab.cli("send", "pi9", "--wait-for-board", "--id", "x", "-c", "print(1)"), 0)
    assert "a device pi9 has never been seen" in sent.stderr
    assert "never been seen" not in ended(lab.cli("run", "pi1", "-c", "1"), 0).stderr
    db = ["--db", str(lab.db)]
    assert "another coordinator" in ended(lab.cli("forget", "pi9", *db), 1).stderr
    assert "pi9 is not at rest" in ended(lab.cli("forget", "pi9"), 1).stderr
    ended(lab.cli("cancel", "pi9"), 0)
    never = ended(lab.cli("forget", "pi99"), 1)
    assert never.stdout == ""
    assert "pi99 has never been seen\n  did you mean pi9?" in never.stderr
    done = ended(lab.cli("forget", "pi9"), 0)
    assert (done.stdout, done.stderr) == ("pi9 is forgotten\n", "")
    assert "forgotten" in ended(lab.cli("history", "pi9", "--log", *db), 0).stdout

    def users() -> list[str]:
        lines = ended(lab.cli("status", "--json"), 0).stdout.splitlines()
        return [json.loads(line)["user"] for line in lines]

    assert users() == ["pi1"]
    # Its ids are known; it comes back when something new is asked.
    assert (
        "another program"
        in ended(lab.cli("send", "pi9", "--wait-for-board", "--id", "x", "-c", "2"), 1).stderr
    )
    assert users() == ["pi1"]
    ended(lab.cli("send", "pi9", "--wait-for-board", "-c", "print(2)"), 0)
    assert users() == ["pi1", "pi9"]
    ended(lab.cli("reset", "pi9"), 0)
    lab.processes["coordinator"].terminate()
    lab.processes["coordinator"].wait()
    nowhere = ended(lab.cli("forget", "pi9", "--db", str(lab.folder / "none.db")), 1)
    assert "there is no database" in nowhere.stderr
    assert not list(lab.folder.glob("none.db*"))
    assert ended(lab.cli("forget", "pi9", *db), 0).stdout == "pi9 is forgotten\n"
    assert "hw_command_request" in ended(lab.cli("history", "pi9", "--log", *db), 0).stdout
    lab.coordinator()
    assert users() == ["pi1"]
    assert "the board pi1 is online" in ended(lab.cli("forget", "pi1"), 0).stderr


def test_a_coordinator_backs_up_by_itself(broker: Broker, start: Callable[..., Process],
                                          tmp_path: Path) -> None:  # fmt: skip
    lab, folder = Lab(broker, start, tmp_path), tmp_path / "backups"
    lab.coordinator("--backup-dir", str(folder), "--backup-every", "1")
    made = wait_until(lambda: sorted(folder.glob("hwsync-*Z.db")), what="a backup")
    ended(lab.cli("check-db", "--db", str(made[0])), 0)


def test_options_stand_before_or_after_the_command(lab: Lab) -> None:
    for arguments in (
        ["--broker", lab.url, "--json", "status", "pi9"],
        ["status", "pi9", "--broker", lab.url, "--json"],
        ["--root", "hw", "status", "--json", "--broker", lab.url, "pi9"],
    ):
        assert one(ended(lab.start([*HWSYNC, *arguments], name="cli"), 1))["error"] == "NotFound"


def test_another_root_is_another_lab_on_the_same_broker(bare: Lab) -> None:
    other = ["--root", "lab/b", "--broker", bare.url]
    second = bare.start(
        [*HWSYNC, "coordinator", *other, "--db", str(bare.folder / "b.db")], name="other"
    )
    second.wait_for_log(r"\bready\b")
    ended(bare.cli("send", "pi1", "--wait-for-board", "--id", "here", "-c", "1"), 0)
    ended(
        bare.start(
            [*HWSYNC, "send", "pi1", "--wait-for-board", "--id", "there", "-c", "1", *other],
            name="cli",
        ),
        0,
    )
    assert one(ended(bare.cli("status", "pi1", "--json"), 0))["id"] == "here"
    there = bare.start([*HWSYNC, "status", "pi1", "--json", *other], name="cli")
    assert one(ended(there, 0))["id"] == "there"
    assert "ANOTHER CLIENT" not in second.stderr + bare.processes["coordinator"].stderr


def test_a_clean_stop_is_quick_and_says_so(lab: Lab) -> None:
    for name in ("device", "coordinator"):
        process = lab.processes[name]
        process.send_signal(signal.SIGTERM if name == "device" else signal.SIGINT)
        ended(process, 0)


def test_a_signing_key_is_made_once_and_shown(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    file = str(tmp_path / "key")
    made = start([*HWSYNC, "key", "make", file])
    assert made.wait() == 0, made.account()
    assert made.stdout.startswith("ed25519:")
    assert Path(file).stat().st_mode & 0o777 == 0o600
    shown = start([*HWSYNC, "key", "show", file, "--json"])
    assert shown.wait() == 0
    assert json.loads(shown.stdout) == {"public": made.stdout.strip()}
    again = start([*HWSYNC, "key", "make", file])
    assert again.wait() == 2
    assert "exists already" in again.stderr
    bad = start([*HWSYNC, "coordinator", "--signing-key", str(tmp_path / "none")])
    assert bad.wait() == 2
    assert "cannot read the signing key" in bad.stderr


def test_a_signing_key_is_no_argument_and_is_not_shown(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    secret = "ed25519-secret:" + "A" * 43 + "="
    done = start([*HWSYNC, "coordinator", "--signing-key", secret])
    assert done.wait() == 2
    assert "--signing-key names a file" in done.stderr
    config = tmp_path / "c.toml"
    config.write_text(f'signing_key = "{"A" * 43}="\n')
    config.chmod(0o600)
    done = start([*HWSYNC, "coordinator", "--config", str(config)])
    assert done.wait() == 2
    assert "the value of signing_key is no file" in done.stderr
    assert "AAAA" not in done.stderr


def test_who_is_online_is_what_the_coordinator_heard_whatever_the_clocks_say(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    """A board without a clock, one whose clock is an hour ahead, one that was here days ago."""
    lab = Lab(broker, start, tmp_path)

    def beat(user: str, at: float, *, online: bool = True) -> None:
        payload = encode_heartbeat(online=online, journal="j1", boot=1, time=at)
        lab.pub("heartbeat", payload, user=user, retain=True)

    beat("long-ago", time.time() - 5 * 86_400)
    beat("will", time.time(), online=False)
    lab.coordinator()
    beat("no-clock", 12.0)
    beat("ahead", time.time() + 3_600)
    heard = watch(broker, "hw/@hwsync/boards")
    publish(broker, "hw/@hwsync/query")
    said = heard.wait_for(lambda message: "ahead" in message.json["boards"], what="a list").json
    assert set(said["boards"]) == {"no-clock", "ahead", "will"}
    assert said["boards"]["will"] is None

    def online() -> dict[str, bool | None]:
        lines = ended(lab.cli("status", "--json"), 0).stdout.splitlines()
        return {row["user"]: row["online"] for row in map(json.loads, lines)}

    assert online() == {"ahead": True, "long-ago": True, "no-clock": True, "will": False}, (
        "of one that was not heard nothing can be said before 90 s"
    )
    examined = lab.cli("doctor", "no-clock", "--json", "--db", str(lab.db))
    found = [json.loads(line) for line in ended(examined, 0).stdout.splitlines()]
    device = [one["found"] for one in found if one["check"] == "device"]
    assert "its clock was never set: 1970-01-01" in device
    assert device[-1].startswith("online, heard ")
    lab.processes["coordinator"].kill()
    assert online() == {"ahead": None, "long-ago": None, "no-clock": None, "will": False}
    shown = ended(lab.cli("status"), 0)
    assert "unknown" in shown.stdout
    assert "nobody can say who is online" in shown.stderr
