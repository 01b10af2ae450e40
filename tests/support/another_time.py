"""``another_time.py SECONDS MODULE ARGUMENT…``: a module as a program whose wall clock is so wrong.

Nothing sleeps by that clock, as on a machine whose clock was never set. (libfaketime holds up
whoever waits.)
"""

from __future__ import annotations

import runpy
import sys
import time


def main() -> None:
    wrong, module = float(sys.argv[1]), sys.argv[2]
    true_time, true_gmtime = time.time, time.gmtime
    time.time = lambda: true_time() + wrong  # before anybody takes it
    time.gmtime = lambda at=None: true_gmtime(time.time() if at is None else at)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
