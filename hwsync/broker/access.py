"""Who may come in, and what they may read and write: mosquitto's password and ACL files.

The law is mosquitto's: without an ACL file everything is allowed; with one, what no line grants is
denied, and a ``deny`` beats every grant. A subscription is always accepted, delivery is filtered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hwsync.protocol.errors import BadConfig

ITERATIONS: Final = 101  # mosquitto_passwd's own default
SALT_BYTES: Final = 12
HASH_BYTES: Final = 64
MAX_ROUNDS: Final = 1_000_000  # about a second for one login; mosquitto_passwd takes 101

Access = Literal["read", "write"]
_KINDS: Final[dict[str, frozenset[str]]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write"}),
    "readwrite": frozenset({"read", "write"}),
    "deny": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ACL file; ``user`` None: for those without a name, ``pattern``: for all."""

    filter: str
    grants: frozenset[str]
    user: str | None = None
    pattern: bool = False
    deny: bool = False


class Passwords:
    """A file made by ``mosquitto_passwd``. Raises ``BadConfig`` for a line that is none of its."""

    def __init__(self, path: Path) -> None:
        self._stored: dict[str, _Stored] = {}
        for number, line in enumerate(_lines(path), 1):
            name, colon, hashed = line.partition(":")
            if not line.strip() or line.startswith("#"):
                continue
            if not colon or (found := _stored(hashed)) is None:
                raise BadConfig(
                    f"{path}, line {number}: no password of mosquitto_passwd",
                    f"mosquitto_passwd {path} NAME makes one",
                )
            self._stored[name] = found

    def stored(self, name: str) -> str | None:
        """What stands there for the user; another text after a change of the password."""
        stored = self._stored.get(name)
        return None if stored is None else repr(stored)

    def accept(self, name: str, password: str) -> bool:
        """Whether this is the user's password."""
        stored = self._stored.get(name)
        try:
            return stored is not None and _matches(stored, password.encode())
        except UnicodeEncodeError:
            return False


def hashed(password: str) -> str:
    """What stands behind the name in such a file, as ``mosquitto_passwd`` would make it.

    Few iterations: our passwords are random, and a broker checks one at each connect.
    """
    salt = os.urandom(SALT_BYTES)
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, HASH_BYTES)
    encoded = (base64.b64encode(part).decode() for part in (salt, made))
    return "$".join(("", "7", str(ITERATIONS), *encoded))


@dataclass(frozen=True, slots=True)
class _Stored:
    """One password as ``mosquitto_passwd`` writes it; ``rounds`` 0: a plain SHA-512."""

    rounds: int
    salt: bytes
    digest: bytes


def _stored(text: str) -> _Stored | None:
    """``$6$SALT$DIGEST`` or ``$7$ROUNDS$SALT$DIGEST``; None: it is neither."""
    match text.split("$"):
        case ["", "6", salt, digest]:
            rounds = "0"
        case ["", "7", rounds, salt, digest] if rounds.isascii() and rounds.isdigit():
            pass
        case _:
            return None
    try:
        found = _Stored(int(rounds), _decoded(salt), _decoded(digest))
    except ValueError:
        return None
    return found if found.digest and found.rounds <= MAX_ROUNDS else None


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _matches(stored: _Stored, password: bytes) -> bool:
    if stored.rounds:
        made = hashlib.pbkdf2_hmac(
            "sha512", password, stored.salt, stored.rounds, len(stored.digest)
        )
    else:
        made = hashlib.sha512(password + stored.salt).digest()
    return hmac.compare_digest(made, stored.digest)


class Acl:
    """A mosquitto ACL file (mosquitto.conf(5), acl_file). Raises ``BadConfig`` for other lines."""

    def __init__(self, path: Path) -> None:
        self._rules: list[Rule] = []
        user: str | None = None
        for number, line in enumerate(_lines(path), 1):
            words = line.split()
            if not words or line.startswith("#"):
                continue
            if words[0] == "user" and len(words) > 1:
                user = line.split(maxsplit=1)[1].strip()
            elif words[0] in ("topic", "pattern") and len(words) > 1:
                self._rules.append(_rule(line, words[0] == "pattern", user))
            else:
                # Not shown: it may be a file of passwords.
                raise BadConfig(f"{path}, line {number}: no right", "topic, user, pattern")

    def names(self, user: str) -> bool:
        """Whether it has a line for that user alone."""
        return any(rule.user == user and not rule.pattern for rule in self._rules)

    def knows(self, user: str) -> bool:
        """Whether any line can grant that user something."""
        return self.names(user) or any(rule.pattern for rule in self._rules)

    def allows(self, access: Access, topic: str, user: str | None, client: str) -> bool:
        """Whether this client may read (be delivered) or write (publish) this topic."""
        granted = False
        for rule in self._rules:
            if not rule.pattern and rule.user != user:
                continue
            wanted = _filled(rule, user, client)
            if wanted is None or not matches(wanted, topic):
                continue
            if rule.deny:
                return False
            granted |= access in rule.grants
        return granted


def _rule(line: str, pattern: bool, user: str | None) -> Rule:
    rest = line.split(maxsplit=1)[1].strip()
    kind, _, tail = rest.partition(" ")
    if kind not in _KINDS or not tail.strip():
        kind, tail = "readwrite", rest
    return Rule(tail.strip(), _KINDS[kind], user, pattern, kind == "deny")


def _filled(rule: Rule, user: str | None, client: str) -> str | None:
    """The rule's filter for this client; None where a name would make a wildcard of it."""
    wanted = rule.filter
    if rule.pattern:
        for mark, name in (("%u", user), ("%c", client)):
            if mark in wanted:
                if not name or any(c in name for c in "+#/"):
                    return None
                wanted = wanted.replace(mark, name)
    return wanted


def matches(wanted: str, topic: str) -> bool:
    """Whether a topic is covered by a filter (MQTT 3.1.1, section 4.7)."""
    if "+" not in wanted and "#" not in wanted:
        return wanted == topic
    levels, given = wanted.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[:1] in ("+", "#"):
        return False
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(given) or level not in ("+", given[number]):
            return False
    return len(levels) == len(given)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadConfig(f"cannot read {path}: {why}") from None
