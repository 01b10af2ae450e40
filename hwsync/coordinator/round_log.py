"""What the coordinator's log says of a round: each change, and of each user a few refusals.

The law: a sender that is refused again and again does not fill the log. What is left out is in the
database up to its allowance, in the health's figures, and its number is said.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from hwsync.coordinator.clocks import APART_S, CURE, shown
from hwsync.coordinator.deciding import RoundDecision

log = logging.getLogger("hwsync.coordinator")

ALIKE: Final = 20  # changes that one message for a group made, each with a line of its own
REFUSALS: Final = 20  # lines a minute, a board; unknown boards and names of none share them
MINUTE_S: Final = 60.0
BEYOND: Final = 100  # users of whom it is said that they saw what nobody could have counted to
UNHEARD: Final = (
    "a status of %s was seen with the number (%d, %d), which no coordinator can have counted to: "
    "it was forged. Whoever has seen it may not hear this coordinator: restart the device "
    "(systemctl restart hwsync-device@BOARD), and look who may publish statuses and heartbeats"
)


@dataclass(slots=True)
class RoundLog:
    """One coordinator's. Moments are seconds on the monotonic clock."""

    _began: float | None = None  # the minute of these figures
    _refusals: Counter[str] = field(default_factory=Counter)
    _beyond: set[str] = field(default_factory=set)  # users of whom that was said

    def write(self, decided: RoundDecision, now: float) -> None:
        """What was saved; last, since nobody waits for it."""
        self._count_anew(now)
        _report_epoch(decided)
        alike = Counter[tuple[str, int, int]]()
        for record, entry, _ in decided.changes.log:
            change = (str(entry.verb), int(entry.before), int(entry.after))
            alike[change] += entry.brief
            if entry.brief and alike[change] > ALIKE:
                continue
            log.info(
                "%s: %s to %s%s",
                entry.verb,
                int(entry.before),
                int(entry.after),
                f" (late; {entry.note})" if entry.late else "",
                extra={"user": record.user, "id": entry.id},
            )
        for (verb, before, after), number in alike.items():
            if number > ALIKE:
                log.info("%s: %s to %s, of %d boards more", verb, before, after, number - ALIKE)
        for user, order in decided.beyond.items():
            if user not in self._beyond and len(self._beyond) < BEYOND:
                self._beyond.add(user)
                log.error(UNHEARD, user, *order, extra={"user": user})
        for row in decided.changes.refused:
            self._refusals[row.allowance] += 1
            if self._refusals[row.allowance] > REFUSALS:
                continue
            log.warning(
                "refused (%s) on %s: %s",
                row.refusal.code,
                row.message.topic[:120],
                row.refusal.message,
                extra={"user": row.user, "id": row.refusal.id},
            )

    def _count_anew(self, now: float) -> None:
        """A minute is over: what it left out is said."""
        if self._began is not None and now - self._began < MINUTE_S:
            return
        for user, count in self._refusals.items():
            if count > REFUSALS:
                log.warning(
                    "%d more messages%s were refused since, which are not said here",
                    count - REFUSALS,
                    f" for {user}" if user else "",
                    extra={"user": user},
                )
        self._began = now
        self._refusals.clear()


def _report_epoch(decided: RoundDecision) -> None:
    """Somebody saw more than the database knew: an older one was put back."""
    if decided.newer is None or decided.changes.epoch is None:
        return
    text = "the database is older than what was published: epoch %d begins, what was open is lost"
    if decided.newer > decided.moment.wall + APART_S:
        text += f"; or this machine's clock is behind, it says {shown(decided.moment.wall)}: {CURE}"
    log.error(text, decided.changes.epoch[0])
