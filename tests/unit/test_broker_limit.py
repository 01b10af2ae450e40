"""What the coordinator does with requests that the broker could not carry to the device."""

from __future__ import annotations

import json

import pytest

from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.record import Command, Record, Request
from hwsync.protocol.wire.envelope import encode_envelope, envelope_size
from hwsync.transport import Connected, Disconnected, Subscribed
from hwsync.transport import Sent as UnderWay
from hwsync.transport.outbox import HEADER
from tests.support.coordinator import Lab, Sent, request

LIMIT = 20_000


def connect(lab: Lab, payload: int | None) -> list[object]:
    """A broker that says how large a packet may be, so that a payload may have that many bytes."""
    packet = None if payload is None else payload + HEADER
    lab.wire.deeds = []
    lab.coordinator.step([Connected(False, 5, max_packet=packet), Subscribed()])
    return list(lab.wire.deeds)


def said(lab: Lab, kind: str) -> list[dict[str, object]]:
    sent = [deed for deed in lab.wire.deeds if isinstance(deed, Sent)]
    return [deed.json for deed in sent if deed.topic.endswith(f"/{kind}")]


def test_a_request_is_refused_at_once_where_its_envelope_is_too_large(lab: Lab) -> None:
    connect(lab, LIMIT)
    lab.hear("request", request(program="#" * (LIMIT - 100), id="c1"))
    (error,) = said(lab, "error")
    assert (error["error"], error["id"]) == ("too_large", "c1")
    assert f"the broker takes at most {LIMIT}" in str(error["message"])
    lab.hear("request", request(program="#" * (LIMIT - 600), id="c2"))
    (envelope,) = said(lab, "command")
    assert envelope["max_message"] == LIMIT
    assert len(json.dumps(envelope, separators=(",", ":"))) <= LIMIT


def test_a_repeat_of_a_known_id_is_never_refused_for_it(lab: Lab) -> None:
    program = request(program="#" * 30_000, id="c1")
    lab.hear("request", program)
    connect(lab, LIMIT)
    lab.hear("request", program)
    assert said(lab, "error") == []


def test_one_that_cannot_be_sent_later_expires_with_its_size(lab: Lab) -> None:
    lab.hear("request", request(program="#" * 30_000, id="c1", expires=5))
    assert said(lab, "command"), "this broker takes it"
    lab.coordinator.step([Disconnected("gone", True)])
    connect(lab, LIMIT)
    assert said(lab, "command") == [], "the next one does not"
    lab.later(40.0)
    status = said(lab, "status")[-1]
    assert (status["outcome"], status["ran"]) == ("expired", "no")
    assert f"the broker takes at most {LIMIT}" in str(status["reason"])
    size = len(encode_envelope(Record("pi1", current=Command("pi1", "c1", Request("#" * 30_000)))))
    assert any(
        abs(int(word) - size) < 200 for word in str(status["reason"]).split() if word.isdigit()
    )


def test_without_a_known_limit_nothing_is_measured_or_said(lab: Lab) -> None:
    connect(lab, None)
    lab.hear("request", request(program="#" * 200_000, id="c1"))
    (envelope,) = said(lab, "command")
    assert "max_message" not in envelope
    assert lab.coordinator.rules.max_message == MAX_MESSAGE


def test_a_status_that_is_too_large_is_cut_once_the_broker_hung_up_on_it(lab: Lab) -> None:
    lab.hear("request", request(program="#" * 200_000, id="c1"))
    lost = (UnderWay("hw/pi1/status", 200_500),)
    lab.wire.all_acknowledged = True
    for _ in range(3):  # in the crowd, and by itself twice
        lab.coordinator.step([Disconnected("closed", True, hung_up=True, unanswered=lost)])
        connect(lab, None)
    assert lab.coordinator.publishing.outbox.limit == 128 * 1024 - HEADER
    status = said(lab, "status")[-1]
    assert status["truncated"]


@pytest.mark.parametrize("signed", [False, True])
def test_the_size_of_an_envelope_is_rather_too_large_than_too_small(signed: bool) -> None:
    request = Request('\x01"\\é' * 1_000, id="c" * 64, stdin="\x01" * 100, args=('"' * 50,))
    record = Record("u" * 64, current=Command("u" * 64, "c" * 64, request))
    size = envelope_size(record, signed=signed)
    assert size >= len(encode_envelope(record))
    assert size > 1.2 * len(encode_envelope(record)) if signed else size < 4_000 * 6
