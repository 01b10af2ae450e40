"""A lab as a person makes it, by the commands: who is let in, who is not, who notices."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import ssl
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.lab.folder import Folder
from tests.support.account_lab import folder_for_broker, start_broker
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC, Said, here
from tests.support.packets import Client, Closed, Login, Told
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import wait_until

ECHO: Final = "hw/@hwsync/echo/alice/there"
OTHER_ACCOUNT: Final = 62_999  # a number that no account has


class Typed:
    """What is typed for the lab in ``path``; ``passwords``: all that there ever were in it."""

    def __init__(self, path: Path, start: Callable[..., Process]) -> None:
        self.home, self.path, self._start = path, path / "lab", start
        self.boards_port, self.operators_port = free_port(), free_port()
        self.passwords: set[str] = set()
        self.processes: list[Process] = []
        self.shown = ""  # by the commands in this process

    def start(self, command: list[str], name: str = "cli", **options: Any) -> Process:
        process = self._start(command, name=name, **options)
        self.processes.append(process)
        return process

    def begin(self, *words: str, lab: bool = True) -> Process:
        """One command; ``lab``: it is told which by the environment."""
        variables = {"HWSYNC_LAB": str(self.path)} if lab else {}
        return self.start([*HWSYNC, *words], variables=variables)

    def here(self, *words: str) -> Said:
        """One command in this process, which spares a start of Python."""
        said = here(*words, HWSYNC_LAB=str(self.path))
        self.remember()
        self.shown += said.stdout + said.stderr
        return said

    def hwsync(self, *words: str, code: int = 0, lab: bool = True) -> Process:
        """One command, to its end."""
        process = self.begin(*words, lab=lab)
        assert process.wait(30.0) == code, process.account()
        assert "Traceback" not in process.stderr
        assert "this is a bug" not in process.stderr
        self.remember()
        return process

    def init(self, *options: str) -> Process:
        ports = ("--port", str(self.boards_port), "--operators-port", str(self.operators_port))
        return self.hwsync("init", str(self.path), "--host", "localhost", *ports, *options)

    def broker(self) -> Process:
        ports = (self.boards_port, self.operators_port)
        conf = self.path / "broker.conf"
        process = start_broker("mosquitto", conf, self.home / "state", ports)
        self.processes.append(process)
        return process

    def coordinator(self) -> Process:
        file = self.path / "coordinator.toml"
        command = ["coordinator", "--config", str(file), "--db", str(self.home / "hwsync.db"),
                   "--settle", "0"]  # fmt: skip
        process = self.start([*HWSYNC, *command], "coordinator")
        process.wait_for_log(r"\bready\b", 20.0)
        return process

    def device(self, board: str) -> Process:
        file = self.path / f"boards/{board}.toml"
        state = str(self.home / f"state-{board}")
        command = [*DEVICE, "--config", str(file), "--state-dir", state, *AS_ROOT]
        process = self.start(command, board)
        process.wait_for_log("connected to", 20.0)
        return process

    def refused_to_another_account(self, *words: str) -> None:
        """Who is not root is told so. Everything is loaded before: our Python may be root's."""
        code = (
            "import difflib, os, sys, tomllib; from hwsync.cli import app, key, lab\n"
            f"os.setgroups([]); os.setgid({OTHER_ACCOUNT}); os.setuid({OTHER_ACCOUNT})\n"
            "app.start()"
        )
        command = [sys.executable, "-c", code, *words]
        process = self.start(command, variables={"HWSYNC_LAB": str(self.path)})
        assert process.wait(30.0) == 2, process.account()
        assert "Permission denied" in process.stderr
        assert "sudo" in process.stderr

    def run(self, operator: str, board: str, program: str, *, code: int = 0) -> Process:
        process = self.ask(operator, board, program)
        assert process.wait(30.0) == code, process.account()
        assert "Traceback" not in process.stderr
        return process

    def ask(self, operator: str, board: str, program: str) -> Process:
        """That operator's ``hwsync run``."""
        file = self.path / f"operators/{operator}.toml"
        words = ("run", board, "-c", program, "--timeout", "5", "--config", str(file))
        return self.begin(*words, lab=False)

    def own(self, file: str) -> dict[str, Any]:
        return tomllib.loads((self.path / file).read_text())

    def remember(self) -> None:
        for file in (*self.path.glob("*.toml"), *self.path.glob("*/*.toml")):
            known = tomllib.loads(file.read_text())
            self.passwords.add(str(known.get("password") or known["key"]))

    def assert_no_password_in_sight(self) -> None:
        """But in the file of the account that it is of, which only its owner can read."""
        self.remember()
        texts = {"argv": "", "output": self.shown}
        for process in self.processes:
            texts["argv"] += "\n".join(process.command)
            texts["output"] += process.stdout + process.stderr
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                texts["argv"] += line.read_bytes().decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
        for file in self.path.rglob("*"):
            if file.is_file() and file.suffix != ".toml":
                texts[str(file)] = file.read_text()
        assert len(self.passwords) > 1
        for where, text in texts.items():
            assert len(text) > 0 or where.endswith(("lock", "passwords")), where
            assert not [word for word in self.passwords if word in text], where


