"""Detach keys: the keystrokes with which the client of a terminal leaves while the process goes on.

The names of keys are those of github.com/moby/term `ascii.go`; pinned by `test_reading.py`.
"""

from typing import Final

from bennu.errors import InvalidParameter

DEFAULT: Final = "ctrl-p,ctrl-q"
CONTROL: Final = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """Translate `ctrl-p,ctrl-q` and the like into bytes; "" is the default. Raises: InvalidParameter."""
    return bytes(_parse_key(key, text) for key in (text or DEFAULT).split(","))


def _parse_key(key: str, text: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key == "DEL":
        return 127
    letter = key.removeprefix("ctrl-")
    if len(letter) == 1 and letter != key:
        if letter in CONTROL:
            return CONTROL[letter]
        if "a" <= letter.lower() <= "z":
            return ord(letter.lower()) - ord("a") + 1
    raise InvalidParameter(f"Invalid detach keys ({text}) provided")


class DetachKeyMatcher:
    """Finds the keys in a stream of keystrokes; holds a partial match back until it is decided."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Answer what the process may see, and whether the client has left; what follows the keys is dropped."""
        through = bytearray()
        for byte in data:
            while self._matched and byte != self._keys[self._matched]:
                # The longest beginning that is also an end of what was typed so far goes on being matched.
                kept = self._fallback(self._matched)
                through += self._keys[: self._matched - kept]
                self._matched = kept
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(through), True
            else:
                through.append(byte)
        return bytes(through), False

    def _fallback(self, matched: int) -> int:
        typed = self._keys[:matched]
        return next(length for length in range(matched - 1, -1, -1) if typed.endswith(typed[:length]))
