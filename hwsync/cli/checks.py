"""What ``hwsync doctor`` makes of what it saw: one finding each, and the cure.

The law: nothing here looks; every check is a function of what was seen, so that each has a test.
Times are seconds, moments Unix seconds of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hwsync import __version__
from hwsync.cli import bounds
from hwsync.cli.say import span as _span
from hwsync.coordinator.clocks import APART_S
from hwsync.findings import CLOCK_SET, Finding, error, ok, warning
from hwsync.probe import SLOW_S, Seen
from hwsync.protocol.jsons import is_count, is_number
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.offers import Offers
from hwsync.protocol.presence import is_online, silence
from hwsync.protocol.record import State
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.itself import Boards, Health
from hwsync.protocol.wire.status import Status
from hwsync.store.inspection import Inspection
from hwsync.webprobe import Open, WebListener

MOST_NAMES: Final = 20  # analysers of one analyst that are named
CLOCKS_S: Final = 2.0  # two clocks may differ so much
LOW: Final = 500 * 10**6  # bytes of free space that deserve a warning
FULL: Final = 50 * 10**6  # bytes below which saving will fail soon
SET_CLOCK: Final = "timedatectl set-ntp true, or set it by hand: timedatectl set-time"


# The broker


def broker(url: str, seen: Seen, plain: Seen | None) -> Finding:
    """What answers at the address; ``plain``: the same, asked for MQTT 3.1.1."""
    if seen.refused:
        return error("broker", f"{url}: {seen.reason}", "name a file with --credentials")
    if not seen.protocol and seen.cure:
        return error("broker", f"{url}: {seen.reason}", seen.cure)
    if not seen.protocol:
        cure = "start one (scripts/broker, hwsync broker), or name it with --broker"
        return error("broker", f"no broker answers at {url}: {seen.reason}", cure)
    if seen.protocol == 4:
        return ok("broker", f"{seen.name} at {url}, MQTT 3.1.1 only (no replies to requests)")
    if plain is None or not plain.protocol:
        cure = "let it accept MQTT 3.1.1: devices speak it"
        return error("broker", f"{seen.name} at {url} speaks MQTT 5, but not 3.1.1", cure)
    return ok("broker", f"{seen.name} at {url}, MQTT 5 and 3.1.1")


def round_trip(seconds: float | None, scheme: str = "mqtt") -> Finding:
    """How long a message and its answer take through the broker."""
    if seconds is None:
        cure = "may this client subscribe and publish? see the broker's log"
        return error("round trip", "our own messages did not arrive", cure)
    found = f"{seconds * 1000:.1f} ms for a message and its answer, QoS 1"
    if seconds > SLOW_S and scheme == "wss":
        found += ": mosquitto takes 100 ms for each message over wss"
        return warning("round trip", found, "use mqtts:// where that matters")
    if seconds > SLOW_S:
        found += ": the broker has no TCP_NODELAY (or the network is as slow as that)"
        return warning("round trip", found, "the line for broker.conf: set_tcp_nodelay true")
    return ok("round trip", found)


def largest(size: int | None) -> Finding:
    """The largest message, in bytes, that the broker carries; None: not even a small one."""
    if size is None:
        cure = "may this client subscribe and publish? see the broker's log"
        return warning("sizes", "no large message came back", cure)
    if size < MAX_MESSAGE:
        found = f"the broker carries messages of {size:,} bytes, and none of {MAX_MESSAGE:,}"
        cure = "let it take more (mosquitto: max_packet_size); until then long output is cut"
        return warning("sizes", found, cure)
    return ok("sizes", f"the broker carries messages of {MAX_MESSAGE:,} bytes")


def web(seen: WebListener) -> Finding:
    """A websocket listener: who may send programs there without a login."""
    if seen.open is not Open.PAGES:
        return ok("websockets", f"{seen.url} is open to {seen.open.value}")
    found = (
        f"{seen.url} lets in every web page without a login: one that somebody has open who can "
        "reach it can run programs on every board"
    )
    cure = (
        "accounts for that listener (allow_anonymous false and a password_file; hwsync init makes "
        "them), or no such listener; websockets_origin keeps pages out from mosquitto 2.1 on"
    )
    return warning("websockets", found, cure)


# The coordinator


def coordinator(answered: bool, last: Health | None, now: float) -> Finding:
    """Whether one answers; ``last``: its last health message, None where there is none."""
    if answered:
        return ok("coordinator", "it answers")
    start = "start one: hwsync coordinator, or systemctl start hwsync-coordinator"
    if not last:
        return error("coordinator", "none answers, and none has been here", start)
    condition = last["condition"]
    if condition == "gone":
        found = "none answers: it was killed, or its connection is lost"
        return error("coordinator", found, f"see its log; {start}")
    at = last.get("time")
    when = f", {_ago(now - at)}" if at is not None and is_number(at) else ""
    if condition == "stopped":
        return error("coordinator", f"none answers: it was stopped{when}", start)
    found = f"none answers, and its last word was {condition}{when}: it is stuck, or the broker was"
    return error("coordinator", found, "see its log; systemctl restart hwsync-coordinator")


def others(last: Health | None, answered: Sequence[Health]) -> Iterator[Finding]:
    """A second coordinator: of another life among those who ``answered``, or told by the last."""
    if last is None:
        return
    started, other = last.get("started"), last.get("other")
    second: Any = next((one for one in answered if one.get("started") != started), None)
    when = "answers too"
    if second is None and isinstance(other, dict):
        second = other
        when = f"was heard {_ago(second['seconds'])}" if is_number(second.get("seconds")) else ""
    if second is None:
        return
    found = f"two serve this root: one on {_place(last)}; one on {_place(second)} {when}"
    cure = "stop one of them, on its machine: systemctl disable --now hwsync-coordinator"
    yield error("coordinator", found.rstrip(), cure)


def _place(fields: Mapping[str, Any]) -> str:
    """A coordinator's machine and database."""
    return f"{fields.get('host') or '?'} (database {fields.get('database') or '?'})"


