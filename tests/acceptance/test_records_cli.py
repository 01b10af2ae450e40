"""Records for a paper, as a researcher makes them: one lab with two boards, and every command."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.operator.run import NOT_RUN
from hwsync.packages import hash_of
from hwsync.signing import SigningKey
from tests.support.lab import Lab, Said, here, standing
from tests.support.mqtt import Watcher
from tests.test_docs import commands

PROGRAM = """\
import sys
for t in range(3):
    print(f"t={t} temp={20 + t / 2}")
open("out.txt", "w").write(open("data.csv").read() + sys.argv[1] + sys.stdin.read())
sys.exit(3)
"""


PAGE = Path(__file__).parents[2] / "docs/records.md"
ID = "cli-4c1b2f8a90d3e7f1"  # of the page


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with standing(tmp_path_factory.mktemp("records"), "") as lab:
        for board in ("pi1", "pi2"):
            lab.device(board, board).wait_for_log(r"\bconnected to\b")
        yield lab


def said(lab: Lab, *words: str, code: int = 0) -> Said:
    done = here(*words, HWSYNC_BROKER=lab.url)
    assert done.exit_code == code, done
    return done


def test_the_page_of_records(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its commands, as it stands there, but for the id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIRECTORY", str(lab.db.parent))
    (tmp_path / "heat.py").write_text("print('temp=21.5', open('data.csv').read())")
    (tmp_path / "data.csv").write_text("1\n")
    id = ID
    for _, command in commands(PAGE.read_text()):
        if command.startswith("mosquitto_sub"):
            continue  # below
        typed, _, file = command.replace(ID, id).partition(" > ")
        done = said(lab, *shlex.split(typed)[1:])
        if file:
            (tmp_path / file).write_text(done.stdout)
        if " run " in typed:
            id = json.loads(said(lab, "history", "pi1", "--last", "1", "--json").stdout)["id"]
        if " verify " in typed:
            assert f"{id}: heat.py" in done.stdout
        if " modules " in typed:
            told = json.loads(said(lab, "show", "pi1", id, "--json").stdout)["ran_on"]
            assert hashlib.sha256(done.stdout.encode()).hexdigest() == told["packages"]
    assert ",temp,21.5" in (tmp_path / "numbers.csv").read_text()
    # The head that others keep is the one to which the receipt leads, or a later one.
    subscribe = [command for _, command in commands(PAGE.read_text()) if "mosquitto_sub" in command]
    assert subscribe == ["mosquitto_sub -C 1 -t hw/@hwsync/health >> heads.jsonl"]
    with closing(Watcher(lab.broker, "hw/@hwsync/health")) as watcher:
        kept = watcher.wait_for(lambda one: one.payload).json["head"]
    proved = json.loads((tmp_path / "run.json").read_text())["head"]
    assert kept["row"] >= proved["row"]
    words = ["receipt", id, "--to", str(kept["row"]), "-o", "kept.json"]
    said(lab, *words)
    assert "that you gave" in said(lab, "verify", "kept.json", "--head", kept["hash"]).stdout


def test_a_run_is_exported_run_again_and_proved(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path
    data, program = folder / "data.csv", folder / "exp.py"
    data.write_text("1,2\n")
    program.write_text(PROGRAM)
    (folder / "in.txt").write_text("in")
    out = ["--out", str(folder / "first")]
    along = ["--with", f"{data}=data.csv", "--get", "out.txt", "--stdin", str(folder / "in.txt")]
    said(lab, "run", "pi1", "--id", "a1", *along, "--meta", "exp=cool", *out, str(program), "x",
         code=3)  # fmt: skip

    # What it ran on; its packages are those that the board lists.
    told = json.loads(said(lab, "show", "pi1", "a1", "--json").stdout)
    assert {"board", "kernel", "python", "packages", "hwsync"} <= set(told["ran_on"])
    listed = said(lab, "modules", "pi1", "--packages")
    lines = listed.stdout.splitlines()
    assert hash_of(lines) == told["ran_on"]["packages"]
    assert any(line.startswith("paho-mqtt==") for line in lines)
    assert f"packages {told['ran_on']['packages'][:12]}" in said(lab, "show", "a1").stdout
    rows = list(csv.DictReader(said(lab, "export", "--meta", "exp=cool").stdout.splitlines()))
    assert json.loads(rows[0]["ran_on"]) == told["ran_on"]

    # The numbers, asked for or read.
    for more in ([], ["--db", str(lab.db)]):
        numbers = said(lab, "export", "--numbers", "--meta", "exp=cool", *more).stdout
        table = list(csv.DictReader(numbers.splitlines()))
        assert [(one["id"], one["index"], one["name"], one["value"]) for one in table] == [
            ("a1", "0", "t", "0"), ("a1", "1", "t", "1"), ("a1", "2", "t", "2"),
            ("a1", "0", "temp", "20.0"), ("a1", "1", "temp", "20.5"), ("a1", "2", "temp", "21.0"),
        ]  # fmt: skip
        assert table[0]["board"] == "pi1"
        assert float(table[0]["started"]) == told["started"]
    jsonl = said(lab, "export", "--numbers", "--jsonl", "--meta", "exp=cool").stdout.splitlines()
    assert [json.loads(line)["value"] for line in jsonl] == [0, 1, 2, 20.0, 20.5, 21.0]

    # Once more: the file that went along is in the database, or given again.
    lacks = said(lab, "replay", "a1", code=1)
    assert "data.csv went along with a1" in lacks.stderr
    other = folder / "other.csv"
    other.write_text("9,9\n")
    wrong = said(lab, "replay", "a1", "--with", f"{other}=data.csv", code=1)
    assert "data.csv is not what went along with a1" in wrong.stderr
    for number, words in enumerate((
        ["a1", "--with", f"{data}=data.csv"],
        ["pi1", "a1", "--on", "pi2", "--db", str(lab.db)],
    )):  # fmt: skip
        done = said(lab, "replay", *words, "--out", str(folder / f"again{number}"), code=3)
        assert done.stdout == "t=0 temp=20.0\nt=1 temp=20.5\nt=2 temp=21.0\n"
        assert (folder / f"again{number}/out.txt").read_text() == "1,2\nxin"
        assert "it ran on the same as before" in done.stderr
    again = json.loads(said(lab, "history", "pi2", "--meta", "exp=cool", "--json").stdout)
    assert json.loads(again["meta"])["replay_of"] == "a1"
    assert json.loads(again["meta"])["exp"] == "cool"
    assert "lists them" in said(lab, "replay", "nobody", code=1).stderr
    never = said(lab, "replay", "a1", "--on", "pi99", "--with", f"{data}=data.csv", code=NOT_RUN)
    assert "pi99 has never been seen" in never.stderr
    assert "--wait-for-board" not in never.stderr  # replay has none

    # A receipt, and what it proves.
    file = folder / "run.json"
    made = said(lab, "receipt", "a1", "--db", str(lab.db), "-o", str(file))
    assert "the head: row" in made.stderr
    assert "not published" not in made.stderr
    proved = said(lab, "verify", str(file))
    assert "a1: exp.py" in proved.stdout
    assert "its device answered: error, ran yes, exit code 3" in proved.stdout
    head = json.loads(file.read_text())["head"]["hash"]
    assert "that you gave" in said(lab, "verify", str(file), "--head", head).stdout
    assert (
        "not to the one given" in said(lab, "verify", str(file), "--head", "0" * 64, code=1).stdout
    )
    assert "nobody has signed it" in said(lab, "verify", str(file), "--trust",
                                          SigningKey.make().public, code=1).stdout  # fmt: skip
    text = file.read_text()
    file.write_text(text.replace("temp=20.5", "temp=25.0"))
    assert "proves nothing" in said(lab, "verify", str(file), code=1).stdout

    # Signed.
    key = SigningKey.make()
    key.save(folder / "signing.key")
    sign = ["--signing-key", str(folder / "signing.key")]
    signed = said(lab, "receipt", "pi1", "a1", "--db", str(lab.db), *sign).stdout
    file.write_text(signed)
    assert (
        f"{key.public} has signed it"
        in said(lab, "verify", str(file), "--trust", key.public).stdout
    )
    assert json.loads(said(lab, "verify", str(file), "--json").stdout)["verified"] is True
    stranger = said(lab, "verify", str(file), "--trust", SigningKey.make().public, code=1)
    assert "none of the keys given" in stranger.stdout
    forged = json.loads(signed)
    forged["signed"]["signature"] = SigningKey.make().sign("x")
    file.write_text(json.dumps(forged))
    assert "its signature is not that of" in said(lab, "verify", str(file), code=1).stdout
