"""Memory of hwsync-device beside a bare paho client, idle on the same broker.

Both are counted with everything below them: the daemon has a fork server, which keeps an
interpreter ready. The proportional set size (PSS) of /proc/PID/smaps_rollup divides a page by the
number of its users, so it depends on who else runs, were it only this script. A board runs one
daemon and no other Python: the column that counts, ``alone``, takes anonymous pages by PSS, and
each page of a file once, whoever else has it mapped. Plain PSS stands beside it, measured one after
the other and at the same time. An editable install costs 2 MB more than an ordinary one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from cycle import LOOPBACK, machine, mosquitto, running

from hwsync.protocol.errors import HwsyncError

AIM_MB: Final = 8.0  # the daemon above the bare client, at most
MEGABYTE: Final = 1_000_000
PAUSE_S: Final = 0.2  # between two samples
NAMES: Final = {"client": "bare paho client", "daemon": "hwsync-device"}
KINDS: Final = ("alone", "pss", "pss_together")

CLIENT: Final = """
import socket, sys
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

def no_delay(client, userdata, sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def connected(client, *_):
    client.subscribe([("hw/bare/command", 1), ("hw/bare/status", 1)])

client = Client(CallbackAPIVersion.VERSION2, "bare")
client.on_socket_open = no_delay
client.on_connect = connected
client.on_subscribe = lambda *_: print("connected to", flush=True)
client.connect(sys.argv[1], int(sys.argv[2]))
client.loop_forever()
"""

# "55d0-55f1 r-xp 00001000 08:01 1234   /usr/bin/python3.11": offset, device, inode
MAPPING: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+) (\S+) (\d+)")
FIELD: Final = re.compile(r"(\w+): +(\d+) kB")


def below(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def alone(pids: Sequence[int]) -> float:
    """Megabytes if nothing else ran: anonymous pages by PSS, each file's pages once."""
    anonymous = 0
    files: dict[tuple[str, ...], int] = {}
    for pid in pids:
        mapping: tuple[str, ...] = ()
        kilobytes: dict[str, int] = {}
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if match := MAPPING.match(line):
                mapping = match.groups()
            elif match := FIELD.match(line):
                kilobytes[match[1]] = int(match[2])
                if match[1] != "Anonymous":
                    continue  # the last one that is needed
                if mapping[2] == "0":
                    anonymous += kilobytes["Pss"]
                else:
                    # A page of a file that was written to is a private one.
                    anonymous += kilobytes["Anonymous"]
                    clean = kilobytes["Rss"] - kilobytes["Anonymous"]
                    files[mapping] = max(files.get(mapping, 0), clean)
    return (anonymous + sum(files.values())) * 1024 / MEGABYTE


def pss(pids: Sequence[int]) -> float:
    """Megabytes."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(value) for name, value in FIELD.findall(text) if name == "Pss")
    return total * 1024 / MEGABYTE


def command(name: str, directory: Path, port: int) -> list[str]:
    """What starts one of the two."""
    if name == "client":
        return [sys.executable, "-c", CLIENT, LOOPBACK, str(port)]
    configuration = directory / "device.toml"  # empty: not that of this machine
    configuration.touch()
    words = [sys.executable, "-m", "hwsync.device.service", "--config", str(configuration)]
    words += ["--user", "memory", "--broker", f"mqtt://{LOOPBACK}:{port}"]
    words += ["--state-dir", str(directory / "state")]
    return [*words, "--allow-root"] if os.geteuid() == 0 else words


@contextmanager
def started(names: Sequence[str], directory: Path, port: int) -> Iterator[dict[str, int]]:
    """Both or one of them, connected and subscribed; their numbers."""
    with ExitStack() as stack:
        pids = {}
        for name in names:
            log = directory / f"{name}.log"
            ready = partial(_is_connected, log)
            words = command(name, directory, port)
            pids[name] = stack.enter_context(running(words, log, ready, NAMES[name]))
        yield pids


def _is_connected(log: Path) -> bool:
    return "connected to" in log.read_text(errors="replace")


def measure(samples: int, program: str) -> dict[str, Any]:
    """Medians in megabytes. Raises ``HwsyncError``."""
    seen: dict[str, dict[str, list[float]]] = {name: {k: [] for k in KINDS} for name in NAMES}
    first: list[float] = []  # the daemon's own process, without those below it
    processes = {}
    with tempfile.TemporaryDirectory(prefix="hwsync-benchmark-") as text, ExitStack() as stack:
        directory = Path(text)
        port = stack.enter_context(mosquitto(program, directory))
        for names in (["client"], ["daemon"], ["client", "daemon"]):
            with started(names, directory, port) as pids:
                for number in range(samples):
                    time.sleep(PAUSE_S)
                    for name, pid in pids.items():
                        all_of_it = below(pid)
                        processes[name] = len(all_of_it)
                        if len(names) == 1:
                            seen[name]["alone"].append(alone(all_of_it))
                            seen[name]["pss"].append(pss(all_of_it))
                            if name == "daemon":
                                first.append(alone([pid]))
                        else:
                            seen[name]["pss_together"].append(pss(all_of_it))
                    note = f"{' and '.join(NAMES[name] for name in names)}, sample {number + 1}"
                    print(note, file=sys.stderr, flush=True)
    rows: dict[str, Any] = {
        name: {"processes": processes[name]}
        | {kind: round(statistics.median(values), 1) for kind, values in kinds.items()}
        for name, kinds in seen.items()
    }
    rows["daemon"]["first_process_alone"] = round(statistics.median(first), 1)
    difference = {kind: round(rows["daemon"][kind] - rows["client"][kind], 1) for kind in KINDS}
    return {"machine": machine(program), "unit": "MB", "samples": samples, **rows,
            "difference": difference, "aim": AIM_MB}  # fmt: skip


def show(row: dict[str, Any]) -> Iterator[str]:
    """For people."""
    facts = row["machine"]
    yield "{machine}, {cores} cores, Python {python}, mosquitto {mosquitto}".format(**facts)
    yield ""
    yield f"{'MB':18}{'processes':>10}{'alone':>9}{'PSS':>9}{'PSS, both at once':>20}"
    for name, said in NAMES.items():
        of = row[name]
        yield (
            f"{said:18}{of['processes']:10}{of['alone']:9.1f}{of['pss']:9.1f}"
            f"{of['pss_together']:20.1f}"
        )
    yield f"{'  without its children':28}{row['daemon']['first_process_alone']:9.1f}"
    of = row["difference"]
    yield f"{'difference':28}{of['alone']:9.1f}{of['pss']:9.1f}{of['pss_together']:20.1f}"
    yield f"aim: at most {row['aim']:g} MB above the bare client (alone)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, 1 on an error that it names, 130 on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=5, help="of each; default 5")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.samples <= 1_000:
        parser.error("--samples must be 1 to 1000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    program = shutil.which("mosquitto", path=path)
    if program is None:
        print("mosquitto is missing (apt-get install mosquitto)", file=sys.stderr)
        return 1
    try:
        row = measure(chosen.samples, program)
    except HwsyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    for line in [json.dumps(row)] if chosen.json else show(row):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
