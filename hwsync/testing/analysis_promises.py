"""The promises about analyses (docs/protocol.md, section 7), held against what was seen.

The law: a command has one first analysis, which somebody gave for it, and it stays; a regrade
stands beside it, once for each analyser and version, and moves nothing; a name that is offered is
waited for, and one that nobody offers is not. Like ``checker``, it knows only what was seen.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from hwsync.protocol.record import Analyser, Outcome, Ran, State, Verb
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.history import Json, Judged, Said, Violation
from hwsync.testing.sorted_history import Name, Sorted

ANALYSIS: Final = "analysis"  # the promise
UNOFFERED_S: Final = 60.0  # a name that nobody offers is waited for so long
SLACK_S: Final = 2.0  # of what is heard, on its way to who has seen it
LATE_S: Final = 20.0  # beyond it: who was there before a connect may come back, and settling
SHOWN: Final = 60  # characters of an analysis
MANY: Final = 16  # regrades of a command; of more not all are told
BACK_S: Final = 6 * 86_400.0  # what is older need not be found by an analyst that comes back
RETURNED: Final = (
    *(Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT, Outcome.KILLED),
    Outcome.CANCELLED,
)
"""How those end of which there is something to be said."""
By = tuple[str, str]


def what_was_judged(user: str, id: str, program: str) -> dict[str, Any]:
    """What an analysis says of the run that it judges, as its ``data``."""
    return {"run": [user, id], "program": hashlib.sha256(program.encode()).hexdigest()[:16]}


def check_analyses(
    seen: Sorted,
    logs: Mapping[str, Sequence[Json]],
    commands: Mapping[Name, Json],
    within: float,
) -> list[Violation]:
    """Every promise about analyses that was not kept.

    ``logs``, ``commands``: as in ``checker.FinalState``. ``within``: how long the coordinator waits
    for an analysis, in seconds.
    """
    found = [*_stays(seen, commands), *_is_given(seen, commands), *_regrades(seen, commands)]
    found += [*_rows(logs), *_have_rows(logs, commands), *_of_its_own(seen, commands)]
    found += _withdrawn(logs, commands)
    found += [*_waited_for(seen, logs, commands, within), *_not_for_ever(seen, commands)]
    return [Violation(ANALYSIS, *one) for one in found]


Found = Iterator[tuple[str, str, str]]  # user, id, text


def _by(fields: Json) -> By | None:
    """Which analyser gave a command's first analysis; None: none, or a person."""
    by = fields.get("analysed_by")
    return (by["name"], by["version"]) if by else None


def _end(seen: Sorted) -> float:
    """Later than all that was said."""
    times = [one.at for one in seen.said] + [one.at for one in seen.put_back]
    return max(times, default=0.0) + 1.0


def _in_the_end(seen: Sorted, commands: Mapping[Name, Json]) -> list[Said]:
    """What the database says, as if the coordinator had said it last."""
    at = _end(seen)
    return [Said(at, user, "result", {**end, "id": id}) for (user, id), end in commands.items()]


def _report(fields: Json) -> tuple[object, object]:
    """How it ended: where a late result corrects that, what analysers said is withdrawn."""
    return fields["outcome"], fields["ran"]


def _stays(seen: Sorted, commands: Mapping[Name, Json]) -> Found:
    """Once a command has its analysis, that is it."""
    first: dict[Name, Said] = {}
    newest: dict[Name, tuple[int, int]] = {}
    last = _end(seen)
    for one in (*seen.said, *_in_the_end(seen, commands)):
        name = (one.user, one.fields["id"])
        if one.fields.get("truncated") or one.fields.get("pruned"):
            continue
        if one.kind == "result" and one.at < last and not one.fields.get("server_analysis"):
            continue  # an answer may have waited long, and be of before
        if one.kind == "status":
            order = (one.fields["epoch"], one.fields["seq"])
            if order < newest.get(name, order):
                continue  # a broker that was killed hands out what it had saved before
            newest[name] = order
        before = first.get(name)
        first[name] = one
        if before is None or not (said := before.fields.get("server_analysis")):
            continue
        was, now = (said, _by(before.fields)), (one.fields["server_analysis"], _by(one.fields))
        if was == now or seen.put_back_between(before.at, one.at):
            continue
        if was[1] is None and not _published(seen, one.user, said):
            continue  # the coordinator's own line, which a late result corrects
        if was[1] is not None and _report(before.fields) != _report(one.fields):
            continue
        text = f"was {_short(*was)} at {before.at:.3f}, and is {_short(*now)}"
        yield *name, f"{text} at {one.at:.3f}"


