"""A coordinator that dies while it saves contents: at a statement, or in the middle of the writing.

    python killed_coordinator.py "statement INTO commands" coordinator --db …

The law: production code knows nothing of this. ``statement TEXT``: SIGKILL as SQLite begins the
first statement with that text in a save that has bytes of files; ``bytes N``: the kernel ends the
process when SQLite's log, which begins anew in each life, has N bytes; ``after``: as the commit
returns. All else is ``hwsync``.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from hwsync.cli import main
from hwsync.store.api import Changes
from hwsync.store.store import Store

KIND, _, WHERE = (sys.argv[1] if __name__ == "__main__" else "").partition(" ")
save = Store.save


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def look(statement: str) -> None:
    """As SQLite begins that statement."""
    if WHERE in statement:
        die()


def save_and_die(store: Store, changes: Changes, ticks: float) -> None:
    """Instead of ``Store.save``."""
    if not changes.contents:
        return save(store, changes, ticks)
    if KIND == "statement":
        store.database.connection.set_trace_callback(look)
    elif KIND == "bytes":
        # One more byte, and the kernel ends it as it would by SIGKILL: nothing is tidied up.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(WHERE), resource.RLIM_INFINITY))
    save(store, changes, ticks)
    die()
    return None


if __name__ == "__main__":
    Store.save = save_and_die  # type: ignore[method-assign, assignment]
    del sys.argv[1]
    main()
