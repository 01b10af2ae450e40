"""A handful of lives of a device, by its core alone: CPython and MicroPython print the same.

Run by itself it prints them. MicroPython runs this file, too: no imports but the core.
"""

from hwsync.protocol.device import core, values
from hwsync.protocol.device.asking import Asking
from hwsync.protocol.device.clock import Estimator
from hwsync.protocol.device.values import Known, Moment, Offered, Own, State, StatusReceived

OWN = Own("j", 1, 0)
LATER = Own("j", 2, 0)


def told(
    seq: int,
    id: str = "a",
    state: int = 2,
    own: Own = OWN,
    *,
    cancelling: bool = False,
    settled: "tuple[Known, ...]" = (),
    epoch: int = 0,
    start_at: "int | None" = None,
    clock_life: str = "l",
) -> StatusReceived:
    """A status; by default it grants ``a`` to this journal."""
    holder = (own.journal, own.boot) if state > 1 else (None, None)
    grant = (id, state, holder[0], holder[1])
    return StatusReceived(
        own, (epoch, seq), grant, cancelling=cancelling, settled=settled,
        start=(start_at, "" if start_at is None else "l"), clock_life=clock_life,
    )  # fmt: skip


TRACES: "list[tuple[str, list[values.Event]]]" = [
    ("a run", [
        values.Connected(), Offered("a", (0, 1), None), told(1, state=1), told(2),
        values.Started(), values.Tick(), values.Ended("ok", "", began=True), values.Tick(),
        told(3, state=3, settled=(Known("a", values.FINISHED),)), values.Owed(any=False),
    ]),
    ("cancelled, before and after it began", [
        Offered("a", (0, 1), None), told(2, cancelling=True),
        Offered("b", (0, 3), None), told(4, "b"), told(5, "b", cancelling=True),
        values.Started(), values.Ended("cancelled", "cancelled while it ran", began=True),
    ]),
    ("refused, closed and offered again", [
        Offered("a", (0, 1), None, doubt="not signed"), told(2),
        Offered("a", (0, 2), Known("a", values.CLOSED, (0, 2), was_closed=True)),
        Offered("a", (0, 5), Known("a", values.CLOSED, (0, 2), was_closed=True)),
        told(6, own=LATER), values.NotStarted("no room"),
        Offered("a", (0, 7), Known("a", values.SETTLED)),
    ]),
    ("a stop, and the next life", [
        Offered("a", (0, 1), None), values.Stopping(), told(2), Offered("b", (0, 3), None),
        values.Restored("a", values.RECEIVED, (0, 1)), values.Connected(), told(3, own=LATER),
        values.Restored("c", values.RUNNING, (0, 1)),
        values.Restored("d", values.RECEIVED, (0, 1), renamed="v"),
    ]),
    ("deaf, and a new epoch", [
        told(9, state=0), told(1, state=0), told(2, state=0), told(3, state=0), told(4, state=0),
        told(5, state=0), told(6, state=0), told(7, state=0), told(1, state=0, epoch=4),
    ]),
    ("unknown to the coordinator", [
        Offered("a", (0, 9), None), told(1, "", 0), told(1, "", 0), told(1, "", 0),
    ]),
    ("starts at an instant", [
        Offered("a", (0, 1), None, timed=True), values.ClockChanged("l", certain=True),
        values.Prepared(certain=True), told(2), told(3, start_at=1_700_000_000_000_001),
        values.ClockChanged("m", certain=True), values.NotStarted("not released"),
        Offered("b", (0, 4), None, timed=True), values.Prepared(certain=False), values.Tick(),
        told(5, "b", start_at=1, clock_life="m"),
        Offered("c", (0, 6), None, timed=True), values.NotStarted("no room"), told(7, "c"),
        told(8, "c", start_at=1),
        values.Restored("d", values.RECEIVED, (0, 9), timed=True),
        values.Prepared(certain=True), told(9, "d", start_at=1), values.Stopping(),
        values.Ended("ok", "", began=True),
    ]),
    ("stopped as it runs", [
        Offered("a", (0, 1), None), told(2), values.Started(), values.Stopping(),
        values.TimeOver(), values.Ended("cancelled", "cancelled while it ran", began=True),
    ]),
]  # fmt: skip


def lines() -> "list[str]":
    """One for each decision, 12 s apart."""
    found = []
    for name, events in TRACES:
        state, now = State(), 100.0
        for event in events:
            decision = core.decide(state, event, Moment(now, 0.5))
            said = [repr(each) for each in decision.writes + decision.actions]
            found.append(name + ": " + ", ".join(said) + " -> " + repr(decision.state))
            state, now = decision.state, now + 12.0
    return found + clock_lines()


def clock_lines() -> "list[str]":
    """Twenty questions to a clock that is 500 s ahead and 50 ppm faster, and when they are asked.

    The delays are uneven; some answers are lost, and lab time begins a new life on the way.
    """
    found = []
    asking, estimator = Asking(), Estimator()
    raw, dice = 1_700_000_000_000_000, 7
    asking.connected(raw)
    for number in range(20):
        if number == 10:
            asking.announced(raw, together=True)
        if number == 14:
            asking.awaits(raw + 31_000_000, raw)
        assert asking.next is not None
        raw = asking.next
        asking.asked(number, raw, 0)
        dice = dice * 1_103_515_245 % 2**31
        there, back = dice % 9_000, dice // 9_000 % 4_000
        lab = raw + there + 500_000_000 + (raw + there - 1_700_000_000_000_000) // 20_000
        heard = raw + there + 50 + back
        if number % 5 != 3 and asking.answered(number, raw, (0, number)) is not None:
            life = "one" if number < 12 else "another"
            estimator.add(raw, lab, lab + 50, heard, life, 0)
        estimate = estimator.estimate(heard, 0)
        found.append(repr((estimate, asking.next, asking.newest)))
    return found


if __name__ == "__main__":
    print("\n".join(lines()))
