"""Every limit and default of the protocol, by name (docs/protocol.md, sections 1, 2 and 4).

Sizes are UTF-8 bytes, times are seconds. A value outside its limit is refused by name, never cut,
except where a device's result would be lost by it.
"""

from __future__ import annotations

import re
from typing import Final

from hwsync.protocol.device import values

KIB: Final = 1024

MAX_MESSAGE: Final = 4096 * KIB  # any message, escapes included; broker.conf allows it
MAX_DEPTH: Final = 100  # lists and objects inside each other, in JSON
MAX_PROGRAM: Final = 256 * KIB
MAX_EXTRAS: Final = 64 * KIB  # stdin + args + meta together
MAX_ANALYSIS: Final = 64 * KIB
MAX_FAULT: Final = 500  # characters: why an analyser itself failed; a longer one is cut
MAX_REGRADES: Final = 64  # of a command
REGRADES_TOLD: Final = 256 * KIB  # of JSON: the newest of them, on ``result/<id>``
UNOFFERED_S: Final = 60.0  # in state 3, while no analyst that is online offers the analyser
MAX_ANALYSTS: Final = 100  # that are online at the same time
MAX_ANALYSERS: Final = 1_000  # that one of them offers
MAX_OFFER: Final = 64 * KIB  # of JSON: what it says of itself
MAX_RESPONSE: Final = 256 * KIB  # standard output, and a plain response
MAX_STDERR: Final = 64 * KIB
MAX_REASON: Final = 500  # characters: one line for people
MAX_ORDER: Final = 4 * KIB  # of JSON; a longer order of a result is dropped
MAX_FILES: Final = 64  # that a request sends along
MAX_FILES_BYTES: Final = 1024 * KIB  # of them together, decoded
MAX_PATH: Final = 255  # bytes of a file's path
MAX_COLLECT: Final = 32  # patterns of files that are to come back
MAX_COLLECT_PATTERN: Final = 255  # bytes of one
MAX_COLLECTED: Final = 64  # files that come back
MAX_COLLECTED_BYTES: Final = 1536 * KIB  # of them together, decoded
MAX_NAMES: Final = 10_000  # that a device looks at to find them,
COLLECT_S: Final = 2.0  # and for how long
MAX_COMPARED: Final = 2_000_000  # characters of patterns x those of paths, of one result
FILES_S: Final = 1.0  # between two answers that have files, of a board
FILES_ROUND: Final = 8 * MAX_COLLECTED_BYTES  # of files that are answered at a time, of all boards
MAX_NOT_KEPT: Final = 64  # entries that say what did not come back; then how many others
MAX_NOT_KEPT_BYTES: Final = 16 * KIB  # of JSON, of them together
MAX_NOT_KEPT_REASON: Final = 200  # characters of why one did not
MAX_RAN_ON: Final = KIB  # of JSON: what a run ran on; more is dropped
MAX_RAN_ON_KEYS: Final = 16
MAX_ENTRIES: Final = 4 * MAX_COLLECTED  # of either in a result; the others are only counted
MAX_STATUS: Final = 1024 * KIB  # of JSON; longer texts are cut in the status only
MESSAGE_BYTES: Final = (8 * KIB, MAX_MESSAGE)  # what a broker's limit may be configured as
STATUS_FIRST: Final = KIB  # of JSON: a status up to ``settled``, which a small device must read

TIMEOUT_S: Final = (0.1, 2_592_000.0)
EXPIRES_S: Final = (1.0, 2_592_000.0)  # or 0: no limit
EXPIRES_AT_S: Final = (0.0, 253_402_300_799.0)  # Unix time; the end of the last year of 4 digits
GRACE_S: Final = (1.0, 3_600.0)
SETTLE_S: Final = (0.0, 3_600.0)
ANALYSIS_WITHIN_S: Final = (0.1, 2_592_000.0)  # or 0: no limit

