"""A whole lab in one thread, driven by one seed: the real coordinator and devices in a false world.

    report = World(seed=1, steps=3_000, folder=path).run()
    assert not report.violations

The law: first everything that can go wrong does, as the seed says; then every fault is healed and
nothing new is asked, and all of it must come to rest within ``HEALED_S``; then each device must run
one more program. Nothing here decides what is right: that does the checker.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from hwsync.protocol.batch import group_key, list_key
from hwsync.protocol.errors import NotFound
from hwsync.protocol.groups import Groups
from hwsync.protocol.record import Analyser, State
from hwsync.protocol.rules import Allowance, Rules
from hwsync.protocol.topics import TopicKind
from hwsync.store.checking import check as check_database
from hwsync.store.reader import Reader
from hwsync.testing.analysis_promises import check_judged
from hwsync.testing.analysts import Analyst, Regrader
from hwsync.testing.boards import Board
from hwsync.testing.broker import BROKERS, Habits
from hwsync.testing.checker import FinalState, check
from hwsync.testing.conductors import Conductor
from hwsync.testing.context import Context
from hwsync.testing.coordinators import CoordinatorProcess
from hwsync.testing.devices import Device
from hwsync.testing.faults import Faults
from hwsync.testing.history import Asked, Began, Copied, Json, Violation
from hwsync.testing.meddlers import Meddler
from hwsync.testing.microcontroller import Microcontroller
from hwsync.testing.operators import Numbers, Operator
from hwsync.testing.persons import Hand, Person
from hwsync.testing.processes import Process
from hwsync.testing.programs import output
from hwsync.testing.teachers import Teacher

HEALED_S: Final = 400.0  # in which everything ends: backoff, settle, limits, analysis within
PROBE_S: Final = 240.0  # for one more program on each device
LITTLE: Final = 16_384  # bytes of what leads to nothing, where somebody tells orphans
SETTLE_S: Final = 5.0
FILES_SHARE: Final = 0.34  # of the worlds in which nobody says whether there are files
DROP_S: Final = 10.0  # between two times that texts and files are dropped, on average
ANALYSIS_WITHIN_S: Final = 30.0
ANALYSTS_SHARE: Final = 0.3  # of the worlds in which nobody says whether there are analysts
NAMES: Final = ("check", "style", "nobody-s")  # of analysers; nobody offers the last one
WITHIN_S: Final = (30.0, 150.0, 250.0)  # for an analysis, where there are analysts
TAKEN_S: Final = 60.0  # without a message that the broker hangs up on: longer than any backoff
LARGEST: Final = (6_000, 12_000, 30_000)  # bytes that a broker with a limit takes
LOOK_S: Final = 5.0  # between two looks whether all is at rest


@dataclass(frozen=True, slots=True)
class Report:
    """What one world came to; no ``violations``: it kept every promise.

    ``trace``: what happened, one line each. The same seed, steps and options give the same trace.
    """

    seed: int
    broker: str
    steps: int
    seconds: float  # of the world's time
    faults: Counter[str]
    violations: list[Violation]
    trace: list[str] = field(repr=False)
    commands: int = 0
    ran: Counter[str] = field(default_factory=Counter)
    judged: int = 0  # of them, by an analyser


class World:
    """One lab, for one ``run``. ``folder`` is for its files, and empty.

    ``steps``: of the time of faults; more follow until all is at rest. ``habits``: the broker's;
    ``faults``: the only kinds (``FAULTS``). None: as the seed says. ``largest``: its broker has a
    limit of what it takes; ``instants``: people have boards begin at instants, and nobody else
    asks for anything; ``files``: files go with programs and come back, and old ones are dropped;
    ``analysts``: there are some, and programs that ask for their analysers.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        steps: int = 3_000,
        habits: Habits | None = None,
        faults: Collection[str] | None = None,
        largest: bool = False,
        instants: bool | None = None,
        files: bool | None = None,
        analysts: bool | None = None,
    ) -> None:
        dice = Random(seed)
        self.seed, self.steps = seed, steps
        self._healed = False
        chosen = habits or dice.choice(BROKERS)
        if habits is None or largest:
            chosen = _limited(chosen, Random(-seed), always=largest)
        self.context = context = Context(folder, dice, chosen)
        rules = Rules(analysis=dice.choice(list(Analyser)), analysis_within=ANALYSIS_WITHIN_S)
        self.coordinator = CoordinatorProcess(context, hold_deadlines_s=SETTLE_S, rules=rules)
        users = [f"pi{number}" for number in range(1, dice.randint(2, 4))]
        self.devices: list[Device] = [
            Microcontroller(context, f"micro-{user}", user)
            if dice.random() < 0.15 and chosen.largest is None  # it cuts nothing
            else Board(context, f"board-{user}", user, f"machine-{user}")
            for user in users
        ]
        self.hand = Hand(context, "anna") if dice.random() < 0.3 else None
        everybody = [*users, *(["anna"] if self.hand else [])]
        numbers = Numbers(context)
        # By dice of their own: the worlds without files stay as they are.
        self._drops = Random(f"files {seed}")
        if self._drops.random() < FILES_SHARE if files is None else files:
            boards = (one.user for one in self.devices if isinstance(one, Board))
            numbers.carriers = frozenset(boards)
            self._drop_some()
        stops = dice.random() < 0.5  # whether anybody cancels or resets anything
        # By dice of their own: the worlds without instants stay as they are.
        self.instants = Random(~seed).random() < 0.25 if instants is None else instants
        kind = Conductor if self.instants else Operator
        self.operators = [
            kind(context, f"operator-{number}", users, numbers, stops)
            for number in range(1, dice.randint(2, 3))
        ]
        self.persons = [
            Person(context, f"person-{number}", everybody, numbers, stops)
            for number in range(1, dice.randint(2, 3))
            if not self.instants
        ]
        self.groups: dict[str, tuple[str, ...]] = {}
        self.teachers: list[Teacher] = []
        lessons = Random(f"groups {seed}")
        if lessons.random() < 0.5 and not self.instants:
            listed = Random(f"class {seed}").sample(users, len(users))  # as somebody wrote it down
            self.groups = {"class": tuple(listed), "first": tuple(users[:1])}
            rules = self.coordinator.rules = replace(rules, groups=Groups(self.groups))
            self.teachers = [Teacher(context, "teacher", self.groups, numbers, lessons)]
        self.analysts: list[Analyst] = []
        self.meddlers: list[Meddler | Regrader] = []
        grading = Random(f"analysts {seed}")  # the worlds without stay as they are
        share = 0.0 if self.instants else ANALYSTS_SHARE
        if grading.random() < share if analysts is None else analysts:
            numbers.analysers = (NAMES[0], *NAMES)
            within = grading.choice(WITHIN_S)
            # A board that waits so long for a person does nothing else.
            own = rules.analysis if within <= ANALYSIS_WITHIN_S else Analyser.OUTCOME
            rules = self.coordinator.rules = replace(rules, analysis=own, analysis_within=within)
            self.analysts = self._some_analysts(grading)
            self.coordinator.says_health = True
            self.meddlers = [
                Meddler(context, "pupil", users, numbers, grading),
                Regrader(context, self.analysts, grading),
            ]
        self.faults = Faults(self, faults)
        if self.faults.orphans:
            self.coordinator.rules = replace(rules, allowance=Allowance(max_idle=LITTLE))

    @property
    def processes(self) -> list[Process]:
        """Everything that can be killed."""
        return [self.coordinator, *self.devices, *self.analysts]

    def _some_analysts(self, dice: Random) -> list[Analyst]:
        """Two, which both offer the first name; perhaps they are one that runs twice."""
        places = ("ada", dice.choice(("ada", "bob")))
        offers = (NAMES[:2], NAMES[: dice.choice((1, 2))])
        return [
            Analyst(self.context, f"analyst-{number}", place, names, Random(dice.random()))
            for number, (place, names) in enumerate(zip(places, offers, strict=True), 1)
        ]

    def run(self) -> Report:
        """Live through all of it, which takes this machine some seconds.

        Raises nothing for a promise that is broken: it stands in the report, and the world ends
        with the first one that is seen on the way.
        """
        context = self.context
        with _quiet():
            try:
                for process in self.processes:
                    process.start()
                self.faults.start()
                while context.steps < self.steps and not context.violations:
                    context.schedule.run_next()
                self._heal()
                if not context.violations:
                    self._come_to_rest()
                if not context.violations:
                    self._ask_once_more()
                final = self._final()
                self._judge(final)
            finally:
                for process in self.processes:
                    process.removed = True
                    process.kill(restart=False)
        return self._report(final)

    def _drop_some(self) -> None:
        """Now and then texts and files go with the years; until all is healed."""
        seconds = DROP_S * 2 * self._drops.random()
        self.context.schedule.after(seconds, self._drop_some)
        if not self._healed:
            self.coordinator.prune(self._drops.choice((1, 1, 3)))

    # -- the end ------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.faults.heal()
        self._healed = True
        for operator in self.operators:
            operator.asking = False
        for person in self.persons:
            person.asking = False
        for teacher in self.teachers:
            teacher.asking = False
        for meddler in self.meddlers:
            meddler.asking = False
        places = [one.place for one in self.analysts]
        if len(set(places)) < len(places):  # somebody sees why neither stays connected
            self.analysts[-1].take_away()
        self.context.note("world", "is healed")

    def _run_until(self, limit: float) -> bool:
        """Until all is at rest; False: it is not, at that time."""
        schedule = self.context.schedule
        look = schedule.now + LOOK_S
        while schedule.now < limit and not self.context.violations:
            schedule.run_next()
            if schedule.now >= look:
                look = schedule.now + LOOK_S
                if not self._restless():
                    return True
        return not self._restless()

    def _restless(self) -> list[str]:
        """What is not at rest, one line each."""
        coordinator = self.coordinator.coordinator
        if coordinator is None:
            return ["the coordinator is away"]
        found = [
            f"{record.user} is in state {int(record.state)} with {record.id}, "
            f"{len(record.queue)} queued"
            for record in coordinator.records.values()
            if record.state is not State.REST or record.queue or record.batched
        ]
        found += [
            f"the batch {batch.id} of {batch.group} is open"
            for batch in coordinator.batches.values()
            # Whom nobody has asked of a list is waited for without end, where nobody waits so.
            if batch.ended is None and (batch.group or batch.start or not batch.is_idle)
        ]
        for name, cable in self.context.cables.items():
            port = cable.port
            if port is not None and port.wanted and not port.connected:
                found.append(f"{name} is not connected")
            if port is not None and self.context.now - port.refused_at < TAKEN_S:
                found.append(f"{name} sends what the broker does not take")
        found += [
            f"something waits at the broker for {session.client_id}"
            for session in self.context.broker.sessions.values()
            if session.connection is not None and (session.waiting or session.under_way)
        ]
        found += [f"{one.name} is busy" for one in self.devices if one.busy]
        found += [f"{one.name} is busy" for one in self.analysts if one.busy]
        found += [f"{one.name} waits for an answer" for one in self.operators if not one.idle]
        found += [
            f"the program of {run.id} still runs" for run in self.context.runs.values() if run.alive
        ]
        return found

    def _come_to_rest(self) -> None:
        if not self._run_until(self.context.now + HEALED_S):
            for text in self._restless():
                self.context.violate("ends", "", "", f"{HEALED_S:g} s after all was healed: {text}")

    def _ask_once_more(self) -> None:
        """One more program for each device; and what is retained is the record."""
        operator = self.operators[0]
        before = len(self.context.history)
        users = [device.user for device in self.devices if not device.removed]
        operator.ask_each(users)
        for analyst in self.analysts:
            analyst.look_again()
        if not self._run_until(self.context.now + PROBE_S):
            for text in self._restless():
                self.context.violate("ends", "", "", f"one more program: {text}")
        asked = [one for one in self.context.history[before:] if isinstance(one, Asked)]
        ran = {one.id for one in self.context.history[before:] if isinstance(one, Began)}
        for one in asked:
            if one.id not in ran:
                self.context.violate("ends", one.user, one.id or "", "a last program did not run")
        coordinator = self.coordinator.coordinator
        for record in coordinator.records.values() if coordinator else ():
            topic = self.coordinator.topics.of(record.user, TopicKind.STATUS)
            kept = self.context.broker.retained.get(topic)
            said = self.coordinator.said_last.get(record.user)
            if kept is None or kept.payload != said:
                self.context.violate("level", record.user, record.id, "it is not what is retained")

    def _final(self) -> FinalState:
        """What the database says, to whoever reads it."""
        store, coordinator = self.coordinator.store, self.coordinator.coordinator
        path = self.coordinator.path
        if store is None or coordinator is None:
            return FinalState({})
        commands: dict[tuple[str, str], Json] = {}
        logs: dict[str, list[Json]] = {}
        with Reader(path) as reader:
            for user in coordinator.records:
                with contextlib.suppress(NotFound):
                    rows = list(reader.history(user))
                    logs[user] = sorted(
                        (row for row in rows if "command" in row), key=lambda row: row["row"]
                    )
                for id in sorted({row["id"] for row in logs.get(user, ()) if row["id"]}):
                    try:
                        commands[user, id] = reader.show(user, id)
                    except NotFound:
                        self.context.violate("saved", user, id, "it is in the log, and unknown")
        keys = {
            group_key(one.group, one.id)
            for one in self.context.history
            if isinstance(one, Asked) and one.group and one.id
        }
        keys |= {
            list_key(one.id, one.batch)
            for one in self.context.history
            if isinstance(one, Asked) and one.batch and one.id
        }
        known = [store.batch(key, coordinator.records) for key in sorted(keys)]
        batches: list[Json] = [
            {"group": one.group, "id": one.id, "ended": one.ended, "members": one.members,
             "refused": {user: str(code) for user, code in one.refused.items()},
             "over": one.is_over}
            for one in known if one is not None
        ]  # fmt: skip
        within = self.coordinator.rules.analysis_within
        return FinalState(commands, logs, batches, calm=not self.context.faults, within=within)

    def _judge(self, final: FinalState) -> None:
        context = self.context
        self.coordinator.see_life()
        for topic, payload in context.copied:
            context.see(Copied(topic, payload))
        for violation in check(context.history, final, output):
            context.violate(violation.promise, violation.user, violation.id, violation.text)
        for text in check_database(self.coordinator.path):
            context.violate("saved", "", "", text)
        if not context.violations:  # all is at rest then
            offered = {name for one in self.analysts if one.alive for name in one.offers}
            for one in check_judged(final.commands, offered, self.coordinator.wall()):
                context.violate(one.promise, one.user, one.id, one.text)

    def _report(self, final: FinalState) -> Report:
        context = self.context
        return Report(
            self.seed,
            context.habits.name,
            context.steps,
            context.now,
            context.faults,
            context.violations,
            self._shortened(),
            len(final.commands),
            Counter(str(end["ran"]) for end in final.commands.values()),
            sum(end["analysed_by"] is not None for end in final.commands.values()),
        )

    def _shortened(self, most: int = 60) -> list[str]:
        """The last lines of the trace that are about the first violation."""
        if not self.context.violations:
            return []
        first = self.context.violations[0]
        lines: list[str] = []
        for at, who, what, about in reversed(self.context.trace):
            line = f"{at:10.3f} {who:14} {what} {_text(about)}".rstrip()
            if "FAULT" in what or not first.user or first.user in line:
                lines.append(line if len(line) < 260 else line[:257] + "...")
            if len(lines) == most:
                break
        return lines[::-1]


def _limited(habits: Habits, dice: Random, *, always: bool) -> Habits:
    """The same broker, in some worlds with a limit of what it takes; by dice of its own."""
    if not always and dice.random() > 0.15:
        return habits
    return replace(
        habits,
        largest=dice.choice(LARGEST),
        announces=habits.speaks_v5 and dice.random() < 0.5,
        drops=dice.random() < 0.5,
    )


SHOWN: Final = (
    *("id", "state", "epoch", "seq", "journal", "boot", "cancelling", "settled", "command"),
    *("outcome", "ran", "reason", "queued", "late"),
)


def _text(about: object) -> str:
    if isinstance(about, bytes):
        return about.decode(errors="replace")
    if isinstance(about, dict):
        return str({name: about[name] for name in SHOWN if about.get(name)})
    return str(about)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the logs of hwsync: thousands of lines about faults that are meant."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
