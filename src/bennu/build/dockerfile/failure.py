"""What is wrong with a Dockerfile, and where. Pure."""

from collections.abc import Iterable
from typing import Final

from bennu.build.graph import Location
from bennu.errors import InvalidParameter

# As many letters may differ at most (less than this) in what was perhaps meant.
MAX_DISTANCE: Final = 3
LONGEST_WORD: Final = 128  # what is longer is nobody's slip of the pen


class DockerfileError(InvalidParameter):
    """A Dockerfile that cannot be built; `location` are its lines, None if it is about the file as a whole."""

    def __init__(self, message: str, location: Location | None = None) -> None:
        super().__init__(message)
        self.location = location

    def at(self, location: Location | None) -> "DockerfileError":
        """Answer the same error with lines, if it has none yet."""
        return self if self.location else DockerfileError(str(self), location)


def suggest(word: str, options: Iterable[str], *, any_case: bool = False) -> str:
    """Answer ` (did you mean X?)` with the option nearest to a word, "" when none is near."""
    found = nearest(word, options, any_case=any_case)
    return f" (did you mean {found}?)" if found else ""


def nearest(word: str, options: Iterable[str], *, any_case: bool = False) -> str:
    """Answer the option that differs from a word in the fewest letters, in the word's case; "" = none is near."""
    wanted, best, least = word.lower() if any_case else word, "", MAX_DISTANCE
    for option in options:
        one = option.lower() if any_case else option
        if one == wanted:
            return ""
        if (distance := _distance(wanted, one)) < least:
            best, least = one, distance
    if any_case and best:
        return best if word == word.lower() else best.upper() if word == word.upper() else best
    return best


def _distance(one: str, other: str) -> int:
    """Count the letters to insert, remove or replace; MAX_DISTANCE stands for any larger number."""
    if abs(len(one) - len(other)) >= MAX_DISTANCE or len(one) > LONGEST_WORD:
        return MAX_DISTANCE
    row = list(range(len(other) + 1))
    for above, letter in enumerate(one, 1):
        corner, row[0] = row[0], above
        for at, its in enumerate(other, 1):
            corner, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, corner + (letter != its))
    return min(row[-1], MAX_DISTANCE)
