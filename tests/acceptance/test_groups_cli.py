"""Several boards at once, as a person or a script has them: real brokers, coordinator, devices."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.cli import run_many
from tests.support.brokers import AmqttBroker, Broker, MosquittoBroker
from tests.support.lab import HWSYNC, Lab, here
from tests.support.mqtt import Watcher, publish
from tests.support.processes import Process, environment, starting
from tests.support.waiting import START_PATIENCE, wait_until

BOARDS: Final = ("pi1", "pi2", "pi3")
WAITS: Final = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


GROUPS: Final = """
lab1 = ["pi1", "pi2", "pi3"]
old = ["pi1", "gone"]
new = ["x*"]
idle = ["pi1"]
"""


class Shared:
    """A broker, and a lab on it whose processes outlive a test; one that was killed comes again."""

    def __init__(self, broker: Broker, start: Callable[..., Process], folder: Path) -> None:
        self.lab = Lab(broker, start, folder)
        (folder / "groups.toml").write_text(GROUPS)
        self._statuses = Watcher(broker, "hw/+/status")
        self.begin()
        with closing(Watcher(broker, "hw/+/heartbeat")) as heartbeats:
            for board in BOARDS:
                self.lab.device(board, board)
                heartbeats.wait_for(
                    lambda one, board=board: f"/{board}/" in one.topic, START_PATIENCE
                )

    def close(self) -> None:
        self._statuses.close()

    def begin(self) -> None:
        self.lab.coordinator("--settle", "0", "--groups", str(self.lab.folder / "groups.toml"))

    def for_one(self, start: Callable[..., Process]) -> Lab:
        """For one test, whose own commands end with it; every board is at rest."""
        made = Lab(self.lab.broker, start, self.lab.folder)
        if not self.lab.processes["coordinator"].running:
            self.begin()
        publish(made.broker, "hw/@all/reset")
        wait_until(self._at_rest, what=lambda: str(self._statuses.messages()[-5:]))
        made.processes |= self.lab.processes
        return made

    def _at_rest(self) -> bool:
        # A group's own status says in a word what became of its batch.
        told = [one for one in self._statuses.messages() if one.json and "@" not in one.topic]
        last = {one.topic: one.json["state"] for one in told}
        return not any(last.values())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Shared]]:
    """The lab on mosquitto, and the one on amqtt, made when it is asked for."""
    made: dict[str, Shared] = {}
    kinds: dict[str, type[Broker]] = {"mosquitto": MosquittoBroker, "amqtt": AmqttBroker}
    with ExitStack() as stack:

        def one(kind: str) -> Shared:
            if kind not in made:
                folder = tmp_path_factory.mktemp(kind)
                broker = kinds[kind](folder / "broker")
                broker.start()
                stack.callback(broker.stop)
                made[kind] = Shared(broker, stack.enter_context(starting(folder)), folder)
                stack.callback(made[kind].close)
            return made[kind]

        yield one


@pytest.fixture
def lab(
    request: pytest.FixtureRequest,
    shared: Callable[[str], Shared],
    start: Callable[..., Process],
) -> Iterator[Lab]:
    """Three boards that are there; ``lab1`` has them, and ``old`` also one that never was.

    On mosquitto, or on the broker that the test asks for.
    """
    one = shared(getattr(request, "param", "mosquitto"))
    yield one.for_one(start)
    print(one.lab.broker.account(), *(each.account() for each in one.lab.processes.values()),
          sep="\n")  # fmt: skip


def ended(process: Process, code: int, timeout: float = 30.0) -> Process:
    assert process.wait(timeout) == code, process.account()
    assert "hwsync/cli/" not in process.stdout + process.stderr
    assert "this is a bug" not in process.stderr
    return process


def objects(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.mark.parametrize("lab", ["mosquitto", "amqtt"], indirect=True)
def test_a_board_that_came_after_the_list_was_made_is_heard_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch names it; what it writes is shown, also what its status has no room for."""
    monkeypatch.setattr(run_many, "members_of", lambda settings, user: {"pi1": True})
    program = "print(6*7)\nfor n in range(3_000): print(n, 'of so many lines')"
    done = here("run", "@lab1", "-c", program, HWSYNC_BROKER=lab.url)
    assert done.exit_code == 0, done
    lines = done.stdout.splitlines()
    for board in BOARDS:
        own = [line for line in lines if line.startswith(f"{board}: ")]
        assert own[0] == f"{board}: 42"
        assert own[1:] == [f"{board}: {n} of so many lines" for n in range(3_000)]
    assert "could be had" not in done.stderr
    said = here("--json", "run", "@lab1", "-c", "print(6*7)", HWSYNC_BROKER=lab.url)
    *members, _ = map(json.loads, said.stdout.splitlines())
    assert {one["user"]: one["hw_response"] for one in members} == dict.fromkeys(BOARDS, "42\n")


