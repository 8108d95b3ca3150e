"""Secrets at rest: sealed with a key that lies outside the database, so that a copy of the database alone says nothing.

AES-256-GCM, with a nonce of its own for each blob; a blob that was changed, or belongs to another key, does not open.
Blobs of the format before that (a stream of SHAKE-256 hides, an HMAC proves) are still read, and sealed anew when their
row is written.
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bennu.errors import BennuError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MARK: Final = "gcm:"  # a colon is in no base64, so no older blob begins like this
OLD_NONCE_BYTES: Final = 24
OLD_TAG_BYTES: Final = 32


class SecretBox:
    """The sealer of secrets. The key file is made, readable by root only, when it is first needed. Blocks shortly."""

    def __init__(self, key_path: Path) -> None:
        self._path = key_path
        self._key = b""

    def seal(self, data: bytes) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return MARK + base64.b64encode(nonce + self._cipher().encrypt(nonce, data, None)).decode()

    def open(self, sealed: str) -> bytes:
        """Open a sealed secret. Raises: BennuError when it was changed, or sealed with another key."""
        from cryptography.exceptions import InvalidTag

        if not sealed.startswith(MARK):
            return self._open_old(base64.b64decode(sealed))
        raw = base64.b64decode(sealed.removeprefix(MARK))
        try:
            return self._cipher().decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):  # the latter for what is too short to hold a nonce
            raise self._refusal() from None

    def renew(self, sealed: str) -> str:
        """Seal the same secret as new ones are sealed. Raises: BennuError as `open`."""
        return sealed if sealed.startswith(MARK) else self.seal(self.open(sealed))

    def destroy(self) -> None:
        """Destroy the key; without it nothing sealed can ever be read again."""
        self._path.unlink(missing_ok=True)
        self._key = b""

    def _cipher(self) -> "AESGCM":
        # Loaded by who has secrets: OpenSSL costs 10 MB and a start-up that others need not pay for.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hashlib.sha256(b"bennu aes-256-gcm" + self._master()).digest())

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

    def _open_old(self, raw: bytes) -> bytes:
        body, tag = raw[:-OLD_TAG_BYTES], raw[-OLD_TAG_BYTES:]
        key = hashlib.sha256(b"bennu tag" + self._master()).digest()
        if len(raw) < OLD_NONCE_BYTES + OLD_TAG_BYTES or not hmac.compare_digest(tag, hmac.digest(key, body, "sha256")):
            raise self._refusal()
        nonce, hidden = body[:OLD_NONCE_BYTES], body[OLD_NONCE_BYTES:]
        stream = hashlib.shake_256(b"bennu stream" + self._master() + nonce).digest(len(hidden))
        return bytes(one ^ other for one, other in zip(hidden, stream, strict=True))

    def _refusal(self) -> BennuError:
        return BennuError(f"a secret cannot be opened: it does not belong to the key in {self._path}")