def _published(seen: Sorted, user: str, text: str) -> list[Judged]:
    return [one for one in seen.judged.get(user, ()) if one.text == text]


def _is_given(seen: Sorted, commands: Mapping[Name, Json]) -> Found:
    """A first analysis is one that somebody gave, for this command, and not as a regrade."""
    for (user, id), end in commands.items():
        text, by = end.get("server_analysis", ""), _by(end)
        if not text or end.get("pruned"):
            continue
        given = [one for one in _published(seen, user, text) if one.id in (id, None)]
        if not given:
            if by is not None or end.get("analyser") != Analyser.OUTCOME:
                yield user, id, f"nobody gave {_short(text, by)}"
        elif all(one.regrade for one in given):
            yield user, id, f"a regrade is its first analysis: {_short(text, by)}"
        elif by not in {one.by for one in given if not one.regrade}:
            yield user, id, f"{_short(text, by)} was given by {given[0].by or given[0].who}"


def _regrades(seen: Sorted, commands: Mapping[Name, Json]) -> Found:
    """There is one analysis for each name and version; what is told of one stays."""
    for one in (*seen.said, *_in_the_end(seen, commands)):
        end = commands.get((one.user, one.fields["id"]))
        if "regrades" not in one.fields or one.fields.get("pruned"):
            continue
        has = [(each["name"], each["version"]) for each in one.fields["regrades"]]
        for key, times in Counter(has).items():
            if times > 1:
                yield one.user, one.fields["id"], f"{times} regrades by {' '.join(key)}"
        if end is None or end.get("pruned") or seen.put_back_since(one.at):
            continue
        if _report(end) != _report(one.fields) or len(_texts(end)) >= MANY:
            continue
        for key, text in _texts(one.fields).items():
            if _texts(end).get(key) != text:
                was = f"the regrade by {' '.join(key)} was {text[:SHOWN]!r}"
                yield one.user, one.fields["id"], f"{was} at {one.at:.3f}, and is not now"
    for (user, id), end in commands.items():
        for key, text in _texts(end).items() if not end.get("pruned") else ():
            given = [one for one in seen.judged.get(user, ()) if (one.id, one.by) == (id, key)]
            if not any(one.regrade and one.text == text for one in given):
                yield user, id, f"nobody gave the regrade by {' '.join(key)}"


def _texts(fields: Json) -> dict[By, str]:
    """What its regrades say."""
    said = fields.get("regrades") or []
    return {(each["name"], each["version"]): str(each["analysis"]) for each in said}


def _said(row: Json) -> dict[str, Any]:
    """The fields of the message that caused a row of the log, where it is kept."""
    return read_object(str(row["payload"]).encode()) or {}


def _key(fields: Mapping[str, Any]) -> By | None:
    analyser = fields.get("analyser")
    return (analyser["name"], analyser["version"]) if isinstance(analyser, dict) else None


def _rows(logs: Mapping[str, Sequence[Json]]) -> Found:
    """A regrade moves no record, and is of what has ended; a copy makes no row."""
    for user, rows in logs.items():
        own, seen = "", set[tuple[str, By, bool]]()
        for row in rows:
            if row["command"] == Verb.RESPONSE and row["late"]:
                # It may correct an end that was only assumed, and withdraw what was said of that.
                seen = {one for one in seen if one[0] != row["id"]}
            if (row["before"], row["state"]) == (State.REST, State.REQUESTED):
                own = row["id"]
            if row["command"] != Verb.ANALYSIS:
                continue
            fields = _said(row)
            regrade = fields.get("regrade") is True
            if regrade:
                if row["before"] != row["state"] or not row["late"]:
                    yield user, row["id"], "a regrade moved the record"
                if row["id"] == own and row["before"] in (State.REQUESTED, State.COLLECTED):
                    yield user, row["id"], f"a regrade was taken in state {row['before']}"
            if (key := _key(fields)) is None:
                continue
            # A regrade that came early is not in the way of the first one.
            one, early = (row["id"], key, regrade), (row["id"], key, False)
            if one in seen or early in seen:
                yield user, row["id"], f"a second analysis by {' '.join(key)} has a row"
            seen.add(one)


