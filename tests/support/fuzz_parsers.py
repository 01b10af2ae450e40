"""Every reader of hwsync under hostile input: a hwsync error, or a value that keeps every limit.

The law: a target takes what came from outside, and returns the name of what it made of it. Anything
but a ``HwsyncError`` that comes out of one, ``AssertionError`` included, is a fault of hwsync.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from hwsync import connection
from hwsync.address import BrokerUrl
from hwsync.broker import access, conf
from hwsync.cli import checks, operate
from hwsync.device.config import load as load_config
from hwsync.device.entry_texts import envelope_text, read_envelope_text
from hwsync.device.journal import Journal
from hwsync.logs import escape
from hwsync.operator.conversation import raise_refused
from hwsync.operator.run import exit_code
from hwsync.operator.streams import Streams
from hwsync.protocol import limits
from hwsync.protocol.device.clock import Estimator
from hwsync.protocol.effects import PublishError
from hwsync.protocol.errors import JournalError, Refused
from hwsync.protocol.events import (
    Analysed,
    Collected,
    HeartbeatReceived,
    Ignored,
    Message,
    Requested,
    Returned,
    StatusReceived,
)
from hwsync.protocol.files import is_path
from hwsync.protocol.history import KINDS as PAST
from hwsync.protocol.history import gather, reply_of_refused
from hwsync.protocol.history import read_question as read_past
from hwsync.protocol.jsons import dumps, is_count, is_number, loads, size
from hwsync.protocol.record import Command, Outcome, Record, Reply, Request, State
from hwsync.protocol.topics import INBOUND, TopicKind, Topics
from hwsync.protocol.wire import messages
from hwsync.protocol.wire.clock import encode_answer, read_answer, read_question
from hwsync.protocol.wire.envelope import encode_envelope, read_envelope
from hwsync.protocol.wire.error import encode_error
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.history import Row, read_page
from hwsync.protocol.wire.itself import Boards, read_sign
from hwsync.protocol.wire.received import Received, read_received
from hwsync.protocol.wire.response import encode_response
from hwsync.protocol.wire.status import encode_result, encode_status, read_status
from tests.support.board import Board
from tests.support.fuzz_payloads import PAGE

TOPICS: Final = Topics()
NOW: Final = 1.7e9
LISTED: Final[Boards] = {
    "time": NOW, "listening": 100.0, "left_out": 0, "boards": {"pi1": 3.0},
}  # fmt: skip
BEAT: Final[Heartbeat] = {"online": True, "journal": "j1", "boot": 1, "time": NOW}
LONGEST_ERROR: Final = 1_000  # characters of a refusal's message or hint
HEARD: Final = (
    TopicKind.STATUS,
    TopicKind.RESULT,
    TopicKind.ERROR,
    TopicKind.OUTPUT,
    TopicKind.HEARTBEAT,
    TopicKind.HEALTH,
    TopicKind.BOARDS,
)

Target = Callable[[bytes], str]


# The coordinator's side


def coordinator(kind: TopicKind, retain: bool) -> Target:
    """``messages.read`` for one topic; what it refuses can be published as an error."""
    topic = TOPICS.of("pi1", kind)

    def target(payload: bytes) -> str:
        return read_message(Message(topic, payload, retain, reply=Reply("replies/me", b"x")))

    return target


def read_message(message: Message) -> str:
    """One message through the coordinator's reader, and what it is used for afterwards."""
    try:
        event = messages.read(message, TOPICS)
    except Refused as refusal:
        _sound_refusal(refusal, message)
        _names_its_command(refusal, message)
        return f"refused {refusal.code}"
    _sound(event)
    return type(event).__name__


def _sound_refusal(refusal: Refused, message: Message) -> None:
    assert len(refusal.message) <= LONGEST_ERROR
    assert len(refusal.hint) <= LONGEST_ERROR + 2 * len(message.topic)
    assert refusal.id is None or limits.is_id(refusal.id)
    assert refusal.journal is None or limits.is_id(refusal.journal)
    error = encode_error(PublishError(refusal, State.REST, message.topic[: limits.KEPT_TOPIC]))
    assert read_received(TopicKind.ERROR, error) is not None