@pytest.fixture
def typed(start: Callable[..., Process]) -> Iterator[Typed]:
    with folder_for_broker() as path:
        made = Typed(path, start)
        yield made
        for process in reversed(made.processes):
            process.stop()
            if process.name == "mosquitto":  # the others are shown by ``start``
                print(process.account())


def connections(process: Process) -> int:
    """How often coordinator or device have come in."""
    return len(re.findall(r"\bconnected to\b", process.stderr))


def test_a_lab_from_its_first_command_to_the_last(typed: Typed) -> None:
    said = typed.init().stdout
    assert f"mosquitto -c {typed.path}/broker.conf" in said
    assert f"hwsync coordinator --config {typed.path}/coordinator.toml" in said
    broker = typed.broker()
    coordinator = typed.coordinator()

    # Boards and operators are added while everything runs.
    added = typed.hwsync("device", "add", "pi1", "pi2").stdout
    assert added.count("the broker has been told") == 1
    assert f"{typed.path}/boards/pi1.toml" in added
    pi1, pi2 = typed.device("pi1"), typed.device("pi2")
    typed.hwsync("operator", "add", "alice", "--boards", "pi1")
    assert typed.here("operator", "add", "rita", "--boards", "pi1", "--read-only").exit_code == 0
    assert typed.run("alice", "pi1", "print(6*7)").stdout == "42\n"

    # Whoever was not given a board, or may only look, starts nothing there.
    tries = [typed.ask("alice", "pi2", "print('must not run')"),
             typed.ask("rita", "pi1", "print('must not run')")]  # fmt: skip
    for refused in tries:
        assert refused.wait(30.0) == 125, refused.account()
        assert refused.stdout == ""
        assert "the broker does not let us publish for" in refused.stderr, refused.account()
    looked = typed.hwsync("status", "pi1", "--config", str(typed.path / "operators/rita.toml"),
                          "--broker", f"mqtts://localhost:{typed.operators_port}")  # fmt: skip
    assert "pi1" in looked.stdout

    # Other rights count at once, and the person need not come in again.
    changed = typed.here("operator", "change", "alice", "--boards", "pi1,pi2").stdout
    assert "the broker has been told" in changed
    assert typed.run("alice", "pi2", "print('now')").stdout == "now\n"
    listed = typed.here("operator", "list", "--json").stdout.splitlines()
    assert json.loads(listed[0]) == {
        "name": "alice",
        "boards": ["pi1", "pi2"],
        "groups": [],
        "history": False,
        "analyse": False,
        "read_only": False,
    }
    assert typed.here("device", "list").stdout == "pi1\npi2\n"

    # A new password ends the connection of the old one; a removed account's ends too.
    rotated = typed.hwsync("device", "rotate", "pi2").stdout
    assert "pi2 is shut out until it has its new file\n" in rotated
    assert (
        "on the board: /etc/hwsync/device.toml, then systemctl reload hwsync-device@pi2" in rotated
    )
    assert "online for 90 s still" in rotated
    pi2.wait_for_log(r"refuse|not authori|bad user name", 20.0)
    assert connections(pi2) == 1
    pi2.stop()
    pi2 = typed.device("pi2")
    assert typed.run("alice", "pi2", "print('again')").stdout == "again\n"
    assert typed.here("device", "remove", "pi2").exit_code == 0
    pi2.wait_for_log(r"refuse|not authori|bad user name", 20.0)
    assert connections(pi2) == 1
    alice = (typed.path / "operators/alice.toml").read_bytes()
    assert typed.here("operator", "remove", "alice").exit_code == 0
    (typed.path / "operators/alice.toml").write_bytes(alice)
    (typed.path / "operators/alice.toml").chmod(0o600)
    refused = typed.run("alice", "pi1", "print('must not run')", code=125)
    assert "refuse" in refused.stderr or "not authori" in refused.stderr.lower()
    (typed.path / "operators/alice.toml").unlink()

    # Nobody else has noticed any of that.
    assert (connections(coordinator), connections(pi1)) == (1, 1)
    for process in (coordinator, pi1):
        assert process.running
        assert not re.search("lost the connection|no connection", process.stderr), process.account()
    assert broker.running
    typed.assert_no_password_in_sight()