DEFAULT_NAME: Final = "program.py"  # of the file that a program is run as
DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_EXPIRES_S: Final = 300.0
DEFAULT_GRACE_S: Final = 30.0
DEFAULT_ANALYSIS_WITHIN_S: Final = 3_600.0
DEFAULT_SETTLE_S: Final = 30.0

MAX_CORRELATION: Final = KIB  # bytes of an MQTT 5 request's correlation data
MAX_REPLY_TOPIC: Final = KIB  # bytes of its response topic
MAX_PROPERTIES: Final = 64 * KIB  # bytes of one message's MQTT 5 properties
MAX_TOPIC_LEVELS: Final = 32  # of any topic; mosquitto ends the connection above 200
MAX_REPLIES: Final = 4  # response topics kept for one command, while it is open
MAX_CLAIM: Final = 256  # bytes of the name in ``meta`` that says who asks; a longer one is none

MAX_QUEUE: Final = 100  # requests that wait behind the present one, a board
MAX_QUEUE_BYTES: Final = 8192 * KIB  # of their programs, stdin, args and meta together
REQUESTS_PER_MINUTE: Final = (1, 10_000)  # new ones, a board; or 0: no limit
RATE_S: Final = 60.0  # the minute over which they are counted
AMBIGUOUS_S: Final = 2.0  # after a command was taken from the queue: a person may mean the last one

START_AHEAD_S: Final = 86_400.0  # how far ahead of now a start may be asked for
START_WITHIN_S: Final = (0.001, 60.0)  # how late, or how uncertain, a start may be
START_WAIT_S: Final = (0.1, 600.0)  # for the members of a batch to get ready
START_LEAD_S: Final = (0.05, 60.0)  # between the decision and the instant
START_BYTES_PER_S: Final = 1024 * KIB  # the lead grows by what is to be sent, at that speed,
START_MEMBER_S: Final = 0.001  # and by so much for each member
DEFAULT_START_WITHIN_S: Final = 0.1
DEFAULT_START_WAIT_S: Final = 5.0
DEFAULT_START_LEAD_S: Final = 1.0

DOUBT_S: Final = 86_400.0  # after a rise of the epoch: an id may have been known before
MAX_SEEN_EPOCH: Final = 4_102_444_800  # 2100: a device's word of a later epoch is not believed
MAX_EPOCH: Final = 253_402_300_799  # of a kept status; the same for the end of the year 9999

SETTLED_PAIRS: Final = 4  # how many [id, journal] a status carries
ANSWERED_JOURNALS: Final = 16  # journals remembered for each command; more than answer for one id

HEARTBEAT_S: Final = 30.0
OFFLINE_AFTER_S: Final = 3 * HEARTBEAT_S  # whatever the will said
MAX_BOARDS: Final = 10_000  # boards of which a coordinator remembers when it heard them
MAX_BOARDS_LIST: Final = 256 * KIB  # of JSON: the list of them
BOARDS_S: Final = 1.0  # between two lists that were asked for

CLOCK_PER_S: Final = 20  # questions of one board for the time; more are dropped

REPEAT_FIRST_S: Final = values.REPEAT_FIRST_S  # every repetition: doubling from here,
REPEAT_MAX_S: Final = values.REPEAT_MAX_S  # to here, with jitter

# What a device goes by is said where its core can have it (``protocol.device``).
DEAF_S: Final = values.DEAF_S  # of stale statuses only, until a device believes them
UNKNOWN_S: Final = values.UNKNOWN_S  # of answers that know less than the envelope

HISTORY_PER_S: Final = 2  # questions about one board's runs; more are refused
MAX_QUESTION: Final = 8 * KIB  # of JSON: what such a question may have
HISTORY_WAITING: Final = 100  # of them that wait to be read, of all boards
HISTORY_ROWS: Final = 100  # of a page
HISTORY_PAGE: Final = 256 * KIB  # of JSON: a page
HISTORY_LOOKED: Final = 10_000  # commands that are looked at for one page
HISTORY_S: Final = 1.0  # and for how long; a page with nothing in it has a cursor, too
HISTORY_LINE: Final = 200  # characters of a row's line of output
HISTORY_TEXT: Final = KIB  # bytes of a row's analysis, and of its meta
HISTORY_VERDICTS: Final = 16  # of a row
HISTORY_MESSAGE: Final = 200  # characters of a verdict's message
META_TAGS: Final = 32  # values of a meta that commands are found by fast; more: a bit slower

