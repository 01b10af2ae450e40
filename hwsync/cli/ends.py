"""How a command ended, in a sentence, and what to do about it.

The law: the outcome decides the sentence, the reason that stands in the record decides what to do.
The reasons are those that coordinator, device and runner write; one that is not known here is
repeated as it is, with the place to look at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hwsync.protocol.batch import NOT_BEGUN
from hwsync.protocol.record import Verb

Json = Mapping[str, Any]
End = tuple[str, str, tuple[str, ...]]
"""The kind of the cause (the outcome, as a rule), the sentence, what to do."""

Rules = Sequence[tuple[str, str]]
"""What is found in a reason, and what to do then; ``{user}`` and ``{id}`` are put in."""

AGAIN: Final = "send it again"
REJECTED: Final[Rules] = (
    ("not signed", "the board runs signed commands only: hwsync key list, on the lab's machine"),
    ("does not trust", "trust in its device.toml must have the lab's key: hwsync key list"),
    ("signature is wrong", f"{AGAIN}; where it stays, somebody alters messages"),
    ("it is signed for", "two boards have each other's account or name: hwsync doctor {user}"),
    ("already received", f"{AGAIN} with another id"),
    ("this board's clock says", "a clock is wrong: hwsync doctor {user} says which"),
    ("lab time is not known", "hwsync doctor {user} says why it knows no lab time"),
    ("new life", f"{AGAIN}: the lab's clock began anew meanwhile"),
    ("was past by more", f"{AGAIN} with a longer --lead, or a larger --within"),
    ("was last heard more than", "look at the board's network: hwsync doctor {user}"),
    ("had said something", AGAIN),
    ("clock was not known", f"{AGAIN} with a larger --within, or look: hwsync doctor {{user}}"),
    ("suspended", "keep the board from suspending"),
    ("is called", f"{AGAIN} to the board by its new name"),
    ("not granted to this device", "two devices answer for {user}? hwsync doctor {user}"),
    ("coordinator does not know it", f"{AGAIN}: an older database was put back, or it was forged"),
    ("interpreter", "on the board: hwsync-device --check"),
    ("working directory", "on the board: hwsync-device --check"),
    ("preload", "on the board: hwsync-device --check"),
    ("bwrap", "on the board: hwsync-device --check"),
    ("journal", "the board's disk is full, or fails: hwsync doctor {user}"),
    ("cannot be passed", "give it less arguments, or a file with --stdin"),
)  # fmt: skip
KILLED: Final[Rules] = (
    ("memory limit", "use less memory, or raise memory_mb in the board's device.toml"),
    ("CPU time limit", "raise cpu_s in the board's device.toml"),
    ("processes", "start fewer, or raise processes in the board's device.toml"),
    ("free on the disk", "make space on the board"),
    ("output limit", "print less, or write a file"),
    ("file size limit", "write less, or raise file_size_mb in the board's device.toml"),
    ("SIGKILL", "a board that is out of memory ends programs so: dmesg on the board says it"),
    ("SIGSEGV", "a module in C crashed: try less of the program"),
    ("parent process", "its device's helper was ended: its log on the board says by whom"),
)
ERROR: Final[Rules] = (
    (
        "ModuleNotFoundError",
        "hwsync modules {user} shows what there is; one of yours comes along: --with FILE",
    ),
    ("FileNotFoundError", "a file of yours comes along: --with FILE"),
    ("MemoryError", "use less memory, or raise memory_mb in the board's device.toml"),
    ("EOFError", "it asked for input: --stdin FILE, or --stdin - for what is typed"),
    ("PermissionError", "the account of the board's programs may not do that there"),
    ("asks for", "a board runs Python"),
)
EXPIRED: Final[Rules] = (
    ("abort", "the batch was given up: hwsync status GROUP says who failed"),
    ("was not ready", "a longer --wait gives it more time to get ready"),
    ("must be", "a longer --wait, or a smaller --need"),
    ("expires_at", f"{AGAIN} with a later time"),
    ("before its start", f"{AGAIN} for a later instant"),
    ("takes at most", "a shorter program or input, or a larger limit of the broker"),
    ("not collected within", f"{AGAIN}, with a longer --expires where the board is off for long"),
)
LOST: Final[Rules] = (
    ("reset after", "a result that still comes corrects this: hwsync why {user} {id}"),
    ("older database", f"look whether it has run, then {AGAIN}"),
    ("no answer", "a result that still comes corrects this: hwsync why {user} {id}"),
)
SHORTER: Final = re.compile(r"time limit of ([0-9.e+]+) s")


def ended(named: str, told: Json, left_out: str = "") -> End:
    """``named``: the command, ``told``: its status or result, ``left_out``: what moved it last."""
    outcome, reason = str(told["outcome"]), str(told["reason"] or "")
    find = {"user": told["user"], "id": told["id"]}
    if outcome in ("ok", "error"):
        return _of_exit(named, told, find)
    if left_out == Verb.LEFT_OUT or reason.startswith(NOT_BEGUN):
        why = reason.removeprefix(f"{NOT_BEGUN}: ")
        return outcome, f"{named} never began: {why}.", _do(EXPIRED, reason, find, (AGAIN,))
    if outcome == "timeout":
        return _of_time(named, told, reason)
    if outcome == "killed":
        doctor = (f"hwsync doctor {told['user']}",)
        return "killed", f"{named} was ended: {reason}.", _do(KILLED, reason, find, doctor)
    if outcome == "cancelled":
        when = reason.removeprefix("cancelled ") if reason.startswith("cancelled ") else ""
        how = f"{named} was cancelled {when}." if when else f"{named} was cancelled: {reason}."
        return "cancelled", how.replace(": .", "."), ()
    if outcome == "interrupted":
        return "interrupted", (
            f"{named} was interrupted: {reason}. The board was restarted, lost its power, or its "
            "device was stopped; a program that had begun is never run again by itself."
        ), (f"look whether it has done its work, then {AGAIN}",)  # fmt: skip
    if outcome == "rejected":
        doctor = (f"hwsync doctor {told['user']}",)
        return (
            "rejected",
            f"The board refused {named}: {reason}.",
            _do(REJECTED, reason, find, doctor),
        )
    if outcome == "expired":
        return "expired", f"{named} expired: {reason}.", _do(EXPIRED, reason, find, (AGAIN,))
    return "lost", f"{named} was taken, and is lost: {reason}.", _do(LOST, reason, find, ())


def _do(
    rules: Rules, reason: str, find: Mapping[str, str], otherwise: tuple[str, ...]
) -> tuple[str, ...]:
    found = next((do for text, do in rules if text in reason), None)
    return otherwise if found is None else (found.format(**find),)


def _of_exit(named: str, told: Json, find: Mapping[str, str]) -> End:
    duration = told["duration"]
    took = "" if duration is None else f" after {duration:.2f} s"
    if told["outcome"] == "ok":
        return "ok", f"{named} ended well{took}.", ()
    last = str(told["stderr"]).rstrip().rpartition("\n")[2]
    said = f"; its last line of errors: {last[:200]}" if last else ""
    reason = str(told["reason"])
    reason = "" if reason.startswith("exit code ") and "(" not in reason else f" ({reason})"
    reason = reason if reason != " ()" else ""
    sentence = f"{named} ended with exit code {told['exit_code']}{took}{reason}{said}"
    sentence += "" if sentence.endswith(".") else "."
    shown = f"hwsync status {find['user']} shows its output"
    return "error", sentence, _do(ERROR, f"{last} {reason}", find, (shown,))


def _of_time(named: str, told: Json, reason: str) -> End:
    found, wanted = SHORTER.search(reason), told.get("timeout")
    do = ("run it with a longer --timeout",)
    if found and isinstance(wanted, int | float) and float(found[1]) < wanted:
        do = ("the board's own limit is shorter than what was asked for: max_timeout_s there",)
    return "timeout", f"{named} was ended: {reason}.", do
