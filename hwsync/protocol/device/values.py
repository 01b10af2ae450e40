"""What goes into a device's decisions and what comes out: plain values (docs/protocol.md, 5).

The law: no value here is changed once it was handed on, but a ``Decision`` while it is made.
Moments are seconds of a clock that never jumps; an order is (epoch, seq); an instant is in whole
microseconds of lab time, and belongs to a life of that. Written for MicroPython too: no dataclass,
no enum, no typing, no imports.
"""

UNKNOWN_S = 10.0  # of answers that know less than the envelope, until a device gives it up
TIME_S = 2.0  # that a start waits for lab time to be known, before it is collected
DEAF_S = 60.0  # of stale statuses only, until a device believes them: two heartbeats
REPEAT_FIRST_S = 1.0  # every repetition: doubling from here,
REPEAT_MAX_S = 30.0  # to here,
SHORTER = 0.25  # less this share at most, by chance, so that many do not speak at once

# How far a command came on this device.
NEW = "new"  # nothing is known of it
PREPARING = "preparing"  # written down; it has an instant, and its process is made ready
RECEIVED = "received"  # written down, and ready if it has an instant; it waits for its grant
STARTING = "starting"  # granted; the journal still says received
RUNNING = "running"  # `started` is written: never started again
ARMED = "armed"  # `started` is written: its process begins at its instant, or has begun
ENDING = "ending"  # it was told to end, and its end is awaited
FINISHED = "finished"  # granted once, and over
CLOSED = "closed"  # provably not run; a newer envelope opens it again
SETTLED = "settled"  # finished or closed, and nobody needs its result any more

STAGES = (
    NEW, PREPARING, RECEIVED, STARTING, RUNNING, ARMED, ENDING, FINISHED, CLOSED, SETTLED,
)  # fmt: skip

# What is to be done, in ``Decision.writes``: the journal may refuse it.
NEXT_BOOT = "next boot"  # count ``boot`` on
WRITE_RECEIVED = "write received"  # the envelope of this event
WRITE_STARTED = "write started"  # ``id``
WRITE_EPOCH = "write epoch"  # ``number``
NOTE_DEAFNESS = (
    "note deafness"  # for the log: an older status, of ``order``, is believed from now on
)

# And in ``Decision.actions``: what the journal refuses of it is tried again later.
BEGIN_EPOCH = "begin epoch"  # ``number``: write it; what is held is unsettled again
KEEP_REFUSED = "keep refused"  # the envelope of this event, in memory, with ``reason``
WRITE_END = "write end"  # the result of ``id``; ``order``: of the status that closed it
WRITE_SETTLED = "write settled"  # the result of ``id``
RETRY_WRITES = "retry writes"  # of results
BEGIN_CONNECTION = "begin connection"  # what was tried on an earlier one counts no more
PUBLISH_HEARTBEAT = "publish heartbeat"
PUBLISH_COLLECTED = "publish collected"  # of ``id``
PUBLISH_RESULT = "publish result"  # of ``id``, where it is kept
PUBLISH_RESULTS = "publish results"  # all that are not settled
PUBLISH_RESULTS_AGAIN = "publish results again"  # likewise; ``Owed`` where there is none
NOTE_ANSWER = "note answer"  # a status settles ``ids``, and of the others none
NOTE_REFUSAL = "note refusal"  # ``reason``, for the log
START_RUN = "start run"  # of ``id``
STOP_RUN = "stop run"  # of ``id``; one that is armed is not released any more
PREPARE_RUN = "prepare run"  # of ``id``, instead of what was prepared before
DROP_RUN = "drop run"  # what was prepared of ``id``, if anything was: it never begins
ARM_RUN = "arm run"  # of ``id``: it is released at the instant ``number``
DISARM_RUN = "disarm run"  # of ``id``: it is not released any more; if it was, it goes on
END_LEFTOVERS = "end leftovers"  # what an earlier life left running of ``id``


class Value:
    """What is compared by its fields, which ``fields`` names."""

    fields: "tuple[str, ...]" = ()

    def values(self) -> "list[object]":
        return [getattr(self, name) for name in self.fields]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Value)
            and self.fields == other.fields
            and self.values() == other.values()
        )

    def __hash__(self) -> int:
        return hash(tuple(self.values()))

    def __repr__(self) -> str:
        said = [name + "=" + repr(getattr(self, name)) for name in self.fields]
        return "(" + ", ".join(said) + ")"


