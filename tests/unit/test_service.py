"""``hwsync service``: what it writes, what it calls, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.cli import common, service
from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.protocol.errors import HwsyncError, NotFound, UsageError
from hwsync.systemd import BINARIES, Machine, Part, Wanted, wanted
from hwsync.systemd.written import Found, look, marked, write

UNITS = Path("etc/systemd/system")

FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$1" in
    is-system-running) cat "$SAYS/running" ;;
    show) cat "$SAYS/show" ;;
    list-units) cat "$SAYS/list" ;;
    enable) [ ! -e "$SAYS/refuse" ] || { echo "Failed to enable unit" >&2; exit 1; } ;;
esac
"""

Calls = Callable[[], list[str]]


def run(*words: str) -> None:
    cli.main(["service", *words], obj=Settings(), standalone_mode=False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder, an environment in it, root's rights, and a systemd that only listens."""
    tools, binaries, says = tmp_path / "tools", tmp_path / "opt" / "bin", tmp_path / "says"
    for folder in (tools, binaries, says):
        folder.mkdir(parents=True)
    for program in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
        (tools / program).write_text(FAKE)
        (tools / program).chmod(0o755)
    for program in ("hwsync", "hwsync-device"):
        (binaries / program).touch()
    (says / "running").write_text("running\n")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("SAYS", str(says))
    monkeypatch.setattr(service, "ROOT", tmp_path / "root")
    monkeypatch.setattr(common, "SBIN", "")
    monkeypatch.setattr(service, "HIDDEN", ())
    monkeypatch.setattr(service.sysconfig, "get_path", lambda _: str(binaries))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


@pytest.fixture
def calls(machine: Path) -> Calls:
    """What was called since the last look, without the question whether systemd runs."""

    def take() -> list[str]:
        path = machine / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in lines if line != "systemctl is-system-running"]

    return take


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_everything_is_written_and_started_once(
    machine: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    run("install", "coordinator", "device", "pi1", "--connection", "/etc/hwsync/me.toml")
    root = machine / "root"
    there = files(root)
    assert set(there) == {
        "etc/systemd/system/hwsync-coordinator.service",
        "etc/systemd/system/hwsync-coordinator.service.d/connection.conf",
        "etc/sysusers.d/hwsync-coordinator.conf",
        "etc/tmpfiles.d/hwsync-coordinator.conf",
        "etc/systemd/system/hwsync-device@.service",
        "etc/systemd/system/hwsync-device@pi1.service.d/hwsync.conf",
        "etc/tmpfiles.d/hwsync-device.conf",
    }
    unit = there["etc/systemd/system/hwsync-coordinator.service"]
    assert f"ExecStart={machine}/opt/bin/hwsync coordinator" in unit
    assert BINARIES not in unit
    assert "u hwsync -" in there["etc/sysusers.d/hwsync-coordinator.conf"]
    drop_in = there["etc/systemd/system/hwsync-device@pi1.service.d/hwsync.conf"]
    assert "LoadCredential=device.toml:/etc/hwsync/me.toml\n" in drop_in
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*.service")} == {0o644}
    names = "hwsync-coordinator.service hwsync-device@pi1.service"
    folders = f"{root}/etc/tmpfiles.d/hwsync"
    expected = [
        f"systemd-sysusers {root}/etc/sysusers.d/hwsync-coordinator.conf",
        f"systemd-tmpfiles --create {folders}-coordinator.conf {folders}-device.conf",
        "systemctl daemon-reload",
        f"systemctl enable --now --no-block {names}",
    ]
    assert calls() == expected
    assert "restart" not in capsys.readouterr().out
    # Again: nothing is written, and systemd is told the same.
    run("install", "coordinator", "device", "pi1", "--connection", "/etc/hwsync/me.toml")
    said = capsys.readouterr().out
    assert "everything was as it should be" in said
    assert "restart" not in said
    assert (files(root), calls()) == (there, expected)
    run("install", "coordinator", "device", "pi1", "--connection", "/etc/hwsync/you.toml")
    assert f"systemctl restart {names}\n" in capsys.readouterr().out
    run("install", "coordinator", "device", "pi2", "--connection", "/etc/hwsync/me.toml")
    assert "systemctl restart hwsync-coordinator.service\n" in capsys.readouterr().out


def test_what_is_no_longer_asked_for_goes(machine: Path, calls: Calls) -> None:
    folder = machine / "root" / UNITS / "hwsync-device@pi1.service.d"
    run("install", "device", "pi1", "--gpio", "--no-isolation", "--no-start")
    assert calls()[-1] == "systemctl enable hwsync-device@pi1.service"
    assert set(files(folder)) == {"hwsync.conf", "gpio.conf", "isolation-none.conf"}
    run("install", "device", "pi1")
    assert set(files(folder)) == {"hwsync.conf"}


def test_the_groups_are_those_of_the_machine() -> None:
    device = Wanted(Part.DEVICE, "pi1", gpio=True)

    def groups(*there: str) -> list[str]:
        texts = device.texts(Machine(Path("/opt/hwsync/bin"), groups=frozenset(there)))
        text = texts[device.drop_ins / "hwsync.conf"]
        return re.findall("SupplementaryGroups=.*", text)

    assert groups("spi", "adm", "gpio") == ["SupplementaryGroups=gpio spi"]
    assert groups("adm") == []


def test_mosquitto_serves_where_it_is(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop_in = machine / "root" / UNITS / "hwsync-broker.service.d" / "mosquitto.conf"
    run("install", "broker")
    assert not drop_in.exists()
    conf = machine / "root" / "etc/hwsync/broker.conf"
    conf.write_text("listener 1884\n")  # from now on it is the machine's own
    (machine / "tools" / "mosquitto").write_text("#!/bin/sh\n")
    (machine / "tools" / "mosquitto").chmod(0o755)
    run("install", "broker")
    assert f"ExecStart={machine}/tools/mosquitto -c /etc/hwsync/broker.conf" in drop_in.read_text()
    said = capsys.readouterr().out
    assert "systemctl disable --now mosquitto" in said
    assert "systemctl restart hwsync-broker.service\n" in said
    run("install", "broker", "--no-mosquitto")
    assert not drop_in.exists()
    assert conf.read_text() == "listener 1884\n"


@pytest.mark.parametrize("change", ["foreign", "changed", "masked"])
def test_a_file_of_somebody_else_stops_everything(
    machine: Path, calls: Calls, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = machine / "root"
    unit = root / UNITS / "hwsync-coordinator.service"
    if change == "changed":
        run("install", "coordinator")
        unit.write_text(unit.read_text().replace("RestartSec=2", "RestartSec=9"))
    else:
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\n") if change == "foreign" else unit.symlink_to("/dev/null")
    before = files(root)
    calls()
    with pytest.raises(HwsyncError, match="nothing is changed") as caught:
        run("install", "broker", "coordinator")
    assert str(unit) in caught.value.message
    assert (files(root), calls()) == (before, [])
    run("uninstall", "coordinator")
    assert f"left {unit}" in capsys.readouterr().out
    assert os.path.lexists(unit)


def test_an_uninstallation_keeps_state_and_what_others_need(
    machine: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    root = machine / "root"
    state = root / "var/lib/hwsync/hwsync.db"
    state.parent.mkdir(parents=True)
    state.touch()
    run("install", "broker", "coordinator", "device", "pi1", "device", "pi2")
    capsys.readouterr()
    calls()
    run("uninstall", "device", "pi1", "coordinator")
    assert calls() == [
        "systemctl disable --now hwsync-device@pi1.service",
        "systemctl daemon-reload",
        "systemctl disable --now hwsync-coordinator.service",
        "systemctl daemon-reload",
    ]
    assert "kept: /var/lib/hwsync and /etc/hwsync" in capsys.readouterr().out
    left = set(files(root))
    assert {str(UNITS / "hwsync-device@.service"), "var/lib/hwsync/hwsync.db"} <= left
    assert not [name for name in left if "pi1" in name or "coordinator" in name]
    run("uninstall", "device", "pi2", "broker")
    assert set(files(root)) == {"var/lib/hwsync/hwsync.db", "etc/hwsync/broker.conf"}
    assert not list((root / UNITS).iterdir())
    with pytest.raises(NotFound, match=r"hwsync-broker\.service is not"):
        run("uninstall", "broker")


def test_analysts_have_an_account_of_the_machine_and_a_closed_folder(
    machine: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    run("install", "analyst", "check", "analyst", "check2", "--connection", "/etc/hwsync/me.toml")
    there = files(machine / "root")
    assert set(there) == {
        "etc/systemd/system/hwsync-analyst@.service",
        "etc/systemd/system/hwsync-analyst@check.service.d/hwsync.conf",
        "etc/systemd/system/hwsync-analyst@check2.service.d/hwsync.conf",
        "etc/sysusers.d/hwsync-analyst.conf",
        "etc/tmpfiles.d/hwsync-analyst.conf",
    }
    account = 'u hwsync-analyst - "hwsync analyst" -'
    assert account in there["etc/sysusers.d/hwsync-analyst.conf"]
    drop_in = there["etc/systemd/system/hwsync-analyst@check.service.d/hwsync.conf"]
    assert "LoadCredential=hwsync.toml:/etc/hwsync/me.toml\n" in drop_in
    names = "hwsync-analyst@check.service hwsync-analyst@check2.service"
    assert calls()[-1] == f"systemctl enable --now --no-block {names}"
    capsys.readouterr()
    run("uninstall", "analyst", "check")
    assert "kept: /etc/hwsync\n" in capsys.readouterr().out
    assert "etc/systemd/system/hwsync-analyst@.service" in files(machine / "root")
    run("uninstall", "analyst", "check2")
    assert files(machine / "root") == {}


def test_a_dry_run_does_nothing_and_says_all(
    machine: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    run("install", "device", "pi1", "--dry-run")
    said = capsys.readouterr().out
    assert f"would write {machine}/root/etc/systemd/system/hwsync-device@.service:" in said
    assert "    DynamicUser=yes" in said
    assert "would call systemctl enable --now --no-block hwsync-device@pi1.service" in said
    assert not (machine / "root").exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    run("install", "device", "pi1")
    before = files(machine / "root")
    calls()
    capsys.readouterr()
    run("install", "device", "pi1", "--no-isolation", "--dry-run")
    said = capsys.readouterr().out
    assert re.findall(r"would write .*/(.*):", said) == ["isolation-none.conf"]
    run("uninstall", "device", "pi1", "--dry-run")
    said = capsys.readouterr().out
    assert f"would remove {machine}/root/etc/systemd/system/hwsync-device@.service" in said
    assert (files(machine / "root"), calls()) == (before, [])


def test_below_another_folder_nothing_is_called(
    machine: Path, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    image = tmp_path / "image"
    run("install", "broker", "device", "pi1", "--destdir", str(image))
    assert (image / UNITS / "hwsync-device@.service").exists()
    assert (image / "etc/hwsync/broker.conf").exists()
    run("uninstall", "broker", "device", "pi1", "--destdir", str(image))
    assert set(files(image)) == {"etc/hwsync/broker.conf"}
    assert calls() == []
    assert not (machine / "root").exists()


def test_who_is_not_root_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["install", "broker"], ["uninstall", "broker"]):
        with pytest.raises(UsageError, match="only root"):
            run(*words)
    assert not (machine / "root").exists()


def test_a_machine_without_systemd_is_told_apart(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "says" / "running").write_text("offline\n")
    for words in (["install", "broker"], ["status"]):
        with pytest.raises(HwsyncError, match="systemd does not run"):
            run(*words)
    monkeypatch.setenv("PATH", str(machine))
    with pytest.raises(HwsyncError, match="systemd does not run"):
        run("status")


def test_an_environment_that_the_services_cannot_see_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "HIDDEN", (str(machine / "opt"),))
    with pytest.raises(UsageError, match="cannot see"):
        run("install", "broker")
    assert not (machine / "root").exists()
    run("install", "broker", "--destdir", str(machine / "image"))
    assert "cannot see" in capsys.readouterr().err
    (machine / "opt" / "bin" / "hwsync-device").unlink()
    with pytest.raises(UsageError, match=r"no .*/bin/hwsync-device: hwsync is not installed in"):
        run("install", "broker")


def test_what_systemd_refuses_is_said(machine: Path) -> None:
    (machine / "says" / "refuse").touch()
    with pytest.raises(HwsyncError, match=r"systemctl enable .*: Failed to enable unit"):
        run("install", "broker")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which units"),
        (["brokr"], "no unit 'brokr'"),
        (["device"], "whose"),
        (["device", "a/b"], "no board's name"),
        (["analyst"], "whose"),
        (["analyst", "a/b"], "no analyst's name"),
        (["device", "pi1", "pi2"], "no unit 'pi2'"),
    ],
)
def test_a_unit_that_there_is_not(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wanted(words)


@pytest.mark.parametrize("path", ["/opt/with blank", "/opt/per%cent", "/opt/a$b", "relative"])
def test_a_path_that_a_unit_cannot_name_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="unit c"):
        Wanted(Part.BROKER).texts(Machine(Path(path)))
    with pytest.raises(UsageError, match="unit c"):
        Wanted(Part.DEVICE, "pi1", connection=path).texts(Machine(Path("/opt")))


def test_a_connection_is_not_for_a_broker(machine: Path) -> None:
    with pytest.raises(UsageError, match="not for a broker"):
        run("install", "broker", "--connection", "/etc/x.toml")


SHOWN = """Id=hwsync-broker.service
LoadState=not-found
ActiveState=inactive

Id=hwsync-coordinator.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
UnitFileState=enabled
MainPID=207
NRestarts=0
ActiveEnterTimestamp=Sat 2026-11-28 11:35:43 UTC
StatusText=connected to mqtt://h:1883, 2=3 boards

Id=hwsync-device@pi1.service
LoadState=loaded
ActiveState=failed
SubState=failed
Result=exit-code
UnitFileState=disabled
MainPID=0
NRestarts=3
ActiveEnterTimestamp=
StatusText=
"""


def test_the_status_has_a_line_for_each_unit(
    machine: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "says" / "show").write_text(SHOWN)
    (machine / "says" / "list").write_text("hwsync-device@pi1.service loaded failed failed x y\n")
    links = machine / "root" / UNITS / "multi-user.target.wants"
    links.mkdir(parents=True)
    (links / "hwsync-device@pi2.service").symlink_to("/nowhere")
    (links / "hwsync-analyst@check.service").symlink_to("/nowhere")
    with pytest.raises(SystemExit) as ended:
        run("status")
    assert ended.value.code == 1
    names = "hwsync-broker.service hwsync-coordinator.service hwsync-analyst@check.service"
    names += " hwsync-device@pi1.service"
    assert calls()[-1].endswith(f"{names} hwsync-device@pi2.service")
    first, second = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1) == [
        "hwsync-coordinator.service",
        "active (running), since Sat 2026-11-28 11:35:43 UTC, "
        "connected to mqtt://h:1883, 2=3 boards",
    ]
    assert second.split(maxsplit=1) == [
        "hwsync-device@pi1.service",
        "failed (failed), result exit-code: journalctl -u hwsync-device@pi1.service, "
        "restarted 3 times, not started at boot",
    ]
    (machine / "says" / "show").write_text(SHOWN.replace("failed", "active"))
    with pytest.raises(SystemExit) as ended:
        run("status", "--json")
    assert ended.value.code == 0
    _, device = map(json.loads, capsys.readouterr().out.splitlines())
    assert (device["unit"], device["restarts"], device["pid"]) == (
        "hwsync-device@pi1.service", 3, 0,
    )  # fmt: skip


def test_a_status_of_nothing(machine: Path) -> None:
    (machine / "says" / "show").write_text(SHOWN.split("\n\n")[0] + "\n")
    (machine / "says" / "list").write_text("")
    with pytest.raises(NotFound, match="no unit of hwsync"):
        run("status")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b.conf"
    assert look(path) is Found.NOTHING
    assert write(path, marked("x\n"))
    assert look(path) is Found.OURS
    assert not write(path, marked("x\n"))
    with path.open() as reader:
        assert write(path, marked("xyz\n"))
        assert reader.read() == marked("x\n")  # who has begun to read sees one of the two
    assert write(path, marked("x\n"))
    link = tmp_path / "link"
    link.symlink_to("/nowhere")
    assert look(link) is Found.FOREIGN
    link.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HwsyncError, match=r"cannot write .*: No space left"):
        write(path, marked("y\n"))
    assert files(tmp_path) == {"a/b.conf": marked("x\n")}
