"""Signals by name and number, as Docker reads them. Pure."""

import re
from types import MappingProxyType
from typing import Final

from bennu.errors import InvalidParameter

_ORDER: Final = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_NUMBERED: Final = _ORDER.split()
RTMIN: Final = 34
RTMAX: Final = 64
_MIDDLE: Final = 15  # RTMIN+15 is the last one counted from below, RTMAX-14 the first counted from above

NUMBER_OF: Final = MappingProxyType(
    {name: number for number, name in enumerate(_NUMBERED, start=1)}
    | {"CLD": 17, "POLL": 29, "IOT": 6}
    | {"RTMIN": RTMIN, "RTMAX": RTMAX}
    | {f"RTMIN+{step}": RTMIN + step for step in range(1, _MIDDLE + 1)}
    | {f"RTMAX-{step}": RTMAX - step for step in range(1, RTMAX - RTMIN - _MIDDLE)}
)
_INTEGER: Final = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
_NAME_OF: Final = {number: f"SIG{name}" for name, number in reversed(list(NUMBER_OF.items()))}


def parse_signal(text: str) -> int:
    """Parse `9`, `KILL`, `SIGKILL`, `sigkill`, `rtmin+1` to a number; numbers other than 0 are not range-checked.

    Raises: InvalidParameter.
    """
    if _INTEGER.match(text) and len(text) < 10:
        number = int(text)
        if number != 0:
            return number
    found = NUMBER_OF.get(text.upper().removeprefix("SIG"))
    if found is None:
        raise InvalidParameter(f"invalid signal: {text}")
    return found


def is_linux_signal(number: int) -> bool:
    """Tell whether the number has a name here: 32 and 33 belong to the C library."""
    return number in _NAME_OF


def signal_name(number: int) -> str:
    """Return a name such as `SIGTERM`; `signal 99` for a number without a name."""
    return _NAME_OF.get(number, f"signal {number}")