def test_the_status_of_a_group_says_who_waits_for_an_instant(lab: Lab) -> None:
    with closing(Watcher(lab.broker, "hw/@lab1/status")) as group:
        asked = here("send", "@lab1", "--at", "+60", "-c", "1", HWSYNC_BROKER=lab.url)
        assert asked.exit_code == 0, asked
        group.wait_for(
            lambda one: (
                not one.retain
                and {each["state"] for each in (one.json or {})["members"].values()} == {2}
            )
        )
    told = here("status", "@lab1", HWSYNC_BROKER=lab.url)
    _, *boards = told.stdout.splitlines()
    assert len(boards) == len(BOARDS)
    for line in boards:
        assert re.fullmatch(r"pi\d +\w+ +ready +starts in (60|[45]\d) s", line), told


@pytest.mark.parametrize(
    ("lab", "words"),
    [
        ("mosquitto", ["@lab1"]),
        ("mosquitto", ["pi1,pi2,pi3"]),
        ("mosquitto", ["--all"]),
        ("amqtt", ["@lab1"]),
        ("amqtt", ["pi1,pi2,pi3"]),
    ],
    indirect=["lab"],
)
def test_a_pipe_has_each_line_with_its_board_before_it(lab: Lab, words: list[str]) -> None:
    code = "import sys; print('one\\ntwo'); print('three', file=sys.stderr); print('four', end='')"
    done = ended(lab.cli("run", *words, "-c", code), 0)
    lines = done.stdout.splitlines()
    for board in BOARDS:
        own = [line for line in lines if line.startswith(f"{board}: ")]
        assert own == [f"{board}: one", f"{board}: two", f"{board}: four"]
    name = {"--all": "@all"}.get(words[0], words[0])
    assert len(lines) == 3 * len(BOARDS)
    assert done.stderr.splitlines()[-1] == f"{name}: 3 ok"
    assert sorted(done.stderr.splitlines()[:-1]) == [f"{board}: three" for board in BOARDS]


def test_who_did_not_end_well_is_named(lab: Lab) -> None:
    busy = lab.cli("run", "pi2", "--timeout", "60", "-c", WAITS)
    wait_until(lambda: "begun" in busy.stdout)
    done = ended(lab.cli("run", "@lab1", "-c", "import sys; sys.exit(3)"), 1)
    assert done.stderr.splitlines() == [
        "@lab1: 2 failed, 1 refused",
        "  error      pi1, pi3: exit code 3",
        "  refused    pi2: something runs or waits there (--queue waits behind it)",
    ]
    done = ended(lab.cli("run", "pi1,pi2", "--json", "-c", "print(1)"), 1)
    *members, last = objects(done)
    assert {one["user"]: (one.get("outcome"), one["refused"]) for one in members} == {
        "pi1": ("ok", None), "pi2": (None, "busy"),
    }  # fmt: skip
    assert last["counts"] == {"ok": 1, "refused": 1}
    done = ended(lab.cli("run", "@old", "--expires", "1", "--json", "-c", "1"), 1)
    assert objects(done)[-1]["counts"] == {"ok": 1, "not begun": 1}
    queued = lab.cli("run", "@lab1", "--queue", "-c", "print(1)")
    wait_until(lambda: "pi3: 1" in queued.stdout)
    # A stop-all of everybody: what runs, and what waits. Who is at rest is no error.
    stopped = ended(lab.cli("reset", "@lab1"), 0)
    assert stopped.stdout == "@lab1: stopped 1: pi2\n"
    ended(queued, 1)
    assert "1 cancelled" in queued.stderr
    busy.wait()
    assert ended(lab.cli("reset", "--all"), 0).stdout == "@all: stopped 0\n"


