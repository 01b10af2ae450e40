"""A coordinator whose login, certificates or signing key are new needs no restart."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.signing import SigningKey
from tests.support.brokers import MosquittoBroker
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "hwsync.cli", "coordinator", "--settle", "0"]
UNSURE = 30.0  # seconds: a broker that refuses is asked again with growing pauses


class Site:
    """A broker with accounts, and the files that a coordinator was given."""

    def __init__(
        self,
        folder: Path,
        start_mosquitto: Callable[..., MosquittoBroker],
        start: Callable[..., Process],
    ) -> None:
        self.folder, self._start = folder, start
        self._accounts = folder / "accounts"
        self.let_in("first")
        self.broker = start_mosquitto(
            extra=["allow_anonymous false", f"password_file {self._accounts}"]
        )

    def let_in(self, password: str) -> None:
        """The broker knows this password, and no other, once it is told."""
        tool = require_program("mosquitto_passwd", "mosquitto")
        command = [tool, "-b", "-c", str(self._accounts), "coordinator", password]
        subprocess.run(command, check=True, timeout=30)
        self._accounts.chmod(0o644)

    def tell_broker(self) -> None:
        self.broker.process.send_signal(signal.SIGHUP)

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.touch(0o600)
        file.write_text(text)
        return file

    def config(self, password: str, more: str = "") -> Path:
        lines = [f'broker = "{self.broker.url}"', 'account = "coordinator"']
        lines += [f'password = "{password}"', more, ""]
        return self.write("coordinator.toml", "\n".join(lines))

    def coordinator(self, *words: str | Path, **variables: str) -> Process:
        command = [*COMMAND, "--db", str(self.folder / "hwsync.db"), *map(str, words)]
        process = self._start(command, name="coordinator", variables=variables)
        process.wait_for_log(r"\bready\b")
        return process


@pytest.fixture
def site(
    tmp_path: Path,
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
) -> Site:
    return Site(tmp_path, start_mosquitto, start)


def test_a_password_that_was_changed_in_both_places_needs_nobody(site: Site) -> None:
    coordinator = site.coordinator("--config", site.config("first"))
    site.config("second")
    site.let_in("second")
    site.tell_broker()  # which ends the connection
    coordinator.wait_for_log(r"\bready\b", UNSURE, count=2)


def test_where_the_broker_is_told_first_it_comes_in_once_its_file_is_new(site: Site) -> None:
    file = site.write("login", "coordinator\nfirst\n")
    coordinator = site.coordinator("--broker", site.broker.url, "--credentials", file)
    site.let_in("second")
    site.tell_broker()
    coordinator.wait_for_log("the broker refused the connection", UNSURE)
    # Half of a file counts for nothing.
    site.write("login", "coordinator\n")
    coordinator.wait_for_log("is no credentials file.*; the login stays as it was", UNSURE)
    site.write("login", "coordinator\nsecond\n")
    coordinator.wait_for_log(r"\bready\b", 2 * UNSURE, count=2)


def test_a_new_address_waits_for_a_reload(site: Site) -> None:
    """A password that is for another broker is not shown to this one."""
    coordinator = site.coordinator("--config", site.config("first"))
    site.write(
        "coordinator.toml",
        f'broker = "mqtt://localhost:{site.broker.port}"\n'
        'account = "coordinator"\npassword = "of another broker"\n',
    )
    site.broker.kill()
    site.broker.start()
    coordinator.wait_for_log(r"\bready\b", UNSURE, count=2)
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log(f"no connection to mqtt://localhost:{site.broker.port}", UNSURE)


def test_a_reload_takes_a_new_key_and_leaves_what_is_wrong(site: Site) -> None:
    old, new = SigningKey.make(), SigningKey.make()
    signed = site.config("first", f'signing_key = "{old.secret}"')
    coordinator = site.coordinator("--config", signed)
    assert f"signed with {old.public}" in coordinator.stderr
    for wrong, said in (('signing_key = "no/such/key"', "signing_key is no key and no file"),
                        ('root = "other"', "the root is other now, and was hw"),
                        ("pasword = 1", "there is no key pasword")):  # fmt: skip
        site.config("first", wrong)
        coordinator.send_signal(signal.SIGHUP)
        coordinator.wait_for_log(f"{said}.*; the configuration stays as it was")
    site.config("first", f'signing_key = "{new.secret}"')
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log(r"\bready\b", UNSURE, count=2)
    assert f"signed with {new.public}" in coordinator.stderr
    assert "the configuration was read again" in coordinator.stderr
    assert "ANOTHER CLIENT" not in coordinator.stderr
    assert coordinator.running


def test_groups_beside_the_connection_file_count_from_a_reload_on(site: Site) -> None:
    coordinator = site.coordinator("--config", site.config("first"))
    assert "groups:" not in coordinator.stderr
    site.write("groups.toml", 'lab1 = ["pi1", "bench-*"]')
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log(r"groups: lab1 \(2\)")
    site.write("groups.toml", 'all = ["pi1"]')
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log(
        "groups.toml: no group can be called all.*; the configuration stays as it was"
    )
    site.write("groups.toml", 'lab2 = ["pi1"]')
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log(r"groups: lab2 \(1\)")
    assert coordinator.stderr.count("ready") == 1  # it has not left the broker


@pytest.mark.parametrize("named", [False, True])
def test_a_start_with_wrong_groups_ends_with_a_message(site: Site, named: bool) -> None:
    file = site.write("mine.toml" if named else "groups.toml", "lab1 = 'pi1'")
    words = ["--groups", str(file)] if named else []
    command = [*COMMAND, "--db", str(site.folder / "hwsync.db"), *words]
    done = subprocess.run(
        [*command, "--config", str(site.config("first"))], capture_output=True, text=True,
        timeout=UNSURE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{file}: lab1 is no list of boards" in done.stderr
    assert not (site.folder / "hwsync.db").exists()


def test_what_systemd_handed_over_takes_another_process(site: Site) -> None:
    file = site.config("first")
    coordinator = site.coordinator(HWSYNC_CONFIG=str(file), CREDENTIALS_DIRECTORY=str(site.folder))
    coordinator.send_signal(signal.SIGHUP)
    assert coordinator.wait() == 0
    assert "ending: the next start has the new configuration" in coordinator.stderr


def test_where_the_groups_are_wrong_no_other_process_is_needed(site: Site) -> None:
    """The next one would not start with them."""
    file = site.config("first")
    groups = site.write("mine.toml", 'lab1 = ["pi1"]')
    coordinator = site.coordinator("--groups", groups, HWSYNC_CONFIG=str(file),
                                   CREDENTIALS_DIRECTORY=str(site.folder))  # fmt: skip
    site.write("mine.toml", "lab1 = 1")
    coordinator.send_signal(signal.SIGHUP)
    coordinator.wait_for_log("lab1 is no list of boards.*; the configuration stays as it was")
    site.write("mine.toml", "")
    coordinator.send_signal(signal.SIGHUP)
    assert coordinator.wait() == 0


def test_a_terminal_that_is_closed_ends_it(site: Site) -> None:
    """SIGHUP is what a terminal says when it goes: nobody asked for a reload then."""
    master, slave = pty.openpty()
    files = ["--db", site.folder / "hwsync.db", "--config", site.config("first")]
    command = [*COMMAND, *map(str, files)]
    child = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(slave)
    try:
        heard = b""
        while b"ready" not in heard:
            heard += os.read(master, 4_096)
        os.close(master)
        wait_until(lambda: child.poll() is not None, what="the end of the coordinator")
        # 120: Python's own, of an output that is gone. It left in order all the same.
        assert child.returncode in (0, 120)
        assert "Client hwsync-coordinator disconnected." in site.broker.log
    finally:
        child.kill()
        child.wait()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
