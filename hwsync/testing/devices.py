"""What every device of a pretended world has: a connection, and a runner for one program.

The law: a program begins where the real runner would hand it over, and lives on when its device is
killed, until it ends by itself or a later life ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from hwsync.protocol.files import Files, is_asked_for
from hwsync.protocol.jsons import loads
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.runner import Group, Instant, Job, RunEnd
from hwsync.runner.page import Page
from hwsync.testing.context import Context, Run
from hwsync.testing.history import Began, Ended
from hwsync.testing.port import Port
from hwsync.testing.processes import Process
from hwsync.testing.programs import Program, listed, made_by, run_end
from hwsync.testing.raw_clocks import RawClock
from hwsync.testing.releasing import Waiting
from hwsync.transport import Delivery, Subscription, Will

FIRST_S: Final = 0.001  # at most, from the release to the program's first instruction
KILLED_S: Final = 0.01  # from the order to end a run until it has ended
PREPARED_S: Final = 0.8  # at most, until the process of a start is ready; more than most leads


@dataclass(slots=True)
class Session:
    """One run under way on a device, as its runner knows it."""

    run: Run
    job: Job
    life: int
    stop: bool = False
    began: bool = False
    over: bool = False
    page: Page | None = None  # it begins at an instant
    ready: bool = False  # its process exists
    waiting: Waiting | None = None  # it is armed
    made: Files = ()


class Device(Process):
    """What runs programs for one user."""

    kinds: tuple[TopicKind, ...] = (TopicKind.ENVELOPE, TopicKind.STATUS)

    def __init__(self, context: Context, name: str, user: str) -> None:
        super().__init__(context, name)
        self.user = user
        self.topics = Topics()
        self.session: Session | None = None
        self._dice = Random(f"{name} {context.dice.getstate()[1][0]}")  # the world's stay as it is
        self.raw = RawClock(self._dice, lambda: context.now)
        self.flush_s = 0.0  # that its disk takes to write `started` of a start
        self._questions: dict[int, float] = {}  # about lab time: its own clock, the world's time

    def raw_us(self) -> int:
        return self.raw.raw_us()

    def asleep_us(self) -> int:
        return self.raw.asleep_us()

    def pause(self, seconds: float) -> None:
        """The process stands still, or its whole machine does."""
        if self._dice.random() < 0.5:
            self.context.note(self.name, "is suspended", seconds)
            self.raw.sleep(seconds)
        super().pause(seconds)

    @property
    def busy(self) -> bool:
        """Whether a program waits or runs here, or a result is not yet settled."""
        raise NotImplementedError

    @property
    def journal_name(self) -> str:
        raise NotImplementedError

    def connect(self, journal: str, boot: int, *, clean: bool) -> None:
        context = self.context
        will = encode_heartbeat(online=False, journal=journal, boot=boot)
        self.port = Port(
            context.schedule,
            context.broker,
            self.cable,
            context.dice,
            self.topics.client_id(f"hwsync-device-{self.user}"),
            on_signal=self.put,
            subscriptions=[
                Subscription(self.topics.of(self.user, kind), int(kind != TopicKind.CLOCK_REPLY))
                for kind in self.kinds
            ],
            will=Will(self.topics.of(self.user, TopicKind.HEARTBEAT), will),
            clean_session=clean,
            raw_us=self.raw_us,
        )
        self.port.start()

    def release(self) -> None:
        if self.port is not None:
            self.port.end()
        self._forget_session()
        self.port = None
        self._questions.clear()

    def _forget_session(self) -> None:
        session, self.session = self.session, None
        if session is not None and session.page is not None:
            session.page.close()

    def newest_answered(self) -> float | None:
        """When it sent the newest question about lab time that was answered."""
        return None

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        if self.port is None:
            return False
        self.point("before a device's publish")
        self.context.note(self.name, f"publishes {topic}", payload)
        if topic.endswith("/clock"):
            self._questions[loads(payload.decode())["t0"]] = self.context.now
        if topic.endswith("/response"):
            id = loads(payload.decode())["id"]
            for run in self.context.runs.values():
                if run.alive and (run.id, run.journal) == (id, self.journal_name):
                    self.context.violate("leftover", self.user, id, "its program still runs")
        sent = self.port.publish(topic, payload, qos=qos, retain=retain)
        self.point("after a device's publish")
        return sent

    def acknowledge(self, delivery: Delivery) -> None:
        self.point("before a device's acknowledgement")
        if self.port is not None:
            self.port.acknowledge(delivery)
        self.point("after a device's acknowledgement")

    def refusal(self) -> str:
        return ""

    def ran_on(self) -> dict[str, object]:
        return {"board": "a simulated one", "python": "3.11.0"}

    def presence(self) -> dict[str, object]:
        """No board is there to be described."""
        return {}

    # -- runs ---------------------------------------------------------------------------------

    def start_run(self, job: Job, id: str) -> None:
        context = self.context
        number = len(context.runs) + 1
        run = Run(number, self.user, id, job.program, self.journal_name, alive=False)
        context.runs[number] = run
        self._forget_session()
        self.session = session = Session(run, job, self.life)
        context.schedule.after(0.01 * self.random(), lambda: self._ready(session))

    def prepare_run(self, job: Job, id: str) -> None:
        """As ``start_run``; ``prepared`` follows in the device's turn."""
        context = self.context
        number = len(context.runs) + 1
        run = Run(number, self.user, id, job.program, self.journal_name, alive=False)
        context.runs[number] = run
        self._forget_session()
        self.session = session = Session(run, job, self.life, page=Page(0))
        seconds = PREPARED_S * self._dice.random() ** 3
        context.schedule.after(seconds, lambda: self._ready(session))

    def drop_run(self) -> None:
        if self.session is not None and self.session.page is not None:
            self._forget_session()

    def aim_run(self, instant: Instant) -> None:
        session = self.session
        if session is not None and session.page is not None and session.ready:
            session.page.aim(instant)

    def arm_run(self, instant: Instant) -> None:
        """`started` was written, which may have taken long: only now anything is allowed."""
        session = self.session
        if session is not None and session.page is not None:
            if self.flush_s:
                self.context.fault("slow flush", self.name, self.flush_s)
                super().pause(self.flush_s)
            self.context.schedule.after(self.flush_s, lambda: self._arm(session, instant))

    def _arm(self, session: Session, instant: Instant) -> None:
        if self._here(session) and session.page is not None:
            if session.ready:
                session.page.aim(instant)
            session.page.arm()
            session.waiting = Waiting(session.page, self.raw, lambda: self.context.now)
            if session.ready:
                self._look_at_page(session)

    def disarm_run(self) -> None:
        if self.session is not None and self.session.page is not None:
            self.session.page.disarm()

    def _look_at_page(self, session: Session) -> None:
        """What the program's process does until its instant."""
        if not self._here(session) or self.session is not session or session.over:
            return
        assert session.waiting is not None
        found = session.waiting.look()
        after = self.context.schedule.after
        if isinstance(found, float):
            after(found, lambda: self._look_at_page(session))
        elif found is not None:
            begin = found
            seconds = FIRST_S * self._dice.random()
            after(seconds, lambda: self._guarded(lambda: self._first(session, begin)))
        else:
            self._ends(session, "ok")

    def _first(self, session: Session, begin: Callable[[], None]) -> None:
        """The last thing before the first instruction, and that."""
        if self._here(session) and self.session is session and not session.over:
            begin()
            self._begins(session)

    def prepared(self, session: Session) -> None:
        """In the device's turn: the process of a start is ready."""
        raise NotImplementedError

    def not_released(self, session: Session, reason: str) -> None:
        """In the device's turn: it surely did not run."""
        raise NotImplementedError

    def stop_run(self) -> None:
        session = self.session
        if session is not None:
            session.stop = True
            self.disarm_run()
            if session.began or session.page is not None:
                self.context.schedule.after(KILLED_S, lambda: self._ends(session, "cancelled"))

    def _here(self, session: Session) -> bool:
        return self.alive and self.life == session.life

    def _ready(self, session: Session) -> None:
        """The session stands; the program is handed over once the journal says so."""
        if self._here(session):
            timed, session.ready = session.page is not None, True
            self.put(lambda: self.prepared(session) if timed else self.written(session))
            if session.waiting is not None:
                self._look_at_page(session)

    def written(self, session: Session) -> None:
        """In the device's turn: write that it starts."""
        raise NotImplementedError

    def hand_over(self, session: Session) -> None:
        """In the runner: from here on the program may have done something."""
        if self._here(session):
            self.context.schedule.after(
                0.005 * self.random(), lambda: self._guarded(lambda: self._begins(session))
            )

    def _begins(self, session: Session) -> None:
        if not self._here(session):
            return
        run, context = session.run, self.context
        self.point("before a process starts")
        if session.stop and session.page is None:
            self.put(lambda: self.ended(session, run_end(session.job, "cancelled", began=False)))
            return
        session.began = run.alive = True
        name = session.job.name
        page, job = session.page, session.job
        session.made = made_by(run.user, run.id, job)
        asked_for = (one for one in session.made if is_asked_for(job.collect, one.path))
        context.see(
            Began(
                *(context.now, run.user, run.id, run.program, run.journal, name),
                bound_us=page.instant.bound_us if page else None,
                asked=self.newest_answered() if page else None,
                files=listed(job.files),
                made=listed(tuple(asked_for)),
            )
        )
        context.note(self.name, f"program of {run.id} begins", run.program)
        program = Program.read(run.program)
        outcome = "error" if program.exit_code else "ok"
        if program.seconds > session.job.timeout:
            outcome = "timeout"
        seconds = min(program.seconds, session.job.timeout)
        context.schedule.after(seconds, lambda: self._ends(session, outcome))
        self.point("after a process starts")

    def _ends(self, session: Session, outcome: str) -> None:
        run, context = session.run, self.context
        if session.over:
            return
        session.over = True
        if run.alive:
            run.alive = False
            context.note(self.name, f"program of {run.id} ends: {outcome}")
            context.see(Ended(context.now, run.user, run.id, run.program, run.journal))
        if not self._here(session):
            return
        page = session.page
        if page is None or page.released is not None:
            end = run_end(session.job, outcome, made=session.made)
            self.put(lambda: self.ended(session, end))
        elif session.stop:
            self.put(lambda: self.ended(session, run_end(session.job, "cancelled", began=False)))
        else:
            reason = page.refusal or "the program did not begin"
            self.put(lambda: self.not_released(session, reason))

    def ended(self, session: Session, end: RunEnd) -> None:
        """In the device's turn: the run is over."""
        raise NotImplementedError

    def saw_the_end(self, run: Run) -> None:
        """It is sure of it now, whatever happens but the loss of its journal."""
        context = self.context
        context.see(Ended(context.now, run.user, run.id, run.program, run.journal, heard=True))

    def end_leftovers(self, group: Group) -> int:
        run = self.context.runs.get(group.session)
        if run is None or not run.alive:
            return 0
        run.alive = False
        self.context.note(self.name, f"ends what is left of {run.id}")
        self.context.see(Ended(self.context.now, run.user, run.id, run.program, run.journal))
        return 1
