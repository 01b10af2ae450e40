"""What every message says: one module for each group of topics (docs/protocol.md, section 3)."""