def test_where_nothing_can_run_that_is_said(lab: Lab) -> None:
    for words, code, said in (
        (["run", "@none", "-c", "1"], 125, "there is no group @none"),
        (["run", "@new", "-c", "1"], 125, "no boards in @new"),
        (["run", "@old", "--online", "--id", "a b", "-c", "1"], 2, "is no id"),
        (["run", "@lab1", "--analysis", "x", "-c", "1"], 2, "for one board"),
        (["run", "pi1,pi2", "--abort", "0.5", "-c", "1"], 2, "for a group"),
        (["run", "pi1,pi2", "--abort", "0", "-c", "1"], 2, "for a group"),
        (["run", "@lab1", "--abort", "2", "-c", "1"], 2, "is no share"),
        (["run", "@lab1", "--parallel", "2", "--queue", "-c", "1"], 2, "contradict"),
        (["run", "@lab1", "--at", "yesterday", "-c", "1"], 2, "is no time"),
        (["run", "--all", "pi1", "-c", "1"], 2, "cannot read pi1"),
        (["run", "--all", "@lab1", "x.py"], 2, "--all and @lab1"),
        (["run", "@lab1,pi1", "x.py"], 2, "a group stands by itself, without boards: @lab1"),
        (["run", "pi1,@lab1", "x.py"], 2, "a group stands by itself: @lab1"),
        (["cancel", "@idle"], 1, "@idle never had a batch"),
        (["status", "@none"], 1, "@none"),
        (["status", "@lab1", "pi1"], 2, "by itself"),
        (["reset", "@lab1", "--id", "x"], 2, "for one board"),
    ):
        process = lab.cli(*words)
        assert process.wait(30) in (code, 1 if code == 125 else code), process.account()
        assert said in process.stderr, words


def test_a_batch_is_sent_seen_and_cancelled(lab: Lab) -> None:
    id = ended(lab.cli("send", "@lab1", "--parallel", "2", "-c", WAITS), 0).stdout.strip()
    assert ended(lab.cli("send", "@lab1", "--id", id, "-c", WAITS), 0).stdout.strip() == id
    seen = ended(lab.cli("status", "@lab1"), 0).stdout
    assert re.match(rf"@lab1: 1 waiting, 2 running  open  {id}\n", seen), seen
    assert not re.search(r"-?\d+ s\b", seen), seen
    assert len(seen.splitlines()) == 1 + len(BOARDS)
    cancelled = ended(lab.cli("cancel", "@lab1"), 0).stdout
    assert id in cancelled
    ended(lab.cli("run", "@lab1", "--id", id, "-c", WAITS), 1)  # a repeat: it tells the end
    fields = objects(ended(lab.cli("status", "@lab1", "--json"), 0))[0]
    assert {one["outcome"] for one in fields["batch"]["members"].values()} == {"cancelled"}


@pytest.mark.parametrize("words", ["@lab1", "pi1,pi3"])
def test_ctrl_c_cancels_the_batch(lab: Lab, words: str) -> None:
    process = lab.cli("run", words, "-c", WAITS)
    number = 3 if words == "@lab1" else 2
    wait_until(lambda: process.stdout.count("begun") == number, what=process.account)
    process.send_signal(signal.SIGINT)
    done = ended(process, 1)
    assert "cancelling cli-" in done.stderr
    assert f"{words}: {number} cancelled" in done.stderr
    ended(lab.cli("run", words, "-c", "print(1)"), 0)  # everybody is free again


@pytest.mark.parametrize("words", ["@lab1", "pi1,pi3"])
def test_where_its_output_cannot_be_written_that_is_said(lab: Lab, words: str) -> None:
    command = [*HWSYNC, "run", words, "--broker", lab.url, "-c", "print(1)"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30,
                              check=False)  # fmt: skip
    assert done.returncode == 74
    assert "cannot write the output" in done.stderr
    assert f"hwsync status {words}" in done.stderr


def test_a_coordinator_that_is_killed_meanwhile_costs_nothing(lab: Lab) -> None:
    process = lab.cli("run", "@lab1", "--parallel", "1", "-c", "import time; time.sleep(0.5)")
    lab.processes["coordinator"].wait_for_log("hw_command_retrieval")  # the first one runs
    lab.processes["coordinator"].kill()
    lab.coordinator("--settle", "0", "--groups", str(lab.folder / "groups.toml"))
    assert ended(process, 0).stderr == "@lab1: 3 ok\n"