def _names_its_command(refusal: Refused, message: Message) -> None:
    assert messages.named_id(message, TOPICS) == refusal.id


def _sound(event: object) -> None:
    if isinstance(event, Ignored):
        return
    if isinstance(event, HeartbeatReceived):
        assert limits.is_id(event.journal)
        assert is_count(event.boot)
        assert event.seen is None or all(map(is_count, event.seen))
        return
    if isinstance(event, StatusReceived):
        assert all(map(is_count, event.order))
        return
    ident = event.id  # type: ignore[attr-defined]
    assert ident is None or limits.is_id(ident)
    if isinstance(event, Requested):
        _sound_request(event)
    elif isinstance(event, Collected):
        assert (event.id is None) == (event.boot is None)
    elif isinstance(event, Analysed):
        assert size(event.text) <= limits.MAX_ANALYSIS
    elif isinstance(event, Returned):
        _sound_result(event)


def _sound_request(event: Requested) -> None:
    request = event.request
    assert size(request.program) <= limits.MAX_PROGRAM
    extras = (request.stdin, request.meta, *request.args)
    assert sum(map(size, extras)) <= limits.MAX_EXTRAS
    assert limits.TIMEOUT_S[0] <= request.timeout <= limits.TIMEOUT_S[1]
    assert request.expires == 0 or limits.EXPIRES_S[0] <= request.expires <= limits.EXPIRES_S[1]
    assert limits.GRACE_S[0] <= request.grace <= limits.GRACE_S[1]
    assert dumps(loads(request.meta)) == request.meta
    record = Record("pi1", State.REQUESTED, 1, 1, current=Command("pi1", "c1", request))
    envelope = read_envelope(encode_envelope(record, contents=event.contents))
    assert envelope is not None
    told = (envelope.program, envelope.stdin, envelope.args, envelope.timeout, envelope.grace)
    assert told == (request.program, request.stdin, request.args, request.timeout, request.grace)
    assert (envelope.files, envelope.collect) == (request.files, request.collect)
    assert len(request.files) <= limits.MAX_FILES
    assert sum(one.size for one in request.files) <= limits.MAX_FILES_BYTES
    assert envelope.name == (request.name or limits.DEFAULT_NAME)
    assert request.expires_at is None or (
        limits.EXPIRES_AT_S[0] <= request.expires_at <= limits.EXPIRES_AT_S[1]
    )
    _published(record)


def _sound_result(event: Returned) -> None:
    report = event.report
    assert size(report.response) <= limits.MAX_RESPONSE
    assert size(report.stderr) <= limits.MAX_STDERR
    assert len(report.reason) <= limits.MAX_REASON
    if report.order is not None:
        assert len(dumps(report.order)) <= limits.MAX_ORDER
        assert {stream for stream, _ in report.order} <= {"stdout", "stderr"}
        assert sum(count for _, count in report.order) == size(report.response + report.stderr)
    assert "\n" not in report.reason
    assert len(report.files) <= limits.MAX_COLLECTED
    assert sum(one.size for one in report.files) <= limits.MAX_COLLECTED_BYTES
    assert all(is_path(one.path) for one in report.files)
    assert report.outcome not in (Outcome.EXPIRED, Outcome.LOST)
    if event.id is not None and event.journal is not None and event.boot is not None:
        whole = replace(
            report,
            files=tuple(replace(one, data=event.contents[one.sha256]) for one in report.files),
        )
        again = encode_response(event.id, event.journal, event.boot, whole)
        assert messages.read(Message(TOPICS.of("pi1", TopicKind.RESPONSE), again), TOPICS) == event
    request = Request("print(1)")
    command = Command("pi1", "c1", request, report=report)
    _published(Record("pi1", State.RETURNED, 1, 1, current=command))


