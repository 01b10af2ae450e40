"""What every message says: one module for each group of topics (docs/protocol.md, section 3).

The law: what is read for the coordinator becomes an event. ``events`` is loaded where the first one
is made: an operator's command makes none, and starts without these classes.
"""
