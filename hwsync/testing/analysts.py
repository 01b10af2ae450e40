"""Analysts of a pretended world: the real ``hwsync.analyst``, each in a process that may die.

The law: what is judged next, what was missed, and what is said until it is answered is decided by
the real loop. Only the analysers are pretended: they take time, fail now and then, and say which
run they have judged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from hwsync.analysers import Run
from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser, Folder
from hwsync.analyst import life as real
from hwsync.analyst.judging import judged, reading_stored, telling
from hwsync.analyst.service import subscriptions
from hwsync.notify import Notifier
from hwsync.operator.conversation import Talk
from hwsync.operator.history import Answers
from hwsync.protocol import limits
from hwsync.protocol.errors import Code, HwsyncError, Refused
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import GONE, encode_offer
from hwsync.testing.analysis_promises import what_was_judged
from hwsync.testing.context import Context
from hwsync.testing.history import Asked, Judged
from hwsync.testing.port import ADDRESS, Port
from hwsync.testing.processes import Process
from hwsync.transport import Delivery, Will

REGRADE_S: Final = 8.0  # between two regrades, on average
LATELY: Final = 200  # observations among which a command is found that is regraded
JUDGE_S: Final = 3.0  # at most, that an analyser takes, but for a
BUSY_SHARE: Final = 0.08  # of the times in which all analysers' machines are busy:
LONG_S: Final = 90.0  # it takes longer then than a name is waited for that nobody offers
BUSY_S: Final = 15.0  # so long each
FAULT_SHARE: Final = 0.1  # of its judgements
LARGE_SHARE: Final = 0.05  # of them are larger than an analysis may be
BACK_S: Final = 7 * 86_400.0
AT_ONCE: Final = 2
FAR_S: Final = 1e6  # it waits for nothing


class FalseFolder(Folder):
    """What a folder would have: those analysers of that version."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(Path("analysers"))
        self._names, self._number = tuple(names), 1

    def change(self) -> None:
        """The files are others, and so is the version."""
        self._number += 1

    def scan(self) -> dict[str, Analyser]:
        return {name: Analyser(name, f"{self._number:012}") for name in self._names}


class WatchedLife(real.Life):
    """The real loop, in which an analyser takes the world's time."""

    def __init__(self, process: Analyst, folder: Folder, answers: Answers) -> None:
        setup = real.Setup(process.place, process.topics, ADDRESS, AT_ONCE, BACK_S)
        parts = real.Process(cast("Any", None), cast("Any", process), Notifier({}))
        here = cast("Any", process)  # it publishes and acknowledges, with its points
        super().__init__(setup, folder, process, here, answers, parts, process.monotonic)
        self._watched = process

    def _elsewhere(self, judge: Callable[[], None]) -> None:
        self._watched.takes_a_while(judge)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be judged, and no board's history to be asked."""
        past = self._catching_up
        waits = any(task.analyser in self._analysers for task in self._work._waiting())
        return not (self._in_hand or waits or past._names or past._going)

    def regrade(self, user: str, id: str, analyser: Analyser) -> None:
        """Judge once more what has ended; as ``hwsync regrade`` does."""
        self._board.begin(self._regrading(user, id, analyser), user)

    def _regrading(self, user: str, id: str, analyser: Analyser) -> Talk[None]:
        process, conversation = self._watched, self._conversation(user)
        try:
            stored = yield from reading_stored(conversation, id)
            if stored.result["outcome"] is None or stored.result["state"] != State.REST:
                return
            judgement = judged(process, analyser, stored)
            yield from telling(conversation, stored.end, judgement, regrade=True)
        except HwsyncError as error:
            process.context.note(process.name, f"does not regrade {id}", error)
            if isinstance(error, Refused) and error.code is Code.WRONG_STATE:
                text = f"the regrade of what has ended was refused: {error.message}"
                process.context.violate("analysis", user, id, text)

    def look_again(self) -> None:
        """Ask every board's history once more."""
        self._catching_up.look_at(list(self._boards), self._analysers)


