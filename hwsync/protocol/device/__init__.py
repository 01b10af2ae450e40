"""The device's rules: no imports but its own, in the Python that MicroPython runs too."""
