"""What a terminal obeys."""

from __future__ import annotations

import unicodedata


def dangers(text: str, keep: str = "\n\t") -> list[str]:
    """The characters that a terminal obeys, or that turn a text around."""
    obeyed = {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return sorted(obeyed - set(keep))