class Moment:
    """``now``: seconds; ``chance``: from 0 to 1."""

    def __init__(self, now: float, chance: float) -> None:
        self.now = now
        self.chance = chance


def pause(attempt: int, chance: float) -> float:
    """Seconds before the next try: 1 doubling to 30, shortened by up to a quarter.

    ``attempt`` counts from 0, ``chance`` is from 0 to 1.
    """
    full = min(REPEAT_FIRST_S * 2.0 ** min(attempt, 10), REPEAT_MAX_S)
    return float(full * (1.0 - SHORTER * chance))


class Repetition(Value):
    """Something that is said again: when, how often it was said, and since when."""

    fields = ("at", "times", "since")

    def __init__(self, at: float, times: int, since: float) -> None:
        self.at = at
        self.times = times
        self.since = since

    def later(self, moment: Moment) -> "Repetition":
        """The next time, once it was said again at this moment."""
        at = moment.now + pause(self.times, moment.chance)
        return Repetition(at, self.times + 1, self.since)


def repetition(moment: Moment) -> Repetition:
    """When what was said just now is said for the second time."""
    return Repetition(moment.now, 0, moment.now).later(moment)


class State(Value):
    """What a device knows beside its journal (``Own``, ``Known``)."""

    fields = (
        "id", "stage", "order", "refusal", "stopping", "newest", "stale_since",
        "collect", "results", "timed", "prepared", "patience", "start_at", "life",
    )  # fmt: skip

    def __init__(self) -> None:
        self.id = ""  # of the command in hand, which is at most one; empty: none
        self.stage = NEW  # how far that one came
        self.order = (0, 0)  # of its newest envelope
        self.refusal = ""  # why it will not start; empty where it may
        self.stopping = False  # nothing new is begun
        self.newest = (0, 0)  # the newest status seen in this life
        self.stale_since: float | None = None  # nothing but older ones came since then
        self.collect: Repetition | None = None  # of `collected`
        self.results: Repetition | None = None  # of all results that are not settled
        self.timed = False  # the command in hand begins at an instant
        self.prepared = False  # its process is ready
        self.patience = 0.0  # until then it waits for lab time to be known
        self.start_at: int | None = None  # the instant that was granted
        self.life = ""  # whose time that is

    @property
    def runs(self) -> bool:
        """Whether the command in hand was granted."""
        return self.stage in (STARTING, RUNNING, ARMED, ENDING)

    def but(self, **changes: object) -> "State":
        """This state with some fields changed."""
        other = State()
        for name in self.fields:
            setattr(other, name, changes[name] if name in changes else getattr(self, name))
        return other


class Own:
    """What the journal is called, its count of starts, and the highest epoch written in it."""

    def __init__(self, journal: str, boot: int, epoch: int) -> None:
        self.journal = journal
        self.boot = boot
        self.epoch = epoch


class Known:
    """What is known of a command, whether in hand or not.

    ``stage``: RECEIVED, RUNNING, FINISHED, CLOSED or SETTLED. ``closing``: the order of the status
    that closed it. ``another``: whose command it is, where that is another user. ``was_closed``: it
    was closed before, and what was said of that may still be under way.
    """

    def __init__(
        self,
        id: str,
        stage: str,
        closing: "tuple[int, int] | None" = None,
        *,
        another: str = "",
        was_closed: bool = False,
    ) -> None:
        self.id = id
        self.stage = stage
        self.closing = closing
        self.another = another
        self.was_closed = was_closed


# -- what happens ----------------------------------------------------------------------------------


class Event:
    """``unwritten``: why the journal did not take what this event made the core write."""

    def __init__(self) -> None:
        self.unwritten = ""


class Offered(Event):
    """An envelope came.

    ``doubt``: why it may not run; ``answer``: whether that is said at its grant, or it is passed
    over. ``signed``: only signed ones count here, and ``doubt`` is what was found of this one.
    ``room``: whether another command can be kept. ``timed``: it begins at an instant.
    """

    def __init__(
        self,
        id: str,
        order: "tuple[int, int]",
        known: "Known | None",
        *,
        doubt: str = "",
        answer: bool = True,
        signed: bool = False,
        room: bool = True,
        timed: bool = False,
    ) -> None:
        super().__init__()
        self.id = id
        self.order = order
        self.known = known
        self.doubt = doubt
        self.answer = answer
        self.signed = signed
        self.room = room
        self.timed = timed


