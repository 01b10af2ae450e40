"""What the doctor makes of what it saw; and that it looks at a database without touching it."""

from __future__ import annotations

import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync import __version__, probe
from hwsync.address import BrokerUrl
from hwsync.cli import checks, doctor
from hwsync.cli.checks import FULL, LOW
from hwsync.findings import Finding, Result, certificate, dots
from hwsync.probe import SLOW_S, Seen
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.record import Record
from hwsync.protocol.wire.status import status_json
from hwsync.store import inspection
from hwsync.store.inspection import Inspection, inspect
from hwsync.store.migrations import SCHEMA
from hwsync.store.store import Store
from hwsync.transport.paho_client import PahoClient
from tests.support.coordinator import Lab
from tests.support.waiting import PATIENCE, wait_until

NOW = 1_800_000_000.0
OK, WARNING, ERROR = Result.OK, Result.WARNING, Result.ERROR
V5, V4 = Seen("mosquitto 2", 5), Seen("mosquitto 2", 4)


def said(finding: Finding, result: Result, *words: str) -> None:
    """It is of that result, and its words and its cure are these."""
    assert finding.result is result, finding
    for word in words:
        assert word in f"{finding.found} | {finding.cure}"
    assert finding.cure or result is OK


# The broker


@pytest.mark.parametrize(
    ("seen", "plain", "result", "words"),
    [
        (V5, V4, OK, ["mosquitto 2 at mqtt://h", "MQTT 5 and 3.1.1"]),
        (V4, None, OK, ["3.1.1 only"]),
        (V5, Seen("", 0, "refused"), ERROR, ["but not 3.1.1", "devices speak it"]),
        (Seen("", 0, "Connection refused"), None, ERROR, ["no broker answers", "--broker"]),
        (Seen("", 0, "the broker refused the connection (not authorized)"), None, ERROR,
         ["not authorized", "--credentials"]),
        (Seen("", 0, "it takes us for coordinator", "take an operator's file", taken=True), None,
         ERROR, ["takes us for coordinator", "take an operator's file"]),
        (Seen("", 0, "its certificate has expired", "renew it"), None, ERROR,
         ["mqtt://h: its certificate has expired", "renew it"]),
    ],
)  # fmt: skip
def test_the_broker(seen: Seen, plain: Seen | None, result: Result, words: list[str]) -> None:
    said(checks.broker("mqtt://h", seen, plain), result, *words)


def test_how_long_the_certificate_lasts() -> None:
    def lasts(days: float) -> Finding:
        return certificate("TLSv1.3", NOW + days * 86_400, NOW)

    said(lasts(14), OK, "TLSv1.3, the broker's certificate lasts 14 more days")
    said(lasts(13.9), WARNING, "lasts 13 more days", "renew it")
    said(lasts(-0.1), WARNING, "lasts 0 more days", "renew it")
    said(certificate("TLSv1.2", None, NOW), OK, "TLSv1.2")


def test_an_attempt_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release, stopped = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        """In a name server for instance."""
        release.wait(PATIENCE)
        stopped.set()

    monkeypatch.setattr(PahoClient, "dial", hang)
    seen = probe.inspect_broker(BrokerUrl.parse("mqtt://h"), 0.01)
    assert not stopped.is_set()
    assert (seen.protocol, seen.reason) == (0, "no answer")
    release.set()
    wait_until(stopped.is_set, what="the stop")


def test_a_slow_round_trip_has_its_line_for_broker_conf() -> None:
    said(checks.round_trip(SLOW_S), OK, "20.0 ms")
    said(checks.round_trip(SLOW_S * 2.2), WARNING, "44.0 ms", "set_tcp_nodelay true")
    said(checks.round_trip(SLOW_S * 10, "wss"), WARNING, "200.0 ms", "use mqtts://")
    said(checks.round_trip(None), ERROR, "did not arrive")


