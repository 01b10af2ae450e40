"""Who may do what in a lab, and what the broker is told of it.

The law: what is not granted here is refused. Only the coordinator writes ``command`` and
``status``; a board writes its own answers and reads its own orders; an operator asks, for the
boards that he was given; nobody judges but analysts and who was given that right. Nothing here
touches a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import ALL as EVERYBODY
from hwsync.protocol.groups import NO_GROUPS, SIGN, Groups
from hwsync.protocol.limits import USER_FORM, is_user
from hwsync.protocol.reply_topics import REPLIES
from hwsync.protocol.topics import DEFAULT_ROOT, ITSELF, TopicKind, Topics

COORDINATOR: Final = "coordinator"
VISITOR: Final = "@remove"  # an account for some seconds; no other can be called so
ALL: Final = "all"  # the boards of an operator who was given every one
BOARDS_PORT: Final = 8883
OPERATORS_PORT: Final = 8884
VERSION: Final = 1  # of lab.json

SERIAL_BYTES: Final = 20  # RFC 5280, section 4.1.2.2
SERIAL_SHOWN: Final = 8  # hexadecimal digits of it
NAME_OF_CERTIFICATE: Final = 55  # characters of the account; with ~ and the digits at most 64

_ANSWERS: Final = (TopicKind.COLLECTED, TopicKind.OUTPUT, TopicKind.RESPONSE)
_OF_BOARD: Final = (*_ANSWERS, TopicKind.HEARTBEAT, TopicKind.CLOCK)
_TO_BOARD: Final = (TopicKind.ENVELOPE, TopicKind.STATUS, TopicKind.CLOCK_REPLY)
_ASKS: Final = (TopicKind.REQUEST, TopicKind.CANCEL, TopicKind.RESET)  # also of a group
_SEES_GROUP: Final = (TopicKind.STATUS, TopicKind.ERROR, TopicKind.MEMBERS)
_SEES: Final = (TopicKind.STATUS, TopicKind.ERROR, TopicKind.HEARTBEAT, *_ANSWERS)
_ANALYST_SEES: Final = (TopicKind.STATUS, TopicKind.ERROR)
_ANALYST_SAYS: Final = (
    *(TopicKind.ANALYSIS, TopicKind.QUERY),
    *(TopicKind.HISTORY, TopicKind.HISTORY_ALL),
)


@dataclass(frozen=True, slots=True)
class OperatorRights:
    """A person or a program that sends programs. ``boards`` None: all of them, and all groups.

    ``groups``: also these, and whoever is in them; ``all`` is the group of everybody. ``history``:
    to read everybody's history of these boards, and not only his own. ``analyse``: to judge what
    was run there, as no other operator may; None: of a lab of before, where whoever asks a board
    judges too (docs/decisions.md, 331).
    """

    boards: tuple[str, ...] | None
    read_only: bool = False
    groups: tuple[str, ...] = ()
    history: bool = False
    analyse: bool | None = False

    @property
    def judges(self) -> bool:
        """Whether he judges anything that he may have asked for himself, or others have."""
        return not self.read_only if self.analyse is None else self.analyse


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everything that a lab's files are made from, without any secret."""

    hosts: tuple[str, ...]  # of the broker; the first is the one that boards are told
    root: str = DEFAULT_ROOT
    boards_port: int = BOARDS_PORT
    operators_port: int = OPERATORS_PORT
    mutual_tls: bool = False
    boards: tuple[str, ...] = ()
    operators: Mapping[str, OperatorRights] = field(default_factory=dict)
    trust: tuple[str, ...] = ()  # public keys: boards run only what one of them signed
    certificates: Mapping[str, str] | None = None  # with mutual TLS: each account's serial number
    revoked: tuple[str, ...] = ()  # those of certificates that count no more
    analysts: tuple[str, ...] = ()  # programs that judge what was run on any board

    def __post_init__(self) -> None:
        first = self.root.partition("/")[0]
        if first == REPLIES or not self.root.isprintable():
            raise UsageError(
                f"{self.root!r} cannot be the root of a lab",
                f"take a word such as hw; below {REPLIES}/ operators are answered",
            )

    def with_board(self, name: str) -> Accounts:
        """With that one more. Raises ``UsageError`` for a name that is none, or taken."""
        self._is_new(name)
        if name == ALL:
            raise UsageError(f"{name} means every board of a lab", "take another name")
        return replace(self, boards=tuple(sorted((*self.boards, name))))

    def with_analyst(self, name: str) -> Accounts:
        """With that one more. Raises ``UsageError`` for a name that is none, or taken."""
        self._is_new(name)
        return replace(self, analysts=tuple(sorted((*self.analysts, name))))

    def with_operator(self, name: str, operator: OperatorRights) -> Accounts:
        """A new one, or the same with other rights.

        Raises ``UsageError`` for a name that is none, or taken, and for a board that is not there.
        """
        if name not in self.operators:
            self._is_new(name)
        for board in operator.boards or ():
            if board not in self.boards:
                raise UsageError(
                    f"there is no board {board}", f"hwsync device add {board} makes its account"
                )
        return replace(self, operators={**self.operators, name: operator})

    def without(self, name: str) -> Accounts:
        """Without that board, operator or analyst; a board's operators lose it.

        Raises ``UsageError`` where there is none of that name.
        """
        if name not in self.names:
            raise UsageError(
                f"there is no account {name}", "hwsync device list, operator list, analyst list"
            )
        operators = {
            other: replace(one, boards=one.boards and tuple(b for b in one.boards if b != name))
            for other, one in self.operators.items()
            if other != name
        }
        boards = tuple(board for board in self.boards if board != name)
        analysts = tuple(analyst for analyst in self.analysts if analyst != name)
        without = self.without_certificate(name)
        return replace(without, boards=boards, operators=operators, analysts=analysts)

    def without_group(self, name: str) -> Accounts:
        """Its operators lose it."""
        operators = {
            other: replace(one, groups=tuple(group for group in one.groups if group != name))
            for other, one in self.operators.items()
        }
        return replace(self, operators=operators)

    @property
    def names(self) -> tuple[str, ...]:
        """Every account but the coordinator's own: boards first, then ``people``."""
        return (*self.boards, *self.people)

    @property
    def people(self) -> tuple[str, ...]:
        """Who comes in at the operators' listener: operators, and analysts."""
        return tuple(sorted((*self.operators, *self.analysts)))

    @property
    def unsettled(self) -> tuple[str, ...]:
        """Operators of a lab of before who judge what they ask for, since nobody has said more."""
        known = sorted(self.operators.items())
        return tuple(name for name, one in known if one.analyse is None and one.judges)

    @property
    def bound(self) -> bool:
        """Whether a certificate says who its owner is, so that no password is needed."""
        return self.certificates is not None

    def with_certificate(self, name: str, serial: str) -> Accounts:
        """With that serial number (hexadecimal); the one before counts no more."""
        known = self.without_certificate(name)
        return replace(known, certificates={**(known.certificates or {}), name: serial})

    def without_certificate(self, name: str) -> Accounts:
        """Without that account's certificate, which counts no more."""
        if self.certificates is None or name not in self.certificates:
            return self
        others = {other: serial for other, serial in self.certificates.items() if other != name}
        revoked = (*self.revoked, self.certificates[name])
        return replace(self, certificates=others, revoked=revoked)

    def identity(self, name: str) -> str:
        """Who the broker takes that account for.

        With a certificate its common name, another one for each: what an earlier one may do ends
        at once, also on a connection that stands.
        """
        serial = (self.certificates or {}).get(name)
        return name if serial is None else f"{name[:NAME_OF_CERTIFICATE]}~{serial[:SERIAL_SHOWN]}"

    def refused(self, kind: str) -> tuple[str, ...]:
        """Serial numbers that do not come in at the listener of ``boards`` or ``operators``."""
        others = [serial for name, serial in (self.certificates or {}).items()
                  if (name in self.people) != (kind == "operators")]  # fmt: skip
        return (*self.revoked, *others)

    @property
    def changes(self) -> int:
        """Of the certificates: more after each, so that of two lists the later one is known."""
        return len(self.certificates or {}) + 2 * len(self.revoked)

    def _is_new(self, name: str) -> None:
        if not is_user(name):
            raise UsageError(f"{name!r} is no name of an account: {USER_FORM}")
        if name == COORDINATOR:
            raise UsageError(f"{name} is the coordinator's own account", "take another name")
        if name in self.names:
            kind = "board" if name in self.boards else "operator"
            kind = "analyst" if name in self.analysts else kind
            a = "a" if kind == "board" else "an"
            raise UsageError(f"there is {a} {kind} {name} already", "rotate gives a new password")

    def as_json(self) -> dict[str, Any]:
        """What is kept in ``lab.json``."""
        return {
            "version": VERSION, "hosts": list(self.hosts), "root": self.root,
            "boards_port": self.boards_port, "operators_port": self.operators_port,
            "mutual_tls": self.mutual_tls, "boards": list(self.boards),
            "operators": {
                name: {"boards": ALL if one.boards is None else list(one.boards),
                       "read_only": one.read_only, "groups": list(one.groups),
                       "history": one.history,
                       **({} if one.analyse is None else {"analyse": one.analyse})}
                for name, one in sorted(self.operators.items())
            },
            "analysts": list(self.analysts),
            "trust": list(self.trust),
            "certificates": None if self.certificates is None else dict(self.certificates),
            "revoked": list(self.revoked),
        }  # fmt: skip

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Accounts:
        """Of what ``as_json`` made.

        Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``UsageError`` for what is none.
        """
        if fields["version"] != VERSION:
            raise ValueError(f"version {fields['version']}, and this hwsync knows {VERSION}")
        operators = {
            name: OperatorRights(None if one["boards"] == ALL else _texts(one, "boards"),
                           bool(one["read_only"]),
                           _texts(one, "groups") if "groups" in one else (),
                           bool(one.get("history", False)),  # a lab of before has neither
                           bool(one["analyse"]) if "analyse" in one else None)
            for name, one in fields["operators"].items()
        }  # fmt: skip
        analysts = _texts(fields, "analysts") if "analysts" in fields else ()
        for name in (*_texts(fields, "boards"), *operators, *analysts):
            if not is_user(name):
                raise ValueError(f"{name!r} is no name of an account")
        Topics(str(fields["root"]))
        certificates = fields.get("certificates")  # a lab of before has none
        if certificates is not None:
            certificates = {str(name): _serial(one) for name, one in certificates.items()}
        return cls(
            _texts(fields, "hosts"), str(fields["root"]), int(fields["boards_port"]),
            int(fields["operators_port"]), bool(fields["mutual_tls"]), _texts(fields, "boards"),
            operators, _texts(fields, "trust"), certificates,
            tuple(map(_serial, fields.get("revoked", []))), analysts,
        )  # fmt: skip