def health(fields: Health) -> Iterator[Finding]:
    """What an answering coordinator says of itself, just now: no clock says how old it is."""
    version = fields.get("version")
    if version != __version__:
        cure = "install the same version on all machines"
        found = f"the coordinator is hwsync {version}, this is {__version__}"
        yield warning("health", found, cure)
    if fields["condition"] == "degraded":
        cure = "make space (df -h) or mend the disk, on the coordinator's machine; nothing is lost"
        yield error("health", f"degraded: it cannot save: {fields.get('reason')}", cure)
        return
    if given_up := fields.get("given_up"):
        found = f"{given_up} answers were given up; the last: {fields.get('given_up_last')}"
        yield warning("health", found, "the broker refuses them: see its log, and its limits")
    if fields.get("clock"):
        yield error("clock", f"the coordinator says: {fields['clock']}", f"there: {SET_CLOCK}")
    states = fields.get("states", {})
    running = states.get("collected", 0) if isinstance(states, dict) else 0
    yield ok(
        "health",
        f"{fields['condition']}, hwsync {version}, up {_span(fields.get('uptime'))}, "
        f"{fields.get('users')} boards, {running} running, {fields.get('queued')} queued; on "
        f"{_place(fields)}",
    )


def analysts(offers: Offers, health: Health) -> Iterator[Finding]:
    """Each analyst with what it offers, and what boards wait for that none of them has."""
    for name, offer in sorted(offers.items()):
        some = sorted(offer.analysers)
        more = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
        what = ", ".join(some[:MOST_NAMES]) or "nothing"
        yield ok("analyst", f"{name} is online and offers {what}{more}")
    waited = health.get("unoffered")
    for name, boards in sorted(waited.items() if isinstance(waited, dict) else ()):
        wait = "1 board waits" if boards == 1 else f"{boards} boards wait"
        found = f"{wait} for {name}, which no analyst that is online offers"
        yield warning("analyst", found, "start it: hwsync analyst --dir FOLDER; a minute at most")