def test_a_broker_with_a_small_limit_is_named_with_it() -> None:
    said(checks.largest(4_194_304), OK, "4,194,304 bytes")
    said(checks.largest(128_960), WARNING, "128,960 bytes", "max_packet_size")
    said(checks.largest(None), WARNING, "no large message")


# The coordinator


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({}, ["none has been here", "hwsync coordinator"]),
        ({"condition": "gone"}, ["killed", "systemctl start"]),
        ({"condition": "stopped", "time": NOW - 7_300}, ["stopped, 2 hours ago", "start one"]),
        ({"condition": "ok", "time": NOW - 100}, ["last word was ok, 100 s ago", "restart"]),
        ({"condition": "ok", "time": "x"}, ["last word was ok:"]),
    ],
)
def test_no_coordinator(last: dict[str, Any], words: list[str]) -> None:
    said(checks.coordinator(False, last, NOW), ERROR, *words)
    said(checks.coordinator(True, last, NOW), OK)


def shown(**changes: Any) -> dict[str, Any]:
    return {
        "condition": "ok", "reason": "", "version": __version__, "time": NOW, "uptime": 200.0,
        "users": 12, "states": {"collected": 3}, "queued": 1, "started": NOW - 200, "host": "lab",
        "database": "/db", "other": None, **changes,
    }  # fmt: skip


def test_the_health() -> None:
    (one,) = checks.health(shown())
    said(one, OK, f"ok, hwsync {__version__}, up 3 minutes, 12 boards, 3 running, 1 queued; on lab "
         "(database /db)")  # fmt: skip
    assert list(checks.health(shown(time=NOW - 86_400))) == [one], "it was asked for just now"
    for changes, result, word in (
        ({"version": "9"}, WARNING, "hwsync 9"),
        ({"given_up": 2, "given_up_last": "a/b: no"}, WARNING, "2 answers were given up"),
        ({"condition": "degraded", "reason": "full"}, ERROR, "cannot save: full"),
    ):
        said(next(iter(checks.health(shown(**changes)))), result, word)
    assert len(list(checks.health({"condition": "ok"}))) == 2, "another version's"


def test_a_second_coordinator() -> None:
    """One that answers too, or that the answering one has heard of."""
    first, second = shown(), shown(started=NOW - 9, host="attic", database="/home/db")
    assert list(checks.others(first, [first])) == []
    assert list(checks.others(first, [])) == []
    place = "one on lab (database /db); one on attic (database /home/db)"
    (found,) = checks.others(first, [first, second])
    said(found, ERROR, "two serve this root", place, "answers too", "systemctl disable --now")
    other = {"host": "attic", "database": "/home/db", "started": NOW - 9, "seconds": 3.2}
    (found,) = checks.others(shown(other=other), [first])
    said(found, ERROR, place, "was heard 3 s ago")
    (found,) = checks.others(shown(other={}), [])
    said(found, ERROR, "one on ? (database ?)")


@pytest.mark.parametrize(
    ("now", "ahead", "result", "word"),
    [
        (NOW, 0.0, OK, "as the coordinator's"),
        (NOW, 2.0, OK, "as the coordinator's"),
        (NOW, 2.1, WARNING, "2.1 s ahead of"),
        (NOW, -2.1, WARNING, "2.1 s behind"),
        (NOW, None, OK, "no coordinator to compare"),
        (1_704_067_199.0, 0.0, ERROR, "2023-12-31 23:59:59"),
        (1_704_067_200.0, 0.0, OK, "2024-01-01"),
        (0.0, None, ERROR, "never set: 1970"),
    ],
)
def test_the_clock(now: float, ahead: float | None, result: Result, word: str) -> None:
    said(checks.clock(now, ahead), result, word)


# This machine