def test_a_terminal_has_a_line_for_each_board(lab: Lab) -> None:
    """In an environment of its own, and with a program that would clear the screen."""
    code = "print('hello\\x1b[2J')"
    pid, master = pty.fork()
    if pid == 0:  # the child
        where = {"HWSYNC_BROKER": lab.url, "TERM": "xterm", "LANG": "C.UTF-8"}
        where |= {"PATH": os.environ["PATH"], "HOME": str(lab.folder), "COLUMNS": "80"}
        os.execve(HWSYNC[0], [*HWSYNC, "run", "@lab1", "-c", code], where)
    text, limit = b"", time.monotonic() + 30
    while time.monotonic() < limit:
        if select.select([master], [], [], 1.0)[0]:
            try:
                text += os.read(master, 65_536)
            except OSError:  # its end
                break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(master)
    last = text.decode().split("\x1b[3A")[-1]
    assert last.endswith("@lab1: 3 ok\r\n")
    for board in BOARDS:
        assert f"\r\x1b[K{board}  ok            exit 0 in 0." in last
    assert "\x1b[2J" not in text.decode()
    assert "hello\\x1b[2J" in last


def test_the_shell_completes_boards_and_groups(lab: Lab) -> None:
    def proposed(*words: str) -> list[str]:
        where = {"_HWSYNC_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["hwsync", *words]),
                 "COMP_CWORD": str(len(words)), "HWSYNC_BROKER": lab.url,
                 "PATH": os.environ["PATH"], "HOME": str(lab.folder)}  # fmt: skip
        command = [*HWSYNC[:1], "-c", "from hwsync.cli import main; import sys; "
                   "sys.argv[0] = 'hwsync'; main()"]  # fmt: skip
        done = subprocess.run(command, env=where, capture_output=True, text=True, timeout=30,
                              check=True)  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert proposed("run", "pi") == list(BOARDS)
    wait_until(lambda: proposed("run", "@") == ["@all", "@idle", "@lab1", "@old"])
    assert proposed("cancel", "@l") == ["@lab1"]
    assert proposed("run", "pi1,pi2") == ["pi1,pi2"]
    assert proposed("status", "x") == []


def test_boards_begin_together_or_at_a_time_of_day(lab: Lab) -> None:
    done = ended(lab.cli("run", "@lab1", "--together", "--lead", "0.5", "-c", "print(1)"), 0)
    assert done.stderr.splitlines()[0] == "@lab1: 3 ok"
    assert done.stderr.splitlines()[1].startswith("3 started within ")
    done = ended(
        lab.cli(
            "run", "pi1,gone", "--wait-for-board", "--together", "--wait", "0.5", "-c", "print(1)"
        ),
        1,
    )
    assert done.stderr.splitlines()[0].startswith("hwsync: a device gone has never been seen;")
    assert "device pi1" not in done.stderr
    assert "pi1,gone: 2 left out" in done.stderr
    assert done.stderr.splitlines()[-1] == "  not ready  gone"
    assert done.stdout == ""
    done = ended(lab.cli("run", "pi1", "--at", "+1.5", "-c", "print(1)"), 0)
    assert done.stdout == "1\n"
    first, last = done.stderr.splitlines()
    assert first.startswith("the start is at ")
    assert last.startswith("hwsync: it began ")


@pytest.mark.parametrize(
    "words", [["status", "@lab1"], ["reset", "@lab1"], ["run", "pi1,pi2", "-c", "1"]]
)
def test_without_a_coordinator_it_soon_says_for_what_it_waits(lab: Lab, words: list[str]) -> None:
    lab.processes["coordinator"].kill()
    master, terminal = os.openpty()
    command, settings = [*HWSYNC, *words], environment(lab.folder, {"HWSYNC_BROKER": lab.url})
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=terminal, env=settings
    ) as process:
        os.close(terminal)
        said = b""
        while b"at most" not in said:
            said += os.read(master, 4_096)  # the end of the process ends it
        process.kill()
    os.close(master)
    assert said.count(b"no coordinator has answered yet") == 1
