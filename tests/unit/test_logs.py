"""Lines on a stream, and entries for systemd's journal where the stream is one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

from hwsync import logs

log = logging.getLogger("hwsync.test")

# What setup() changes for the whole process.
CHANGED = ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile", "raiseExceptions")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: getattr(logging, name) for name in CHANGED}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in before.items():
        setattr(logging, name, value)


@pytest.fixture
def stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """stderr as systemd makes it: JOURNAL_STREAM names it."""
    with open(tmp_path / "stderr", "w", encoding="utf-8", buffering=1) as stream:
        there = os.fstat(stream.fileno())
        # Not sys.stderr itself: pytest puts its own back before the test is called.
        monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=stream))
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        yield stream


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "socket")
    monkeypatch.setattr(logs, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(5)
        yield listening


def read(entry: bytes) -> dict[str, str]:
    """The fields of an entry, as systemd's documentation says."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


def written(stderr: TextIO) -> str:
    return Path(stderr.name).read_text(encoding="utf-8")


def test_the_journal_gets_fields(stderr: TextIO, journal: socket.socket) -> None:
    logs.setup("device", user="pi1")
    log.warning("stopped: %s", "cancelled", extra={"id": "c1"})
    assert read(journal.recv(65_536)) == {
        "MESSAGE": "stopped: cancelled",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "hwsync-device",
        "HWSYNC_USER": "pi1",
        "HWSYNC_ID": "c1",
    }
    assert written(stderr) == "", "it would be in the journal twice"


def test_a_records_own_user_wins_and_what_is_not_known_is_left_out(
    stderr: TextIO, journal: socket.socket
) -> None:
    logs.setup("coordinator")
    log.info("ready")
    assert read(journal.recv(65_536)).keys() == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}
    logs.setup("coordinator", user="pi1")
    log.info("0 to 1", extra={"user": "pi2", "id": None})
    fields = read(journal.recv(65_536))
    assert (fields["HWSYNC_USER"], "HWSYNC_ID" in fields) == ("pi2", False)


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_levels_are_priorities(
    stderr: TextIO, journal: socket.socket, level: str, priority: str
) -> None:
    logs.setup("device", verbose=True)
    getattr(log, level)("x")
    assert read(journal.recv(65_536))["PRIORITY"] == priority


def test_no_payload_makes_a_field_of_its_own(stderr: TextIO, journal: socket.socket) -> None:
    logs.setup("device")
    log.error("bad: %s", "a\nPRIORITY=0\x1b[31m", extra={"id": "c\nMESSAGE=forged"})
    fields = read(journal.recv(65_536))
    assert fields["MESSAGE"] == "bad: a\\nPRIORITY=0\\x1b[31m"
    assert fields["HWSYNC_ID"] == "c\\nMESSAGE=forged"
    assert fields["PRIORITY"] == "3"


def test_a_traceback_is_one_entry_of_several_lines(stderr: TextIO, journal: socket.socket) -> None:
    logs.setup("device", verbose=True)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    message = read(journal.recv(65_536))["MESSAGE"].splitlines()
    assert message[0].startswith("failed (ValueError: why, test_logs.py:")
    assert message[-1] == "ValueError: why"


def test_a_value_with_a_newline_carries_its_length() -> None:
    value = "ä\nHWSYNC_ID=forged\n"
    entry = logs.journal_entry({"A": "1", "B": value, "C": "", "D": "2"})
    assert entry.startswith(b"A=1\nB\n\x14\0\0\0\0\0\0\0")
    assert read(entry) == {"A": "1", "B": value, "D": "2"}


def test_what_the_journal_does_not_take_is_a_line(
    stderr: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "JOURNAL", "/no/such/socket")
    logs.setup("device", user="pi1")
    log.info("connected", extra={"id": "c1"})
    assert written(stderr).endswith("Z INFO device id=c1 connected\n")


def test_a_stream_that_is_not_the_journals_gets_lines(
    stderr: TextIO, journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")  # a parent's, or of before a redirection
    logs.setup("coordinator")
    log.info("a\nb", extra={"user": "pi1", "id": "c1"})
    assert written(stderr).endswith("Z INFO coordinator user=pi1 id=c1 a\\nb\n")
