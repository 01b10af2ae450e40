"""The built-in analyser: one line that says how a run ended (docs/protocol.md, section 7)."""

from __future__ import annotations

from hwsync.protocol.record import Account


def outcome_line(account: Account) -> str:
    """Such as ``ok: exit 0 in 0.12 s`` or ``lost: no answer within 40 s``."""
    details: list[str] = []
    if account.exit_code is not None:
        details.append(f"exit {account.exit_code}")
    if account.duration is not None:
        details.append(f"in {account.duration:.2f} s")
    line = " ".join(details)
    if account.reason and not account.reason.startswith("exit code"):
        line = f"{account.reason} ({line})" if line else account.reason
    return f"{account.outcome}: {line}" if line else str(account.outcome)
