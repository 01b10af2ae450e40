"""Any sequence of messages and faults: the real coordinator does what a plain model of it says.

The coordinator has a real database and a pretended broker and clock (tests/support/coordinator.py);
the model was written from docs/protocol.md. After each step both must agree on the record, on every
command, on what was published, in order, on what was acknowledged, and on the rows of the database.
``HWSYNC_STEPS`` is the number of steps.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import RAN_BY_OUTCOME, AnalysedBy, Outcome, Ran
from hwsync.protocol.wire.asking import FORGET, encode_analysis, encode_id
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.response import encode_collected
from tests.support.coordinator import NONCE
from tests.support.level import Said
from tests.support.modelled import Modelled

STEPS = int(os.environ.get("HWSYNC_STEPS", "20000"))
STEPS_EACH = 100  # in one life of a database
LITTLE = 20_480  # bytes of what leads to nothing, in each third part: used up now and then
PARTS = 3  # tests with an equal share of the steps, so that several cores may share them
SPARE = 1.35  # some lives end early, and some rules find nothing to do
MEMORY = Path("/dev/shm")  # nothing here is about the disk

OUTCOMES = [
    (outcome, ran)
    for outcome, ran in RAN_BY_OUTCOME.items()
    if outcome in (Outcome.OK, Outcome.ERROR, Outcome.INTERRUPTED, Outcome.REJECTED)
] + [(Outcome.CANCELLED, ran) for ran in Ran]
JOURNALS = ["j1", "j2"]
KEYS: list[dict[str, object]] = [
    *({}, {"analysis": "outcome"}, {"expires": 0, "timeout": 1.5, "grace": 1}, {"expires": 2}),
    *({"analysis": "check1"}, {"analysis": "check2", "timeout": 1.5, "grace": 1}),
    *({"name": "x.py"}, {"expires": 0, "within": 2.5}, {"within": 10.0, "name": "program.py"}),
]
"""``within``: seconds until its ``expires_at``."""
BY = [("check1", "1"), ("check1", "2"), ("check2", "1")]  # who analyses, and in which version
ONLY_HAND, CURRENT, UNKNOWN = 0, 1, 9  # which command is meant; in between: earlier ones
WHICH = [ONLY_HAND, CURRENT, CURRENT, CURRENT, 2, 3, 4, 5, 6, 7, 8, UNKNOWN]
AT_ONCE = [True, True, True, False]


class Protocol(RuleBasedStateMachine):
    """One life of a database, with everything that may happen to it."""

    steps = 0
    max_idle = limits.MAX_IDLE

    def __init__(self) -> None:
        super().__init__()
        memory = MEMORY if MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="hwsync-model-", dir=memory))
        self.lab = Modelled(self.folder / "hwsync.db", self.max_idle)
        self.numbers = 0

    def teardown(self) -> None:
        try:
            self.lab.check_everything()
        finally:
            self.lab.stop()
            shutil.rmtree(self.folder)

    # -- messages -----------------------------------------------------------------------------

    def which(self, number: int) -> str | None:
        """The id that a message names."""
        known = list(self.lab.model.commands)
        if number == ONLY_HAND:
            return None
        if number == CURRENT and self.lab.model.id:
            return self.lab.model.id
        if number == UNKNOWN or len(known) < number:
            self.numbers += 1
            return f"u{self.numbers}"
        return known[-number]

    def send(self, at_once: bool, said: Said) -> None:
        Protocol.steps += 1
        self.lab.send(said, at_once)

    @rule(
        drawn=st.tuples(
            st.sampled_from([*WHICH, *[UNKNOWN] * 12]),
            st.sampled_from(list(product("ab", KEYS, [False, True]))),
            st.sampled_from(AT_ONCE),
        )
    )
    def request(self, drawn: tuple[int, tuple[str, dict[str, object], bool], bool]) -> None:
        number, (program, keys, queue), at_once = drawn
        if "within" in keys:
            now = self.lab.lab.clock.wall()
            keys = {key: value for key, value in keys.items() if key != "within"}
            keys["expires_at"] = now + drawn[1][1]["within"]  # type: ignore[operator]
        self.send(at_once, asked(self.which(number), program, queue, keys))

    @rule(which=st.sampled_from(WHICH), journal=st.sampled_from(JOURNALS), boot=st.integers(1, 3))
    def collected(self, which: int, journal: str, boot: int) -> None:
        self.send(True, collected(self.which(which), journal, boot))

    @rule(
        which=st.sampled_from(WHICH),
        journal=st.sampled_from(JOURNALS),
        report=st.sampled_from(OUTCOMES),
    )
    def response(self, which: int, journal: str, report: tuple[Outcome, Ran]) -> None:
        self.send(True, returned(self.which(which), journal, *report))

    @rule(
        which=st.sampled_from(WHICH), text=st.sampled_from("uv"), at_once=st.sampled_from(AT_ONCE)
    )
    def analysis(self, which: int, text: str, at_once: bool) -> None:
        self.send(at_once, analysed(self.which(which), text))

    @rule(
        drawn=st.tuples(
            st.sampled_from(WHICH), st.sampled_from("uv"), st.sampled_from(BY), st.booleans()
        ),
        at_once=st.sampled_from(AT_ONCE),
    )
    def analysers_say(self, drawn: tuple[int, str, tuple[str, str], bool], at_once: bool) -> None:
        which, text, by, regrade = drawn
        id = self.which(which)
        self.send(at_once, analysed(id, text, by, regrade=regrade and id is not None))

    @rule(by=st.sampled_from(BY), regrade=st.booleans(), text=st.sampled_from("uv"))
    def analysers_say_it_of_all(self, by: tuple[str, str], regrade: bool, text: str) -> None:
        """Of each earlier command and of the present one, in one round."""
        for id in list(self.lab.model.commands)[-12:]:
            self.lab.send(analysed(id, text, by, regrade=regrade), False)
        Protocol.steps += 1
        self.lab.deliver()

    @rule(said=st.lists(st.tuples(st.sampled_from(BY[:2]), st.booleans()), min_size=1, max_size=4))
    def the_analysis_that_is_waited_for(self, said: list[tuple[tuple[str, str], bool]]) -> None:
        """In state 3, perhaps behind regrades."""
        id = self.lab.model.id
        for by, regrade in said if self.lab.model.state == 3 else ():
            self.send(True, analysed(id, "u", by, regrade=regrade))

    @rule(analyst=st.sampled_from("xy"), names=st.sets(st.sampled_from(["check1", "check2"])))
    def an_analyst_comes_or_goes(self, analyst: str, names: set[str]) -> None:
        Protocol.steps += 1
        self.lab.offer(analyst, frozenset(names))

    @rule(which=st.sampled_from(WHICH), at_once=st.sampled_from(AT_ONCE))
    def cancel(self, which: int, at_once: bool) -> None:
        id = self.which(which)
        self.send(at_once, Said("cancel", encode_id(id) if id else b"", id))

    @rule(which=st.sampled_from(WHICH), queue=st.booleans())
    def reset(self, which: int, queue: bool) -> None:
        id = self.which(which)
        fields: dict[str, object] = ({"id": id} if id else {}) | ({"queue": True} if queue else {})
        payload = dumps(fields).encode() if fields else b""
        self.send(True, Said("reset", payload, id, None, {"queue": queue}))

    @rule()
    def forget(self) -> None:
        self.send(True, Said("reset", FORGET, None, None, {"forget": True}))

    @rule(which=st.sampled_from(WHICH), at_once=st.sampled_from(AT_ONCE))
    def query(self, which: int, at_once: bool) -> None:
        id = self.which(which)
        self.send(at_once, Said("query", encode_id(id) if id else b"", id))

    @rule(
        kind=st.sampled_from(["cancel", "reset", "analysis", "collected"]),
        which=st.sampled_from(WHICH),
    )
    def somebody_retains(self, kind: str, which: int) -> None:
        """A message that the broker keeps; without an id and empty it clears one."""
        id = self.which(which)
        said = Said(kind, encode_id(id) if id else b"", id)
        if kind == "analysis":
            said = analysed(id, "u")
        elif kind == "collected":
            said = collected(id, "j1", 1)
        elif kind == "reset":
            said = replace(said, args={"queue": False})
        self.send(True, replace(said, retain=True))

    def next_of_a_cycle(self, named: bool, at_once: bool) -> None:
        model = self.lab.model
        id = (model.id if model.state else self.which(UNKNOWN)) if named else None
        own = model.command()
        journal = own.get("journal") if model.state == 2 else "j1"
        self.send(
            at_once,
            [
                asked(id, "a", False, {}),
                collected(id, "j1", 1),
                returned(id if journal else None, journal or "j1", Outcome.OK, Ran.YES),
                analysed(id, "u"),
            ][model.state],
        )

    @rule(at_once=st.sampled_from(AT_ONCE))
    def device_goes_on(self, at_once: bool) -> None:
        self.next_of_a_cycle(True, at_once)

    @rule(at_once=st.sampled_from(AT_ONCE))
    def person_goes_on(self, at_once: bool) -> None:
        self.next_of_a_cycle(False, at_once)

    @rule(later=st.integers(-1, 2))
    def the_device_restarts(self, later: int) -> None:
        """It collects again what it was granted, with another boot."""
        own = self.lab.model.command()
        if own.get("journal") and self.lab.model.state:
            said = collected(self.lab.model.id, own["journal"], own["boot"] + later)
            self.send(True, said)

    @rule(report=st.sampled_from(OUTCOMES), journal=st.sampled_from(JOURNALS))
    def late_results_for_all(self, report: tuple[Outcome, Ran], journal: str) -> None:
        """Whoever ran something once says so again, of each earlier command, in one round."""
        for id in list(self.lab.model.commands)[-12:]:
            self.lab.send(returned(id, journal, *report), False)
        Protocol.steps += 1
        self.lab.deliver()

    # -- copies -------------------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def acknowledgements_are_lost(self, count: int) -> None:
        """The last messages come again with DUP, on a new connection."""
        Protocol.steps += 1
        self.lab.deliver_again(count)

    @rule(which=st.sampled_from([ONLY_HAND, ONLY_HAND, CURRENT]), text=st.sampled_from("ab"))
    def a_message_is_lost_on_its_way(self, which: int, text: str) -> None:
        """The broker sends it again with DUP, though the coordinator has never seen it."""
        Protocol.steps += 1
        id = self.which(which)
        done = self.lab.model.state == 3
        said = analysed(id, text) if done else asked(id, text, False, {})
        self.lab.send_in_vain(said)

    @rule(back=st.integers(1, 6), at_once=st.sampled_from(AT_ONCE))
    def a_sender_repeats(self, back: int, at_once: bool) -> None:
        """A message comes again as a new one, with another packet identifier."""
        if len(self.lab.sent) >= back:
            self.send(at_once, self.lab.sent[-back])

    # -- faults -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.25, 1.0, 1.0, 2.0, 3.5, 20.0, 60.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        Protocol.steps += 1
        self.lab.pass_time(seconds)

    @rule(early=st.sampled_from([0.0, 0.0, 0.25, 1.0]))
    def the_deadline_comes(self, early: float) -> None:
        """Or almost."""
        left = self.lab.until_deadline()
        if left is not None and left >= early:
            Protocol.steps += 1
            self.lab.pass_time(left - early)

    @rule(kept=st.sampled_from([True, True, False]))
    def the_connection_breaks_or_comes_back(self, kept: bool) -> None:
        Protocol.steps += 1
        if self.lab.connected:
            self.lab.break_connection()
        else:
            self.lab.come_back(kept)

    @rule(kept=st.sampled_from([True, True, False]))
    def the_coordinator_restarts(self, kept: bool) -> None:
        Protocol.steps += 1
        self.lab.start_again(kept)

    @rule(failures=st.sampled_from([[False], [True], [False, False], [False, True], [True, False]]))
    def saving_fails(self, failures: list[bool]) -> None:
        """The next saves raise; true: although everything was stored."""
        Protocol.steps += 1
        self.lab.failures = list(failures)


def asked(id: str | None, program: str, queue: bool, keys: dict[str, object]) -> Said:
    queue = queue and id is not None
    args = {"program": program, "queue": queue, "nonce": NONCE, **keys}
    args["analyser"] = keys.get("analysis", "manual")
    said = {**keys, "queue": True} if queue else keys
    payload = encode_request(program, id=id, **said)  # type: ignore[arg-type]
    return Said("request", payload, id, None, args)


def collected(id: str | None, journal: str, boot: int) -> Said:
    if id is None:
        return Said("collected", b"")
    return Said("collected", encode_collected(id, journal, boot), id, journal, {"boot": boot})


def returned(id: str | None, journal: str, outcome: Outcome, ran: Ran) -> Said:
    if id is None:
        args = {"outcome": "ok", "ran": "yes", "response": "by hand"}
        return Said("response", b"by hand", None, None, args)
    args = {"outcome": str(outcome), "ran": str(ran), "response": f"{journal} {outcome} {ran}"}
    fields = {"id": id, "journal": journal, "boot": 1, **args}
    return Said("response", dumps(fields).encode(), id, journal, args)


def analysed(
    id: str | None, text: str, by: tuple[str, str] | None = None, *, regrade: bool = False
) -> Said:
    whose = AnalysedBy(*by) if by else None
    payload = encode_analysis(text, id, whose, regrade) if id or by else text.encode()
    return Said("analysis", payload, id, None, {"text": text, "by": by, "regrade": regrade})


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """What would take most of the time: a log that pytest keeps."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_coordinator_does_in_every_step_what_the_model_says(part: int) -> None:
    steps = -(-STEPS // PARTS)
    Protocol.steps = 0
    Protocol.max_idle = LITTLE if part % 3 == 0 else limits.MAX_IDLE
    began = time.monotonic()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Protocol,
        settings=settings(
            max_examples=int(steps * SPARE / STEPS_EACH) + 1,
            stateful_step_count=STEPS_EACH,
            derandomize=False,
            print_blob=True,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    seconds = time.monotonic() - began
    a_second = Protocol.steps / seconds
    print(f"part {part}: {Protocol.steps} steps in {seconds:.0f} s: {a_second:.0f} a second")
    assert Protocol.steps >= steps
