"""An attacker who owns the broker, against a board that runs only what was signed for it."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.wire.envelope import encode_signed
from hwsync.signing import SigningKey
from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

ATTACKS = 200
LATER = 2_000_000_000  # an epoch that the coordinator believes nobody, and so leaves alone
REPLAYS = 20


class Signed:
    """A lab whose coordinator signs, and a board that wants it; ``marks``: what ran."""

    def __init__(self, lab: Lab, watcher: Watcher) -> None:
        self.lab, self.watcher = lab, watcher
        self.key = SigningKey.make()
        self.key.save(lab.folder / "key")
        self.marks = lab.folder / "marks"
        (lab.folder / "device.toml").write_text(
            f'trust = ["{self.key.public}"]\n[limits]\nfree_disk_mb = 0\n'
        )

    def begin(self) -> None:
        self.lab.coordinator("--signing-key", str(self.lab.folder / "key"))
        self.lab.device().wait_for_log("connected to")

    def program(self, mark: str) -> str:
        return f"open({str(self.marks)!r}, 'a').write({mark + ' '!r})"

    def ran(self) -> list[str]:
        return self.marks.read_text().split() if self.marks.exists() else []

    def envelopes(self) -> list[bytes]:
        """All that were seen, oldest first."""
        return [m.payload for m in self.watcher.messages() if m.topic == "hw/pi1/command"]

    def journal(self) -> str:
        beats = [m.json for m in self.watcher.messages() if m.topic == "hw/pi1/heartbeat"]
        return str([beat["journal"] for beat in beats if beat][-1])

    def boot(self) -> int:
        beats = [m.json for m in self.watcher.messages() if m.topic == "hw/pi1/heartbeat"]
        return int([beat["boot"] for beat in beats if beat][-1])

    def new_life(self, folder: str) -> None:
        """The forged statuses say more than the coordinator ever will: only this listens again.

        The old one leaves in order, with everything acknowledged: nothing comes to the new one.
        """
        unsigned = {**json.loads(json.loads(self.envelopes()[0])["signed"]), "id": "fence"}
        self.watcher.publish("hw/pi1/command", json.dumps(unsigned))
        self.lab.processes[folder].wait_for_log("id=fence not run", START_PATIENCE)
        self.lab.processes[folder].stop()
        self.lab.device(folder=folder).wait_for_log("connected to")

    def grant(self, id: str, epoch: int, seq: int) -> None:
        """As only the coordinator should; nothing protects it."""
        said = {
            "id": id, "state": 2, "epoch": epoch, "seq": seq, "journal": self.journal(),
            "boot": self.boot(), "start_at": None, "cancelling": False, "settled": [],
        }  # fmt: skip
        self.watcher.publish("hw/pi1/status", json.dumps(said))


@pytest.fixture
def signed(
    mosquitto: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> Signed:
    return Signed(Lab(mosquitto, start, tmp_path), watch(mosquitto))


def test_a_signed_cycle_and_an_attacker_who_owns_the_broker(signed: Signed) -> None:
    signed.begin()
    done = signed.lab.cli("run", "pi1", "-c", signed.program("good"))
    assert done.wait(30.0) == 0, done.account()
    good = signed.envelopes()[0]
    inside = json.loads(json.loads(good)["signed"])
    assert (inside["user"], inside["journal"]) == ("pi1", signed.journal())

    dice, other = random.Random(11), SigningKey.make()
    for number in range(ATTACKS):
        payload = _attack(number, inside, json.loads(good), signed, other, dice)
        signed.watcher.publish("hw/pi1/command", payload)
        seen = json.loads(payload)
        fields = json.loads(seen["signed"]) if "signed" in seen else seen
        signed.grant(fields["id"], LATER + number, fields["seq"] + 1)
    for _ in range(REPLAYS):
        signed.watcher.publish("hw/pi1/command", good)
        signed.grant(inside["id"], LATER + ATTACKS, 0)

    signed.new_life("device")
    done = signed.lab.cli("run", "pi1", "--timeout", "5", "-c", signed.program("again"))
    assert done.wait(60.0) == 0, done.account()
    assert signed.ran() == ["good", "again"]


def _attack(number: int, inside: dict[str, Any], outer: dict[str, Any], signed: Signed,
            other: SigningKey, dice: random.Random) -> bytes:  # fmt: skip
    """An envelope that the coordinator did not sign, each of another kind."""
    fields = {**inside, "id": f"evil-{number}", "epoch": LATER + number,
              "program": signed.program(f"evil-{number}")}  # fmt: skip
    text = json.dumps(fields)
    kind = number % 5
    if kind == 0:
        return text.encode()  # the downgrade: not signed at all
    if kind == 1:
        return encode_signed(text, other.public, other.sign(text))
    if kind == 2:
        return encode_signed(text, signed.key.public, outer["sig"])
    if kind == 3:
        return encode_signed(text, signed.key.public, other.sign(text))
    signature = bytearray(base64.b64decode(outer["sig"]))
    signature[dice.randrange(64)] ^= 1 << dice.randrange(8)
    return encode_signed(outer["signed"], signed.key.public, base64.b64encode(signature).decode())


def test_a_signed_command_of_another_board_and_of_an_earlier_journal(signed: Signed) -> None:
    signed.begin()
    assert signed.lab.cli("run", "pi1", "-c", signed.program("first")).wait(30.0) == 0
    [first] = signed.envelopes()

    # What was signed for pi2 is replayed to pi1, as it is.
    beat = {"online": True, "journal": signed.journal(), "boot": 1}
    signed.lab.pub("heartbeat", json.dumps(beat), user="pi2")
    signed.lab.cli("send", "pi2", "--wait-for-board", "-c", signed.program("foreign"))
    foreign = wait_until(
        lambda: [m.payload for m in signed.watcher.messages() if m.topic == "hw/pi2/command"], 20.0
    )[0]
    signed.watcher.publish("hw/pi1/command", foreign)
    fields = json.loads(json.loads(foreign)["signed"])
    signed.grant(fields["id"], LATER, 100)

    # A new card, and everything that was ever sent comes again.
    signed.lab.processes["device"].stop()
    (signed.lab.folder / "fresh.toml").write_text((signed.lab.folder / "device.toml").read_text())
    fresh = signed.lab.device(folder="fresh")
    fresh.wait_for_log("connected to")
    signed.watcher.publish("hw/pi1/command", first)
    fresh.wait_for_log("not run: it is signed for the journal")
    fields = json.loads(json.loads(first)["signed"])
    signed.grant(fields["id"], LATER, 100)

    signed.new_life("fresh")
    done = signed.lab.cli("run", "pi1", "-c", signed.program("last"))
    assert done.wait(60.0) == 0, done.account()
    assert signed.ran() == ["first", "last"]


def test_an_unsigned_command_is_rejected_with_the_reason(signed: Signed) -> None:
    signed.lab.coordinator()
    signed.lab.device().wait_for_log("connected to")
    done = signed.lab.cli("run", "pi1", "--json", "-c", signed.program("unsigned"))
    assert done.wait(30.0) != 0
    assert "it is not signed, and this board runs only what is" in done.stdout
    assert signed.ran() == []
