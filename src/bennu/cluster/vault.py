"""Secrets at rest: sealed with a key that lies outside the database, so that a copy of the database alone says nothing.

A stream from SHAKE-256 over key and nonce hides the data, an HMAC over nonce and hidden data proves that it is whole
(encrypt, then authenticate; two keys derived from one).
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from bennu.errors import BennuError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 32


class Vault:
    """Seals and opens. The key file is made, readable by root only, when it is first needed. Blocks shortly."""

    def __init__(self, key_path: Path) -> None:
        self._path = key_path
        self._key = b""

    def seal(self, data: bytes) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        hidden = _xor(data, self._stream(nonce, len(data)))
        return base64.b64encode(nonce + hidden + self._tag(nonce + hidden)).decode()

    def open(self, sealed: str) -> bytes:
        """Raises: BennuError when it was changed, or sealed with another key."""
        raw = base64.b64decode(sealed)
        body, tag = raw[:-TAG_BYTES], raw[-TAG_BYTES:]
        if len(raw) < NONCE_BYTES + TAG_BYTES or not hmac.compare_digest(tag, self._tag(body)):
            raise BennuError(f"a secret cannot be opened: it does not belong to the key in {self._path}")
        nonce, hidden = body[:NONCE_BYTES], body[NONCE_BYTES:]
        return _xor(hidden, self._stream(nonce, len(hidden)))

    def destroy(self) -> None:
        """Without its key nothing sealed can ever be read again."""
        self._path.unlink(missing_ok=True)
        self._key = b""

    def _master(self) -> bytes:
        if not self._key:
            try:
                self._key = self._path.read_bytes()
            except FileNotFoundError:
                self._key = secrets.token_bytes(KEY_BYTES)
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(self._key)
                    file.flush()
                    os.fsync(fd)
        return self._key

    def _stream(self, nonce: bytes, length: int) -> bytes:
        return hashlib.shake_256(b"bennu stream" + self._master() + nonce).digest(length)

    def _tag(self, body: bytes) -> bytes:
        key = hashlib.sha256(b"bennu tag" + self._master()).digest()
        return hmac.new(key, body, hashlib.sha256).digest()


def _xor(data: bytes, stream: bytes) -> bytes:
    length = len(data)
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(length, "little")
