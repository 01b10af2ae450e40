"""The soak that scripts/soak runs: real processes, random faults, then one verdict.

The law: what is seen from outside is recorded while faults happen; then everything is healed, has
to come to rest within ``END_S``, and ``hwsync.testing.checker`` says which promise was not kept.
Exit code 1: one was not. The seed plans the faults and the requests, but real processes are not
deterministic: a seed that showed something once may have to be tried again.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.protocol.errors import DatabaseError
from hwsync.store.checking import check as check_database
from hwsync.testing.checker import FinalState
from hwsync.testing.history import Seen, Violation
from tests.support.brokers import SmallMosquittoBroker
from tests.support.soak_analysts import analyses_figures, check_in_the_end
from tests.support.soak_asking import Asking
from tests.support.soak_faults import Storm
from tests.support.soak_groups import Teacher
from tests.support.soak_lab import BROKERS, ProgramPart, SoakLab
from tests.support.soak_people import Asker, Person
from tests.support.soak_programs import Programs, read_lines
from tests.support.soak_starts import (
    Instants,
    check_held,
    check_starts,
    read_lives,
    starts_figures,
)
from tests.support.soak_verdict import (
    differing,
    figures,
    files_figures,
    judge,
    read_database,
    read_witness,
)

END_S: Final = 90.0  # until rest: settling, timeout and grace, and a whole backoff of 30 s
LAST_S: Final = 60.0  # for each device's last command, and for what is asked once more
STEP_S: Final = 0.02
LOOK_S: Final = 1.0  # between two looks whether everything is at rest
LINE_S: Final = 30.0  # between two lines of progress, where no terminal refreshes one
REFRESH_S: Final = 0.5
UNTIL_REST: Final = ("ends", "stuck", "counts")  # promises that are kept by then
SHOWN: Final = 50  # violations
SHOWN_AT_ONCE: Final = 3  # of what is not at rest, in a line of progress


class Soak:
    """One run: the lab, its people, its faults, and what was seen of them."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        # The same difference for both readings, which a step of the wall clock would spoil.
        self.wall_offset = time.time() - time.monotonic()
        self.lab = lab = SoakLab(folder, options.broker, options.devices)
        large = options.broker == SmallMosquittoBroker.name
        self.programs = Programs(str(lab.witness), large=large)
        self.storm: Storm | None = None
        self.instants = Instants()
        self.askers: list[Asker] = []
        self.teacher: Teacher | None = None
        self.person: Person | None = None
        self.found: list[Violation] = []  # what only this script can see
        self.rested = False
        self.rest_s: float | None = None  # from the last fault to rest
        self.restless: list[str] = []  # what was not at rest at the last look
        self.said_at = 0.0

    @property
    def operators(self) -> list[Asking]:
        """Everybody who asks with ids."""
        return [*self.askers, *([self.teacher] if self.teacher else [])]

    # -- the run ------------------------------------------------------------------------------

    def run(self) -> None:
        """Start everything, let it storm, come to rest."""
        self.lab.start()
        seed = self.options.seed
        url, quiet = self.lab.broker.url, threading.Event()
        self.askers = [Asker(user, url, self.programs, seed, quiet, self.instants)
                       for user in self.lab.users]  # fmt: skip
        self.teacher = Teacher(
            self.lab.users, url, self.programs, seed, quiet,
            lambda: not any(asker.unanswered for asker in self.askers),
        )  # fmt: skip
        typed = shutil.which("mosquitto_pub")
        if typed is None:
            say("mosquitto_pub is missing: nobody asks without an id")
        else:
            port = self.lab.broker.port
            self.person = Person(typed, port, self.lab.users, self.programs, seed)
        for operator in self.operators:
            operator.start()
        self.storm = storm = Storm(self.lab, seed, self.instants)
        limit = self.began + 60 * self.options.minutes if self.options.minutes else None
        while storm.kills < self.options.kills if limit is None else time.monotonic() < limit:
            storm.step(self.options.kills - storm.kills if limit is None else None)
            if self.person is not None:
                self.person.step()
            self.look()
            time.sleep(STEP_S)
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Heal everything; what is not at rest within the bound is stuck."""
        assert self.storm is not None
        self.storm.calm()
        if self.person is not None:
            self.person.leave()
        for operator in self.operators:
            operator.finish()
        healed = time.monotonic()
        while time.monotonic() < healed + END_S:
            self.restless = self.unrest()
            if not self.restless:
                break
            self.wait(LOOK_S / 5 if any(one.unanswered for one in self.operators) else LOOK_S)
        self.rest_s = round(time.monotonic() - healed, 1)
        self.stuck(f"its operator does not know its end, {END_S:g} s after the last fault")
        self.ask_last()
        self.stuck(f"asked once more, it is not answered within {LAST_S:g} s")
        self.rested = True

    def ask_last(self) -> None:
        """Each board must do one more, then all together, and then those that are left.

        Nobody waits for who has gone. All that was ever acknowledged is asked for once more.
        """
        assert self.teacher is not None
        users = self.lab.users
        last = [(asker.user, asker.ask_last(), "ok", asker.ended) for asker in self.askers]
        self.wait_for_answers()  # a busy board takes no start
        id = self.teacher.ask_together("last", wait=30.0, need=len(users))
        last.append((self.teacher.user, id, f"{len(users)} ok", self.teacher.ended))
        self.wait_for_answers()
        for user, id, wanted, ended in last:
            if ended.get(id) != wanted:
                text = f"the last command ended as {ended.get(id)}"
                self.found.append(Violation("stuck", user, id, text))
        self.lab.parts[users[-1]].kill()
        self.teacher.ask_together("without-one", wait=1.0, need=1)
        for operator in self.operators:
            operator.ask_again()
        self.wait_for_answers()

    def wait_for_answers(self) -> None:
        limit = time.monotonic() + LAST_S
        while any(one.unanswered for one in self.operators) and time.monotonic() < limit:
            self.wait(LOOK_S / 5)

    def stuck(self, text: str) -> None:
        known = {(one.user, one.id) for one in self.found if one.promise == "stuck"}
        for operator in self.operators:
            for id in operator.unanswered:
                if (operator.user, id) not in known:
                    self.found.append(Violation("stuck", operator.user, id, text))

    def unrest(self) -> list[str]:
        """What is open, or may still be corrected, one a line."""
        final = read_database(self.lab.db, self.lab.users)
        waiting = [text for one in self.operators for text in one.waits(final.commands)]
        late = check_in_the_end(final, time.time())
        return waiting or [str(one) for one in (*late, *self.judge(final))]

    def wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self.look()
            time.sleep(STEP_S)

    def look(self) -> None:
        """Whether everybody lives who should; and a word of progress."""
        for part in self.lab.parts.values():
            if account := part.ended_by_itself():
                self.found.append(Violation("lives", part.name, "", f"ended by itself\n{account}"))
                part.start()
        for one in self.operators:
            if one.error:
                self.found.append(Violation("lives", one.user, "", f"operator: {one.error}"))
                raise KeyboardInterrupt  # nothing more can be learnt
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if self.said_at and now - self.said_at >= (REFRESH_S if terminal else LINE_S):
            self.said_at = now
            kills = self.storm.kills if self.storm else 0
            line = (
                f"{kills} kills, {sum(one.asked for one in self.operators)} asked, "
                f"{sum(len(one.acknowledged) for one in self.operators)} acknowledged, "
                f"{now - self.began:.0f} s"
            )
            if self.restless:
                line += f"; not at rest: {'; '.join(self.restless[:SHOWN_AT_ONCE])}"
            print(f"\r\033[K{line}" if terminal else line, file=sys.stderr,
                  end="" if terminal else "\n", flush=True)  # fmt: skip
        self.said_at = self.said_at or now

    def stop(self) -> None:
        """End everything that was started."""
        for operator in self.operators:
            operator.leave()
        if self.person is not None:
            self.person.leave()
        self.lab.stop()
        if sys.stderr.isatty():
            print("\r\033[K", file=sys.stderr, end="")

    # -- the verdict --------------------------------------------------------------------------

    def judge(self, final: FinalState, *, rested: bool = True) -> list[Violation]:
        """``rested``: what a device knows may have been heard by now."""

        def undisturbed(user: str, since: float, until: float) -> bool:
            return rested and self.lab.parts[user].undisturbed(since, until)

        seen: list[Seen] = [one for asker in self.operators for one in list(asker.history)]
        if self.person is not None:
            seen += self.person.history
        lines = list(read_lines(self.lab.witness.read_text().splitlines()))
        coordinator = self.lab.parts["coordinator"]
        wrong = isinstance(coordinator, ProgramPart) and coordinator.was_wrong
        offset = None if wrong else self.wall_offset
        seen += read_witness(lines, self.programs, final.commands, offset, undisturbed)
        seen.sort(key=lambda one: one.at)
        found = judge(seen, final, self.programs.output)
        heard_at = [at for operator in self.operators for at in list(operator.heard_at)]
        asked = self.teacher.starts if self.teacher else {}
        found += check_starts(lines, final.commands, asked, read_lives(self.lab.db))
        return found + list(check_held(seen, heard_at, self.can_decide, time.monotonic()))

    def can_decide(self, since: float, until: float) -> bool:
        """Whether nothing happened between to the coordinator, nor to who brings its messages."""
        return all(self.lab.parts[name].connected(since, until)
                   for name in ("coordinator", "broker"))  # fmt: skip

    def verdict(self, interrupted: bool) -> dict[str, Any]:
        """The figures, with the violations."""
        final = FinalState({})
        try:
            final = read_database(self.lab.db, self.lab.users)
        except DatabaseError as error:
            say(f"nothing is recorded: {error}")
        found = self.found + self.judge(final, rested=not interrupted)
        if self.rested:
            told = {(asker.user, id): outcome for asker in self.askers
                    for id, outcome in asker.ended.items()}  # fmt: skip
            found = found + differing(told, final) + check_in_the_end(final, time.time())
        if self.lab.db.exists():
            found = found + [
                Violation("saved", "", "", text) for text in check_database(self.lab.db)
            ]
        if interrupted:
            found = [one for one in found if one.promise not in UNTIL_REST]
        counts = self.storm.counts if self.storm else Counter[str]()
        acknowledged = sum(len(asker.acknowledged) for asker in self.askers)
        kills = [at for part in self.lab.parts.values() if part.kind in ("coordinator", "device")
                 for at in part.kills]  # fmt: skip
        return {
            "broker": self.options.broker,
            "devices": self.options.devices,
            "seed": self.options.seed,
            "interrupted": interrupted,
            "kills": self.storm.kills if self.storm else 0,
            "faults": dict(sorted(counts.items())),
            "typed by hand": self.person.typed if self.person else 0,
            **figures(final, acknowledged, found),
            **files_figures(final, self.programs),
            **analyses_figures(final.commands),
            "batches that nobody took": self.teacher.given_up if self.teacher else 0,
            **starts_figures(final.commands, read_lives(self.lab.db), self.instants, kills),
            "seconds until rest": self.rest_s,
            "not at rest": self.restless,
            "seconds": round(time.monotonic() - self.began, 1),
            "violations": [str(one) for one in found],
        }


def main() -> int:
    options = parse()
    command = " ".join(
        ["scripts/soak", "--broker", options.broker, "--devices", str(options.devices)]
        + (["--minutes", f"{options.minutes:g}"] if options.minutes else
           ["--kills", str(options.kills)])
        + ["--seed", str(options.seed)]
    )  # fmt: skip
    say(command)
    # The operators lose their connections all the time, as they should.
    logging.getLogger("hwsync.transport").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kept = options.keep
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        if any(kept.iterdir()):
            say(f"soak: {kept} is not empty; name a new folder with --keep")
            return 2
    folder = kept or Path(tempfile.mkdtemp(prefix="hwsync-soak-"))
    soak = Soak(folder.resolve(), options)
    interrupted = False
    try:
        try:
            soak.run()
        except KeyboardInterrupt:
            interrupted = True
            say("\ninterrupted: what was seen so far is checked")
        finally:
            soak.stop()
        result = soak.verdict(interrupted)
    except (pytest.fail.Exception, pytest.skip.Exception) as failure:
        say(f"soak: {failure}; see {folder}")
        return 1
    report(result, command, as_json=options.json)
    if result["violations"]:
        say(f"everything is in {folder}")
        return 1
    if kept is None:
        shutil.rmtree(folder)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Run a real lab under random faults (kill -9, also between the decision of a "
        "start and its instant, SIGSTOP, clocks that are years wrong after a restart, a network "
        "that delays, drops, repeats, cuts, holds and partitions), in which boards are asked alone "
        "and as a group, heal it, and check every promise of docs/protocol.md, sections 6, 8 and "
        "9. Exit code 1: one was not kept. Ctrl-C ends it; what was seen until then is checked.",
        epilog="A seed plans the same faults and requests again. Real processes are not "
        "deterministic: the same seed need not show the same thing.",
    )
    add = parser.add_argument
    add("--broker", choices=sorted(BROKERS), default="mosquitto",
        help="mosquitto (saves each second), mosquitto-memory (forgets all when killed), "
        "mosquitto-small (takes no message above 128 KiB; some programs print more), amqtt "
        "(hwsync broker; forgets too); default mosquitto")  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--kills", type=positive(int), default=30, metavar="N",
                        help="end after so many kill -9 (default 30); about as many other faults "
                        "come on top")  # fmt: skip
    length.add_argument("--minutes", type=positive(float), metavar="M", help="end after so long")
    add("--devices", type=positive(int), default=3, metavar="N", help="daemons (default 3)")
    add("--seed", type=int, default=random.randrange(10**6), metavar="S",
        help="of every random choice (default: a new one, which is printed)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    add("--keep", type=Path, metavar="DIR",
        help="a new folder for database, journals and logs, kept (else a temporary one, kept only "
        "where a promise was not)")  # fmt: skip
    return parser.parse_args()


def positive(kind: type) -> Any:
    def number(text: str) -> Any:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


def report(result: dict[str, Any], command: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"command": command, **result}))
        return
    for name, value in result.items():
        if name == "violations":
            print(f"{name}: {len(value)}")
        elif isinstance(value, list):
            print(f"{name}: {'; '.join(value) or 'nothing'}")
        elif isinstance(value, dict):
            print(f"{name}: {', '.join(f'{key} {count}' for key, count in value.items())}")
        else:
            print(f"{name}: {value}")
    for text in result["violations"][:SHOWN]:
        print(f"\nVIOLATION {text}\n  {command}")
    if result["violations"]:
        print("\nReal processes are not deterministic: the same seed may have to be tried again.")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
