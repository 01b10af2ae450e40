"""The built-in analyser: one line that says how a run ended (docs/protocol.md, section 7)."""

from __future__ import annotations

from hwsync.protocol.record import RunReport


def outcome_line(report: RunReport) -> str:
    """Such as ``ok: exit 0 in 0.12 s`` or ``lost: no answer within 40 s``."""
    details: list[str] = []
    if report.exit_code is not None:
        details.append(f"exit {report.exit_code}")
    if report.duration is not None:
        details.append(f"in {report.duration:.2f} s")
    line = " ".join(details)
    if report.reason and not report.reason.startswith("exit code"):
        line = f"{report.reason} ({line})" if line else report.reason
    return f"{report.outcome}: {line}" if line else str(report.outcome)