def clock(now: float, ahead: float | None) -> Finding:
    """This machine's clock; ``ahead``: of the coordinator's, None where there is none."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < CLOCK_SET:
        return error("clock", f"it was never set: {shown}", SET_CLOCK)
    if ahead is None:
        return ok("clock", f"{shown}; no coordinator to compare it with")
    if abs(ahead) > CLOCKS_S:
        words = "ahead of" if ahead > 0 else "behind"
        found = f"{shown}, {abs(ahead):.1f} s {words} the coordinator's"
        return warning("clock", found, f"on the one that is wrong: {SET_CLOCK}")
    return ok("clock", f"{shown}, as the coordinator's")


# This machine


def database(
    path: str, seen: Inspection | None, *, named: bool = False, other: str = ""
) -> Finding:
    """The database, where it is on this machine.

    ``named``: by --db; ``other``: which one the coordinator has, where it is not this.
    """
    if seen is None and named:
        cure = "leave --db out, or name the one that is there"
        return error("database", f"there is none at {path}{other and f'; {other}'}", cure)
    if seen is None:
        where = other or "it is on the coordinator's machine"
        return ok("database", f"none here ({path}): {where}")
    found = f"{path}, {seen.size:,} bytes, schema {seen.schema}"
    if seen.faults:
        cure = "hwsync check-db says all; restore a backup: hwsync restore"
        return error("database", f"{found}, damaged: {'; '.join(seen.faults)}", cure)
    if seen.age > 0:
        cure = "install that hwsync here"
        return error("database", f"{found}: a newer hwsync wrote it", cure)
    if seen.age < 0:
        cure = "start the coordinator once: it brings it up to date"
        return warning("database", f"{found}: an older hwsync wrote it", cure)
    if other:
        cure = "look at that one: hwsync doctor --db, on its machine"
        return warning("database", f"{found}, sound, but not this lab's: {other}", cure)
    return ok("database", f"{found}, sound")


def unreadable(path: str) -> Finding:
    """A database that belongs to another account."""
    cure = "as root: sudo hwsync doctor; or join the group of its folder"
    return warning("database", f"{path} is not readable for this account", cure)


def disk(folder: str, free: int) -> Finding:
    """Free space where something is kept."""
    found = f"{free / 10**6:,.0f} MB free for {folder}"
    cure = f"make space: du -x -h -d 1 {folder}; a coordinator that cannot save accepts nothing"
    if free < FULL:
        return error("disk", found, cure)
    return warning("disk", found, cure) if free < LOW else ok("disk", found)


# One board


def device(user: str, beats: Sequence[Heartbeat], boards: Boards | None) -> Iterator[Finding]:
    """The heartbeats heard, the last one last; ``boards``: whom the coordinator hears, if any."""
    there = f"on the board: systemctl status hwsync-device@{user}, or hwsync-device --user {user}"
    journals = sorted({str(beat.get("journal")) for beat in beats})
    if len(journals) > 1:
        found = f"two devices answer for {user}: the journals {' and '.join(journals)}"
        yield error("device", found, "give one another name: hwsync-device --user NAME")
    if not beats:
        yield error(
            "device", f"no device has ever been here for {user}", f"is it named so? {there}"
        )
        return
    beat = beats[-1]
    journal, version = f"journal {beat.get('journal')}", beat.get("version")
    online = is_online(user, beat, boards)
    if online is None:
        found = f"no coordinator says whom it hears: it may be online or not ({journal})"
        yield warning("device", found, "start the coordinator; an operator must be let read that")
        return
    if not online:
        since = ""
        if boards is not None and beat["online"] and boards["boards"].get(user, 0) is not None:
            since = f": nothing was heard of it for {_span(silence(user, boards))}"
        yield error("device", f"offline ({journal}){since}", there)
        return
    heard = boards["boards"].get(user) if boards else None
    if heard is not None and boards is not None:
        yield from _clock_of_board(beat, heard, boards["time"])
    if version != __version__:
        found = f"the device is hwsync {version}, this is {__version__}"
        yield warning("device", found, "install the same version on all machines")
    yield from bounds.of_board(beat)
    if beat.get("refusing"):
        yield error("device", f"it refuses every program: {beat['refusing']}", there)
    former = beat.get("former")
    if isinstance(former, dict) and former:
        names = ", ".join(sorted(map(str, former)))
        found = f"its journal holds results of an earlier name that nobody was told: {names}"
        yield warning("device", found, "its account must be let at that name's topics (its log)")
    doing = f"busy with {beat['busy']}" if beat.get("busy") else "idle"
    when = "not heard yet" if heard is None else f"heard {_ago(heard)}"
    yield ok("device", f"online, {when}, {doing}, {journal}{_board(beat)}{_bound(beat)}")


def _clock_of_board(beat: Heartbeat, heard: float, now: float) -> Iterator[Finding]:
    """Its clock beside the coordinator's, which read ``now``; ``heard``: seconds before that."""
    at = beat.get("time")
    if at is None:
        return
    ahead = at + heard - now
    if at < CLOCK_SET:
        stamp = time.strftime("%Y-%m-%d", time.gmtime(max(at, 0.0)))
        yield warning("device", f"its clock was never set: {stamp}", f"on the board: {SET_CLOCK}")
    elif abs(ahead) > CLOCKS_S:
        words = "ahead of" if ahead > 0 else "behind"
        found = f"its clock is {abs(ahead):,.1f} s {words} the coordinator's"
        yield warning("device", found, f"on the one that is wrong: {SET_CLOCK}")


