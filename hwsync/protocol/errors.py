"""Every error that hwsync raises on purpose: the tree, the codes on the wire, the exit codes.

    HwsyncError             base; never raised itself
    ├── Refused             a message that the protocol refuses (code, message, hint)    exit 1
    ├── NotFound            nothing under that name in the record                        exit 1
    ├── DatabaseError       the database cannot be used (in use, newer, damaged)         exit 1
    │   └── StoreError      it takes nothing now, or cannot be read: that may heal
    ├── AnotherCoordinator  one that serves this root already, found at the start        exit 3
    ├── JournalError        the device's journal cannot be used (in use, newer)          exit 1
    │   ├── JournalUnavailable  its disk is full, read-only or failing: that may heal
    │   └── JournalDamaged      what stands in it is not what was written
    ├── CannotRun           programs cannot be started on this machine as configured     exit 125
    ├── TooLarge            a message above hwsync's own limit, stopped before sending   exit 1
    ├── Closed              the connection of a program was closed, with something open  exit 1
    ├── OutputError         what is printed cannot be written where it goes              exit 74
    ├── UsageError          what the person typed cannot be meant                        exit 2
    │   ├── BadUrl          a broker address
    │   └── BadConfig       a line of a configuration file
    └── Unreachable         nobody answers                                               exit 125
        ├── NoBroker
        └── NoCoordinator
            └── Degraded    it is there, and cannot save

An error says what was wrong, where, and (``hint``) what to do. Only ``cli`` and the ``service``
modules print them; nobody shows a traceback to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class Code(StrEnum):
    """Why a message was refused (docs/protocol.md, section 3, topic ``error``)."""

    BUSY = "busy"  # a request while another is in states 1 to 3
    WRONG_STATE = "wrong_state"  # any other hole of the table
    NOT_CURRENT = "not_current"  # an id this user never had, another device's command, another end
    AMBIGUOUS = "ambiguous"  # without an id, just after the next command was taken from the queue
    QUEUE_FULL = "queue_full"
    ID_REUSED = "id_reused"  # a known id with another program, stdin, args or name
    BAD_PAYLOAD = "bad_payload"  # not UTF-8, not the JSON it should be, a value out of range
    TOO_LARGE = "too_large"  # above a named limit
    UNKNOWN_FIELD = "unknown_field"  # a key that the protocol does not know
    BAD_USER = "bad_user"  # the topic's user is no valid name
    RETAINED = "retained"  # a cancel, a reset, or without an id: performed again at every reconnect
    NOT_ALLOWED = "not_allowed"  # also: not in this version
    MISSING = "missing"  # of a batch's member: it is offline, and was to be online
    DEGRADED = "degraded"  # it cannot be stored now; it is not refused, and is tried again


class HwsyncError(Exception):
    """``message`` says what was wrong and where, ``hint`` what to do (may be empty)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Refused(HwsyncError):
    """A message that the protocol refuses; ``id`` and ``journal``: the message's, if readable.

    ``published_error``: the whole error as the coordinator published it, where an operator got one.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        hint: str = "",
        *,
        id: str | None = None,
        journal: str | None = None,
        published_error: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.id = id
        self.journal = journal
        self.published_error = published_error

    def about(self, id: str | None, journal: str | None = None) -> Refused:
        """The same, of a message with that id and journal."""
        return Refused(self.code, self.message, self.hint, id=id, journal=journal)


class NotFound(HwsyncError):
    """Nothing under that name in the record."""


class DatabaseError(HwsyncError):
    """The coordinator's database cannot be used."""


class StoreError(DatabaseError):
    """A call of the store came to nothing: what it should save is not stored, as far as it knows.

    A full disk, one that fails, a file that somebody else locks. ``message``: SQLite's own words.
    """


class AnotherCoordinator(HwsyncError):
    """One that serves this root already was found at the start; the unit tries again later."""

    exit_code = 3


class JournalError(HwsyncError):
    """The device's journal cannot be used."""


class JournalUnavailable(JournalError):
    """The journal's disk is full, read-only or failing: a later attempt may succeed."""


class JournalDamaged(JournalError):
    """What stands in the journal is not what was written: it is set aside by the next opening."""


class CannotRun(HwsyncError):
    """A program could not be started here (interpreter, directory, arguments); nothing has run."""

    exit_code = 125


class TooLarge(HwsyncError):
    """A message above hwsync's own limit: a broker would drop it silently or cut the connection."""


class Closed(HwsyncError):
    """The connection was closed; what was asked on it goes on."""


class OutputError(HwsyncError):
    """What is printed cannot be written where it goes: the disk is full, say."""

    exit_code = 74  # EX_IOERR


class UsageError(HwsyncError):
    """What the person typed cannot be meant."""

    exit_code = 2


class BadUrl(UsageError):
    """A broker address that is none."""


class BadConfig(UsageError):
    """A line of a configuration file; the message names file and line."""


class Unreachable(HwsyncError):
    """Nobody answers."""

    exit_code = 125


class NoBroker(Unreachable):
    """No broker at that address."""


class NoCoordinator(Unreachable):
    """A broker, but no coordinator answers there."""


class Degraded(NoCoordinator):
    """A coordinator that answers, and can save nothing now: what was sent to it waits."""
