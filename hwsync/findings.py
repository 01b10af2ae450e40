"""What a check of this machine or of a lab finds: one line each, and the cure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CLOCK_SET: Final = 1_704_067_200.0  # 2024-01-01: hwsync is younger, so a clock before was never set
DAY_S: Final = 86_400.0
LASTS_S: Final = 14 * DAY_S  # a certificate that ends sooner deserves a warning


class Result(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"  # it works, but not as it should
    ERROR = "error"  # programs will not run, or will be lost


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``cure``: what to do; where all is well, the next line to type, or nothing."""

    check: str
    result: Result
    found: str
    cure: str = ""


def ok(check: str, found: str, cure: str = "") -> Finding:
    """One line that says that all is well; ``cure``: the next line to type."""
    return Finding(check, Result.OK, found, cure)


def warning(check: str, found: str, cure: str) -> Finding:
    return Finding(check, Result.WARNING, found, cure)


def error(check: str, found: str, cure: str) -> Finding:
    return Finding(check, Result.ERROR, found, cure)


def certificate(version: str, expires: float | None, now: float) -> Finding:
    """What protects the connection to the broker; ``expires``, ``now``: Unix seconds."""
    if expires is None:
        return ok("tls", version)
    days = int((expires - now) / DAY_S)
    found = f"{version}, the broker's certificate lasts {days} more days"
    if expires - now < LASTS_S:
        return warning("tls", found, "renew it at the broker, before nobody can connect")
    return ok("tls", found)


def dots(arrives: bool | None, *names: str) -> Finding:
    """Whether the broker passes on a topic with a dot; ``names``: what stands in ours."""
    if arrives:
        return ok("topics", "a dot in a name arrives as it is")
    if arrives is None:
        return ok("topics", "whether a dot in a name arrives cannot be tried with this account")
    found = "the broker passes on no message whose topic has a dot"
    cure = "give no board, no id and no root a dot there, or take another broker: mosquitto"
    if dotted := [name for name in names if "." in name]:
        return error("topics", f"{found}: nothing of {' and '.join(dotted)} arrives", cure)
    return warning("topics", found, cure)