def working(typed: Typed, *options: str) -> tuple[Process, Process]:
    """A lab made with these options, in which alice has run a program; its coordinator and pi1."""
    typed.init(*options)
    assert typed.here("device", "add", "pi1").exit_code == 0
    assert typed.here("operator", "add", "alice", "--boards", "all").exit_code == 0
    typed.broker()
    coordinator, device = typed.coordinator(), typed.device("pi1")
    assert typed.run("alice", "pi1", "print(6*7)").stdout == "42\n"
    return coordinator, device


def test_a_lab_with_mutual_tls(typed: Typed) -> None:
    working(typed, "--mutual-tls")

    # A name alone lets nobody in; with its certificate there is no password.
    own = typed.own("operators/alice.toml")
    assert "password" not in own
    context = ssl.create_default_context(cadata=own["ca"])
    login = Login("alice", None, typed.operators_port)
    try:
        client = Client(login, context)
    except ssl.SSLError:
        pass
    else:
        client.close()
        assert client.code == -1
    both = typed.home / "alice.pem"
    both.write_text(own["certificate"] + own["key"])
    context.load_cert_chain(both)
    client = Client(login, context)
    assert client.accepted

    # Whoever has a new certificate works on, and the one before lets nobody in.
    assert "alice is shut out until it has" in typed.here("operator", "rotate", "alice").stdout
    assert typed.run("alice", "pi1", "print(6*7)").stdout == "42\n"
    client.close()

    def refused() -> bool:
        again = Client(login, context)
        again.close()
        return not again.accepted

    wait_until(refused, what="the end of the old one")


def kept(typed: Typed) -> set[str]:
    """On which of pi1's topics the broker keeps something, as alice may see when there is a pi1."""
    own = typed.own("operators/alice.toml")
    context = ssl.create_default_context(cadata=own["ca"])
    if "certificate" in own:
        both = typed.home / "alice.pem"
        both.write_text(own["certificate"] + own["key"])
        context.load_cert_chain(both)
    client = Client(Login("alice", own.get("password"), typed.operators_port), context)
    try:
        client.subscribe(["hw/pi1/status", "hw/pi1/heartbeat", "hw/pi1/output", ECHO])
        client.publish([Told(ECHO, "fence")])
        return {one.topic for one in client.until(lambda one: one.topic == ECHO, "the fence")[:-1]}
    finally:
        client.close()


PRESENCE: Final = "hw/@hwsync/analysts/check"


