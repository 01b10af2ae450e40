"""Who asks all boards of a soak at once, in batches, and cancels some.

The law: what is asked of the group is noted as if each member had been asked, so that the checker's
promises about commands hold for them too. A request that no board takes is given up: the boards
were busy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hwsync.protocol.groups import SIGN
from hwsync.protocol.topics import ITSELF, TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.request import encode_request
from hwsync.testing.history import Answered, Asked, Json, SaidOfBatch
from tests.support.soak_asking import Ask, Asking
from tests.support.soak_lab import GROUP
from tests.support.soak_people import LAST_TIMES, SLEEP_S, TIMES
from tests.support.soak_programs import Programs

KINDS: Final = {"together": 6, "at": 2, "parallel": 2, "queued": 1, "plain": 1}  # so often
FREE_S: Final = 4.0  # at most, until the boards are free
TAKEN_S: Final = 4.0  # after that something else is asked, although it was not taken
NEXT_S: Final = (1.0, 4.0)  # from a batch that was taken to the next
GIVEN_UP_S: Final = (0.2, 1.0)  # and from a request that nobody took
CANCEL_SHARE, STOP_SHARE, ABORT_SHARE, ALL_SHARE = 0.2, 0.04, 0.2, 0.3
CHANGE_S: Final = (0.0, 4.0)  # from the request to its cancel, or to the stop of all
HELD_S: Final = 20.0  # by then an instant is over; lab time may have been put back before it
AT_S: Final = (1.5, 3.0)  # an instant is so far ahead
WAIT_S: Final = (0.5, 3.0)
LEAD_S: Final = (0.3, 1.0)
WITHIN_S: Final = (0.1, 1.0)
LAST_WITHIN_S: Final = 5.0  # nothing hurries the last ones


class Teacher(Asking):
    """One batch after another of the group ``GROUP``, whose boards are ``members``.

    ``quiet``: set while it waits until ``free()``, since a busy board takes no start.
    """

    most, at_once = 3, 3

    def __init__(
        self, members: Sequence[str], url: str, programs: Programs, seed: int,
        quiet: threading.Event, free: Callable[[], bool],
    ) -> None:  # fmt: skip
        super().__init__(f"{SIGN}{GROUP}", url, programs, seed)
        self.members = tuple(members)
        self.keys: dict[str, dict[str, Any]] = {}  # by id, of each that was asked
        self.given_up = 0
        self._quiet, self._free = quiet, free
        self._kind = ""  # of the batch for which it waits for the boards
        self._since = 0.0
        self._lab: tuple[float, float] | None = None  # monotonic, lab time; asked for since
        self._newest = (-1, -1)
        self._stop_at: float | None = None

    def subscriptions(self) -> Sequence[str]:
        return [*super().subscriptions(), self.topics.health]

    @property
    def starts(self) -> dict[str, dict[str, Any]]:
        """The ``start`` of each batch that has one, by its id."""
        return {id: keys["start"] for id, keys in dict(self.keys).items() if "start" in keys}

    # -- what it asks -------------------------------------------------------------------------

    def ask(self, now: float) -> None:
        if not self._kind:
            chosen = self.dice.choices(list(KINDS), list(KINDS.values()))[0]
            # The first one's end is worth most: a short soak has few.
            self._kind, self._since, self._lab = chosen if self.asked else "together", now, None
            if self._kind == "at":
                self.publish(self.topics.of(ITSELF, TopicKind.QUERY), b"")
            if self._kind != "queued":
                self._quiet.set()
        waits_for_time = self._kind == "at" and self._lab is None
        free = self._kind == "queued" or (self._free() and not self.open)
        if now < self._since + FREE_S and (waits_for_time or not free):
            return
        self._begin("together" if waits_for_time else self._kind, now)
        self._kind, self.next = "", now + TAKEN_S

    def _begin(self, kind: str, now: float) -> None:
        dice = self.dice
        self.asked += 1
        id = f"{GROUP}-{self.asked}"
        keys: dict[str, Any] = {
            name: round(dice.uniform(*limits), 2) for name, limits in TIMES.items()
        }
        keys |= self._start(kind, now)
        if kind == "parallel":
            keys["parallel"] = 1
        if kind == "queued":
            keys["queue"] = True
        if dice.random() < ABORT_SHARE:
            keys["abort"] = dice.choice((0.0, 0.5))
        ask = self._add(id, keys)
        if dice.random() < CANCEL_SHARE:
            ask.change_at = now + dice.uniform(*CHANGE_S)
        elif "start" in keys:
            ask.change_at = now + HELD_S
        if dice.random() < STOP_SHARE:
            self._stop_at = now + dice.uniform(*CHANGE_S)

    def _start(self, kind: str, now: float) -> dict[str, Any]:
        dice = self.dice
        within = round(dice.uniform(*WITHIN_S), 3)
        if kind == "at" and self._lab is not None:
            heard, lab = self._lab
            at = round(lab + now - heard + dice.uniform(*AT_S), 3)
            return {"start": {"at": at, "within": within}}
        if kind != "together":
            return {}
        return {
            "start": {
                "together": True, "within": within, "wait": round(dice.uniform(*WAIT_S), 2),
                "lead": round(dice.uniform(*LEAD_S), 2),
                "need": len(self.members) if dice.random() < ALL_SHARE else 1,
            }
        }  # fmt: skip

    def ask_together(self, tag: str, *, wait: float, need: int) -> str:
        """One more start, of a lab at rest; its id."""
        id = f"{GROUP}-{tag}"
        start = {"together": True, "wait": wait, "lead": 0.5, "within": LAST_WITHIN_S}
        self._add(id, {**LAST_TIMES, "start": {**start, "need": need}})
        return id

    def _add(self, id: str, keys: dict[str, Any]) -> Ask:
        program = self.programs.make(id, self.dice.uniform(*SLEEP_S))
        self.keys[id] = keys
        self.open[id] = ask = Ask(program, encode_request(program, id=id, **keys))
        return ask

    def repeat(self, now: float) -> None:
        super().repeat(now)
        if not self._kind:
            self._quiet.clear()  # what is asked from now on comes behind its request
        if self._stop_at is not None and now >= self._stop_at and not self.finishing.is_set():
            self._stop_at = None
            for user in self.members:
                self.history.append(Asked(now, self.name, user, "reset", None, group=GROUP))
            self.publish(self.topics.of(self.user, TopicKind.RESET), b"")

    def change_text(self, kind: TopicKind, id: str) -> bytes:
        return encode_id(id)

    def note(self, at: float, kind: TopicKind, id: str, program: str) -> None:
        keys = self.keys[id] if kind is TopicKind.REQUEST else {}
        start = keys.get("start")
        for user in self.members:
            self.history.append(
                Asked(
                    *(at, self.name, user, str(kind), id, program), start=start, group=GROUP,
                    batch=self.members if start else (), parallel=keys.get("parallel"),
                )
            )  # fmt: skip

    # -- what it hears ------------------------------------------------------------------------

    def recorded(self, id: str, commands: Mapping[tuple[str, str], Json]) -> str:
        known = {user: commands.get((user, id)) for user in self.members}
        words = [
            f"{user} {one['outcome']}, state {one['state']}" if one else f"{user} unknown"
            for user, one in known.items()
        ]
        return " and ".join(words)

    def hear(self, at: float, user: str, kind: TopicKind, fields: dict[str, Any]) -> None:
        if kind is TopicKind.HEALTH and "lab_time" in fields:
            self._lab = at, fields["lab_time"]
        id = str(fields.get("id"))
        if user != self.user or id not in self.keys:
            return
        if kind is TopicKind.ERROR:
            ask = self.open.get(id)
            if ask is not None and not ask.acknowledged and fields["error"] != "degraded":
                self.given_up += 1
                del self.open[id]
                self.next = at + self.dice.uniform(*GIVEN_UP_S)
        elif kind in (TopicKind.STATUS, TopicKind.RESULT):
            order = (fields["epoch"], fields["seq"])
            kept = kind is TopicKind.STATUS
            if kept and order < self._newest:
                return  # what a killed broker had kept
            self._newest = max(order, self._newest)
            self._told(at, id, fields, kept=kept)

    def _told(self, at: float, id: str, fields: dict[str, Any], *, kept: bool) -> None:
        self.history.append(SaidOfBatch(at, GROUP, fields, kept))
        for user, part in fields["members"].items():
            if not part["refused"]:
                self.history.append(Answered(at, self.name, user, id, part))
        if id in self.open and not self.open[id].acknowledged:
            self.next = at + self.dice.uniform(*NEXT_S)
        ask = self.acknowledge(id, at)
        if ask is None and fields["state"] == "open":
            # It was given up, and a second copy of it was taken.
            self.open[id] = Ask("", b"", change_at=at + HELD_S, acknowledged=True)
        if fields["state"] == "ended":
            counts = fields["counts"]
            self.ended[id] = f"{counts.get('ok', 0)} ok"
            if ask is not None:
                del self.open[id]

    def finish(self) -> None:
        super().finish()
        self._quiet.clear()
