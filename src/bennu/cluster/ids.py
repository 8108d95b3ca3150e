"""Identifiers of the cluster's objects: 25 digits of base 36, drawn at random."""

import secrets
from typing import Final

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTH: Final = 25


def new_id() -> str:
    """Draw a fresh identifier; two are never alike."""
    return base36(secrets.randbelow(36**LENGTH), LENGTH)


def base36(number: int, length: int) -> str:
    """Write the number in base 36, filled up with zeros in front."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))
