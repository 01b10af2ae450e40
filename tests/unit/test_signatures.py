"""Signed commands: what a board with ``trust`` runs, and what it does not."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.device.agent import REFUSALS
from hwsync.device.journal import KEEP_S
from hwsync.device.trust import CLOCK_SLACK_S, Trust
from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.envelope import encode_signed, read_envelope, read_seal
from hwsync.signing import PUBLIC, SECRET, SigningKey, Trusted, public_key
from tests.support.board import END, GROUP, Board, envelope

KEY = SigningKey(b"k" * 32)
OTHER = SigningKey(b"o" * 32)
NEVER_SET = -1_699_000_000.0  # seconds until the board's clock is in 1970


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path)
    board.begin(trust=Trust("u", [KEY.public]))
    yield board
    board.journal.close()


def text(board: Board, **changes: Any) -> str:
    return json.dumps({**envelope(), "journal": board.journal.name, **changes})


def signed(board: Board, key: SigningKey = KEY, **changes: Any) -> bytes:
    inside = text(board, **changes)
    return encode_signed(inside, key.public, key.sign(inside))


def ran(board: Board, payload: bytes, seq: int = 9) -> list[str]:
    """What runs after this came, and whatever it names was granted."""
    before = len(board.world.jobs)
    board.hear("command", payload)
    seen = read_envelope(payload)
    board.status(seq, 2, seen.id if seen else "a")
    return [id for id, _ in board.world.jobs[before:]]


def refusal(board: Board, payload: bytes, seq: int = 9) -> str:
    """The reason of the ``rejected`` result; nothing ran."""
    assert ran(board, payload, seq) == []
    result = [sent for sent in board.world.sent if sent.kind == "response"][-1].fields
    assert (result["outcome"], result["ran"]) == ("rejected", "no")
    return str(result["reason"])


def test_what_a_trusted_key_signed_runs(board: Board) -> None:
    assert ran(board, signed(board)) == ["a"]


def test_a_board_without_trust_runs_signed_and_unsigned_ones(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert ran(board, signed(board)) == ["a"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    assert ran(board, json.dumps(envelope(id="b", seq=10)).encode(), 11) == ["b"]
    board.journal.close()


REFUSED: dict[str, tuple[Callable[[Board], bytes], str]] = {
    "unsigned": (lambda b: text(b).encode(), "it is not signed"),
    "signed by another": (lambda b: signed(b, OTHER), "does not trust: " + OTHER.public),
    "for another board": (lambda b: signed(b, user="pi2"), "signed for pi2, this board is u"),
    "for another board in another case": (lambda b: signed(b, user="U"), "signed for U"),
    "expired": (
        lambda b: signed(b, expires_at=b.world.wall() - CLOCK_SLACK_S - 1),
        "it expired at 2024-",
    ),
    "another's key under our name": (
        lambda b: encode_signed(text(b), KEY.public, OTHER.sign(text(b))), "signature is wrong",
    ),
    "another's program under our signature": (
        lambda b: encode_signed(text(b, program="evil"), KEY.public, KEY.sign(text(b))),
        "signature is wrong",
    ),
    "outside fields beside the signed ones": (
        lambda b: json.dumps(
            {**json.loads(encode_signed(text(b, seq=0), KEY.public, KEY.sign(text(b, seq=0)))),
             "program": "evil", "seq": 5}
        ).encode(),
        "it is older",
    ),
    "no key": (
        lambda b: json.dumps({"v": 1, "signed": text(b), "sig": KEY.sign(text(b))}).encode(),
        "it is not signed",
    ),
    "no signature": (
        lambda b: json.dumps({"v": 1, "signed": text(b), "key": KEY.public}).encode(),
        "it is not signed",
    ),
    "an empty signature": (lambda b: encode_signed(text(b), KEY.public, ""), "is wrong"),
    "half a signature": (
        lambda b: encode_signed(text(b), KEY.public, KEY.sign(text(b))[:44]), "is wrong",
    ),
    "a signature in other base64": (
        lambda b: encode_signed(text(b), KEY.public, KEY.sign(text(b)) + "\n"), "is wrong",
    ),
    "a signature of zeros": (
        lambda b: encode_signed(text(b), KEY.public, base64.b64encode(bytes(64)).decode()),
        "is wrong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name: str, board: Board) -> None:
    board.world.time += 10_000_000.0  # the board's clock is of 2024
    made, reason = REFUSED[name]
    assert reason in refusal(board, made(board))


def test_no_changed_bit_of_a_signed_command_passes(board: Board) -> None:
    good = signed(board)
    trust, readable = Trust("u", [KEY.public]), 0
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        seen = read_envelope(bytes(changed))
        if seen is not None:
            readable += 1
            name, wall = board.journal.name, board.world.wall()
            doubt = trust.doubt(seen, read_seal(bytes(changed)), name, (0, 0), wall)
            assert doubt is not None, bytes(changed)
            assert doubt.answer
    assert readable > 500  # the others are no envelopes any more


CHANGES: dict[str, Any] = {
    "user": "pi2", "epoch": 4, "seq": 10**6, "program": "evil", "timeout": 86_400,
    "stdin": "evil", "args": ["evil"], "issued": 2.0, "expires_at": 9e9, "journal": "j-another",
    "v": 1.0,
}  # fmt: skip


def test_two_hundred_altered_commands_are_all_rejected(board: Board) -> None:
    """Each has an id of its own and is granted, as by somebody who owns the broker."""
    dice, seq, tried = random.Random(7), 10, 0
    for _ in range(20):
        for name, value in CHANGES.items():
            seq += 10
            inside = text(board, id=f"m{seq}", seq=seq)
            altered = json.dumps({**json.loads(inside), name: value})
            signature = bytearray(base64.b64decode(KEY.sign(inside)))
            if dice.random() < 0.5:
                altered = inside
                signature[dice.randrange(64)] ^= 1 << dice.randrange(8)
            payload = encode_signed(altered, KEY.public, base64.b64encode(signature).decode())
            epoch = json.loads(altered)["epoch"]
            board.hear("command", payload)
            board.status(max(seq, 10**6 + seq), 2, f"m{seq}", epoch=max(epoch, 4))
            tried += 1
            assert board.told()[-1] == (f"m{seq}", "rejected", "no")
            assert "signature is wrong" in board.said("response")[-1]["reason"]
            settled = [[f"m{seq}", board.journal.name]]
            board.status(10**6 + seq + 1, 0, "", epoch=4, settled=settled)
    assert tried >= 200
    assert board.world.jobs == []
    board.hear("command", signed(board, id="z", epoch=5, seq=1))
    board.status(2, 2, "z", epoch=5)
    assert board.ran() == ["z"]


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_a_command_that_was_cut_does_not_run(cut: int, board: Board) -> None:
    assert ran(board, signed(board)[:-cut]) == []


def test_the_same_command_again_is_answered_and_not_run(board: Board) -> None:
    payload = signed(board)
    assert ran(board, payload) == ["a"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    assert ran(board, payload) == []
    board.settle(10)
    assert ran(board, payload, 11) == []


def test_a_command_that_ran_is_known_for_ever_also_when_it_is_signed_again(board: Board) -> None:
    """As it is while a broker in bad hands keeps all answers from the coordinator."""
    assert ran(board, signed(board)) == ["a"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    board.settle(10)
    for seq in (11, 21):
        board.pass_time(KEEP_S + 120.0)
        assert ran(board, signed(board, seq=seq), seq + 1) == []
        [result] = board.said("response")[-1:]
        assert (result["id"], result["outcome"], result["response"]) == ("a", "ok", "")
        board.begin(trust=Trust("u", [KEY.public]))
    board.status(1, 0, "b", epoch=1)
    assert board.said("response") == []  # a forged epoch does not bring them all again


def test_an_old_command_is_refused_after_the_journal_forgot_it(board: Board) -> None:
    payload = signed(board)
    board.hear("command", payload)
    board.status(9, 0, "b")
    board.settle(10)
    board.pass_time(KEEP_S + 120.0)
    assert board.journal.get("a") is None
    assert "it is older" in refusal(board, payload, 11)
    board.begin(trust=Trust("u", [KEY.public]))
    assert "it is older" in refusal(board, payload, 12)


def test_an_old_command_is_refused_by_a_clock_that_was_never_set(board: Board) -> None:
    board.world.time += NEVER_SET
    expired = board.world.wall() - 1_000.0
    assert ran(board, signed(board, seq=5, expires_at=expired)) == ["a"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    board.settle(10)
    assert "it is older" in refusal(board, signed(board, id="b", seq=4), 11)


def test_a_command_for_an_earlier_journal_of_this_board_does_not_run(
    board: Board, tmp_path: Path
) -> None:
    payload = signed(board)
    board.folder = tmp_path / "new card"
    board.begin(trust=Trust("u", [KEY.public]))
    assert ran(board, payload) == []
    said = [sent.kind for sent in board.world.sent]
    assert said == ["heartbeat"]  # the coordinator hears which journal this is, and signs for it
    assert ran(board, signed(board, seq=2)) == ["a"]
    board.begin(trust=Trust("u", [KEY.public]))


def test_a_command_is_not_signed_for_a_journal_that_nobody_heard_of(board: Board) -> None:
    assert ran(board, signed(board, journal=None)) == []
    assert "response" not in [sent.kind for sent in board.world.sent]


def test_a_forged_copy_does_not_change_what_was_received(board: Board) -> None:
    board.hear("command", signed(board))
    board.hear("command", text(board, program="evil", seq=3).encode())
    board.status(9, 2)
    assert [job.program for _, job in board.world.jobs] == ["print(6*7)"]


def test_what_was_closed_is_opened_again_by_a_newer_signature_only(board: Board) -> None:
    payload = signed(board)
    board.hear("command", payload)
    board.status(3, 0)
    assert ran(board, payload, 4) == []
    assert ran(board, text(board, seq=5).encode(), 6) == []
    assert ran(board, signed(board, seq=7), 8) == ["a"]


def test_what_was_received_before_the_board_trusted_anybody_does_not_start(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear("command", text(board).encode())
    board.begin(trust=Trust("u", [KEY.public]))
    board.status(9, 2)
    assert board.told() == [("a", "rejected", "no")]
    assert "it is not signed" in board.said("response")[-1]["reason"]
    assert board.world.jobs == []
    board.journal.close()


def test_what_was_received_from_a_key_that_was_revoked_since_does_not_start(board: Board) -> None:
    board.hear("command", signed(board))
    board.begin(trust=Trust("u", [OTHER.public]))
    board.status(9, 2)
    assert board.told() == [("a", "rejected", "no")]
    assert "does not trust" in board.said("response")[-1]["reason"]


def test_a_grant_that_comes_too_late_starts_nothing(board: Board) -> None:
    board.world.time += 10_000_000.0
    board.hear("command", signed(board, expires_at=board.world.wall() + 300.0))
    board.world.time += 400.0
    board.status(9, 2)
    assert board.told() == [("a", "rejected", "no")]
    assert "it expired at" in board.said("response")[-1]["reason"]


def test_what_is_not_signed_does_not_make_a_board_refuse_what_is(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear("command", text(board, epoch=2**53, seq=0).encode())
    board.status(0, 0, "", epoch=2**53)
    assert board.journal.newest == (0, 0)
    board.begin(trust=Trust("u", [KEY.public]))
    assert ran(board, signed(board, id="b", seq=5)) == ["b"]
    board.journal.close()


def test_a_forged_copy_that_comes_first_does_not_keep_the_true_one_from_running(
    board: Board,
) -> None:
    board.hear("command", text(board, seq=5_000, program="evil").encode())
    assert ran(board, signed(board)) == ["a"]
    assert [job.program for _, job in board.world.jobs] == ["print(6*7)"]


def test_a_new_life_says_how_far_the_last_one_saw(board: Board) -> None:
    board.hear("command", signed(board, epoch=3, seq=7))
    board.begin(trust=Trust("u", [KEY.public]))
    board.agent.connected()
    assert board.said("heartbeat")[-1]["seen"] == [3, 7]


def test_forgeries_do_not_fill_the_memory(board: Board) -> None:
    for number in range(3 * REFUSALS):
        board.hear("command", text(board, id=f"f{number}", seq=number).encode())
        board.status(number, 2, f"f{number}")
    assert len(board.told()) == REFUSALS
    assert board.world.jobs == []


def test_whoever_was_revoked_is_not_trusted(board: Board) -> None:
    board.begin(trust=Trust("u", [OTHER.public]))
    assert "does not trust" in refusal(board, signed(board))
    board.begin(trust=Trust("u", []))
    assert "does not trust" in refusal(board, signed(board, id="b", seq=10), 11)


def test_only_the_text_that_was_signed_counts() -> None:
    inside = json.dumps({**envelope(), "journal": "j"})
    payload = json.dumps(
        {"v": 1, "id": "b", "program": "evil", "signed": inside, "key": KEY.public,
         "sig": KEY.sign(inside)}
    ).encode()  # fmt: skip
    seen, seal = read_envelope(payload), read_seal(payload)
    assert seen is not None
    assert (seen.id, seen.program) == ("a", "print(6*7)")
    assert seal is not None
    assert (seal.text, seal.journal) == (inside, "j")


@pytest.mark.parametrize(
    "inside", ["", "[]", "null", "{", '"text"', "1", '{"v": 2}', '{"v": 1}', "\ud800"]
)
def test_a_signed_text_that_is_no_envelope_is_none(inside: str) -> None:
    outer = json.dumps({"v": 1, "signed": inside, "key": KEY.public, "sig": ""}).encode()
    assert read_envelope(outer) is None


@pytest.mark.parametrize("outer", [None, 5, ["x"], {"v": 1}, True])
def test_signed_must_be_a_text(outer: object) -> None:
    payload = json.dumps({"v": 1, "signed": outer, "key": "k", "sig": "s"}).encode()
    assert read_envelope(payload) is None
    assert read_seal(payload) is None


# -- keys -------------------------------------------------------------------------------------


def test_a_key_is_kept_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    KEY.save(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(file).public == KEY.public
    assert KEY.public == PUBLIC + base64.b64encode(public_key(KEY.public)).decode()
    with pytest.raises(UsageError, match="exists already"):
        OTHER.save(file)
    assert SigningKey.load(file).public == KEY.public
    secret = file.read_text().removeprefix(SECRET).strip()
    assert secret not in repr(KEY) + str(KEY) + KEY.public


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(UsageError, match=r"open to other accounts.*chmod 600"):
        SigningKey.load(tmp_path / "key")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", SECRET.encode(), KEY.public.encode()])
def test_what_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UsageError, match="is no signing key"):
        SigningKey.load(file)
    with pytest.raises(UsageError, match="cannot read"):
        SigningKey.load(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "ed25519:", KEY.public[:-4], KEY.public + "=", "rsa:AAAA"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no public key"):
        Trusted([text])
