"""The pure core: what is on the wire and what follows from it. No I/O, no clock, no randomness."""
