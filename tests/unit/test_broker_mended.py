"""What the embedded broker mends of amqtt, as far as it needs no connection."""

from __future__ import annotations

from hwsync.broker.mended import Subscriptions


def test_subscriptions_may_change_while_somebody_goes_through_them() -> None:
    subscriptions = Subscriptions(a=[("one", 1), ("two", 1)], b=[("one", 1)])
    met = []
    for filter, sessions in subscriptions.items():
        for session, _ in sessions:
            subscriptions[filter].remove((session, 1))
            subscriptions[f"{filter}-{session}"] = []
            met.append((filter, session))
    assert met == [("a", "one"), ("a", "two"), ("b", "one")]
    for filter in subscriptions:
        del subscriptions[filter]
    assert not subscriptions