def _published(record: Record) -> None:
    """What is said of it has its limit, and every reader takes it."""
    status = encode_status(record)
    assert len(status) <= limits.MAX_STATUS
    assert read_status(status) is not None
    assert read_received(TopicKind.STATUS, status) is not None
    assert record.current is not None
    result = encode_result(record.current, record.state)
    assert len(result) <= limits.MAX_MESSAGE
    assert read_received(TopicKind.RESULT, result) is not None


# The device's side


def envelope(payload: bytes) -> str:
    """The device's envelope, and what its journal keeps of it."""
    found = read_envelope(payload)
    if found is None:
        return "none"
    assert limits.is_id(found.id)
    assert limits.is_user(found.user)
    assert is_count(found.epoch)
    assert is_count(found.seq)
    assert limits.TIMEOUT_S[0] <= found.timeout <= limits.TIMEOUT_S[1]
    assert limits.GRACE_S[0] <= found.grace <= limits.GRACE_S[1]
    assert limits.is_name(found.name)
    assert found.expires_at is None or is_number(found.expires_at)
    assert len(payload) <= limits.MAX_MESSAGE
    assert read_envelope_text(envelope_text(found)) == found
    return "envelope"


def past(kind: TopicKind) -> Target:
    """What the coordinator does with a question about the past."""
    topic = TOPICS.of("pi1", kind)

    def target(payload: bytes) -> str:
        message = Message(topic, payload)
        try:
            wanted = read_past(message, TOPICS)
        except Refused as refusal:
            _sound_refusal(refusal, message)
            reply_of_refused(message, TOPICS)
            return f"refused {refusal.code}"
        assert 1 <= wanted.last <= limits.HISTORY_ROWS
        assert wanted.account is None or limits.is_user(wanted.account)
        assert (wanted.account is None) == (kind is TopicKind.HISTORY_ALL)
        row = cast(Row, PAGE["rows"][0])
        answered = gather([(1, row)], wanted, NOW).encoded(wanted, NOW, limits.HISTORY_PAGE)
        assert read_page(answered) is not None
        return "wanted"

    return target


def page(payload: bytes) -> str:
    """A page of the past, as the operator has it."""
    found = read_page(payload)
    if found is None:
        return "none"
    assert limits.is_user(found["user"])
    for row in found["rows"]:
        assert limits.is_id(row["id"])
        escape(" ".join(map(str, row.values()))).encode()
    return "page"


def status(payload: bytes) -> str:
    """The status that a device acts on."""
    found = read_status(payload)
    if found is None:
        return "none"
    assert all(map(is_count, (*found.order, found.state)))
    assert found.journal is None or limits.is_id(found.journal)
    assert found.boot is None or is_count(found.boot)
    assert all(isinstance(text, str) for pair in found.settled for text in pair)
    assert sum(len(text) for pair in found.settled for text in pair) <= limits.MAX_MESSAGE
    return "status"


# The operator's side: what is heard is shown and acted on without another look


def question(payload: bytes) -> str:
    """What a board asks, and the answer to it."""
    found = read_question(payload)
    if found is None:
        return "none"
    answer = read_answer(encode_answer(found, 1, 2, "life", (0, 0)))
    assert answer is not None
    assert (answer["n"], answer["t0"]) == (found["n"], found["t0"])
    return "question"


def answer(payload: bytes) -> str:
    """What a board hears of lab time, and what it makes of it."""
    found = read_answer(payload)
    if found is None:
        return "none"
    estimator = Estimator()
    t0, t1, t2 = found["t0"], found["t1"], found["t2"]
    if estimator.add(t0, t1, t2, t0 + 1_000, found["life"], 0):
        estimate = estimator.estimate(t0 + 2_000, 0)
        assert estimate is not None
        assert estimate.bound >= 0
    return "answer"


