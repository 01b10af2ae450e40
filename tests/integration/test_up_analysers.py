"""``hwsync up --analysers``: an analyst beside the other parts, which ends with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.brokers import MosquittoBroker
from tests.support.lab import AS_ROOT, HWSYNC, here
from tests.support.mqtt import publish
from tests.support.processes import Process

CHECK = "def analyse(run):\n    return {'passed': run.stdout == '42\\n'}\n"


def test_what_a_board_has_run_is_judged_until_all_of_it_ends(
    start_mosquitto: Callable[..., MosquittoBroker], start: Callable[..., Process], tmp_path: Path
) -> None:
    analysers = tmp_path / "analysers"
    analysers.mkdir()
    (analysers / "check1.py").write_text(CHECK)
    broker = start_mosquitto()
    variables = {"HWSYNC_BROKER": f"mqtt://127.0.0.1:{broker.port}"}
    words = ["--user", "pi1", "--db", str(tmp_path / "db"), "--analysers", str(analysers)]
    up = start([*HWSYNC, "up", *words, *AS_ROOT], variables=variables, name="up")
    up.wait_for_log(r"up +the analyst offers check1$", 30.0)
    up.wait_for_log(r"\bready; try:", 30.0)
    assert "\nanalyst " in up.stderr
    asked = {"program": "print(6*7)", "id": "c1", "analysis": "check1"}
    publish(broker, "hw/pi1/request", json.dumps(asked))
    up.wait_for_log("server_analysis_provide: 3 to 0", 30.0)
    known = here("status", "pi1", "--json", **variables).stdout
    assert json.loads(json.loads(known)["server_analysis"]) == {"passed": True}
    assert json.loads(known)["analysed_by"]["name"] == "check1"
    up.interrupt()
    assert up.wait(30.0) == 0, up.account()
    assert "Traceback" not in up.stderr


def test_a_folder_without_an_analyser_starts_nothing(tmp_path: Path) -> None:
    for folder, said in ((tmp_path, "there is no analyser in"), (tmp_path / "none", "cannot be")):
        done = here("up", "--user", "pi1", "--analysers", str(folder))
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr
