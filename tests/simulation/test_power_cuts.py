"""Power cuts at every operation of the coordinator's disk: what was said is there, and it goes on.

One recording (``tests.support.power``) of the real loop on the real store serves all cuts. After
each, the image is opened by the real store on Python's own SQLite, and the rest of the script is
delivered as the broker would do it: what was not acknowledged again, marked DUP.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

from hwsync.protocol import limits
from hwsync.protocol.wire.response import encode_collected
from hwsync.store.api import Changes
from hwsync.store.checking import check
from hwsync.store.store import Store
from hwsync.transport import Delivery
from tests.support.coordinator import (
    Acknowledged,
    Deed,
    Lab,
    heartbeat,
    request,
    result,
)
from tests.support.power import Disk
from tests.support.power_sqlite import Commit, mounted, torn

SEED: Final = 1
NAME: Final = "hwsync.db"
RESTART: Final = "restart"

Message = tuple[str, str, bytes]  # user, kind of topic, payload
Step = tuple[Message, ...] | float | str  # messages that come at once, seconds, or RESTART

SCRIPT: Final[tuple[Step, ...]] = (
    (("pi1", "request", request("c1", analysis="outcome")),),
    (("pi1", "collected", encode_collected("c1", "j1", 1)), ("pi2", "request", b"print(1)")),
    (
        ("pi1", "request", request("c2", queue=True)),
        ("pi1", "request", request("c9")),  # refused
        ("pi2", "collected", b""),
        ("pi2", "request", b"print(2)"),  # refused, and without an id
    ),
    (("pi1", "response", result("c1", response="42\n")), ("pi2", "response", b"1")),
    (("pi2", "analysis", b"well done"), ("pi1", "collected", encode_collected("c2", "j1", 1))),
    (("pi2", "request", b"print(1)"),),  # the same bytes as before, and another command
    RESTART,
    (("pi2", "reset", b""), ("pi1", "heartbeat", heartbeat())),
    (("pi1", "response", result("c2", outcome="error", exit_code=1)),),
    (("pi1", "analysis", b'{"analysis":"no","id":"c2"}'),),
    (("pi1", "request", request("c3", expires=5)),),
    6.0,
    (("pi1", "request", request("c4", "é" * 9_000)), ("pi1", "cancel", b'{"id":"c4"}')),
)

ENDS: Final = [
    ("1-0123456789abcdef", "ok", "yes"),
    ("2-0123456789abcdef", "cancelled", "no"),
    ("c1", "ok", "yes"),
    ("c2", "error", "yes"),
    ("c3", "expired", "no"),
    ("c4", "cancelled", "no"),
]
"""Id, outcome and ran of each command, where no power is cut."""

MESSAGES: Final = {
    mid: (f"hw/{user}/{kind}", payload)
    for mid, (user, kind, payload) in enumerate(
        (message for step in SCRIPT if isinstance(step, tuple) for message in step), 1
    )
}
"""Topic and payload, by packet identifier."""


@dataclass(slots=True)
class Recording:
    """What was done, each with the number of the disk's operations until then."""

    disk: Disk
    commits: list[Commit] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)  # where each round was saved
    said: list[tuple[int, Deed]] = field(default_factory=list)
    began: list[int] = field(default_factory=list)  # each step
    ended: list[int] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)  # when each step began
    end: dict[str, Any] = field(default_factory=dict)

    def said_by(self, cut: int, before: bool = False) -> list[Deed]:
        """Published and acknowledged until the cut; ``before``: but nothing at that moment."""
        return [deed for at, deed in self.said if at < cut or (at == cut and not before)]


def deliver(lab: Lab, step: int, **options: Any) -> list[Delivery]:
    """The deliveries of a step; their packet identifiers are the same after a cut."""
    first = 1 + sum(len(one) for one in SCRIPT[:step] if isinstance(one, tuple))
    messages = SCRIPT[step]
    assert isinstance(messages, tuple)
    return [
        lab.delivery(kind, payload, user=user, mid=mid, **options)
        for mid, (user, kind, payload) in enumerate(messages, first)
    ]


def perform(lab: Lab, step: int) -> None:
    """One step, and those that the coordinator takes by itself at once (its analyser)."""
    what = SCRIPT[step]
    if isinstance(what, float):
        lab.later(what)
    elif isinstance(what, str):
        lab.restart()
    else:
        lab.step(*deliver(lab, step))
    rest(lab)


def rest(lab: Lab) -> None:
    while lab.coordinator.wait() == 0.0:
        lab.step()


def record(folder: Path, synchronous: str | None = None) -> Recording:
    """The script, without any cut."""
    path, disk = folder / NAME, Disk()
    recording = Recording(disk)
    save, write_down = Store.save, Store.write_down

    def noted(store: Store, changes: Changes, ticks: float) -> None:
        save(store, changes, ticks)
        recording.saves.append(disk.count)

    def written_down(store: Store, *given: Any) -> None:
        write_down(store, *given)
        recording.saves.append(disk.count)

    with (
        patch.object(Store, "save", noted),
        patch.object(Store, "write_down", written_down),
        mounted(disk, synchronous=synchronous) as recording.commits,
    ):
        lab = Lab(path, copied=False)
        lab.wire.before = lambda deed: recording.said.append((disk.count, deed))
        for step in range(len(SCRIPT)):
            recording.began.append(disk.count)
            recording.clock.append(lab.clock.now)
            perform(lab, step)
            recording.ended.append(disk.count)
        lab.stop()
    recording.end = outcome(path)
    return recording