class StatusReceived(Event):
    """A status of this user came.

    ``settled``: what is known of the ids that it settles for this journal. ``distrust``: why the
    command in hand must not start although it was received. ``start``: the instant and the life
    whose time that is. ``clock_life``: whose time is known here; empty: none.
    """

    def __init__(
        self,
        own: Own,
        order: "tuple[int, int]",
        grant: "tuple[str, int, str | None, int | None]",
        *,
        cancelling: bool,
        settled: "tuple[Known, ...]" = (),
        distrust: str = "",
        start: "tuple[int | None, str]" = (None, ""),
        clock_life: str = "",
    ) -> None:
        super().__init__()
        self.own = own
        self.order = order
        self.id, self.state, self.journal, self.boot = grant
        self.cancelling = cancelling
        self.settled = settled
        self.distrust = distrust
        self.start_at, self.start_life = start
        self.clock_life = clock_life


class FormerStatusReceived(Event):
    """A status came of a name that this board had before: only what it settles counts.

    ``first``: of that name nothing was heard yet on this connection.
    """

    def __init__(self, settled: "tuple[Known, ...]", *, first: bool) -> None:
        super().__init__()
        self.settled = settled
        self.first = first


class Restored(Event):
    """After a start: what the journal has open. ``renamed``: this board's name, where it changed.

    ``stage``: RECEIVED or RUNNING. ``timed``: it begins at an instant.
    """

    def __init__(
        self,
        id: str,
        stage: str,
        order: "tuple[int, int]",
        *,
        renamed: str = "",
        timed: bool = False,
    ) -> None:
        super().__init__()
        self.id = id
        self.stage = stage
        self.order = order
        self.renamed = renamed
        self.timed = timed


class Connected(Event):
    """Subscribed anew: everything that is due is said again."""


class Started(Event):
    """The process exists, and the program is not handed over to it yet."""


class Ended(Event):
    """The run is over. ``began``: whether the program may have done anything."""

    def __init__(self, outcome: str, reason: str, *, began: bool) -> None:
        super().__init__()
        self.outcome = outcome
        self.reason = reason
        self.began = began


class Prepared(Event):
    """The process is ready. ``certain``: lab time is known as well as its start asks for."""

    def __init__(self, *, certain: bool) -> None:
        super().__init__()
        self.certain = certain


class ClockChanged(Event):
    """Something else is known of lab time: in which ``life``, and how well (``Prepared``)."""

    def __init__(self, life: str, *, certain: bool) -> None:
        super().__init__()
        self.life = life
        self.certain = certain


class NotStarted(Event):
    """The program could not be prepared, started or released: it surely did not run."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Stopping(Event):
    """The device was told to stop: nothing new is begun; what runs may end by itself."""


class TimeOver(Event):
    """What runs at a stop has had its time."""


class Tick(Event):
    """Time has passed."""


class Owed(Event):
    """Whether ``any`` result is left that may be told now, or must still be written."""

    def __init__(self, *, any: bool) -> None:
        super().__init__()
        self.any = any


# -- what follows ----------------------------------------------------------------------------------


class Action(Value):
    """One thing to do; beside the constants above stands which fields count."""

    fields = ("do", "id", "outcome", "ran", "reason", "order", "number", "ids")

    def __init__(
        self,
        do: str,
        id: str = "",
        *,
        outcome: str = "",
        ran: str = "",
        reason: str = "",
        order: "tuple[int, int] | None" = None,
        number: int = 0,
        ids: "tuple[str, ...]" = (),
    ) -> None:
        self.do = do
        self.id = id
        self.outcome = outcome
        self.ran = ran
        self.reason = reason
        self.order = order  # of a result: of the status that closed it; None: it was granted
        self.number = number
        self.ids = ids


class Decision:
    """What follows: ``writes``, then ``state`` counts, then ``actions``, each in its order.

    ``again``: decide the same event once more, after all of this was done.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.writes: list[Action] = []
        self.actions: list[Action] = []
        self.again = False

    def write(self, *actions: Action) -> None:
        self.writes.extend(actions)

    def do(self, *actions: Action) -> None:
        self.actions.extend(actions)

    def change(self, **changes: object) -> None:
        self.state = self.state.but(**changes)
