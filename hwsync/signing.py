"""Ed25519 keys: who signs commands, and whose signatures count. Nothing else imports PyNaCl.

The law: a secret key is written to files of mode 0600 and nowhere else, and is never printed. A
public key is written ``ed25519:`` and base64 of its 32 bytes; that text is also its name on the
wire (docs/protocol.md, section 5).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from hwsync.installing import install
from hwsync.protocol.errors import UsageError

PUBLIC: Final = "ed25519:"
SECRET: Final = "ed25519-secret:"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


class SigningKey:
    """A secret key; prints as its public one, which ``public`` is (``ed25519:`` and base64).

    ``seed``: 32 bytes that nobody can guess. Raises ``UsageError`` where PyNaCl is missing.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = _nacl().SigningKey(seed)
        self.public = PUBLIC + base64.b64encode(bytes(self._key.verify_key)).decode()

    @classmethod
    def make(cls) -> SigningKey:
        """A new one, of the system's random numbers."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, text: str) -> SigningKey:
        """The key of a secret text (``ed25519-secret:``). Raises ``UsageError``."""
        seed = _decoded(text.removeprefix(SECRET), KEY_BYTES)
        if not text.startswith(SECRET) or seed is None:
            raise UsageError("this is no signing key", "hwsync key make FILE makes one")
        return cls(seed)

    @property
    def secret(self) -> str:
        """The text that ``of`` takes; for a file that only its owner can read."""
        return SECRET + base64.b64encode(bytes(self._key)).decode()

    @classmethod
    def load(cls, file: Path) -> SigningKey:
        """The key in a file of one line. Raises ``UsageError``, also where others can read it."""
        hint = "hwsync key make FILE makes one"
        try:
            if file.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise UsageError(
                    f"the signing key {file} is open to other accounts", f"chmod 600 {file}"
                )
            text = file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise UsageError(
                f"cannot read the signing key {file}: {error.strerror}", hint
            ) from None
        except UnicodeDecodeError:
            text = ""
        try:
            return cls.of(text)
        except UsageError as error:
            raise UsageError(f"{file}: {error.message}", error.hint) from None

    @classmethod
    def given(cls, value: str, folder: Path) -> SigningKey:
        """What a configuration names: the secret text itself, or a file, from ``folder`` on.

        Raises ``UsageError`` as ``of`` and ``load`` do.
        """
        return cls.of(value) if value.startswith(SECRET) else cls.load(folder / value)

    def save(self, file: Path) -> None:
        """Write a new file. Raises ``UsageError``, also where there is one already."""
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f"{file} exists already", "name another file, or rotate it") from None
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror}") from None
        with open(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{self.secret}\n")

    def sign(self, text: str) -> str:
        """The signature over the UTF-8 bytes of ``text``, in base64."""
        return base64.b64encode(self._key.sign(text.encode()).signature).decode()

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"


def public_key(text: str) -> bytes:
    """The 32 bytes of a public key. Raises ``UsageError``, which repeats no secret one."""
    key = _decoded(text.removeprefix(PUBLIC), KEY_BYTES)
    if text.startswith(SECRET):  # not repeated: it may end in a log
        raise UsageError(
            "a secret key stands where a public one belongs", "hwsync key show FILE prints that one"
        )
    if not text.startswith(PUBLIC) or key is None:
        said = repr(text[:80]) if text.startswith(PUBLIC) else "this"  # it may be a secret one
        raise UsageError(
            f"{said} is no public key", "hwsync key show prints one: ed25519: and base64"
        )
    return key


class Trusted:
    """The public keys whose signatures count (docs/protocol.md, section 5).

    Raises ``UsageError`` for a text that is none, and where PyNaCl is missing.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = {text: _nacl().VerifyKey(public_key(text)) for text in keys}

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def verifies(self, key: str, text: str, signature: str) -> bool:
        """Whether this is that trusted key's signature over the text's UTF-8 bytes.

        False too for a key that is not trusted, and for what is no signature; raises nothing.
        """
        signed = _decoded(signature, SIGNATURE_BYTES)
        if key not in self._keys or signed is None:
            return False
        try:
            self._keys[key].verify(text.encode(), signed)
        except Exception:  # PyNaCl's own error, and whatever else: all say no
            return False
        return True


def _decoded(text: str, length: int) -> bytes | None:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    # One text for each value: base64 has unused bits at its end.
    return data if len(data) == length and base64.b64encode(data).decode() == text else None


def _nacl() -> Any:
    try:
        import nacl.signing
    except ImportError:
        raise UsageError(
            "signatures need PyNaCl, which is not installed", install("sign")
        ) from None
    return nacl.signing
