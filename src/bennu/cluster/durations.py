"""Durations as people write them in labels: `500ms`, `10s`, `1m30s`."""

import re
from typing import Final

WHOLE: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+\Z", re.ASCII)
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
UNIT_NS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_duration(text: str) -> int:
    """In nanoseconds. Raises: ValueError."""
    if text == "0":
        return 0
    if not WHOLE.match(text) or len(text) > 40:
        raise ValueError(f"not a duration: {text[:40]}")
    return round(sum(float(number) * UNIT_NS[unit] for number, unit in PART.findall(text)))
