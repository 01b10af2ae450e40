"""What goes wrong, and when: chosen by the seed's dice, counted when it takes effect.

The law: every fault here can happen to a real lab, and everything is healed by ``heal``. A seed has
only some kinds of faults, so that one does not always hide another.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from random import Random
from typing import TYPE_CHECKING, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import TopicKind
from hwsync.testing.analyst_faults import OF_ANALYSTS, AnalystFaults
from hwsync.testing.boards import Board
from hwsync.testing.broker import MEMORY_S
from hwsync.testing.copies import Copies
from hwsync.testing.microcontroller import Microcontroller
from hwsync.testing.network import DOWN, UP
from hwsync.testing.persons import publish
from hwsync.testing.processes import Process

if TYPE_CHECKING:
    from hwsync.testing.world import World

FAULTS: Final = {
    "kill": "_kill",
    "kill at a point": "_kill_at_a_point",
    "pause": "_pause",
    "switched off again and again": "_switch_off",
    "connection reset": "_cut",
    "partition": "_partition",
    "partition, one way": "_one_way",
    "partition, swizzled": "_swizzle",
    "delay": "_slow",
    "reordering": "_reorder",
    "loss": "_lose",
    "repetition": "_repeat",
    "broker restart": "_restart_broker",
    "wall clock jump": "_jump",
    "clock jump at a restart": "_restart_at_another_time",
    "full disk": "_fill_disk",
    "a commit that lies": "_lie",
    "older database": "_put_back",
    "new disk": "_new_disk",
    "second device": "_second_device",
    "cloned journal": "_clone",
    "orphans": "_tell_orphans",
    "slow flush": "_flush_slowly",
    "another life of lab time": "_boot_meanwhile",
    "late statuses": "_overtake_statuses",
    "a batch and an older database": "_put_back_in_a_lesson",
    "a kill and an older database": "_lose_disk",
    "kill as a turn is due": "_kill_at_a_turn",
    "away for a moment": "_hang_up_meanwhile",
    "an analyst dies": "_kill_an_analyst",
    "an analyst dies at a point": "_kill_an_analyst_at_a_point",
    "an analyst is away": "_an_analyst_is_away",
    "all analysts are away": "_all_analysts_are_away",
}
"""Every kind, and the method that does it."""

WEIGHTS: Final = {
    "kill": 0.5,
    "kill at a point": 3.0,
    "switched off again and again": 0.1,
    "full disk": 0.3,
    "older database": 0.5,
    "new disk": 0.2,
    "second device": 0.3,
    "cloned journal": 0.3,
    "orphans": 0.5,
    "a batch and an older database": 0.1,
    "a kill and an older database": 0.2,
    "kill as a turn is due": 0.5,
    "an analyst dies at a point": 3.0,
    "an analyst is away": 0.3,
    "all analysts are away": 0.2,
}
"""How often, beside the others' 1."""

ORPHANS: Final = "orphans"
OF_STARTS: Final = (
    *("slow flush", "another life of lab time", "late statuses"),
    "away for a moment",
)
LESSON: Final = "a batch and an older database"
DISK: Final = "a kill and an older database"
TURN: Final = "kill as a turn is due"
BY_THEMSELVES: Final = (ORPHANS, LESSON, DISK, TURN, *OF_STARTS, *OF_ANALYSTS)
"""The worlds without are what they were."""
EVERY_S: Final = (0.3, 2.5)  # between two faults, by seed
DAY_S: Final = 86_400.0
YEAR_S: Final = 365 * DAY_S
JUMPS_S: Final = (-3 * DAY_S, -100.0, -1.0, 2.0, 3_600.0, 2 * DAY_S)
OFF_S: Final = 150.0  # so long the coordinator is switched off again and again
LESSON_S: Final = 20.0  # from one to the next, at least
LIVES_S: Final = (8.0, 16.0, 25.0)  # it lives so long each time, or not much longer


