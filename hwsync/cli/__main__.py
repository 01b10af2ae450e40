"""``python -m hwsync.cli`` is ``hwsync``."""

from hwsync.cli import main

main()