@pytest.mark.parametrize(
    ("seen", "result", "words"),
    [
        (None, OK, ["none here"]),
        (Inspection(SCHEMA, 12_345, ()), OK, ["12,345 bytes", f"schema {SCHEMA}", "sound"]),
        (Inspection(SCHEMA + 1, 1, ()), ERROR, ["newer"]),
        (Inspection(SCHEMA - 1, 1, ()), WARNING, ["older", "start the coordinator once"]),
        (Inspection(SCHEMA, 1, ("page 3: x",)), ERROR, ["damaged: page 3: x", "hwsync restore"]),
    ],
)
def test_the_database(seen: Inspection | None, result: Result, words: list[str]) -> None:
    said(checks.database("/db", seen), result, "/db", *words)


def test_a_database_that_is_not_the_coordinators(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "hwsync.db")):
        pass
    here = socket.gethostname()
    for host, database in (("master", str(tmp_path / "hwsync.db")), (here, "/srv/lab.db")):
        health = {"host": host, "database": database}
        (found,) = doctor._database(tmp_path / "hwsync.db", health)
        words = f"sound, but not this lab's: the coordinator's database is {database} on {host}"
        said(found, WARNING, words, str(tmp_path / "hwsync.db"))
        said(checks.database("/db", None, other="x on y"), OK, "none here (/db): x on y")
    same = {"host": here, "database": str(tmp_path / "hwsync.db")}
    for health in (same, {"condition": "gone"}, {}):
        (found,) = doctor._database(tmp_path / "hwsync.db", health)
        said(found, OK, "sound")
    (found,) = doctor._database(tmp_path / "no.db", same)
    said(found, ERROR, f"there is none at {tmp_path / 'no.db'}; the coordinator's database is")


def test_the_disk() -> None:
    said(checks.disk("/f", LOW), OK, "500 MB free for /f")
    said(checks.disk("/f", LOW - 1), WARNING, "make space")
    said(checks.disk("/f", FULL - 1), ERROR, "50 MB free")


def test_a_database_is_looked_at_while_it_is_used_and_when_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "hwsync.db"
    assert inspect(path) is None
    assert inspect(tmp_path / "hwsync.db" / "below") is None
    with Lab(path) as lab:
        lab.hear("request", b"1")
        found = inspect(path)
        assert found is not None
        assert (found.schema, found.age, found.faults) == (SCHEMA, 0, ())
        assert found.size > path.stat().st_size
    before = sorted(tmp_path.iterdir())
    found = inspect(path)
    assert found is not None
    assert found.size == path.stat().st_size
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    path = tmp_path / "hwsync.db"
    with Lab(path):
        pass
    data = bytearray(path.read_bytes())
    data[36:40] = (5).to_bytes(4, "big")  # the header: so many free pages, of which there are none
    path.write_bytes(data)
    found = inspect(path)
    assert found is not None
    assert "free" in found.faults[0].lower()