class Faults(AnalystFaults):
    """The faults of one world: which, how often and when, by its dice."""

    def __init__(self, world: World, only: Collection[str] | None) -> None:
        super().__init__(world.context)
        self.world = world
        self._copies = Copies(world.coordinator)
        self._focused = only is not None
        dice = self.context.dice
        usual = [name for name in FAULTS if name not in BY_THEMSELVES]
        chosen = [name for name in usual if dice.random() < 0.6] or usual
        # With dice of their own.
        chosen += [ORPHANS] if Random(f"orphans {world.seed}").random() < 0.3 else []
        chosen += [LESSON] if Random(f"{LESSON} {world.seed}").random() < 0.3 else []
        chosen += [DISK] if Random(f"{DISK} {world.seed}").random() < 0.3 else []
        chosen += [TURN] if world.groups and Random(f"{TURN} {world.seed}").random() < 0.5 else []
        own = Random(f"starts {world.seed}")
        chosen += [name for name in OF_STARTS if world.instants and own.random() < 0.5]
        own = Random(f"faults of analysts {world.seed}")
        chosen += [name for name in OF_ANALYSTS if world.analysts and own.random() < 0.6]
        names = chosen if only is None else [name for name in FAULTS if name in only]
        self._kinds = {name: getattr(self, FAULTS[name]) for name in names}
        self._weights = [1.0 if only else WEIGHTS.get(name, 1.0) for name in names]
        self.orphans = ORPHANS in names
        self._told = 0  # of them
        self._mean = EVERY_S[0] + (EVERY_S[1] - EVERY_S[0]) * dice.random()
        self._often_backed_up = 0.3 if only and "older database" in only else 0.1
        self._seconds: list[Board] = []  # devices whose name another one has
        self._lesson_until = 0.0
        self._off_until = 0.0  # until then the coordinator is switched off again and again

    def start(self) -> None:
        """Begin: from now on one fault follows another, until ``heal``."""
        if self._kinds:
            self._again()
        if self.context.habits.again_s is not None:
            self._send_again()

    def _again(self) -> None:
        self.context.schedule.after(2 * self._mean * self.context.dice.random(), self._next)

    def _next(self) -> None:
        if self._over:
            return
        if self.context.dice.random() < self._often_backed_up:
            self._copies.copy()
        else:
            self.context.dice.choices(list(self._kinds.values()), self._weights)[0]()
        self._again()

    def heal(self) -> None:
        """End every fault: the broker is up, cables are whole, disks take all, processes live."""
        self._over = True
        context = self.context
        broker = context.broker
        broker.loss = broker.copies = broker.dups = 0.0
        if not broker.up:
            broker.start(forget_s=0.0)
        for cable in context.cables.values():
            cable.latency, cable.reorders, cable.late_s = 0.001, False, 0.0
            cable.heal()
        for process in self.world.processes:
            process.armed, process.disk_full = None, False
        for device in self.world.devices:
            device.flush_s = 0.0
        self.world.coordinator.lies = False
        self._set_clock()
        for board in self._seconds:
            board.take_away()
        for process in self.world.processes:
            process.start()

    def _set_clock(self) -> None:
        """A clock that was put back by less than a day gives nothing back of what led to nothing.

        So it says the latest time again that it said before (docs/protocol.md, section 4).
        """
        coordinator = self.world.coordinator.coordinator
        wall = self.world.coordinator.wall()
        for record in coordinator.records.values() if coordinator else ():
            if wall < record.idle_at <= wall + limits.IDLE_BACK_S:
                self.world.coordinator.jump += record.idle_at - wall
                wall = record.idle_at

    # -- helpers ------------------------------------------------------------------------------

    def _some(self) -> Process:
        """A process, more often the coordinator."""
        dice = self.context.dice
        if dice.random() < 0.4:
            return self.world.coordinator
        return dice.choice(self.world.devices)

    def _board(self) -> Board | None:
        boards = [one for one in self.world.devices if isinstance(one, Board) and not one.removed]
        return self.context.dice.choice(boards) if boards else None

    # -- processes ----------------------------------------------------------------------------

    def _kill(self) -> None:
        process = self._some()
        if process.alive:
            self.context.fault("kill", process.name)
            process.kill()

    def _kill_at_a_point(self) -> None:
        process = self._some()
        if process.alive:
            rare = 1.0 if self._focused else 4.0
            weights = [rare if "process" in point else 1.0 for point in process.points]
            process.armed = self.context.dice.choices(process.points, weights)[0]

    def _kill_at_a_turn(self) -> None:
        """The coordinator, once somebody of a batch has ended, and another one follows."""
        if self.world.coordinator.alive:
            self.world.coordinator.armed = "as a turn is due"

    def _pause(self) -> None:
        process = self._some()
        if process.alive:
            seconds = self.context.dice.choice((0.5, 3.0, 10.0))
            self.context.fault("pause", process.name, seconds)
            process.pause(seconds)

    def _switch_off(self) -> None:
        """The coordinator, as a room every night; and a board is away meanwhile."""
        if self.context.now < self._off_until:
            return
        self._off_until = self.context.now + OFF_S
        life = self.context.dice.choice(LIVES_S)
        self._switch_off_again(life)
        board = self.context.dice.choice(self.world.devices).name
        self._block(board, UP, DOWN)
        self._heal_later(board, OFF_S, OFF_S)

    def _switch_off_again(self, life: float) -> None:
        self.context.fault("switched off again and again", self.world.coordinator.name)
        self.world.coordinator.kill()
        if self.context.now + life < self._off_until:
            self._later(life, life + 5.0, lambda: self._switch_off_again(life))

    def _jump(self) -> None:
        process = self._some()
        seconds = self.context.dice.choice(JUMPS_S)
        self.context.fault("wall clock jump", process.name, seconds)
        process.jump += seconds

    def _restart_at_another_time(self) -> None:
        """Without a clock chip it begins in the past; a wrong one may say any year."""
        process = self._some()
        if process.alive:
            years = self.context.dice.choice((-30.0, -1.0, 0.0, 0.0, 1.0, 10.0))
            self.context.fault("clock jump at a restart", process.name, years)
            process.kill()
            process.jump = years * YEAR_S
            process.named = f"the boot of {self.context.now:.3f}"

    def _boot_meanwhile(self) -> None:
        """The coordinator's machine boots while a board that waits for a start hears nothing."""
        dice, coordinator = self.context.dice, self.world.coordinator
        boards = [one for one in self.world.devices if isinstance(one, Board) and one.waits]
        if not boards:
            return
        board = dice.choice(boards)
        self.context.fault("another life of lab time", board.name)
        self._block(board.name, DOWN)
        self._heal_later(board.name, 2.0, 6.0)
        seconds = dice.choice((-3.0, -0.7, 0.7, 3.0))

        def boots() -> None:
            coordinator.jump += seconds
            coordinator.named = f"the boot of {self.context.now:.3f}"
            coordinator.kill()

        self._later(0.0, 1.5, boots)

    def _hang_up_meanwhile(self) -> None:
        """A board that is ready for a start is cut off, and is back before another one is ready."""
        dice, boards = self.context.dice, self.world.devices
        ready = [one for one in boards if isinstance(one, Board) and one.waits]
        if not ready:
            return
        board = dice.choice(ready)
        others = [one for one in boards if one not in ready]
        if board.port is None or not board.port.connected or not others:
            return
        self.context.fault("away for a moment", board.name)
        board.port.cut()
        other = dice.choice(others).name
        self._block(other, UP, DOWN)
        self._heal_later(other, 6.0, 12.0)

    # -- network ------------------------------------------------------------------------------

    def _overtake_statuses(self) -> None:
        """Answers to what time it is overtake them."""
        name = self.context.dice.choice(self.world.devices).name
        cable = self.context.cables[name]
        cable.reorders, cable.late_s = True, self.context.dice.choice((0.3, 2.0))
        self.context.fault("late statuses", name, cable.late_s)
        self._later(2.0, 20.0, lambda: self._fast(name))

    def _reorder(self) -> None:
        name = self._cable_of()
        if self._copies.must_remember and name == self.world.coordinator.name:
            return  # what the broker has kept is then heard first
        cable = self.context.cables[name]
        cable.latency, cable.reorders = self.context.dice.choice((0.05, 0.5)), True
        self.context.fault("reordering between topics", name, cable.latency)
        self._later(2.0, 20.0, lambda: self._fast(name))

    # -- broker -------------------------------------------------------------------------------

    def _restart_broker(self) -> None:
        context, broker = self.context, self.context.broker
        if not broker.up:
            return
        forgets = context.dice.choice(("nothing", "the last second", "everything"))
        if not context.habits.remembers:
            forgets = "everything"
        elif self._copies.must_remember:
            forgets = "nothing"
        context.fault(f"broker restart, forgets {forgets}", "broker")
        broker.stop()
        second = MEMORY_S * context.dice.random() if forgets == "the last second" else 0.0
        killed_at = context.now

        def start() -> None:
            if not broker.up:
                forget_s = context.now - killed_at + second if second else 0.0
                broker.start(forget_s=forget_s, everything=forgets == "everything")

        context.schedule.after(0.1 + 5.0 * context.dice.random(), start)

    def _send_again(self) -> None:
        """NATS sends again what is not acknowledged for long, while connected."""
        habits, context = self.context.habits, self.context
        assert habits.again_s is not None
        for session in context.broker.sessions.values():
            old = [one for one in session.under_way.values() if one.at < context.now - 5.0]
            if old and context.broker.send_again(session):
                context.fault("sent again while connected", "broker", session.client_id)
        context.schedule.after(habits.again_s, self._send_again)

    # -- disks --------------------------------------------------------------------------------

    def _fill_disk(self) -> None:
        process = self._some()
        if isinstance(process, Microcontroller):
            return
        process.disk_full = True
        self._later(1.0, 8.0, lambda: setattr(process, "disk_full", False))

    def _flush_slowly(self) -> None:
        device = self.context.dice.choice(self.world.devices)
        device.flush_s = self.context.dice.choice((0.2, 1.0, 3.0))
        self._later(5.0, 20.0, lambda: setattr(device, "flush_s", 0.0))

    def _lie(self) -> None:
        self.world.coordinator.lies = True

    def _put_back(self) -> None:
        self._copies.put_back()

    def _lose_disk(self) -> None:
        """The coordinator's disk dies when all was said, and the backup does not know the message.

        The broker sends that again to whoever comes back.
        """
        coordinator = self.world.coordinator
        if coordinator.alive and coordinator.armed is None:
            self._copies.copy()
            coordinator.armed = "before an acknowledgement"
            coordinator.once_killed = lambda: self._copies.put_back("restored")

    def _put_back_in_a_lesson(self) -> None:
        """A batch that a backup has, or has not, is cancelled, or asked again after a restore."""
        if not self.world.teachers or self.context.now < self._lesson_until:
            return
        self._lesson_until = self.context.now + LESSON_S
        known = self.context.dice.random() < 0.5
        if not known:
            self._copies.copy()
        lesson = self.world.teachers[0].lesson(seconds=1.5 if known else 0.1)
        self._later(3.0, 4.0, lambda: self._copies.put_back("restored"))
        if known:
            self._later(0.7, 0.7, self._copies.copy)
            self._later(1.2, 1.2, lesson.cancel)
        else:
            self._later(11.0, 11.0, lesson.ask)
            self._later(11.1, 11.1, lesson.cancel)

    def _new_disk(self) -> None:
        board = self._board()
        if board is not None and board.alive:
            self.context.fault("new disk, device", board.name)
            board.new_disk()

    def _second_device(self) -> None:
        board = self._board()
        if board is not None and len(self._seconds) < 2:
            self._add(board.user, "second device of one name")

    def _clone(self) -> None:
        board = self._board()
        if board is None or len(self._seconds) >= 2:
            return
        if not board.folder.exists():
            return
        board.kill()
        name = f"second-{len(self._seconds) + 1}-{board.user}"
        shutil.copytree(board.folder, self.context.folder / name)
        self._add(board.user, "cloned journal")

    def _tell_orphans(self) -> None:
        """Somebody tells results of commands that nobody knows, and more of them than are kept."""
        user = self.context.dice.choice(self.world.devices).user
        for _ in range(self.context.dice.randint(5, 40)):
            self._told += 1
            fields = {"id": f"o{self._told}", "journal": "nobody", "boot": 1}
            payload = dumps(fields | {"outcome": "interrupted"}).encode()
            publish(self.context, "nobody", self.world.coordinator.topics.of(user,
            TopicKind.RESPONSE),
                    payload)  # fmt: skip
        self.context.fault("orphans", user)

    def _add(self, user: str, kind: str) -> None:
        name = f"second-{len(self._seconds) + 1}-{user}"
        second = Board(self.context, name, user, f"machine-of-{name}")
        self.context.fault(kind, name)
        self._seconds.append(second)
        self.world.devices.append(second)
        second.start()