def _board(said: Heartbeat) -> str:
    """What a heartbeat says of the board, as far as it does."""
    beat: Mapping[str, Any] = said
    parts = [str(beat["board"])] if beat.get("board") else []
    for name, form in (("temperature", "{:.0f} °C"), ("memory_free_mb", "{:,.0f} MB memory free"),
                       ("disk_free_mb", "{:,.0f} MB disk free")):  # fmt: skip
        if is_number(beat.get(name)):
            parts.append(form.format(beat[name]))
    return "".join(f", {part}" for part in parts)


def _bound(beat: Heartbeat) -> str:
    """How well it knows lab time, where it does."""
    return f", lab time {shown}" if (shown := bounds.shown(beat)) else ""


def replaced(user: str, record: Status | None, beats: Sequence[Heartbeat]) -> Iterator[Finding]:
    """Journals in the record that are not the device's: a board that was replaced, or a second."""
    heard = {beat.get("journal") for beat in beats}
    if record is None:
        return
    seen = {pair[1] for pair in record["settled"]}
    if record["state"] == State.COLLECTED and record["journal"]:
        seen.add(record["journal"])
    if heard and (others := sorted(seen - heard)):
        found = f"another device answered for {user} lately: journal {' and '.join(others)}"
        cure = "replaced board: all is well; two boards: hwsync-device --user NAME on one"
        yield warning("device", found, cure)


def unheard(user: str, record: Status, beats: Sequence[Heartbeat], now: float) -> Iterator[Finding]:
    """Whether somebody has seen more of the record than there is: he hears nothing of it then.

    ``now``: Unix seconds of the coordinator's clock.
    """
    order = (record["epoch"], record["seq"])
    seen = beats[-1].get("seen") if beats else None
    if (
        isinstance(seen, list)
        and len(seen) == 2
        and all(map(is_count, seen))
        and tuple(seen) > order
    ):
        found = (
            f"the device has seen (epoch, seq) {tuple(seen)}, and the record is at {order}: it "
            "does not hear this coordinator"
        )
        cure = (
            "was a database put back, or is its clock wrong? Restart the coordinator; if it stays, "
            f"the number was forged: restart the device: systemctl restart hwsync-device@{user}"
        )
        yield error("record", found, cure)
    if order[0] > now + APART_S:
        found = f"its epoch {order[0]} is a time that is still to come, by the coordinator's clock"
        yield warning("clock", found, f"where the coordinator's is behind, there: {SET_CLOCK}")


def record(user: str, fields: Status, now: float, *, online: bool) -> Finding:
    """What the record waits for, and the line to type."""
    state = State(fields["state"])
    if state is State.REST:
        if not fields["id"]:
            return ok("record", "0 rest: nothing asked yet", f"hwsync run {user} -c 'print(6*7)'")
        return ok("record", f"0 rest: {fields['id']} ended as {fields['outcome']}")
    found = f"{int(state)} {state.name.lower()}: {fields['id']} waits for "
    until = ", for ever"
    if (deadline := fields["deadline"]) is not None:
        until = f", at most {_span(max(deadline - now, 0.0))} more"
    queued = f"; {fields['queued']} behind it" if fields["queued"] else ""
    if state is State.RETURNED:
        line = f"hwsync analyse {user} TEXT --id {fields['id']}"
        return ok("record", f"{found}its analysis{until}{queued}", line)
    what = "its device to collect it" if state is State.REQUESTED else "the device's result"
    if state is State.COLLECTED and fields["journal"] is None:
        what, online = "a person's answer, since a person collected it", True
    line = f"hwsync cancel {user} {fields['id']}"
    if not online:
        found += f"{what}, which is not online{until}{queued}"
        return warning("record", found, f"start the device, or {line}")
    return ok("record", f"{found}{what}{until}{queued}", line)


def _ago(seconds: float) -> str:
    return f"{_span(max(seconds, 0.0))} ago"
