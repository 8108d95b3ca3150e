"""Values as Go's standard library writes and reads them, for Docker's API is written in it. Pure.

Durations are nanoseconds, and what Go's own cannot hold (some 292 years) is none.
"""

import re
from typing import Final

TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
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
ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
}


def parse_bool(text: str) -> bool:
    """As `strconv.ParseBool`. Raises: ValueError with Go's words."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text[:100]}": invalid syntax')


def parse_duration(text: str, *, signed: bool = False) -> int:
    """As `time.ParseDuration`: `1m30s`, `.5s`, `0`; `signed`: `-2h` too. Raises: ValueError with Go's words."""
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
    """As Go prints a duration that is not negative: `1s`, `500ms`, `1m30s`."""
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


def architecture(machine: str) -> str:
    """GOARCH of what uname(2) calls a machine; a name that is Go's already, or unknown, stays."""
    return ARCHITECTURES.get(machine, machine)