def _have_rows(logs: Mapping[str, Sequence[Json]], commands: Mapping[Name, Json]) -> Found:
    """The log says which analyser gave what."""
    for (user, id), end in commands.items():
        notes = [str(row.get("note")) for row in logs.get(user, ())
                 if (row["id"], row["command"]) == (id, Verb.ANALYSIS)]  # fmt: skip
        wanted = [(each["name"], each["version"]) for each in end.get("regrades") or []]
        by = _by(end)
        for name, version in [*([by] if by else []), *wanted]:
            if not any(name in note and version in note for note in notes):
                yield user, id, f"no row of the log says that {name} {version} has judged it"


def _withdrawn(logs: Mapping[str, Sequence[Json]], commands: Mapping[Name, Json]) -> Found:
    """What analysers said of an end that was only assumed is gone once a result corrects it."""
    for user, rows in logs.items():
        said: dict[str, set[By]] = {}  # by id, since it was corrected last
        corrected: set[str] = set()
        for row in rows:
            if row["command"] == Verb.RESPONSE and str(row.get("note")).startswith(CORRECTED):
                corrected.add(row["id"])
                said.pop(row["id"], None)
            elif row["command"] == Verb.ANALYSIS and (key := _key(_said(row))) is not None:
                said.setdefault(row["id"], set()).add(key)
        for id in corrected & {id for of, id in commands if of == user}:
            end = commands[user, id]
            by = _by(end)
            for key in {*_texts(end), *([by] if by else [])} - said.get(id, set()):
                if not end.get("pruned"):
                    yield user, id, f"{' '.join(key)} judged an end that was corrected since"


CORRECTED: Final = "corrected from "  # begins the note of a late result


def _of_its_own(seen: Sorted, commands: Mapping[Name, Json]) -> Found:
    """An analyser's analysis is of the very run, and of its end: it says itself what it judged."""
    for (user, id), end in commands.items():
        if end.get("pruned"):
            continue
        programs = {what_was_judged(user, id, one.program)["program"]
                    for one in seen.asked.get((user, id), ()) if one.program}  # fmt: skip
        texts = [end.get("server_analysis", "")] if _by(end) else []
        texts += [str(each["analysis"]) for each in end.get("regrades") or []]
        for text in texts:
            told = read_object(text.encode()) or {}
            data = told.get("data")
            if _has_run(end) and "error" not in told and told.get("passed", True) is None:
                yield user, id, f"ended {end['outcome']}, and was judged as what the lab had lost"
            if not isinstance(data, dict) or "run" not in data:
                continue
            if data["run"] != [user, id]:
                yield user, id, f"has the analysis of {' '.join(map(str, data['run']))}"
            elif data["program"] not in programs and programs and not end["orphan"]:
                yield user, id, f"what was judged was the program {data['program']}"


def _has_run(end: Json) -> bool:
    """Whether there is something to be said of it."""
    return end["ran"] == Ran.YES and end["outcome"] in RETURNED


def check_judged(
    commands: Mapping[Name, Json], offered: Container[str], wall: float
) -> list[Violation]:
    """In the end whatever there is something to be said of has its analysis, if it is offered.

    ``wall``: now, in Unix seconds of the coordinator's clock.
    """
    return [
        Violation(ANALYSIS, user, id, f"{end['outcome']}, and {end['analyser']} has not judged it")
        for (user, id), end in commands.items()
        if end["analyser"] in offered
        and _has_run(end)
        and not (end["server_analysis"] or end["orphan"] or end["pruned"])
        and abs(wall - end["issued"]) < BACK_S
    ]


