"""The daemon on a board: collect, be granted, run at most once, answer until it is settled."""

from hwsync.device.later import load_later

load_later()  # here, since every other module of the daemon comes after this one