def _serial(text: Any) -> str:
    """Raises ``TypeError`` or ``ValueError``."""
    if not 0 < int(text, 16) < 1 << 8 * SERIAL_BYTES:
        raise ValueError("it has no serial number of a certificate")
    return str(text)


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Raises ``KeyError``, ``TypeError``, ``ValueError``."""
    texts = fields[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} is no list of texts")
    if name == "hosts" and not texts:
        raise ValueError("it names no host")
    return tuple(texts)


def acl(accounts: Accounts, groups: Groups = NO_GROUPS) -> str:
    """The broker's ACL file, as mosquitto reads it; what no line grants is refused.

    ``groups``: as they are now; a right to one that is not there grants nothing.
    """
    topics = Topics(accounts.root)
    lines = ["# Made by hwsync; a change by hand is lost at the next device or operator command."]
    lines += ["", f"user {accounts.identity(COORDINATOR)}", f"topic readwrite {accounts.root}/#"]
    lines += [f"topic write {REPLIES}/#"]
    for board in accounts.boards:
        lines += ["", f"user {accounts.identity(board)}"]
        lines += [f"topic read {topics.of(board, kind)}" for kind in _TO_BOARD]
        lines += [f"topic write {topics.of(board, kind)}" for kind in _OF_BOARD]
    for name, operator in sorted(accounts.operators.items()):
        rights = _of_operator(topics, name, operator, accounts.boards, groups)
        lines += ["", f"user {accounts.identity(name)}", *dict.fromkeys(rights)]
    for name in accounts.analysts:
        rights = _of_analyst(topics, name, accounts.boards)
        lines += ["", f"user {accounts.identity(name)}", *rights]
    return "\n".join(lines) + "\n"


def visitors_rights(accounts: Accounts, identity: str, name: str) -> str:
    """For the end of an ACL file: who takes away what the broker keeps of a removed account."""
    topics = Topics(accounts.root)
    clears = (TopicKind.STATUS, TopicKind.HEARTBEAT, TopicKind.OUTPUT)
    lines = [f"user {identity}", *_of_operator(topics, identity, OperatorRights((name,)), ())]
    lines += [f"topic write {topics.of(name, kind)}" for kind in clears]
    lines += [f"topic write {topics.analyst(name)}"]
    return "\n".join(("", *lines, ""))


def _of_operator(
    topics: Topics,
    name: str,
    operator: OperatorRights,
    boards: tuple[str, ...],
    groups: Groups = NO_GROUPS,
) -> Iterator[str]:
    """Whatever he may write is a topic without wildcard: the broker keeps one message on each.

    ``boards``, ``groups``: all that there are.
    """
    asks: tuple[TopicKind, ...] = () if operator.read_only else _ASKS
    of_before = operator.analyse is None and operator.judges
    for board in boards if operator.boards is None else operator.boards:
        yield from _seeing(topics, board, operator)
        if of_before:
            yield f"topic write {topics.of(board, TopicKind.ANALYSIS)}"
        yield from (f"topic write {topics.of(board, kind)}" for kind in (*asks, TopicKind.QUERY))
    every = (*groups.entries, EVERYBODY)
    for group in every if operator.boards is None else operator.groups:
        if group not in every:
            continue
        for member in boards if group == EVERYBODY else groups.members(group, boards) or ():
            yield from _seeing(topics, member, operator) if member in boards else ()
        user = f"{SIGN}{group}"
        yield from (f"topic read {topics.of(user, kind)}" for kind in _SEES_GROUP)
        yield f"topic read {topics.result(user, '+')}"
        yield from (f"topic write {topics.of(user, kind)}" for kind in (*asks, TopicKind.QUERY))
    yield from _of_everybody(topics, name)


def _of_analyst(topics: Topics, name: str, boards: tuple[str, ...]) -> Iterator[str]:
    """He judges whatever is run on any board, and asks for nothing."""
    for board in boards:
        yield from (f"topic read {topics.of(board, kind)}" for kind in _ANALYST_SEES)
        yield f"topic read {topics.result(board, '+')}"
        yield from (f"topic write {topics.of(board, kind)}" for kind in _ANALYST_SAYS)
    yield f"topic write {topics.analyst(name)}"
    yield from _of_everybody(topics, name)


def _of_everybody(topics: Topics, name: str) -> Iterator[str]:
    """What each account at the operators' listener has: how the lab is, and its own answers."""
    yield f"topic read {topics.health}"
    yield f"topic read {topics.boards}"
    yield f"topic read {topics.analyst('+')}"
    yield f"topic write {topics.of(ITSELF, TopicKind.QUERY)}"
    yield from (f"topic readwrite {echo}" for echo in (*topics.echoes(name), topics.dotted(name)))
    yield f"topic read {REPLIES}/{name}/#"


def _seeing(topics: Topics, board: str, operator: OperatorRights) -> Iterator[str]:
    """What becomes of a board, what was run there (one's own, or everybody's), and judging it."""
    yield from (f"topic read {topics.of(board, kind)}" for kind in _SEES)
    yield f"topic read {topics.result(board, '+')}"
    yield f"topic write {topics.of(board, TopicKind.HISTORY)}"
    if operator.history:
        yield f"topic write {topics.of(board, TopicKind.HISTORY_ALL)}"
    if operator.analyse:
        yield f"topic write {topics.of(board, TopicKind.ANALYSIS)}"
