"""Regular expressions from clients, for filters by name.

Docker's engine of expressions takes linear time; Python's can take for ever, and holds up everybody meanwhile. So only
expressions are taken that cannot: few repetitions, none inside another, nothing that looks around or back.
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
    """The expression; None when it is none, and then it matches nothing but itself. Raises: InvalidParameter."""
    if not is_tame(text):
        raise InvalidParameter(f"invalid filter 'name={text[:100]}': the regular expression is too complex")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return None


def is_tame(text: str) -> bool:
    """Whether matching it takes bounded time on a name of usual length."""
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
