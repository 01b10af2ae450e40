"""What a device knows of lab time: an estimate, and by how much it may be wrong.

The law: nobody's word is averaged. Each sample says what the offset cannot be, whatever the delays
were; offset and drift are what all samples of ten minutes leave over, and the bound is half of
that. Whole microseconds and parts per billion, rounded so that a bound is never too small. Written
for MicroPython too: no floats, no imports from outside (docs/protocol.md, section 6).

A sample: asked at ``t0`` and heard at ``t3`` by the device's raw clock, read at ``t1`` and answered
at ``t2`` in lab time. At ``t0`` lab time was ``t1`` at most, at ``t3`` it was ``t2`` at least. So
lab time less raw time, the *offset*, is at most ``t1 - t0`` at ``t0``, and at least ``t2 - t3`` at
``t3``. Between two moments it changes by the drift: one that is constant but for ``WANDER_PPB``,
since a crystal's changes with its temperature. A clock that is slewed may have any drift at any
moment: there nothing but the age of a sample counts.
"""

from hwsync.protocol.device.values import Value

KEPT_US = 600_000_000  # of samples: as long as a drift may be taken for constant
MOST = 32  # of each kind that are kept; those that say the most
DRIFT_PPB = 200_000  # two crystals are not further apart
WANDER_PPB = 2_000  # and not further from their mean within ten minutes
SLEWED_PPB = 1_000_000  # as fast as a clock is slewed
SUSPENDED_US = 5_000  # more than two clocks can differ that are read one after the other
PPB = 1_000_000_000
ROUNDED_US = 2  # what the conversions of an estimate round away