class Rows:
    """What a database says, asked with SQL. Raises ``sqlite3.Error``."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)

    def close(self) -> None:
        self._connection.close()

    def __call__(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(f"SELECT {sql}", values))


def outcome(path: Path) -> dict[str, Any]:
    """Where everything came to: what must be the same with and without a cut."""
    log = "command, before, state, id, late FROM transitions WHERE user = ? ORDER BY row"
    with closing(Rows(path)) as rows:
        return {
            "commands": rows("user, id, outcome, ran, response, journal FROM commands ORDER BY 2"),
            "records": rows("user, state, seq, queue FROM hw_status ORDER BY user"),
            # A command that was performed twice would be here twice.
            "log": [rows(log, user) for user in ("pi1", "pi2")],
            "refused": rows("DISTINCT user, error, id, topic FROM refused ORDER BY 1, 2, 3, 4"),
        }


def unkept(path: Path, deeds: list[Deed]) -> Iterator[str]:
    """What was said and is not in the database, which may have no tables, or be unreadable."""
    with closing(Rows(path)) as rows:
        for deed in deeds:
            try:
                if not is_kept(rows, deed):
                    yield f"said, and not kept: {deed}"
            except sqlite3.Error as error:
                yield f"said, and cannot be read ({error}): {deed}"


def is_kept(rows: Rows, deed: Deed) -> bool:
    if isinstance(deed, Acknowledged):
        topic, payload = MESSAGES[deed.mid]
        heard = (topic, payload[: limits.REFUSED_PAYLOAD])
        return topic.endswith("/heartbeat") or bool(
            rows(
                "1 FROM transitions WHERE topic = ? AND payload_sha256 = ?",
                topic,
                sha256(payload).digest(),
            )
            or rows("1 FROM refused WHERE topic = ? AND payload = ?", *heard)
        )
    said, user = deed.json, deed.topic.split("/")[1]
    if deed.kind == "members":
        return True  # of nobody's doing: who is in a group, and was heard
    if deed.kind == "error":
        return bool(rows("1 FROM refused WHERE error = ? AND id IS ?", said["error"], said["id"]))
    order = (user, said.get("epoch"), said.get("seq"))
    states = rows("state FROM transitions WHERE user = ? AND epoch = ? AND seq = ?", *order)
    command = "FROM commands WHERE user = ? AND id = ?"
    if deed.kind == "command":
        # A long one stands by itself, by its hash.
        kept = rows(
            "program, (SELECT data FROM contents WHERE sha256 = json_extract(long, '$.program')) "
            + command, user, said["id"],
        )  # fmt: skip
        program = said["program"]
        return (1,) in states and kept in ([(program, None)], [("", program.encode())])
    if deed.kind == "status" and (said["state"],) not in states:
        return False
    ended = rows(f"outcome, ran {command}", user, said["id"])
    return said["outcome"] is None or (said["outcome"], said["ran"]) in ended


def go_on(path: Path, recording: Recording, cut: int, before: bool) -> dict[str, Any]:
    """The coordinator after the cut, until the end of the script; where it came to.

    ``before``: what was said at the moment of the cut was not said, though it may be saved.
    """
    acknowledged = {
        deed.mid for deed in recording.said_by(cut, before) if isinstance(deed, Acknowledged)
    }
    begun = [at < cut or (at == cut and not before) for at in recording.began].count(True)
    with Lab(path, known=True, copied=False) as lab:
        lab.clock.now = recording.clock[max(begun - 1, 0)]
        again = [
            one
            for step in range(begun)
            if isinstance(SCRIPT[step], tuple)
            for one in deliver(lab, step, dup=True)
            if one.mid not in acknowledged
        ]
        lab.connect(*again, session_present=cut > recording.began[0])
        rest(lab)
        if begun and isinstance(SCRIPT[begun - 1], float) and cut < recording.ended[begun - 1]:
            perform(lab, begun - 1)  # that time has not passed
        for step in range(begun, len(SCRIPT)):
            perform(lab, step)
    return outcome(path)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What a coordinator logs, thousands of times, would hide what failed."""
    caplog.set_level(logging.CRITICAL, "hwsync")


def test_a_coordinator_outlives_a_power_cut_at_every_operation(memory: Path) -> None:
    recording = record(memory / "uncut")
    ends = [(id, outcome, ran) for _, id, outcome, ran, *_ in recording.end["commands"]]
    assert ends == ENDS
    changes = {new.at for old, new in pairwise(recording.commits) if new.content != old.content}
    begin = recording.saves[0]  # until then, the tables were made
    assert {at for at in changes if at > begin} <= set(recording.saves), "a round in parts"
    cuts = 0
    for image in recording.disk.images(memory / "cut", SEED):
        path, said = image.folder / NAME, recording.said_by(image.cut)
        assert list(torn(image.look_at(NAME), recording.commits, image.cut)) == [], image
        with closing(Store(path)):
            assert list(check(path)) == [], image
        assert list(unkept(path, said)) == [], image
        before = image.number % 2 == 1
        assert go_on(path, recording, image.cut, before=before) == recording.end, image
        assert list(check(path)) == [], image
        cuts += 1
    print(f"{cuts} cuts at {recording.disk.count} operations")
    assert cuts >= 200


@pytest.mark.parametrize("synchronous", ["off", "normal"])
def test_a_disk_that_is_not_told_to_sync_loses_what_was_said(
    memory: Path, synchronous: str
) -> None:
    recording = record(memory / "uncut", synchronous)
    lost = sum(
        any(unkept(image.folder / NAME, recording.said_by(image.cut)))
        for image in recording.disk.images(memory / "cut", SEED)
    )
    print(f"{lost} cuts lose something with {synchronous}")
    assert lost > 0