def come_in(typed: Typed, file: str) -> Client:
    """At the operators' listener, with what stands in that file."""
    own = typed.own(file)
    context = ssl.create_default_context(cadata=own["ca"])
    if "certificate" in own:
        both = typed.home / "both.pem"
        both.write_text(own["certificate"] + own["key"])
        context.load_cert_chain(both)
    client = Client(Login(own["account"], own.get("password"), typed.operators_port), context)
    assert client.accepted
    return client


def an_analysts_presence_goes_with_its_account(typed: Typed) -> None:
    added = typed.here("analyst", "add", "check").stdout
    assert f"{typed.path}/analysts/check.toml" in added
    assert "the broker has been told" in added
    check, alice = come_in(typed, "analysts/check.toml"), come_in(typed, "operators/alice.toml")
    alice.subscribe([PRESENCE, ECHO])
    check.publish([Told(PRESENCE, "there", retain=True), Told("hw/pi1/request", "no")])
    alice.until(lambda one: one.text == "there", "the analyst's presence")
    assert typed.here("analyst", "list").stdout == "check\n"
    rotated = typed.here("analyst", "rotate", "check").stdout
    assert "systemctl restart hwsync-analyst@check" in rotated
    check.close()
    check = come_in(typed, "analysts/check.toml")
    said = typed.here("analyst", "remove", "check")
    assert said.stdout.endswith("the broker keeps nothing of check\n"), said
    alice.until(lambda one: one.topic == PRESENCE and not one.text, "that it is gone")
    with suppress(OSError, Closed):  # mosquitto ends it, or lets it do nothing
        check.publish([Told(PRESENCE, "forged", retain=True)])
    alice.publish([Told(ECHO, "fence")])
    came = alice.until(lambda one: one.topic == ECHO, "the fence")
    assert "forged" not in {one.text for one in came}
    again = come_in(typed, "operators/alice.toml")
    again.subscribe([PRESENCE, ECHO])
    again.publish([Told(ECHO, "fence")])
    assert PRESENCE not in {one.topic for one in again.until(lambda one: one.text == "fence", "")}
    for client in (check, alice, again):
        client.close()
    never = typed.here("analyst", "remove", "check")
    assert (never.exit_code, never.stdout) == (2, "")
    assert never.stderr == "hwsync: there is no analyst check\n  hwsync analyst list\n"


@pytest.mark.parametrize("option", ["", "--mutual-tls"], ids=["passwords", "certificates"])
def test_what_the_broker_keeps_of_a_removed_board_goes_with_it(typed: Typed, option: str) -> None:
    coordinator, device = working(typed, *([option] if option else []))
    wait_until(lambda: kept(typed) == {"hw/pi1/status", "hw/pi1/heartbeat"}, what="both are kept")
    file = str(typed.path / "operators/alice.toml")
    never = typed.here("forget", "pi11", "--config", file)
    assert (never.exit_code, never.stdout) == (1, "")
    assert "did you mean pi1?" in never.stderr
    an_analysts_presence_goes_with_its_account(typed)
    device.stop()
    done = typed.hwsync("device", "remove", "pi1")
    assert "the broker keeps nothing of pi1" in done.stdout, done.account()
    acl = typed.path / "broker/acl"
    assert "@remove" not in acl.read_text()
    for file in typed.path.glob("broker/*.passwords"):
        assert "@remove" not in file.read_text()
    assert connections(coordinator) == 1  # nobody took its place
    assert typed.here("device", "add", "pi1").exit_code == 0
    assert kept(typed) == set()
    coordinator.stop()
    coordinator = typed.coordinator()  # which publishes at its start what everybody should know
    assert kept(typed) == set()

    # Without a coordinator it is gone from the broker, and the command says what is left to do.
    device = typed.device("pi1")
    assert typed.run("alice", "pi1", "print(6*7)").stdout == "42\n"
    device.stop()
    coordinator.stop()
    done = typed.hwsync("device", "remove", "pi1")
    assert "no coordinator answers" in done.stderr, done.account()
    cure = "hwsync device add pi1, then hwsync device remove pi1 again"
    assert cure in done.stderr
    typed.coordinator()
    assert typed.here("device", "add", "pi1").exit_code == 0
    wait_until(lambda: kept(typed) == {"hw/pi1/status"}, what="the coordinator says it again")
    assert "the broker keeps nothing of pi1" in typed.here("device", "remove", "pi1").stdout
    assert typed.here("device", "add", "pi1").exit_code == 0
    assert kept(typed) == set()


