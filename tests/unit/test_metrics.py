"""The Prometheus text file: its form, its names, and what happens where it cannot be written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from hwsync.coordinator.health import Life, Tally, health
from hwsync.coordinator.metrics import METRICS_S, MetricsFile, prometheus
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.itself import Condition
from tests.support.coordinator import OUTBOX, Lab
from tests.support.processes import CHECKOUT

SAMPLE = re.compile(r'(hwsync_[a-z_]+)(?:\{([a-z]+="[^"\n]*"(?:,[a-z]+="[^"\n]*")*)\})? (\S+)')


def shown(**changes: Any) -> dict[str, Any]:
    tally, life = Tally(), Life(1_000.0, 10.0, connected_since=1_001.0, connects=3)
    tally.committed(7, 0.25)
    counts = {"accepted": 12, "refused_busy": 2}
    fields = health(
        Condition.OK, tally, life, counts, [], outbox=OUTBOX, schema=3, wall=1_060.5, monotonic=70.5
    )
    return fields | changes


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and labels; every line must be one, or a head."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def test_every_figure_of_the_health_is_there() -> None:
    found = samples(prometheus(shown()))
    assert found["hwsync_accepted_total"] == 12
    assert found['hwsync_refused_total{code="busy"}'] == 2
    assert found["hwsync_reconnects_total"] == 2
    assert found["hwsync_uptime_seconds"] == 60.5
    assert (found["hwsync_rounds_total"], found["hwsync_round_messages_last"]) == (1, 7)
    assert found["hwsync_commit_seconds_total"] == 0.25
    assert (found["hwsync_connected"], found["hwsync_connected_since_seconds"]) == (1, 1_001)
    for code in shown()["refused"]:
        assert f'hwsync_refused_total{{code="{code}"}}' in found
    for state in ("rest", "requested", "collected", "returned"):
        assert found[f'hwsync_users_in_state{{state="{state}"}}'] == 0
    # All fields but the texts are samples of one value, of a state or of a code.
    fields = [name for name, value in shown().items()
              if name in ("clock", "unoffered") or not isinstance(value, str | dict)]  # fmt: skip
    plain = [name for name in found if "{" not in name]
    assert len(plain) == len(fields)  # the schema is a label, and "connected" is one more


def test_the_condition_is_one_of_three() -> None:
    found = samples(prometheus(shown(condition=Condition.DEGRADED, connected_since=None)))
    names = [name for name, value in found.items() if "hwsync_condition" in name and value]
    assert names == ['hwsync_condition{condition="degraded"}']
    assert found["hwsync_connected"] == 0


def test_each_name_has_one_head_before_its_samples_and_counters_end_in_total() -> None:
    text = prometheus(shown())
    assert text.endswith("\n")
    heads = re.findall(r"^# HELP (\S+) \S.*\n# TYPE (\S+) (gauge|counter)\n(\S+?)[{ ]", text, re.M)
    assert len(heads) == text.count("# HELP") == text.count("# TYPE")
    assert len({name for name, *_ in heads}) == len(heads)
    for name, typed, kind, first in heads:
        assert name == typed == first
        assert name.endswith("_total") == (kind == "counter")


def test_labels_are_escaped() -> None:
    text = prometheus(shown(version='1"\\\n2'))
    assert 'hwsync_info{version="1\\"\\\\\\n2",schema="3"} 1' in text


def test_every_name_is_in_the_documents() -> None:
    page = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(hwsync_[a-z_]+)", page.split("\n## Metrics\n")[1].split("\n## ")[0]))
    assert named == set(re.findall(r"^# TYPE (\S+)", prometheus(shown()), re.M))


# The file


def test_the_file_is_renamed_into_place_and_everybody_may_read_it(tmp_path: Path) -> None:
    target = tmp_path / "hwsync.prom"
    target.write_text("old")
    before = target.stat().st_ino
    mask = os.umask(0o077)
    try:
        MetricsFile(target).begin(shown())
    finally:
        os.umask(mask)
    assert target.read_text() == prometheus(shown())
    assert target.stat().st_ino != before
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("path", ["no-such-folder/hwsync.prom", "a-file/hwsync.prom", "a-folder"])
def test_a_file_that_cannot_be_written_is_wrong_usage_at_the_start(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(UsageError, match="cannot write the metrics to") as error:
        MetricsFile(tmp_path / path).begin(shown())
    assert "--metrics-file" in error.value.hint


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"  # as /dev/null would be, which no test must risk
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="no ordinary file"):
        MetricsFile(fifo).begin(shown())
    assert fifo.is_fifo()


def test_later_it_is_two_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = MetricsFile(folder / "hwsync.prom")
    file.begin(shown())
    (folder / "hwsync.prom").unlink()
    folder.rmdir()
    caplog.set_level("INFO")
    for _ in range(3):
        file.write(shown())
    folder.mkdir()
    for _ in range(2):
        file.write(shown())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].endswith("No such file or directory")
    assert "again" in said[1]


def test_it_is_written_every_fifteen_seconds_also_without_a_broker_and_at_the_end(
    tmp_path: Path,
) -> None:
    target = tmp_path / "hwsync.prom"
    with Lab(tmp_path / "db") as lab:
        lab.wire.url = "mqtt://broker"
        vitals = Vitals(lab.coordinator, lab.wire, lab.clock, Notifier({}), MetricsFile(target))
        assert samples(target.read_text())["hwsync_users"] == 0
        lab.hear("request", b"1")
        vitals.report([], 0)
        assert samples(target.read_text())["hwsync_users"] == 0
        assert vitals.wait() == METRICS_S
        lab.clock.now += METRICS_S
        assert vitals.wait() == 0.0
        vitals.report([], 0)
        found = samples(target.read_text())
        assert (found["hwsync_users"], found['hwsync_users_in_state{state="requested"}']) == (1, 1)
        assert vitals.wait() == METRICS_S
        lab.hear("collected")
        vitals.stopping()
    found = samples(target.read_text())
    assert found['hwsync_condition{condition="stopped"}'] == 1
    assert found['hwsync_users_in_state{state="collected"}'] == 1
