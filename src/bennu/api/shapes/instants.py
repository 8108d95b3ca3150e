"""Instants as the API writes and reads them. Inside they are ns since the epoch, and 0 is "never"."""

import contextlib
import re
from datetime import UTC, datetime
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.duration import parse_duration
from bennu.go.rfc3339 import format_rfc3339

NEVER: Final = "0001-01-01T00:00:00Z"


def rfc3339(instant_ns: int) -> str:
    """Write an instant as the API does; 0 is Docker's zero time."""
    return format_rfc3339(instant_ns) if instant_ns else NEVER


def parse_moment(text: str, now_ns: int) -> int:
    """Read a prune's `until`: seconds since the epoch, a duration back from now, or a date. Raises: InvalidParameter.

    As moby `api/types/time/timestamp.go`; pinned by `test_reading.py`.
    """
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text, re.ASCII):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
    with contextlib.suppress(ValueError):
        return now_ns - parse_duration(text)
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 10**9)
    except (ValueError, OverflowError):
        raise InvalidParameter(f'failed to parse value as time or duration: "{text[:100]}"') from None
