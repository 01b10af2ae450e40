"""The daemon on a board: collect, be granted, run at most once, answer until it is settled."""