class Analyst(Process):
    """One analyst, which offers these analysers; ``dice``: of its own.

    ``place``: what it is called; two of one place end each other's connection, for ever.
    """

    points = (
        *("before an analyst asks", "after an analyst asks"),
        *("before an analyst judges", "after an analyst judges"),
        *("before an analyst says", "after an analyst says"),
    )
    url = ADDRESS

    def __init__(
        self, context: Context, name: str, place: str, offers: Iterable[str], dice: Random
    ) -> None:
        super().__init__(context, name)
        self.place, self._dice = place, dice
        self.topics = Topics()
        self.folder = FalseFolder(offers)
        self._life: WatchedLife | None = None
        self._numbers = 0
        self.began_at = 0.0  # its present life

    @property
    def offers(self) -> list[str]:
        """The names of its analysers."""
        return sorted(self.folder.scan())

    @property
    def busy(self) -> bool:
        """Whether anything is to be judged, or asked for."""
        if self._life is None:
            return not self.removed
        return not self._life.is_idle

    def take_away(self) -> None:
        """It goes for good."""
        self.removed = True
        self.kill(restart=False)

    def begin(self) -> None:
        self.began_at = self.context.now
        random.seed(self._dice.random())  # of which the real code draws its pauses
        answers, context = Answers(None), self.context
        self.port = Port(
            context.schedule,
            context.broker,
            self.cable,
            self._dice,
            self.topics.client_id(f"hwsync-analyst-{self.place}"),
            on_signal=self.put,
            subscriptions=subscriptions(self.topics, answers),
            will=Will(self.topics.analyst(self.place), encode_offer(GONE)),
            prefer_v5=True,
        )
        self._life = WatchedLife(self, self.folder, answers)
        self._life.begin()
        self.port.start()

    def work(self) -> float | None:
        assert self._life is not None
        came = list(self.inbox)
        self.inbox.clear()
        wait = self._life.turn(came)
        return wait if wait < FAR_S else None

    def release(self) -> None:
        if self.port is not None:
            self.port.end()
        self.port = self._life = None

    def change(self) -> None:
        """The files of its analysers are others: so is their version, a moment later."""
        self.folder.change()
        if self._life is not None and self._dice.random() < 0.5:
            self._guarded(self._life.look)
            self.plan(0.0)

    def regrade(self, user: str, id: str, analyser: str) -> None:
        """Judge once more what has ended."""
        life, found = self._life, self.folder.scan()[analyser]
        if life is not None:
            self._guarded(lambda: life.regrade(user, id, found))
            if self.alive:
                self.plan(0.0)

    def look_again(self) -> None:
        """Ask the history once more."""
        if self._life is not None:
            self._life.look_again()
            self.plan(0.0)

    # -- its analysers ------------------------------------------------------------------------

    def takes_a_while(self, judge: Callable[[], None]) -> None:
        """An analyser runs."""
        number = self.life

        def ends() -> None:
            if self.alive and self.life == number:
                self._guarded(judge)

        # All of a moment take long: else another analyst would be there in time.
        busy = Random(f"busy {self.context.now // BUSY_S}").random() < BUSY_SHARE
        seconds = LONG_S if busy else JUDGE_S * self._dice.random()
        self.context.schedule.after(seconds, ends)

    def wake(self) -> None:
        """There is a judgement."""
        self.plan(0.0)

    def judge(self, analyser: Analyser, run: Run) -> Judgement:
        """What it says, which may be too much; or it fails."""
        self.point("before an analyst judges")
        self._numbers += 1
        message = f"{self._numbers} of {self.name}"
        data = what_was_judged(run.board, run.id, run.program)
        value: dict[str, Any] = {"passed": run.outcome == "ok", "message": message, "data": data}
        # What it has once said of a run it says again.
        drawn = Random(f"{analyser.name} {analyser.version} of {run.board} {run.id}").random()
        fault = None
        if drawn < FAULT_SHARE:
            fault, value = "it has failed", {"error": message}
        # What a broker drops in silence is said in vain (docs/reliability.md).
        elif drawn < FAULT_SHARE + LARGE_SHARE and self.context.habits.largest is None:
            value["message"] = message + "!" * limits.MAX_ANALYSIS
        self.point("after an analyst judges")
        return Judgement(analyser.name, analyser.version, value, fault)

    # -- its connection -----------------------------------------------------------------------

    @property
    def connection(self) -> int:
        return self.port.connection if self.port else 0

    def acknowledge(self, delivery: Delivery) -> None:
        if self.port is not None:
            self.port.acknowledge(delivery)

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
        user, kind = self.topics.split(topic)
        verb = {TopicKind.QUERY: "asks", TopicKind.ANALYSIS: "says"}.get(kind) if kind else None
        if verb is not None:
            self.point(f"before an analyst {verb}")
        if kind is TopicKind.ANALYSIS:
            self._says(user, payload)
        sent = self.port.publish(topic, payload, qos=qos, retain=retain, correlation=correlation)
        if verb is not None:
            self.point(f"after an analyst {verb}")
        return sent

    def _says(self, user: str, payload: bytes) -> None:
        fields = loads(payload.decode())
        by = (fields["analyser"]["name"], fields["analyser"]["version"])
        text, regrade = dumps(fields["analysis"]), fields.get("regrade", False)
        self.context.note(self.name, f"says of {user} {fields['id']}", payload)
        self.context.see(Judged(self.context.now, self.name, user, fields["id"], text, by, regrade))


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
            analyst.regrade(*dice.choice(known), dice.choice(analyst.offers))
