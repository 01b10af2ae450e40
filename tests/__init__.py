"""hwsync's tests. Not installed; ``tests.support`` is what they share."""
