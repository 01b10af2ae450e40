"""When it is said that another client uses our id."""

from __future__ import annotations

from hwsync.transport.takeovers import MINUTE_S, SHORT_S, TAKEOVERS, Takeovers


def ends(takeovers: Takeovers, *moments: float, lived: float = 1.0, **known: bool) -> list[bool]:
    known = {"named": False, "explained": False, **known}
    return [takeovers.ended(now, lived, **known) for now in moments]


def test_short_connections_within_a_minute_are_no_accident() -> None:
    moments = [float(number) for number in range(TAKEOVERS)]
    assert ends(Takeovers(), *moments) == [False] * (TAKEOVERS - 1) + [True]
    assert not any(ends(Takeovers(), *moments, lived=SHORT_S))
    assert not any(ends(Takeovers(), *moments, explained=True))
    assert not any(ends(Takeovers(), *(MINUTE_S * moment for moment in moments)))


def test_the_brokers_own_word_is_enough_and_once_a_minute_is_too() -> None:
    moments = [0.0, 1.0, MINUTE_S - 0.1, MINUTE_S]
    assert ends(Takeovers(), *moments, lived=100.0, named=True) == [True, False, False, True]
