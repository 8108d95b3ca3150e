"""Sizes and durations for people, as github.com/docker/go-units writes them."""

import re
from typing import Final

SECOND_NS: Final = 10**9
HOUR_NS: Final = 3600 * SECOND_NS
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kKmMgGtTpP]?)(?:[iI]?[bB])?", re.ASCII)


def human_size(size: float) -> str:
    """Write a size in bytes with decimal units and four significant digits, as `units.HumanSize`: `1.5MB`."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    number = 0
    while size >= 1000 and number < len(units) - 1:
        size /= 1000
        number += 1
    return f"{size:.4g}{units[number]}"


def human_duration(ns: int) -> str:
    """Write a duration roughly, as `units.HumanDuration`: `Less than a second`, `About a minute`, `3 weeks`."""
    seconds = max(0, ns) // SECOND_NS
    minutes = seconds // 60
    if seconds < 60:
        return {0: "Less than a second", 1: "1 second"}.get(seconds, f"{seconds} seconds")
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    return _hours(rounded=(ns + HOUR_NS // 2) // HOUR_NS, whole=ns // HOUR_NS)


def _hours(*, rounded: int, whole: int) -> str:
    """Word hours as Docker does.

    It rounds them, and counts days, weeks and months in rounded hours; years in whole ones.
    """
    if rounded < 48:
        return "About an hour" if rounded == 1 else f"{rounded} hours"
    for limit, unit, word in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if rounded < limit:
            return f"{rounded // unit} {word}"
    return f"{whole // 8760} years"


def parse_size(text: str, unit: int = 1000) -> int:
    """Read a size in bytes as `units.FromHumanSize` does, or with a `unit` of 1024 as `units.RAMInBytes`.

    Raises: ValueError in Go's words.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text[:100]}'")
    return int(float(match[1]) * unit ** " kmgtp".index(match[2].lower() or " "))