def _up(number: int, ppb: int) -> int:
    return -(-number * ppb // PPB)


def _down(number: int, ppb: int) -> int:
    return number * ppb // PPB


class Estimate(Value):
    """Lab time is raw time and ``offset``, give or take ``bound``, at the raw time ``at``.

    From there on the offset changes by ``drift``, give or take ``grows`` (parts per billion): so
    whoever has these numbers converts at any later moment, in another process too.
    """

    fields = ("at", "offset", "bound", "drift", "grows", "life")

    def __init__(self, at: int, offset: int, bound: int, drift: int, grows: int, life: str) -> None:
        self.at = at
        self.offset = offset
        self.bound = bound
        self.drift = drift
        self.grows = grows
        self.life = life

    def lab_us(self, raw: int) -> int:
        """Lab time at a reading of the raw clock."""
        return raw + self.offset + _down(raw - self.at, self.drift)

    def raw_us(self, lab: int) -> int:
        """What the raw clock shows at a moment of lab time."""
        since = lab - self.at - self.offset
        return self.at + since * PPB // (PPB + self.drift)

    def bound_at(self, raw: int) -> int:
        """By how much ``lab_us`` of that reading may be wrong; ``raw_us``, likewise."""
        return self.bound + _up(abs(raw - self.at), self.grows) + ROUNDED_US


def hull(points: "list[tuple[int, int]]") -> "list[tuple[int, int]]":
    """Of points in the order of their first number, the corners that bound them from below."""
    found: list[tuple[int, int]] = []
    for point in points:
        while found and found[-1][0] == point[0] and found[-1][1] >= point[1]:
            found.pop()
        if found and found[-1][0] == point[0]:
            continue
        while len(found) > 1:
            (x0, y0), (x1, y1) = found[-2], found[-1]
            if (x1 - x0) * (point[1] - y0) > (y1 - y0) * (point[0] - x0):
                break
            found.pop()
        found.append(point)
    return found


def _insert(points: "list[tuple[int, int]]", point: "tuple[int, int]") -> None:
    """In its place; of too many, the oldest that says nothing goes."""
    place = len(points)
    while place and points[place - 1][0] > point[0]:
        place -= 1
    points.insert(place, point)
    if len(points) > MOST:
        corners = hull(points)
        for number, one in enumerate(points):
            if one not in corners:
                del points[number]
                return
        del points[0]


class Estimator:
    """What the samples of one life leave over.

    ``slewed``: the raw clock is not raw. ``samples``: how many were taken since it began anew;
    ``life``: of lab time, empty before the first; ``asleep``: as of the newest (``add``).
    """

    def __init__(self, slewed: bool = False) -> None:
        self._limit = 0 if slewed else DRIFT_PPB
        self._wander = SLEWED_PPB if slewed else WANDER_PPB
        self.life = ""
        self.asleep = 0
        self._begin()

    def _begin(self) -> None:
        self.samples = 0
        self.newest = 0  # the last ``t3``
        self._uppers: list[tuple[int, int]] = []  # raw time, the offset at most
        self._lowers: list[tuple[int, int]] = []  # raw time, the offset at least, negated
        self._drifts = (-self._limit, self._limit)

    def add(self, t0: int, t1: int, t2: int, t3: int, life: str, asleep: int) -> bool:
        """Take a sample; False: it contradicts itself, and nothing has changed.

        ``asleep``: microseconds that this boot was suspended until ``t3``. Samples of another life,
        or from before a suspend, are thrown away; so are all others where this one and they leave
        nothing over.
        """
        upper, lower = (t0, t1 - t0 + 1), (t3, t3 - t2 + 1)
        if t3 < t0 or t2 < t1 or upper[1] + lower[1] + _up(t3 - t0, self._fastest) < 0:
            return False
        if life != self.life or self._was_suspended(asleep):
            self._begin()
        self.life, self.asleep = life, asleep
        self._take(upper, lower)
        drifts = self._possible_drifts()
        if drifts is None:
            self._begin()
            self._take(upper, lower)
            drifts = self._possible_drifts() or self._drifts
        self._drifts = drifts
        return True

    @property
    def _fastest(self) -> int:
        return self._limit + self._wander

    def _was_suspended(self, asleep: int) -> bool:
        return abs(asleep - self.asleep) > SUSPENDED_US

    def _take(self, upper: "tuple[int, int]", lower: "tuple[int, int]") -> None:
        self.samples += 1
        self.newest = max(self.newest, lower[0]) if self.samples > 1 else lower[0]
        _insert(self._uppers, upper)
        _insert(self._lowers, lower)
        self._forget(self.newest)

    def _forget(self, now: int) -> bool:
        """Whether something was too old, and is gone."""
        gone = False
        for points in (self._uppers, self._lowers):
            while points and points[0][0] < now - KEPT_US:
                del points[0]
                gone = True
        return gone

    def _possible_drifts(self) -> "tuple[int, int] | None":
        """The least and the greatest that the samples admit; None: there is none.

        An upper limit ``u`` of the offset at ``t`` and a lower one ``l`` at ``s`` say that the
        drift times ``t - s`` is at most ``u - l``, and what it wanders meanwhile.
        """
        low, high = -self._limit, self._limit
        lowers = hull(self._lowers)
        for t, u in hull(self._uppers):
            for s, negated in lowers:
                apart = t - s
                room = u + negated + _up(abs(apart), self._wander)
                if apart > 0:
                    high = min(high, -(-room * PPB // apart))
                elif apart < 0:
                    low = max(low, -room * PPB // -apart)
                elif room < 0:
                    return None
        return (low, high) if low <= high else None

    def estimate(self, raw: int, asleep: int) -> "Estimate | None":
        """At a reading of the raw clock, not before the newest sample; None: nothing is known.

        ``asleep``: as of ``add``, now.
        """
        if not self.samples or self._was_suspended(asleep):
            return None
        raw = max(raw, self.newest)
        if self._forget(raw) and self._uppers and self._lowers:
            self._drifts = self._possible_drifts() or self._drifts
        if not self._uppers or not self._lowers:
            return None
        low, high = self._drifts
        # Later than all samples a greater drift means a greater offset, by each of them.
        most = min([u + _up(raw - t, high + self._wander) for t, u in self._uppers])
        least = max([_down(raw - s, low - self._wander) - n for s, n in self._lowers])
        offset, drift = (most + least) // 2, (low + high) // 2
        bound = max(most - offset, offset - least)
        return Estimate(raw, offset, bound, drift, high - drift + self._wander, self.life)
