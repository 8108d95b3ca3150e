"""Regular expressions of clients, for filters by name.

Go's engine takes linear time; Python's can take exponential time, which would stop the event loop for everybody. So
only expressions with bounded backtracking are taken: few repetitions, none nested, no look-around, no back references.
"""

import re
from typing import Final

from bennu.errors import InvalidParameter

MAX_LENGTH: Final = 256
MAX_REPEATS: Final = 4
MAX_CHOICES: Final = 10
CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
GROUP: Final = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?)")


def name_pattern(text: str) -> re.Pattern[str] | None:
    """Compile the expression; None when it is malformed: it then matches only itself. Raises: InvalidParameter."""
    if not is_tame(text):
        raise InvalidParameter(f"invalid filter 'name={text[:100]}': the regular expression is too complex")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return None


def is_tame(text: str) -> bool:
    """Tell whether matching a name of usual length takes bounded time."""
    if len(text) > MAX_LENGTH:
        return False
    repeats = choices = position = 0
    varied = [False]  # by group: whether something in it repeats or is a choice
    while position < len(text):
        sign, step = text[position], 1
        if sign == "\\":
            if text[position + 1 : position + 2].isdecimal():
                return False
            step = 2
        elif sign == "[" and (found := CLASS.match(text, position)):
            step = found.end() - position
        elif sign == "(":
            found = GROUP.match(text, position)
            if not found:
                return False
            varied.append(False)
            step = found.end() - position
        elif sign == ")" and len(varied) > 1:
            inner = varied.pop()
            varied[-1] |= inner
            if inner and text[position + 1 : position + 2] in ("*", "+", "?", "{"):
                return False
        elif sign in "*+{?|":
            varied[-1] = True
            repeats += sign in "*+{"
            choices += sign in "?|"
        position += step
    return repeats <= MAX_REPEATS and choices <= MAX_CHOICES
