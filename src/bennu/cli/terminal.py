"""This process's terminal: its size, raw mode, and the keys that detach."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bennu.cli.failure import Failure

DEFAULT_DETACH_KEYS: Final = "ctrl-p,ctrl-q"
CONTROL_NAMES: Final = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def read_size(descriptor: int = 1) -> tuple[int, int] | None:
    """(height, width) of the terminal at `descriptor`, None when it is none."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return size.lines, size.columns


def console_size() -> list[int]:
    return list(read_size(1) or (0, 0))


@contextmanager
def raw_mode(wanted: bool) -> Iterator[None]:
    """Pass every key through unchanged while the block runs; the terminal is put back however it ends."""
    if not wanted or not is_terminal(0):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def require_terminal(*, tty: bool, interactive: bool) -> None:
    if tty and interactive and not is_terminal(0):
        raise Failure("the input device is not a TTY")


def parse_detach_keys(text: str | None) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends."""
    keys = b""
    for name in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(name) == 1:
            keys += name.encode()
        elif name == "DEL":
            keys += b"\x7f"
        elif name.startswith("ctrl-") and len(name) == 6 and name[5] in CONTROL_NAMES:
            keys += bytes([CONTROL_NAMES.index(name[5])])
        else:
            raise Failure(f"invalid detach keys ({text}) provided")
    return keys


class DetachFilter:
    """Finds the detach keys in what is typed. A partial match is held back and passed on when it breaks."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self.matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the keys are complete)."""
        passed = bytearray()
        for byte in typed:
            if byte == self.keys[self.matched]:
                self.matched += 1
                if self.matched == len(self.keys):
                    return bytes(passed), True
                continue
            passed += self.keys[: self.matched]
            self.matched = 1 if byte == self.keys[0] else 0
            if not self.matched:
                passed.append(byte)
        return bytes(passed), False


def flush_output() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
