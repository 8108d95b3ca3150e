"""Durations as people write them in labels: `500ms`, `10s`, `1m30s`."""

import re
from typing import Final

WHOLE: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+\Z", re.ASCII)
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
MAX_NS: Final = 2**63  # some 292 years: what Go's durations hold
UNIT_NS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_duration(text: str) -> int:
    """In nanoseconds. Raises: ValueError."""
    if text == "0":
        return 0
    total_ns = sum(float(number) * UNIT_NS[unit] for number, unit in PART.findall(text[:40]))
    if not WHOLE.match(text) or len(text) > 40 or total_ns >= MAX_NS:
        raise ValueError(f"not a duration: {text[:40]}")
    return round(total_ns)
