"""Analysts of a pretended world: each a process with analysers, which may die at any point.

The law: an analyst knows only what MQTT told it, and writes nothing down. It hears statuses, asks
the history for what ended while it was away, asks for the whole of a run before it judges it, and
says its analysis until that is answered. What it says has in it which run it has judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.errors import Code
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import AnalysedBy, Ran, State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import GONE, Offer, encode_offer
from hwsync.protocol.wire.asking import encode_analysis, encode_id
from hwsync.protocol.wire.history import encode_question, read_page
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.analysis_promises import RETURNED, what_was_judged
from hwsync.testing.context import Context
from hwsync.testing.history import Asked, Judged
from hwsync.testing.port import Port
from hwsync.testing.processes import Process
from hwsync.transport import Delivery, Subscribed, Subscription, Will

REGRADE_S: Final = 8.0  # between two regrades, on average
LATELY: Final = 200  # observations among which a command is found that is regraded
JUDGE_S: Final = 3.0  # at most, that an analyser takes
PAUSE_S: Final = 1.0  # the first one of each repetition, then doubling
PAUSE_MAX_S: Final = 10.0
PASSING: Final = (Code.BUSY, Code.DEGRADED)  # refusals after which it is tried again
ASK, JUDGE, SAY = "ask", "judge", "say"


@dataclass(slots=True)
class Task:
    """One run that is to be judged; ``stage``: what is done next, ``due``: when."""

    stage: str
    due: float
    pause: float = PAUSE_S
    regrade: str = ""  # by this analyser, though it may have an analysis
    run: Mapping[str, Any] = field(default_factory=dict)  # its result
    payload: bytes = b""
    said: Judged | None = None


@dataclass(slots=True)
class Question:
    """A page of the past that is asked for until it comes."""

    user: str
    analyser: str
    after: int | None = None
    due: float = 0.0
    pause: float = PAUSE_S


class Analyst(Process):
    """One analyst, which offers these analysers; ``dice``: of its own.

    ``place``: the last level of its presence; two of one place are one analyst that runs twice.
    """

    points = (
        *("before an analyst asks", "after an analyst asks"),
        *("before an analyst judges", "after an analyst judges"),
        *("before an analyst says", "after an analyst says"),
    )

    def __init__(
        self, context: Context, name: str, place: str, offers: Iterable[str], dice: Random
    ) -> None:
        super().__init__(context, name)
        self.place, self._dice = place, dice
        self.topics = Topics()
        self.offers = dict.fromkeys(offers, "000000000001")  # with their versions
        self._versions = 1
        self._tasks: dict[tuple[str, str], Task] = {}
        self._questions: dict[str, Question] = {}  # by topic of the answer
        self._asked: set[tuple[str, str]] = set()  # on this connection: board, analyser
        self._users: set[str] = set()
        self._numbers = 0

    @property
    def busy(self) -> bool:
        """Whether anything is to be judged, or asked for."""
        return not self.alive or bool(self._tasks or self._questions)

    def change(self) -> None:
        """The files of its analysers are others: so is their version, from the next life on."""
        self._versions += 1
        version = f"{self._versions:012}"
        self.offers = dict.fromkeys(self.offers, version)

    def begin(self) -> None:
        self._tasks, self._questions, self._asked = {}, {}, set()
        self._users = set()
        of, topics, context = self.topics.of, self.topics, self.context
        kinds = (TopicKind.STATUS, TopicKind.ERROR)
        self.port = Port(
            context.schedule,
            context.broker,
            self.cable,
            self._dice,
            self.name,
            on_signal=self.put,
            subscriptions=[
                *(Subscription(of("+", kind)) for kind in kinds),
                Subscription(topics.result("+", "+")),
                Subscription(f"replies/{self.name}/#"),
            ],
            will=Will(topics.analyst(self.place), encode_offer(GONE)),
            prefer_v5=True,
        )
        self.port.start()

    def release(self) -> None:
        if self.port is not None:
            self.port.end()
        self.port = None

    def look_again(self) -> None:
        """Ask the history once more."""
        self._asked.clear()
        for user in sorted(self._users):
            self._catch_up(user)
        self.plan(0.0)

    def regrade(self, user: str, id: str, analyser: str) -> None:
        """Judge once more what has ended."""
        if self.alive and (user, id) not in self._tasks:
            self._tasks[user, id] = Task(ASK, self.context.now, regrade=analyser)
            self.plan(0.0)

    # -- its turns ----------------------------------------------------------------------------

    def work(self) -> float | None:
        while self.inbox:
            self._take(self.inbox.popleft())
        now = self.context.now
        for (user, id), task in list(self._tasks.items()):
            if task.due <= now:
                self._go_on(user, id, task)
        for topic, question in list(self._questions.items()):
            if question.due <= now:
                self._ask(topic, question)
        due = [task.due for task in self._tasks.values()]
        due += [question.due for question in self._questions.values()]
        return max(min(due) - now, 0.0) if due else None

    def _take(self, signal: object) -> None:
        assert self.port is not None
        if isinstance(signal, Subscribed):
            self._asked.clear()
            offer = encode_offer(Offer(online=True, analysers=self.offers, time=self.wall()))
            self.port.publish(self.topics.analyst(self.place), offer, retain=True)
            for user in sorted(self._users):
                self._catch_up(user)
            for task in self._tasks.values():
                task.due = self.context.now if task.stage != JUDGE else task.due
        if not isinstance(signal, Delivery):
            return
        self.port.acknowledge(signal)
        user, kind = self.topics.split(signal.topic)
        fields = read_object(signal.payload) if signal.payload else None
        if fields is None:
            return
        if kind is TopicKind.STATUS and limits.is_user(user):
            self._hear_status(user, fields)
        elif kind is TopicKind.RESULT:
            self._hear_result(user, fields)
        elif kind is TopicKind.ERROR:
            self._hear_error(user, fields)
        elif signal.topic in self._questions:
            self._hear_page(signal.topic, signal.payload, fields)

    def _hear_status(self, user: str, fields: Mapping[str, Any]) -> None:
        if user not in self._users:
            self._users.add(user)
            self._catch_up(user)
        name = (user, fields["id"])
        waits = fields["state"] == State.RETURNED
        waits |= fields["state"] == State.REST and fields["outcome"] in RETURNED
        if waits and fields.get("analyser") in self.offers and not fields["server_analysis"]:
            self._begin(*name)
        self._is_answered(user, fields)

    def _begin(self, user: str, id: str) -> None:
        if (user, id) not in self._tasks:
            self._tasks[user, id] = Task(ASK, self.context.now)

    def _is_answered(self, user: str, fields: Mapping[str, Any]) -> None:
        """Whether what is said of a command has what was to be said of it."""
        name = (user, fields["id"])
        task = self._tasks.get(name)
        if task is None or task.stage != SAY or task.said is None:
            return
        by = task.said.by
        known = [fields.get("analysed_by"), *(fields.get("regrades") or [])]
        mine = any(one and (one["name"], one["version"]) == by for one in known)
        if mine or (fields.get("server_analysis") and not task.regrade):
            del self._tasks[name]

    def _hear_result(self, user: str, fields: Mapping[str, Any]) -> None:
        self._is_answered(user, fields)
        name = (user, fields["id"])
        task = self._tasks.get(name)
        if task is None or task.stage != ASK:
            return
        if self._is_for_us(fields, task):
            task.stage, task.run = JUDGE, fields
            task.due = self.context.now + JUDGE_S * self._dice.random()
        else:
            del self._tasks[name]

    def _is_for_us(self, fields: Mapping[str, Any], task: Task) -> bool:
        if fields["outcome"] is None:
            return False
        if task.regrade:
            return bool(fields["state"] == State.REST)
        judged = fields["server_analysis"] or fields.get("analysed_by")
        return fields["analyser"] in self.offers and not judged

    def _hear_error(self, user: str, fields: Mapping[str, Any]) -> None:
        name = (user, str(fields.get("id")))
        task = self._tasks.get(name)
        mine = str(fields.get("topic", "")).rpartition("/")[2] in (
            TopicKind.ANALYSIS,
            TopicKind.QUERY,
        )
        if task is not None and mine and fields.get("error") not in PASSING:
            self.context.note(self.name, f"gives {name[1]} up", fields)
            del self._tasks[name]

    # -- one run ------------------------------------------------------------------------------

    def _go_on(self, user: str, id: str, task: Task) -> None:
        assert self.port is not None
        if task.stage == ASK:
            self.point("before an analyst asks")
            self.port.publish(self.topics.of(user, TopicKind.QUERY), encode_id(id))
            self.point("after an analyst asks")
        elif task.stage == JUDGE:
            self.point("before an analyst judges")
            self._judge(user, id, task)
            self.point("after an analyst judges")
        if task.stage == SAY:
            self.point("before an analyst says")
            self._say(user, task)
            self.point("after an analyst says")
        task.due = self.context.now + task.pause
        task.pause = min(2 * task.pause, PAUSE_MAX_S)

    def _judge(self, user: str, id: str, task: Task) -> None:
        """An analyser's work, which may fail, or find more words than are taken."""
        run = task.run
        analyser = task.regrade or run["analyser"]
        version = self.offers[analyser]
        number = self._next()
        value: dict[str, Any] = {
            "passed": run["outcome"] == "ok",
            "message": f"{number} of {self.name}",
            "data": what_was_judged(run["user"], run["id"], run["hw_command"]),
        }
        fault = None
        if self._dice.random() < 0.1:
            fault = self._dice.choice(("it has failed", "its analysis is too large"))
            value = {"error": f"{fault}, {number}"}
        task.payload = encode_analysis(
            value,
            id,
            AnalysedBy(analyser, version, fault),
            regrade=bool(task.regrade),
        )
        by = (analyser, version)
        task.said = Judged(0.0, self.name, user, id, dumps(value), by, bool(task.regrade))
        task.stage, task.pause = SAY, PAUSE_S

    def _say(self, user: str, task: Task) -> None:
        assert self.port is not None
        assert task.said is not None
        said = task.said
        self.context.see(
            Judged(self.context.now, said.who, user, said.id, said.text, said.by, said.regrade)
        )
        self.context.note(self.name, f"says of {user} {said.id}", task.payload)
        self.port.publish(self.topics.of(user, TopicKind.ANALYSIS), task.payload)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- what ended while it was away ---------------------------------------------------------

    def _catch_up(self, user: str) -> None:
        """The history is asked, once on each connection, about each analyser."""
        for analyser in self.offers:
            if (user, analyser) not in self._asked:
                self._asked.add((user, analyser))
                self._inquire(Question(user, analyser))

    def _inquire(self, question: Question) -> None:
        question.due = self.context.now
        self._questions[f"replies/{self.name}/{self.life}/{self._next()}"] = question

    def _ask(self, topic: str, question: Question) -> None:
        assert self.port is not None
        fields = {
            "analyser": question.analyser, "judged": False, "last": 5,
            "after": question.after, "reply": topic,
        }  # fmt: skip
        to = self.topics.of(question.user, TopicKind.HISTORY_ALL)
        self.port.publish(to, encode_question(fields))
        question.due = self.context.now + question.pause * (1.0 + self._dice.random() / 2)
        question.pause = min(2 * question.pause, PAUSE_MAX_S)

    def _hear_page(self, topic: str, payload: bytes, fields: Mapping[str, Any]) -> None:
        page = read_page(payload)
        if page is None:
            if fields.get("error") not in PASSING:
                self.context.violate(
                    "process", self.name, "", f"its question was refused: {fields}"
                )
                del self._questions[topic]
            return
        question = self._questions.pop(topic)
        for row in page["rows"]:
            if row["outcome"] in RETURNED and row["ran"] != Ran.NO:
                self._begin(question.user, row["id"])
        if page["after"] is not None:
            self._inquire(Question(question.user, question.analyser, page["after"]))


class Regrader:
    """Somebody who has ended runs judged once more; ``dice``: of its own."""

    def __init__(self, context: Context, analysts: Sequence[Analyst], dice: Random) -> None:
        self.context, self._analysts, self._dice = context, analysts, dice
        self.asking = True
        context.schedule.after(REGRADE_S * dice.random(), self._acts)

    def _acts(self) -> None:
        dice = self._dice
        self.context.schedule.after(REGRADE_S * 2 * dice.random(), self._acts)
        known = [(one.user, one.id) for one in self.context.history[-LATELY:]
                 if isinstance(one, Asked) and one.id]  # fmt: skip
        if self.asking and known:
            analyst = dice.choice(self._analysts)
            analyst.regrade(*dice.choice(known), dice.choice(sorted(analyst.offers)))
