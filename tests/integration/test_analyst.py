"""An analyst on real brokers, with a real coordinator, and with kills at each of its points."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import killed_analyst
from tests.support.brokers import Broker
from tests.support.fake_boards import FakeBoards
from tests.support.lab import HWSYNC, Lab, standing
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

BOARDS = [f"pi{number}" for number in range(1, 20)]
KILLED = [sys.executable, killed_analyst.__file__]
RIGHT = """
from hwsync.analysers import Analysis

def analyse(run):
    if run.files:
        return Analysis(passed=run.files == {"out/a.csv": b"1,2"})
    return Analysis(passed=run.stdout == "42\\n", message="seen")
"""
SLOW = """
import pathlib, time

def analyse(run):
    pathlib.Path({mark!r}).write_text("")
    time.sleep(0.5)
    return True
"""
HAS_SAID = "after publish analysis"
PRESENCE = "hw/@hwsync/analysts/{}"


class Desk:
    """A lab of boards that run nothing, and a folder of analysers."""

    def __init__(self, lab: Lab, watcher: Watcher) -> None:
        self.lab, self.watcher = lab, watcher
        self.analysers = lab.folder / "analysers"
        self.analysers.mkdir()
        self.write("check1.py", RIGHT)
        self.mark = lab.folder / "mark"  # a slow analyser has begun
        self.write("slow.py", SLOW.format(mark=str(self.mark)))
        self._number = 0

    def write(self, name: str, text: str) -> None:
        (self.analysers / name).write_text(text)

    def analyst(self, *options: str, point: str = "") -> Process:
        command = [*KILLED, point] if point else HWSYNC
        self._number += 1
        process = self.lab.start(
            [*command, "analyst", "--dir", str(self.analysers), "--broker", self.lab.url, *options],
            name=f"analyst-{self._number}",
            variables={"TMPDIR": str(self.lab.folder)},  # one that is killed tidies nothing up
        )
        process.wait_for_log("connected to", START_PATIENCE)
        return process

    def ask(self, user: str, program: str, id: str, analyser: str = "check1") -> None:
        request = {"program": program, "id": id, "analysis": analyser, "collect": ["out/*"]}
        self.watcher.publish(f"hw/{user}/request", json.dumps(request))

    def judged(self, user: str, id: str) -> dict[str, Any]:
        """The status with its analysis; there is one, and nobody was refused."""

        def has(status: dict[str, Any]) -> bool:
            return bool(status["id"] == id and status["state"] == 0 and status["server_analysis"])

        status = self.watcher.wait_for_status(user, has, START_PATIENCE, f"{id} is judged")
        verb = "server_analysis_provide"
        moved = {one["seq"] for one in self.watcher.statuses(user)
                 if one["id"] == id and one["command"] == verb}  # fmt: skip
        assert len(moved) <= 1
        errors = [one.json for one in self.watcher.messages(f"hw/{user}/error")]
        assert not [one for one in errors if one["topic"].endswith("/analysis")]
        return status | {"said": json.loads(status["server_analysis"])}

    def offered(self, name: str = "analyst") -> list[dict[str, Any]]:
        return [one.json for one in self.watcher.messages(PRESENCE.format(name))]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with standing(tmp_path_factory.mktemp("lab"), "") as lab:
        boards, watcher = FakeBoards(lab.broker.port, BOARDS), Watcher(lab.broker, "hw/#")
        boards.start()
        yield Desk(lab, watcher)
        boards.stop()
        watcher.close()


def test_an_analyst_that_is_killed_anywhere(desk: Desk) -> None:
    """The next one goes on with the same command, and dies a step later."""
    judged = 0
    desk.ask("pi1", "print 42", "c0")
    for point in killed_analyst.POINTS:
        assert desk.analyst(point=point).wait(START_PATIENCE) == -signal.SIGKILL, point
        desk.watcher.wait_for(
            lambda _: desk.offered()[-1] == {"online": False}, topic=PRESENCE.format("analyst")
        )
        if killed_analyst.POINTS.index(point) >= killed_analyst.POINTS.index(HAS_SAID):
            status = desk.judged("pi1", f"c{judged}")
            assert status["said"] == {"passed": True, "message": "seen"}
            assert status["analysed_by"]["name"] == "check1"
            judged += 1
            desk.ask("pi1", "print 42", f"c{judged}")
    analyst = desk.analyst()
    desk.judged("pi1", f"c{judged}")
    analyst.terminate()
    assert analyst.wait() == 0
    said = [one.json["id"] for one in desk.watcher.messages("hw/pi1/analysis")]
    assert sorted({*said}) == [f"c{number}" for number in range(judged + 1)]


def test_killed_while_an_analyser_runs(desk: Desk) -> None:
    analyst = desk.analyst()
    desk.ask("pi10", "print 1", "c1", "slow")
    wait_until(desk.mark.exists, what="the analyser runs")
    analyst.kill()
    analyst = desk.analyst()
    assert desk.judged("pi10", "c1")["said"] == {"passed": True}
    # And the coordinator: what was judged meanwhile is said until it is back.
    desk.mark.unlink()
    desk.ask("pi10", "print 1", "c2", "slow")
    wait_until(desk.mark.exists, what="the analyser runs")
    desk.lab.processes["coordinator"].kill()
    analyst.wait_for_log(r"id=c2 slow \w+ in .*: passed")
    desk.lab.coordinator("--settle", "0")
    assert desk.judged("pi10", "c2")["said"] == {"passed": True}
    # In order, while one runs: it ends too, and is judged by the next.
    desk.mark.unlink()
    desk.ask("pi10", "print 1", "c3", "slow")
    wait_until(desk.mark.exists, what="the analyser runs")
    analyst.terminate()
    assert analyst.wait() == 0
    assert desk.offered()[-1] == {"online": False}
    analyst = desk.analyst()
    assert desk.judged("pi10", "c3")["said"] == {"passed": True}
    analyst.terminate()
    analyst.wait()


def test_what_is_judged_and_what_is_said_of_it(desk: Desk) -> None:
    analyst = desk.analyst("--name", "desk1")
    desk.ask("pi11", "file out/a.csv 1,2", "c1")
    assert desk.judged("pi11", "c1")["said"] == {"passed": True}
    analyst.wait_for_log(r"INFO analyst user=pi11 id=c1 check1 [0-9a-f]{12} in \d+\.\d\d s: passed")
    desk.ask("pi11", "file out/a.csv 2", "c2")  # within the second of the board's pace
    assert desk.judged("pi11", "c2")["said"] == {"passed": False}
    # A file that changes, and one that is broken, count without a restart.
    before = desk.offered("desk1")[-1]["analysers"]
    desk.write("check1.py", RIGHT.replace("seen", "seen anew"))
    desk.write("check2.toml", 'builtin = "equals"\n[arguments]\nexpected = "42"\n')
    desk.write("broken.py", "def analyse(run:\n")
    analyst.wait_for_log(r"WARNING analyst .*broken\.py, line 1")
    offer = desk.watcher.wait_for(
        lambda one: {"check2", "broken"} <= one.json.get("analysers", {}).keys()
        and one.json["analysers"]["check1"] != before["check1"],
        topic=PRESENCE.format("desk1"),
    ).json  # fmt: skip
    assert offer["analysers"]["slow"] == before["slow"]
    assert offer["broken"] == ["broken"]
    desk.ask("pi11", "print 42", "c3")
    status = desk.judged("pi11", "c3")
    assert status["said"]["message"] == "seen anew"
    assert status["analysed_by"]["version"] == offer["analysers"]["check1"]
    desk.ask("pi11", "print 42", "c4", "broken")
    status = desk.judged("pi11", "c4")
    assert "broken.py, line 1" in status["analysed_by"]["fault"]
    assert status["said"] == {"error": status["analysed_by"]["fault"]}
    analyst.send_signal(signal.SIGHUP)
    analyst.wait_for_log(r"reading .* anew")
    (desk.analysers / "broken.py").unlink()
    analyst.wait_for_log("does not offer broken any more")
    analyst.interrupt()
    assert analyst.wait() == 0


def test_two_analysts_of_the_same_analyser_and_two_of_one_name(desk: Desk) -> None:
    analysts = [desk.analyst("--name", "desk2"), desk.analyst("--name", "desk3")]
    for number in range(3):
        desk.ask("pi12", "print 42", f"c{number}")
        assert desk.judged("pi12", f"c{number}")["said"]["passed"] is True
    analysts.append(desk.analyst("--name", "desk3"))
    wait_until(
        lambda: any("ANOTHER CLIENT USES THE ID 'hwsync-analyst-desk3'" in one.stderr
                    and "another analyst is called desk3" in one.stderr for one in analysts[1:]),
        START_PATIENCE, "the fight is named",
    )  # fmt: skip
    analysts[0].kill()
    desk.ask("pi12", "print 42", "c9")
    assert desk.judged("pi12", "c9")["said"]["passed"] is True
    for one in analysts[1:]:
        one.terminate()
        one.wait()


def test_on_each_broker_what_was_missed_is_judged(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    """Also over MQTT 3.1.1, where a broker refuses silently."""
    lab = Lab(broker, start, tmp_path)
    lab.coordinator("--settle", "0", "--analysis-within", "0.3")
    desk, boards = Desk(lab, watch(broker)), FakeBoards(broker.port, BOARDS[:2])
    boards.start()
    try:
        for number in range(3):  # nobody is there: it ends without
            desk.ask("pi1", "print 42", f"c{number}")
            desk.watcher.wait_for_state("pi1", 0, START_PATIENCE, id=f"c{number}")
        analyst = desk.analyst(point="after publish analysis")
        assert analyst.wait(START_PATIENCE) == -signal.SIGKILL
        analyst = desk.analyst()
        for number in range(3):
            said = desk_result(desk, "pi1", f"c{number}")
            assert json.loads(said["server_analysis"])["passed"] is True
            assert said["late"] is True
        desk.ask("pi2", "print 41", "c1", "slow")
        assert desk.judged("pi2", "c1")["said"] == {"passed": True}
        analyst.terminate()
        assert analyst.wait() == 0
    finally:
        boards.stop()


def desk_result(desk: Desk, user: str, id: str) -> dict[str, Any]:
    """All that is stored of it, once it has its analysis."""
    found: list[dict[str, Any]] = []

    def has() -> bool:
        mark = desk.watcher.mark()
        desk.watcher.publish(f"hw/{user}/query", json.dumps({"id": id}))
        topic = f"hw/{user}/result/{id}"
        found[:] = [desk.watcher.wait_for(lambda _: True, topic=topic, after=mark).json]
        return bool(found[0]["server_analysis"])

    wait_until(has, START_PATIENCE, f"{id} has its analysis")
    return found[0]


def test_what_a_start_says_of_its_folder(
    mosquitto: Broker, start: Callable[..., Process], tmp_path: Path
) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    command = [*HWSYNC, "analyst", "--broker", url]
    missing = start([*command, "--dir", str(tmp_path / "none")], name="missing")
    assert missing.wait(START_PATIENCE) == 2
    assert re.search(r"hwsync: .*/none cannot be read: No such file", missing.stderr)
    assert "make it, or name another with --dir" in missing.stderr
    (tmp_path / "empty").mkdir()
    empty = start([*command, "--dir", str(tmp_path / "empty")], name="empty")
    empty.wait_for_log("has no analyser yet", START_PATIENCE)
    empty.terminate()
    assert empty.wait() == 0
