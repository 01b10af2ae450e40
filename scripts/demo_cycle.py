"""The demonstration that scripts/demo runs: real processes, one real program, every state.

Nothing here is simulated: ``hwsync broker``, ``hwsync coordinator`` and ``hwsync-device`` run as
they would in a lab, in a temporary folder, and are ended afterwards whatever happens.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.transport import Delivery, Signal, Subscribed, Subscription
from tests.support.threaded import Transport

USER: Final = "demo"
PROGRAM: Final = "import platform\nprint(6 * 7, 'by Python', platform.python_version())\n"
STATES: Final = ("0 rest", "1 requested", "2 collected", "3 returned")
PATIENCE_S: Final = 60.0  # for each part: a Raspberry Pi takes seconds to import


class Failed(Exception):
    """The demonstration cannot go on; the message is for people."""


def main() -> int:
    try:
        with ExitStack() as stack:
            demonstrate(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def demonstrate(stack: ExitStack, folder: Path) -> None:
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    conf = folder / "broker.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    here = [sys.executable, "-m"]
    print(f"1. a broker (amqtt, inside hwsync) on port {port}")
    broker = start(stack, folder, "broker", [*here, "hwsync.cli", "broker", str(conf)])
    wait_for_port(port, broker, folder / "broker.log")
    print("2. the coordinator, with a database of its own")
    database = str(folder / "hwsync.db")
    coordinator = [*here, "hwsync.cli", "coordinator", "--broker", url, "--db", database]
    start(stack, folder, "coordinator", [*coordinator, "--clean-session"])
    print(f"3. a device called {USER}: hwsync-device on this machine")
    device = [*here, "hwsync.device.service", "--user", USER, "--broker", url]
    device += ["--state-dir", str(folder / "device")]
    device += ["--allow-root"] if os.geteuid() == 0 else []
    start(stack, folder, "device", device)

    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    watched = [Subscription(f"hw/{USER}/status"), Subscription(f"hw/{USER}/heartbeat")]
    transport = Transport(
        BrokerUrl.parse(url), f"demo-{os.getpid()}", on_signal=inbox.put, subscriptions=watched
    )
    transport.start()
    stack.callback(transport.stop)
    until(inbox, transport, folder, lambda signal: isinstance(signal, Subscribed), "the broker")
    at_rest = ask(inbox, transport, folder)
    print("4. a program, published as mosquitto_pub would:\n")
    print("   " + PROGRAM.strip().replace("\n", "\n   ") + "\n")
    began = time.monotonic()
    print(f"   {0.0:7.3f} s  {STATES[at_rest]}")
    transport.publish(f"hw/{USER}/command", PROGRAM.encode())
    last: dict[str, Any] = {}
    for expected in (1, 2, 3):
        last = until(
            inbox, transport, folder, lambda s, n=expected: is_status(s, n), STATES[expected]
        )
        print(f"   {time.monotonic() - began:7.3f} s  {STATES[expected]}")
    if last["outcome"] != "ok" or not last["hw_response"].startswith("42 by Python"):
        raise Failed(f"the program ended otherwise than it should: {json.dumps(last)}")
    transport.publish(f"hw/{USER}/analysis", b"right")
    end = until(inbox, transport, folder, lambda s: is_status(s, 0), STATES[0])
    print(f"   {time.monotonic() - began:7.3f} s  {STATES[0]}")
    print(f"\n   result    {end['hw_response'].strip()}")
    print(f"   outcome   {end['outcome']} (ran: {end['ran']}, exit code {end['exit_code']}, "
          f"{end['duration']:.3f} s)")  # fmt: skip
    print(f"   analysis  {end['server_analysis']}")
    print("\nThe whole cycle: 0 rest → 1 requested → 2 collected → 3 returned → 0 rest")


def start(stack: ExitStack, folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """A process whose end this script sees to; what it says goes to a file in the folder."""
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
    )
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Failed("the broker did not start:\n" + log.read_text(errors="replace"))


def ask(inbox: queue.SimpleQueue[Signal], transport: Transport, folder: Path) -> int:
    """Wait until the device is there and the coordinator answers; the record's state."""
    until(inbox, transport, folder, is_heartbeat, "the device")
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        # Before its first subscription the coordinator hears nothing: whoever starts it asks.
        transport.publish(f"hw/{USER}/query", b"")
        try:
            signal = inbox.get(timeout=0.5)
        except queue.Empty:
            continue
        if (status := is_status(signal, 0)) is not None:
            return int(status["state"])
    raise Failed("the coordinator did not answer" + logs(folder))


def until(
    inbox: queue.SimpleQueue[Signal], transport: Transport, folder: Path, wanted: Any, what: str
) -> Any:
    limit = time.monotonic() + PATIENCE_S
    while (left := limit - time.monotonic()) > 0:
        try:
            signal = inbox.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(signal, Delivery):
            transport.acknowledge(signal)
        if found := wanted(signal):
            return found
    raise Failed(f"waited {PATIENCE_S:.0f} s for {what}" + logs(folder))


def is_status(signal: Signal, state: int) -> dict[str, Any] | None:
    if not isinstance(signal, Delivery) or not signal.topic.endswith("/status"):
        return None
    status: dict[str, Any] = json.loads(signal.payload)
    return status if status["state"] == state else None


def is_heartbeat(signal: Signal) -> bool:
    return isinstance(signal, Delivery) and signal.topic.endswith("/heartbeat")


def logs(folder: Path) -> str:
    return "".join(
        f"\n--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
        for log in sorted(folder.glob("*.log"))
    )


if __name__ == "__main__":
    sys.exit(main())
