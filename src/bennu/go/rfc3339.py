"""`time.Time` as RFC 3339 text. Instants are integers of nanoseconds since the epoch, in UTC."""

import datetime
import re
from typing import Final

ZERO_TIME_NS: Final = -62135596800 * 10**9  # Go's zero time: the first instant of the year 1
RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z", re.ASCII
)
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # naive: arithmetic with a zone takes longer
_CYCLE_S: Final = 146097 * 86400  # 400 years


def parse_rfc3339(text: str) -> int | None:
    """Read an instant, digits behind the ninth cut off. None: it is no RFC 3339, or no day that exists."""
    match = RFC3339.match(text)
    if not match:
        return None
    zone = "+00:00" if match[3] in "Zz" else match[3]
    try:
        passed = datetime.datetime.fromisoformat(match[1].upper() + zone) - _EPOCH.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return None
    return int(passed.total_seconds()) * 10**9 + int((match[2] or "")[:9].ljust(9, "0"))


def format_rfc3339(instant_ns: int) -> str:
    """Write an instant as `time.RFC3339Nano` does: as many digits of the second as needed, none if it is whole."""
    seconds, nanos = divmod(instant_ns, 10**9)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{_whole_seconds(seconds)}{fraction}Z"


def format_rfc3339_padded(instant_ns: int) -> str:
    """Write an instant with nine digits of the second always, as in the lines of `docker logs --timestamps`."""
    seconds, nanos = divmod(instant_ns, 10**9)
    return f"{_whole_seconds(seconds)}.{nanos:09d}Z"


def _whole_seconds(seconds: int) -> str:
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat()
    except OverflowError:  # of the years 1 to 9999 only; a file can have been changed in any, and the calendar repeats
        cycles, rest = divmod(seconds, _CYCLE_S)
        moment = _EPOCH + datetime.timedelta(seconds=rest)
        return f"{moment.year + 400 * cycles:04d}{moment.isoformat()[4:]}"
