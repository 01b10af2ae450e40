"""hwsync: run programs on a lab's boards over MQTT and know exactly what happened.

    import hwsync

    with hwsync.connect() as lab:
        print(lab.run("pi1", "print(6*7)").stdout)

docs/python.md has all of it. It is loaded when it is first used: a device imports this package too,
and needs none of it.
"""

TYPE_CHECKING = False  # typing is not imported for it
if TYPE_CHECKING:
    from hwsync.api import *  # noqa: F403

__version__ = "0.1.0"

# What hwsync.api has for programs. Any other name is a module's, which is on its way here.
_PUBLIC = frozenset(
    (
        *(
            "Board",
            "Cancelled",
            "Closed",
            "Expired",
            "Failed",
            "HwsyncError",
            "Interrupted",
            "Killed",
        ),
        *("Lab", "Lost", "NoBroker", "NoCoordinator", "NotOk", "Refused", "Rejected", "Run"),
        *("Runs", "TimedOut", "TooLarge", "Unreachable", "UsageError", "connect"),
    )
)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hwsync' has no attribute {name!r}")
    import hwsync.api

    return getattr(hwsync.api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