DEGRADED_S: Final = 60.0  # between two errors of that code to one board

MAX_USERS: Final = 10_000  # with a record; whoever names a new one is refused then

MAX_GROUPS_FILE: Final = 1024 * KIB
MAX_GROUPS: Final = 1_000
MAX_GROUP: Final = 10_000  # boards and patterns that one group lists
MAX_PATTERNS: Final = 100  # among them: each is compared with every board
MAX_PATTERN: Final = 64  # characters, as many as a board's name has

MAX_BATCH_BYTES: Final = 256 * 1024 * KIB  # of what a group's request says to all its boards
MAX_BATCH_LIST: Final = 1_000  # boards that a request without a group may list
MAX_OPEN_BATCHES: Final = 1_000
MAX_OPEN_OF_GROUP: Final = 20  # of them, of one group
BATCH_STATUS_S: Final = 0.5  # between two statuses of a group
BATCH_STATUS_RATE: Final = 128 * KIB  # bytes a second of them, a group
BATCH_ANSWERS: Final = 20  # older batches of a group that were asked for, and wait to be said
GROUP_MEMBERS_S: Final = 2.0  # between two lists of a group's boards
HEARD_S: Final = 86_400.0  # whoever was heard within is of the group of everybody
MAX_UNDER_WAY: Final = 8 * 1024 * KIB  # bytes said that have not arrived; then boards wait

MAX_IDLE: Final = 4096 * KIB  # a board: bytes stored of what led to no answer of a device
IDLE_ROW: Final = KIB  # what a row of the database counts as, without its texts
IDLE_PER_S: Final = 256  # bytes that each second gives back
IDLE_BACK_S: Final = 86_400.0  # a clock put back by more was wrong: all is given back
IDLE_ANSWER: Final = 4 * KIB  # and each answer of a device
IDLE_WAIT_S: Final = 900.0  # the longest that a new request is refused for what ended before

REFUSED_ROWS: Final = 1_000  # a board; then a counter
REFUSED_PAYLOAD: Final = KIB
LOG_PAYLOAD: Final = KIB  # of a message in the log; a longer one is kept where it is mostly text
KEPT_TOPIC: Final = KIB  # characters of a refused message's topic
PACKETS: Final = 2_048  # packet identifiers remembered: more than brokers send before a PUBACK

USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
USER_FORM: Final = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
ID_FORM: Final = "1 to 64 of A-Z a-z 0-9 . _ : -"
ANALYSER: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
ANALYSER_FORM: Final = "1 to 32 of a-z 0-9 _ -, beginning with a letter"
VERSION_FORM: Final = "1 to 64 of A-Z a-z 0-9 . _ -"
NAME_FORM: Final = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter, digit or _"


def is_user(text: object) -> bool:
    """Whether this is a valid board's name."""
    return isinstance(text, str) and USER.fullmatch(text) is not None


def is_id(text: object) -> bool:
    """Whether this is a valid id of a command, or name of a journal."""
    return isinstance(text, str) and ID.fullmatch(text) is not None


def is_name(text: object) -> bool:
    """Whether this is a valid name of a program's file."""
    return isinstance(text, str) and NAME.fullmatch(text) is not None


def is_analyser(text: object) -> bool:
    """Whether this is a valid name of an analyser."""
    return isinstance(text, str) and ANALYSER.fullmatch(text) is not None


def is_version(text: object) -> bool:
    """Whether this is a valid version of an analyser."""
    return isinstance(text, str) and VERSION.fullmatch(text) is not None
