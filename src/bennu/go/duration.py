"""`time.Duration` as text. Durations are integers of nanoseconds; like Go's they end at 2**63 (some 292 years)."""

import re
from typing import Final

UNIT_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # the micro sign
    "μs": 10**3,  # the Greek letter
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
MAX_NS: Final = 2**63
MAX_DIGITS: Final = 64  # more than this says nothing that a duration can hold


def parse_duration(text: str, *, signed: bool = False) -> int:
    """Read a duration as `time.ParseDuration` does: `1m30s`, `.5s`, `0`; with `signed` also `-2h` and `+2h`.

    Answers nanoseconds; a fraction of one is cut off. Raises: ValueError in Go's words.
    """
    body = text[1:] if signed and text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    total_ns, position = 0, 0
    while found := PART.match(body, position) if len(body) <= MAX_DIGITS else None:
        whole, _, fraction = found[1].partition(".")
        unit_ns, position = UNIT_NS[found[2]], found.end()
        total_ns += int(whole or 0) * unit_ns + int(fraction or 0) * unit_ns // 10 ** len(fraction)
    if not body or position != len(body) or total_ns >= MAX_NS:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total_ns if text.startswith("-") else total_ns


def format_duration(ns: int) -> str:
    """Write `ns`, which is not negative, as `time.Duration.String` does: `1s`, `500ms`, `1m30s`."""
    if ns < UNIT_NS["s"]:
        for word in ("ms", "µs"):
            if ns >= UNIT_NS[word]:
                return f"{ns / UNIT_NS[word]:.6f}".rstrip("0").rstrip(".") + word
        return f"{ns}ns" if ns else "0s"
    minutes, rest_ns = divmod(ns, UNIT_NS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ns / UNIT_NS['s']:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