def test_a_broker_that_missed_the_signal_is_told_again(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mosquitto forgets a SIGHUP that comes while it reads its files; a certificate lets in."""
    _, device = working(typed, "--mutual-tls")
    device.stop()
    reload, calls = Folder.reload, itertools.count()

    def missed(folder: Folder) -> tuple[list[int], list[int]]:
        if next(calls) == 1:
            return [], []
        told = reload(folder)
        kept(typed)  # an answer: what it was told before has been done
        return told

    monkeypatch.setattr(Folder, "reload", missed)
    done = typed.here("device", "remove", "pi1")
    assert "the broker keeps nothing of pi1" in done.stdout, done.stderr
    assert kept(typed) == set()


@pytest.mark.parametrize("running", [False, True], ids=["waiting", "running"])
def test_what_a_removed_board_was_asked_for_ends(typed: Typed, running: bool) -> None:
    coordinator, device = working(typed)
    if not running:
        device.stop()
    own = str(typed.path / "operators/alice.toml")
    program = "import time; time.sleep(60)"
    for id in ("first", "second", "third"):
        sent = typed.begin("send", "pi1", "-c", program, "--id", id, "--queue", "--timeout", "60",
                           "--config", own, lab=False)  # fmt: skip
        assert sent.wait(30.0) == 0, sent.account()
    if running:
        coordinator.wait_for_log("id=first hw_command_retrieval", 20.0)
    done = typed.here("device", "remove", "pi1")
    device.kill()  # it would let the program end by itself
    assert done.exit_code == 0
    assert done.stderr == ""
    end = "lost (ran: maybe)" if running else "cancelled (ran: no)"
    assert f"first was open: {end}, and 2 behind it\n" in done.stdout
    assert "the broker keeps nothing of pi1" in done.stdout
    assert typed.here("device", "add", "pi1").exit_code == 0
    assert kept(typed) == set()


def test_a_board_of_a_lab_whose_broker_is_elsewhere(typed: Typed) -> None:
    typed.init()
    assert typed.here("device", "add", "pi1").exit_code == 0
    done = typed.here("device", "remove", "pi1", "--json")
    assert done.exit_code == 0
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["forgotten"] is None
    assert "no broker of this lab runs here" in last["left"]
    assert "hwsync device add pi1, then hwsync device remove pi1 again" in last["left"]


def test_a_lab_that_signs(typed: Typed) -> None:
    coordinator, device = working(typed, "--sign")

    # A coordinator with a new key, before the board has its new file: it runs nothing.
    [old] = typed.here("key", "list").stdout.split()
    rotated = typed.hwsync("key", "rotate").stdout
    assert f"{typed.path}/boards/pi1.toml" in rotated
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log("ready", 20.0, count=2)
    refused = typed.run("alice", "pi1", "print('must not run')", code=125)
    assert "a key that this board does not trust" in refused.stderr
    device.send_signal(signal.SIGHUP)
    device.wait_for_log("connected to", 20.0, count=2)
    assert typed.run("alice", "pi1", "print('signed')").stdout == "signed\n"
    typed.hwsync("key", "revoke", old)
    [new] = typed.here("key", "list", "--json").stdout.splitlines()
    assert json.loads(new)["public"] != old
    secret = typed.own("coordinator.toml")["signing_key"]
    assert not [one for one in typed.processes if secret in one.stdout + one.stderr]
    typed.assert_no_password_in_sight()


def test_a_coordinator_whose_password_is_new_comes_in_again_by_itself(typed: Typed) -> None:
    coordinator, _ = working(typed)
    said = typed.hwsync("device", "rotate", "coordinator").stdout
    assert "shut out" not in said, "it reads its file by itself"
    assert "systemctl restart hwsync-coordinator" in said
    coordinator.wait_for_log("ready", 30.0, count=2)
    assert typed.run("alice", "pi1", "print(2)").stdout == "2\n"
    typed.assert_no_password_in_sight()


def test_a_broker_that_moves_has_a_new_certificate_at_once(typed: Typed) -> None:
    typed.init()
    assert typed.here("operator", "add", "alice", "--boards", "all").exit_code == 0
    typed.broker()
    coordinator = typed.coordinator()
    context = ssl.create_default_context(cadata=typed.own("coordinator.toml")["ca"])

    def names() -> set[str]:
        own = typed.own("operators/alice.toml")
        client = Client(Login("alice", own["password"], typed.operators_port), context)
        found = client.certificate_names()
        client.close()
        assert client.accepted
        return found

    assert "new.local" not in names()
    said = typed.hwsync("init", str(typed.path), "--renew", "--host", "new.local").stdout
    assert f"{typed.path}/operators/alice.toml" in said
    wait_until(lambda: "new.local" in names(), what="the broker's new certificate")
    assert typed.own("operators/alice.toml")["broker"].startswith("mqtts://new.local:")
    assert connections(coordinator) == 1
    typed.assert_no_password_in_sight()


def test_what_is_wrong_is_said_and_changes_nothing(typed: Typed) -> None:
    typed.init()
    typed.hwsync("device", "add", "pi1")
    before = {file: file.read_bytes() for file in typed.path.rglob("*") if file.is_file()}
    lab, none = str(typed.path), str(typed.home / "none")
    words: dict[tuple[str, ...], tuple[int, str]] = {
        ("init", lab): (2, "is a lab already"),
        ("init", none, "--host", "a b"): (2, "'a b' is no host of a broker"),
        ("init", none, "--root", "replies"): (2, "cannot be the root of a lab"),
        ("init", none, "--cert", "x.pem"): (2, "--cert, --key and --ca go together"),
        ("init", lab, "--renew", "--sign"): (2, "are for a new lab"),
        ("device", "add", "pi2", "--lab", none): (2, f"{none} is no lab"),
        ("device", "add", "a b"): (2, "'a b' is no board's name"),
        ("device", "add", "coordinator"): (2, "the coordinator's own account"),
        ("device", "add", "pi1"): (2, "there is a board pi1 already"),
        ("device", "remove", "pi3"): (2, "there is no device pi3"),
        ("device", "rotate", "pi3"): (2, "there is no device pi3"),
        ("operator", "add", "alice", "--boards", "pi1,pi3"): (2, "there is no board pi3"),
        ("operator", "add", "alice"): (2, "for which boards?"),
        ("operator", "remove", "pi1"): (2, "there is no operator pi1"),
        ("key", "revoke", "nonsense"): (2, "this is no public key"),
    }
    for line, (code, expected) in words.items():
        said = typed.here(*line)
        assert said.exit_code == code, (line, said)
        assert expected in said.stderr, line
        assert said.stdout == ""
    assert {file: file.read_bytes() for file in typed.path.rglob("*") if file.is_file()} == before
    assert not Path(none).exists()
    # What came before the one that is refused has been done, and is said.
    said = typed.here("device", "add", "pi2", "pi1", "pi3")
    assert (said.exit_code, typed.here("device", "list").stdout) == (2, "pi1\npi2\n")
    assert said.stdout.startswith("pi2 may come in\n")
    assert "no broker of this lab runs here" in said.stdout
    assert "there is a board pi1 already" in said.stderr
    if os.geteuid() == 0:
        typed.refused_to_another_account("device", "add", "pi2")
        typed.path.chmod(0o700)
        typed.refused_to_another_account("device", "list")
        typed.path.chmod(0o755)
    typed.assert_no_password_in_sight()
