"""What a device says of a command: collected, output and response (docs/protocol.md, section 5)."""

from __future__ import annotations

from hwsync.protocol import limits
from hwsync.protocol.jsons import cut, dumps
from hwsync.protocol.output import fitted, keep_again
from hwsync.protocol.record import Account


def encode_collected(id: str, journal: str, boot: int) -> bytes:
    """ "I have it, it has not started"."""
    return dumps({"id": id, "journal": journal, "boot": boot}).encode()


def encode_output(id: str, n: int, stream: str, text: str, at: int, skipped: int = 0) -> bytes:
    """One numbered piece of live output: ``at`` and ``skipped`` are bytes of its stream."""
    piece = {"id": id, "n": n, "stream": stream, "text": text, "at": at}
    return dumps({**piece, "skipped": skipped} if skipped else piece).encode()


def encode_response(
    id: str, journal: str, boot: int, account: Account, limit: int = limits.MAX_MESSAGE
) -> bytes:
    """The device's account of a run in at most ``limit`` bytes, its texts cut to fit.

    In the last resort only the bare outcome stays, which has less than a kilobyte.
    """
    named = {"id": id, "journal": journal, "boot": boot}
    fields = {
        **named,
        "outcome": account.outcome,
        "ran": account.ran,
        "reason": account.reason,
        "response": account.response,
        "stderr": account.stderr,
        "exit_code": account.exit_code,
        "duration": account.duration,
        "started": account.started,
        "start_error": account.start_error,
        "clock_bound": account.clock_bound,
        "truncated": account.truncated,
        "sha256": {"stdout": account.sha256_stdout, "stderr": account.sha256_stderr},
        **({} if account.order is None else {"order": account.order}),
    }

    def shortened(share: int) -> dict[str, object]:
        texts = (("response", account.response), ("stderr", account.stderr))
        less = {name: keep_again(text, share, account.truncated) for name, text in texts}
        return {**less, "truncated": True, "order": None}

    def last() -> dict[str, object]:
        bare = ("outcome", "ran", "exit_code", "duration", "started", "sha256")
        reason = cut(account.reason, limits.STATUS_FIRST // 16)
        return {**named, **{key: fields[key] for key in bare}, "reason": reason, "truncated": True}

    return fitted(fields, limit, limit // 2, shortened, last)