def test_what_is_no_database_of_hwsync_is_said(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (c)")
    with pytest.raises(DatabaseError, match="no database of hwsync"):
        inspect(path)
    path.write_text("This is no database at all, and it is long enough to say so." * 9)
    with pytest.raises(DatabaseError, match="cannot be read"):
        inspect(path)


def test_one_that_belongs_to_another_account_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hwsync.db"
    path.touch()
    monkeypatch.setattr(inspection.os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(PermissionError) as error:
        inspect(path)
    assert error.value.filename == str(path)
    said(checks.unreadable(str(path)), WARNING, "sudo")


# One user


def beat(**changes: Any) -> dict[str, Any]:
    return {
        "online": True, "journal": "j1", "boot": 1, "version": __version__, "busy": None,
        "time": NOW - 3, **changes,
    }  # fmt: skip


def listed(heard: float | None = 3.0, listening: float = 500.0) -> dict[str, Any]:
    """Whom the coordinator hears: pi1, so many seconds ago."""
    return {"time": NOW, "listening": listening, "left_out": 0, "boards": {"pi1": heard}}


@pytest.mark.parametrize(
    ("beats", "boards", "findings"),
    [
        ([beat()], listed(), [(OK, "online, heard 3 s ago, idle, journal j1")]),
        ([beat(busy="c1")], listed(), [(OK, "busy with c1")]),
        ([beat(former={"pi0": 2})], listed(), [(WARNING, "told: pi0"), (OK, "online")]),
        ([beat(former=3)], listed(), [(OK, "online")]),
        ([beat(refusing="disk is full")], listed(),
         [(ERROR, "refuses every program: disk is"), (OK, "on")]),
        (
            [beat(board="Pi 4", temperature=48.3, memory_free_mb=1200, disk_free_mb=None)],
            listed(),
            [(OK, "journal j1, Pi 4, 48 °C, 1,200 MB memory free")],
        ),
        ([], listed(), [(ERROR, "no device has ever been here for pi1")]),
        ([], None, [(ERROR, "no device has ever been here for pi1")]),
        ([{"online": False, "journal": "j1", "boot": 1}], None, [(ERROR, "offline (journal j1)")]),
        ([beat()], listed(None), [(ERROR, "offline (journal j1)")]),
        ([beat(time=None)], listed(), [(OK, "online, heard 3 s ago")]),
        ([beat(time=NOW - 89)], listed(89.0), [(OK, "89 s ago")]),
        ([beat()], listed(90.0), [(ERROR, "offline (journal j1): nothing was heard of it for 90")]),
        ([beat(time=NOW - 500)], listed(500.0, 60.0), [(OK, "heard 8 minutes ago")]),
        ([beat()], {**listed(), "boards": {}}, [(ERROR, "nothing was heard of it for 8 minutes")]),
        ([beat()], {**listed(listening=80.0), "boards": {}}, [(OK, "online, not heard yet")]),
        ([beat()], None, [(WARNING, "no coordinator says whom it hears")]),
        # Clocks: the board's beside the coordinator's, never beside ours.
        ([beat(time=NOW + 6)], listed(), [(WARNING, "9.0 s ahead of the coord"), (OK, "online")]),
        ([beat(time=NOW - 200)], listed(), [(WARNING, "197.0 s behind"), (OK, "online")]),
        ([beat(time=12.0)], listed(), [(WARNING, "never set: 1970-01-01"), (OK, "online")]),
        ([beat(version="9")], listed(), [(WARNING, "hwsync 9"), (OK, "online")]),
        ([beat(clock=None)], listed(), [(WARNING, "does not know lab time"), (OK, "online")]),
        ([beat(clock="x")], listed(), [(WARNING, "does not know lab time"), (OK, "online")]),
        ([beat(clock={"bound": 0.000_21})], listed(), [(OK, "lab time ±0.21 ms")]),
        ([beat(clock={"bound": 0.021})], listed(),
         [(WARNING, "lab time within 21 ms only"), (OK, "lab time ±21 ms")]),
        ([beat(clock={"bound": 0.003, "slewed": True})], listed(),
         [(WARNING, "may be slewed"), (OK, "lab time ±3.0 ms")]),
        ([beat(), beat(journal="j2")], listed(),
         [(ERROR, "the journals j1 and j2"), (OK, "journal j2")]),
    ],
)  # fmt: skip
def test_the_device(
    beats: list[dict[str, Any]],
    boards: dict[str, Any] | None,
    findings: list[tuple[Result, str]],
) -> None:
    found = list(checks.device("pi1", beats, boards))
    assert len(found) == len(findings)
    for finding, (result, word) in zip(found, findings, strict=True):
        said(finding, result, word)


def status(**changes: Any) -> dict[str, Any]:
    return {**status_json(Record("pi1")), **changes}


def test_another_devices_journal_in_the_record_is_named() -> None:
    def found(*beats: dict[str, Any], **changes: Any) -> list[Finding]:
        return list(checks.replaced("pi1", status(**changes), beats))

    assert found(beat(), settled=[["c1", "j1"]]) == []
    assert found(settled=[["c1", "j2"]]) == []
    said(*found(beat(), settled=[["c1", "j2"], ["c2", "j1"]]), WARNING, "journal j2")
    said(*found(beat(), state=2, journal="j3"), WARNING, "journal j3")
    assert found(beat(), state=0, journal="j3") == []


@pytest.mark.parametrize(
    ("fields", "online", "result", "words"),
    [
        ({}, True, OK, ["0 rest: nothing", "hwsync run pi1"]),
        ({"id": "c1", "outcome": "ok"}, False, OK, ["c1 ended as ok"]),
        ({"id": "c1", "state": 1, "deadline": NOW + 60}, True, OK,
         ["1 requested: c1 waits for its device", "at most 60 s more", "hwsync cancel pi1 c1"]),
        ({"id": "c1", "state": 1, "queued": 2}, False, WARNING,
         ["not online, for ever; 2 behind it", "start the device"]),
        ({"id": "c1", "state": 2, "journal": "j1"}, True, OK, ["the device's result"]),
        ({"id": "c1", "state": 2, "journal": "j1"}, False, WARNING, ["not online"]),
        ({"id": "c1", "state": 2}, False, OK, ["a person's answer"]),
        ({"id": "c1", "state": 3}, False, OK, ["its analysis", "hwsync analyse pi1 TEXT --id c1"]),
    ],
)  # fmt: skip
def test_the_record(fields: Any, online: bool, result: Result, words: list[str]) -> None:
    said(checks.record("pi1", status(**fields), NOW, online=online), result, *words)


def test_a_dot_in_a_topic() -> None:
    said(dots(True, "hw", "pi.1"), OK, "arrives as it is")
    said(dots(None, "hw", "pi.1"), OK, "cannot be tried")
    said(dots(False, "hw", "pi1"), WARNING, "no message whose topic has a dot", "mosquitto")
    said(dots(False, "hw", "pi.1"), ERROR, "nothing of pi.1 arrives", "no board, no id and no root")
    said(dots(False, "h.w", ""), ERROR, "nothing of h.w arrives")


@pytest.mark.parametrize(
    ("name", "forgets", "keeps"),
    [("mosquitto version 2.0.11", False, True), ("hwsync broker 0.1.0 (amqtt 0.12.1)", True, True),
     ("aMQTT version 0.12.1", True, False), ("a broker that does not say its name", False, True)],
)  # fmt: skip
def test_which_brokers_forget(name: str, forgets: bool, keeps: bool) -> None:
    seen = Seen(name, 4)
    assert (seen.forgets, seen.keeps_sessions) == (forgets, keeps)


def test_a_clock_that_the_coordinator_finds_wrong_is_an_error() -> None:
    fields = {"version": __version__, "time": NOW, "condition": "ok",
              "clock": "this machine's clock is wrong: it says 1970"}  # fmt: skip
    clock, _ = checks.health(fields)
    said(clock, ERROR, "the coordinator says: this machine's clock is wrong", "timedatectl")


def test_a_device_that_has_seen_more_than_there_is_is_an_error() -> None:
    def found(seen: object, now: float = NOW) -> list[Finding]:
        record = {"epoch": int(NOW), "seq": 5}
        return list(checks.unheard("pi1", record, [{"seen": seen}], now))

    for seen in ([int(NOW), 6], [int(NOW) + 1, 0]):
        (one,) = found(seen)
        said(one, ERROR, f"has seen (epoch, seq) ({seen[0]}, {seen[1]})", "hwsync-device@pi1")
    for seen in ([int(NOW), 5], [0, 99], None, [1], ["x", 1], [True, 1]):
        assert found(seen) == []
    assert list(checks.unheard("pi1", {"epoch": 0, "seq": 0}, [], NOW)) == []
    (one,) = found(None, NOW - 2 * 86_400)
    said(one, WARNING, "its epoch 1800000000 is a time that is still to come", "timedatectl")