# -- how long it is waited ----------------------------------------------------------------------

Span = tuple[float, float]


def _offers(seen: Sorted) -> dict[str, list[Span]]:
    """By name, from when to when the coordinator had heard of somebody who offers it."""
    present: dict[str, tuple[str, ...]] = {}
    since: dict[str, float] = {}
    found: dict[str, list[Span]] = {}
    for one in seen.offered:
        if one.analyst:
            present[one.analyst] = one.names
        else:
            present.clear()
        now = {name for names in present.values() for name in names}
        for name in now - since.keys():
            since[name] = one.at
        for name in since.keys() - now:
            found.setdefault(name, []).append((since.pop(name), one.at))
    for name, at in since.items():
        found.setdefault(name, []).append((at, float("inf")))
    return found


def _returned(seen: Sorted, commands: Mapping[Name, Json]) -> dict[Name, list[Span]]:
    """From when to when each command of a named analyser was in state 3, as it was said."""
    named = {
        name for name, end in commands.items()
        if end.get("analyser") not in (None, "", Analyser.MANUAL, Analyser.OUTCOME)
    }  # fmt: skip
    spans: dict[Name, list[Span]] = {}
    open_since: dict[str, tuple[Name, float]] = {}
    for one in seen.said:
        if one.kind != "status":
            continue
        name = (one.user, one.fields["id"])
        waits = one.fields["state"] == State.RETURNED
        before = open_since.get(one.user)
        if before is not None and not (waits and before[0] == name):
            spans.setdefault(before[0], []).append((open_since.pop(one.user)[1], one.at))
            before = None
        if waits and before is None and name in named:
            open_since[one.user] = (name, one.at)
    for name, since in open_since.values():
        spans.setdefault(name, []).append((since, float("inf")))
    return spans


def _waited_for(
    seen: Sorted,
    logs: Mapping[str, Sequence[Json]],
    commands: Mapping[Name, Json],
    within: float,
) -> Found:
    """Nobody is given up whose name is offered, nor before a minute without it was over."""
    if not seen.offered:
        return
    offers = _offers(seen)
    expired = {
        (user, row["id"])
        for user, rows in logs.items()
        for row in rows
        if (row["command"], row["before"]) == (Verb.EXPIRE, State.RETURNED)
    }
    for name, spans in _returned(seen, commands).items():
        since, until = spans[-1]
        if name not in expired or until - since >= within - SLACK_S or seen.put_back_since(since):
            continue
        analyser = commands[name]["analyser"]
        last = max((min(end, until) for begin, end in offers.get(analyser, ()) if begin < until),
                   default=since)  # fmt: skip
        if until - max(since, last) < UNOFFERED_S - SLACK_S:
            text = f"given up at {until:.3f}, {analyser} was offered until {last:.3f}"
            yield *name, f"{text}; it was returned at {since:.3f}"


def _not_for_ever(seen: Sorted, commands: Mapping[Name, Json]) -> Found:
    """A name that nobody offers is waited for a minute of connection, and no longer."""
    offers = _offers(seen)
    for name, spans in _returned(seen, commands).items():
        analyser = commands[name]["analyser"]
        for since, until in spans:
            for life in seen.served:
                begin, end = max(since, life.until - life.last), min(until, life.until)
                free = _longest_without(offers.get(analyser, []), begin, end)
                if free > UNOFFERED_S + LATE_S:
                    text = f"waits for {analyser}, which nobody offered for {free:.1f} s"
                    yield *name, f"{text} until {end:.3f}"


def _longest_without(spans: Sequence[Span], begin: float, end: float) -> float:
    """The longest time between two moments in which none of the spans is."""
    longest, at = 0.0, begin
    for since, until in sorted(spans):
        if until <= begin or since >= end:
            continue
        longest = max(longest, since - at)
        at = max(at, until)
    return max(longest, end - at)


def _short(text: str, by: By | None) -> str:
    return f"{text[:SHOWN]!r} by {' '.join(by) if by else 'a person'}" if text else "none"
