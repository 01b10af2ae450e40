"""When a device asks what time it is, and which answers it waits for (docs/protocol.md, section 6).

The law: an answer counts once, for a question that is outstanding: ``n`` and ``t0`` are its own.
Often where a start is near, seldom else; again soon where a whole burst was not answered. Moments
are whole microseconds of the raw clock. Written for MicroPython too.
"""

BURST = 8  # questions at a connect, and when a start is announced
GAP_US = 20_000  # between two of them
SPREAD_GAP_US = 125_000  # likewise, where many boards ask at the same time: a second in all
SELDOM_US = 60_000_000  # between two questions, where nothing is near
SILENT_US = 1_000_000  # after a burst that nobody answered; then twice as long each time
OFTEN_US = 15_000_000  # within ``NEAR_US`` of a start
NEAR_US = 600_000_000
LAST_US = 3_000_000  # within ``COUNTDOWN_US`` before an instant
COUNTDOWN_US = 20_000_000
QUIET_US = 100_000  # before an instant: who asks then disturbs those who wait for it
AFTER_US = 20_000  # past an instant: what was not asked before it
FRESH_US = 10_000_000  # a start is released only where the newest answer was asked for since
OUTSTANDING = 32  # questions; of more the oldest is given up
PATIENCE_US = 10_000_000  # for an answer


class Asking:
    """``newest``: when the newest question that was answered was asked, None: none was.

    ``seen``: (epoch, seq) of the user's record, as that answer said it, or None.
    """

    def __init__(self) -> None:
        self.newest: int | None = None
        self.seen: tuple[int, int] | None = None
        self.next: int | None = None  # when to ask; None: there is nobody to ask
        self._outstanding: list[tuple[int, int, int]] = []  # n, t0, asleep then
        self._left = 0  # of a burst
        self._gap = GAP_US
        self._last = 0  # when it was last asked
        self._heard = False  # whether anything was answered since the burst began
        self._silent = 0  # questions since a burst that nobody answered
        self._near_until: int | None = None
        self._instant: int | None = None

    def connected(self, now: int) -> None:
        """The connection stands, and answers will be heard."""
        self._outstanding = []
        self._burst(now, GAP_US)

    def disconnected(self) -> None:
        """Nobody can be asked, and nothing that was asked is answered."""
        self._outstanding = []
        self.next = None

    def announced(self, now: int, together: bool) -> None:
        """A start is to come; ``together``: many boards hear so at the same time."""
        self._near(now + NEAR_US)
        if self.next is not None:
            self._burst(now, SPREAD_GAP_US if together else GAP_US)

    def awaits(self, instant: "int | None", now: int) -> None:
        """The instant of a start is known, on the raw clock; None: there is none any more."""
        self._instant = instant
        if instant is not None:
            self._near(instant + NEAR_US)
        if self.next is not None and not self._left:
            due = now + self._pause(now)
            if instant is not None and 0 < instant - now <= COUNTDOWN_US:
                # Not three seconds from now: it may come before, and nothing be fresh then.
                due = max(now, self._last + LAST_US)
            self.next = min(self.next, due)
        if self.next is not None:
            self.next = self._out_of_the_way(self.next)

    def is_due(self, now: int) -> bool:
        """Whether to ask now."""
        return self.next is not None and self.next <= now

    def asked(self, n: int, now: int, asleep: int) -> None:
        """A question went, at ``now``; ``asleep``: microseconds of suspend until then."""
        self._outstanding = [
            one for one in self._outstanding[1 - OUTSTANDING :] if now - one[1] < PATIENCE_US
        ]
        self._outstanding.append((n, now, asleep))
        self._last = now
        if self._left:
            self._left -= 1
            self._silent = 0 if self._left or self._heard else 1
        elif self._silent:
            self._silent += 1
        self.next = self._out_of_the_way(now + (self._gap if self._left else self._pause(now)))

    @property
    def in_burst(self) -> bool:
        """Whether more questions follow at once."""
        return self.next is not None and self._left > 0

    def answered(self, n: int, t0: int, seen: "tuple[int, int] | None") -> "int | None":
        """An answer came: how long this boot had been suspended when it was asked for.

        None: nobody waits for it.
        """
        for number, (its, asked, asleep) in enumerate(self._outstanding):
            if (its, asked) == (n, t0):
                del self._outstanding[number]
                if self._silent:  # who was away is there
                    self._burst(t0, self._gap)
                self._heard = True
                if self.newest is None or t0 > self.newest:
                    self.newest, self.seen = t0, seen
                return asleep
        return None

    def _burst(self, now: int, gap: int) -> None:
        self._left, self._gap, self.next = BURST, gap, now
        self._heard, self._silent = False, 0

    def _near(self, until: int) -> None:
        if self._near_until is None or until > self._near_until:
            self._near_until = until

    def _out_of_the_way(self, due: int) -> int:
        """Later where it would disturb, and what is known is fresh without it."""
        instant, newest = self._instant, self.newest
        if instant is None or newest is None or instant - newest > FRESH_US:
            return due
        return instant + AFTER_US if 0 <= instant - due < QUIET_US else due

    def _pause(self, now: int) -> int:
        pause = self._planned(now)
        return min(SILENT_US << min(self._silent - 1, 10), pause) if self._silent else pause

    def _planned(self, now: int) -> int:
        if self._instant is not None and now < self._instant:
            left = self._instant - now
            if left <= COUNTDOWN_US:
                return LAST_US
            if left <= NEAR_US:
                return min(OFTEN_US, left - COUNTDOWN_US)
            return min(SELDOM_US, left - NEAR_US)
        if self._near_until is not None and now < self._near_until:
            return OFTEN_US
        return SELDOM_US
