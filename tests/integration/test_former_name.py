"""A board that is given another name while its journal holds a result that nobody was told."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.mqtt import Message, Watcher
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until

WAITING = """
import os, time
print("begun", flush=True)
while not os.path.exists({gate!r}):
    time.sleep(0.01)
print("ended")
"""
ACL = """
user coordinator
topic readwrite hw/#
user pi1
topic readwrite hw/pi1/#
user pi2
topic readwrite hw/pi2/#
"""
ACCOUNTS = ("coordinator", "pi1", "pi2")
RECONNECT_S = 60.0  # pauses between two attempts grow to half a minute


class Site:
    """A broker, with accounts or without, a coordinator, and one board's folder."""

    def __init__(
        self, broker: MosquittoBroker, start: Callable[..., Process], folder: Path, accounts: bool
    ) -> None:
        self.broker, self.start, self.folder, self.accounts = broker, start, folder, accounts

    def run(self, command: list[str], name: str, account: str) -> Process:
        command = [*command, "--broker", self.broker.url]
        if self.accounts:
            login = self.folder / f"{account}.login"
            login.touch(0o600)
            login.write_text(f"{account}\nsecret\n")
            command += ["--credentials", str(login)]
        return self.start(command, name=name)

    def coordinator(self) -> Process:
        command = [*HWSYNC, "coordinator", "--db", str(self.folder / "hwsync.db"), "--settle", "1"]
        return self.run(command, "coordinator", "coordinator")

    def board(self, name: str) -> Process:
        command = [*DEVICE, "--user", name, "--state-dir", str(self.folder / "board"), *AS_ROOT]
        return self.run(command, name, name)

    def journal(self, column: str) -> Any:
        """What the board's journal says of its one command; None: nothing yet."""
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self.folder / "board/journal.db")) as db,
        ):
            row = db.execute(f"select {column} from entries where id = 'c1'").fetchone()
            return row[0] if row else None
        return None

    def ends_unheard(self, watcher: Watcher) -> None:
        """pi1 runs a program that ends while there is no broker, and is stopped."""
        gate = self.folder / "gate"
        board = self.board("pi1")
        asked = {"program": WAITING.format(gate=str(gate)), "id": "c1", "timeout": 60}
        watcher.publish("hw/pi1/request", json.dumps(asked))
        watcher.wait_for(lambda message: "begun" in message.text, topic="hw/pi1/output")
        self.broker.kill()
        gate.touch()
        wait_until(lambda: self.journal("state") == "finished", what="the end of the program")
        assert board.stop() == 0
        assert self.journal("settled") == 0


@pytest.fixture(params=[False, True], ids=["without accounts", "with accounts"])
def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
) -> Site:
    extra = []
    if request.param:
        tool = require_program("mosquitto_passwd", "mosquitto")
        passwords, rights = tmp_path / "passwords", tmp_path / "acl"
        passwords.touch(0o600)
        for account in ACCOUNTS:
            command = [tool, "-b", str(passwords), account, "secret"]
            subprocess.run(command, check=True, timeout=30)
        rights.write_text(ACL)
        rights.chmod(0o600)
        extra = ["allow_anonymous false", f"password_file {passwords}", f"acl_file {rights}"]
    return Site(start_mosquitto(extra=extra), start, tmp_path, request.param)


@pytest.mark.slow
def test_its_result_is_told_under_the_name_of_its_command_or_waits(
    site: Site, watch: Callable[..., Watcher]
) -> None:
    login = {"username": "coordinator", "password": "secret"} if site.accounts else {}
    watcher = watch(site.broker, **login)
    site.coordinator().wait_for_log(r"\bready\b")
    site.ends_unheard(watcher)
    renamed = site.board("pi2")
    site.broker.start()
    beat = watcher.wait_for(_online, RECONNECT_S, topic="hw/pi2/heartbeat").json
    assert isinstance(beat, dict)
    # Without accounts it may be told by the next heartbeat, which comes with the first clock.
    assert beat.get("former", {}) in ({"pi1": 1}, *([] if site.accounts else [{}]))
    if site.accounts:
        renamed.wait_for_log("1 results of pi1, as this board was called before", RECONNECT_S)
        assert watcher.messages("hw/pi1/response") == []
        assert site.journal("settled") == 0
        assert renamed.stop() == 0
        site.board("pi1")
    end = watcher.wait_for_state("pi1", 3, RECONNECT_S, id="c1")
    assert (end["outcome"], end["hw_response"]) == ("ok", "begun\nended\n")
    wait_until(lambda: site.journal("settled") == 1, what="the result to be settled")
    # Nobody was told anything of it under the other name.
    assert watcher.messages("hw/pi2/response") == []
    with closing(sqlite3.connect(site.folder / "hwsync.db")) as db:
        assert db.execute("select user, id from commands").fetchall() == [("pi1", "c1")]


def _online(message: Message) -> bool:
    return isinstance(message.json, dict) and bool(message.json["online"])