def sign(payload: bytes) -> str:
    """Which coordinator another one says that it is."""
    found = read_sign(payload)
    if found is None:
        return "none"
    found.encode(NOW)
    time.gmtime(found.started)
    return "sign"


def heard(kind: TopicKind) -> Target:
    """What ``hwsync`` and ``hwsync doctor`` do with a message of that kind."""

    def target(payload: bytes) -> str:
        fields = read_received(kind, payload)
        if fields is None:
            return "none"
        dumps(fields).encode()
        said = "\n".join(_shown(kind, fields))
        for line in said.split("\n"):
            escape(line).encode()
        return str(kind)

    return target


class Shown:
    """Keeps what a run would show."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def program(self, stream: str, text: str) -> None:
        self.texts.append(text)

    def note(self, stream: str, text: str) -> None:
        self.texts.append(text)


def _shown(kind: TopicKind, fields: dict[str, Any]) -> list[str]:
    heard = Received("pi1", kind, fields)
    if heard.error:
        try:
            raise_refused(heard)
        except Refused as refusal:
            return [str(refusal)]
        raise AssertionError("an error is a refusal")
    if kind is TopicKind.OUTPUT:
        shown = Shown()
        Streams("c1", shown).hear(kind, fields)
        return shown.texts
    if beat := heard.heartbeat:
        found = [*checks.device("pi1", [beat], LISTED), *checks.replaced("pi1", None, [beat])]
        return [operate._line("pi1", None), *(f"{one.found}{one.cure}" for one in found)]
    if boards := heard.boards:
        return [f"{one.found}{one.cure}" for one in checks.device("pi1", [BEAT], boards)]
    if health := heard.health:
        found = [checks.coordinator(False, health, NOW), *checks.health(health)]
        found += checks.others(health, [{**health, "started": 0}])
        found += checks.others(health, [])
        return [f"{one.found}{one.cure}" for one in found]
    shown, told, status = Shown(), heard.command_fields, heard.status
    assert told is not None
    Streams("c1", shown).finish(told)
    code = exit_code(told)
    assert isinstance(code, int)
    if status is None:
        return [operate._line("pi1", told), *shown.texts]
    finding = checks.record("pi1", status, NOW, online=False)
    replaced = checks.replaced("pi1", status, [{**BEAT, "journal": "other"}])
    return [
        *(*operate._whole(status), operate._line("pi1", told), finding.found, *shown.texts),
        *(one.found for one in replaced),
    ]


# Topics and addresses


def topic(text: str) -> str:
    """A topic from the broker, through everything that reads one."""
    user, kind = TOPICS.split(text)
    assert kind is None or text.startswith("hw/")
    assert len(user) <= len(text)
    result = read_message(Message(text, b""))
    read_by_the_round = kind in INBOUND and kind not in (TopicKind.CLOCK, *PAST)
    group = limits.is_user(user.removeprefix("@"))
    if user and read_by_the_round and not limits.is_user(user) and not group:
        assert result in ("refused bad_user", "refused not_allowed"), result
    access.matches("hw/+/request", text)
    access.matches(text, "hw/pi1/request")
    return result


def address(text: str) -> str:
    """A broker's address."""
    url = BrokerUrl.parse(text)
    again = BrokerUrl.parse(url.with_login)
    assert (again.host, again.port) == (url.host, url.port)
    assert again == url or url.username is not None
    # What is printed does not depend on the password. It may hold the same letters somewhere else.
    assert str(replace(url, password="other")) == str(url) == repr(url)
    return "address"


# Files


LARGEST_FILE: Final = 2**20  # bytes; a file of a lab's keeper, which nobody sends


class Files:
    """The readers of files, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "given"

    def _given(self, data: bytes) -> Path:
        self._file.write_bytes(data[:LARGEST_FILE])
        self._file.chmod(0o600)  # else a file with a password is refused for that alone
        return self._file

    def toml(self, data: bytes) -> str:
        """device.toml."""
        config = load_config(self._given(data), {})
        config.settings(self._folder, {})
        return "config"

    def acl(self, data: bytes) -> str:
        """mosquitto's ACL file."""
        acl = access.Acl(self._given(data))
        for name in ("pi1", None, "a/b", "+"):
            acl.allows("read", "hw/pi1/command", name, "client")
        return "acl"

    def passwords(self, data: bytes) -> str:
        """mosquitto's password file."""
        passwords = access.Passwords(self._given(data))
        for name in ("pi1", "pi2", ""):
            assert not passwords.accept(name, "wrong")
        return "passwords"

    def broker_conf(self, data: bytes) -> str:
        """broker.conf."""
        config = conf.load(self._given(data))
        assert all(0 <= listener.port <= 65_535 for listener in config.listeners)
        assert config.message_size_limit >= 0
        return "broker.conf"

    def credentials(self, data: bytes) -> str:
        """Two lines: user, password."""
        options = {"broker": "mqtt://127.0.0.1", "credentials": str(self._given(data))}
        connection.broker(connection.load(None, options))
        return "credentials"


class Journals:
    """A device's journal whose files are not what was written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "journal"
        board = Board(folder / "board")
        board.run()
        board.journal.close()
        self.files = {
            path.name: path.read_bytes()
            for path in board.journal._files.folder.iterdir()
            if path.name.startswith("journal") and path.stat().st_size
        }

    def opened(self, name: str, data: bytes) -> str:
        """One file replaced: it is read as it was, or set aside; never an error of Python."""
        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink()
        for file, content in self.files.items():
            (self._folder / file).write_bytes(data if file == name else content)
        try:
            journal = Journal(self._folder, machine="m")
        except JournalError:
            return "refused"
        try:
            return "set aside" if any(self._folder.glob("journal-*")) else "opened"
        finally:
            journal.close()


def targets() -> Mapping[str, Target]:
    """Every reader of a payload, by name."""
    return {
        **{f"coordinator {kind}": coordinator(kind, False) for kind in INBOUND},
        "coordinator retained request": coordinator(TopicKind.REQUEST, True),
        "coordinator retained response": coordinator(TopicKind.RESPONSE, True),
        **{f"coordinator {kind}": past(kind) for kind in PAST},
        "coordinator clock": question,
        "coordinator sign": sign,
        "device clock/reply": answer,
        "device command": envelope,
        "device status": status,
        **{f"operator {kind}": heard(kind) for kind in HEARD},
    }


# Seeds of the files


TOML: Final = (
    b'user = "pi1"\nbroker = "mqtt://127.0.0.1:1883"\nmax_timeout_s = 10.5\nallow_root = true\n'
    b'[programs]\nrunner = "warm"\npreload = ["json"]\nenvironment = { A = "b" }\n'
    b'[limits]\nmemory_mb = 100\ncpu_s = 1\n[isolation]\nkind = "none"\nnetwork = false\n'
)
ACL: Final = (
    b"# all\nuser pi1\ntopic read hw/pi1/command\ntopic hw/#\npattern write hw/%u/response\n"
    b"pattern deny hw/%c/+\ntopic deny hw/x\n"
)
PASSWORDS: Final = b"pi1:$7$101$pXzRIfLtXGJAEUWH$1c5q1Q==\npi2:$6$c2FsdA==$aGFzaA==\n# comment\n\n"
BROKER_CONF: Final = (
    b"listener 1883 127.0.0.1\nprotocol mqtt\nallow_anonymous true\nmessage_size_limit 4259840\n"
    b"max_packet_size 100\npersistence true\n# comment\nlistener 8080\nprotocol websockets\n"
)
CREDENTIALS: Final = b"pi1\nsecret\n"
ADDRESSES: Final = (
    b"mqtt://127.0.0.1:1883", b"ws://host:8080/mqtt", b"mqtt://user:secret@host", b"mqtt://[::1]:9",
)  # fmt: skip
