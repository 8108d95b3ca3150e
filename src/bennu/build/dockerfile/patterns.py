"""The patterns of `${V#…}`, `${V%…}` and `${V/…/…}`: `*`, `?` and letters. Pure.

All places of the pattern that text so far can have led to are the bits of one number, moved on letter by letter:
nothing is tried twice, so no pattern takes longer than letters times places.
"""

from dataclasses import dataclass
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError

ANY, ONE = "*", "?"
# A pattern that has several `*` is asked at each letter of the value for all of its places.
MAX_WORK: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class ShellPattern:
    """`steps` are letters as they are, ANY and ONE, each with whether it is a wildcard; no two ANY follow another."""

    steps: tuple[tuple[str, bool], ...]

    def reversed(self) -> "ShellPattern":
        return ShellPattern(self.steps[::-1])


def parse_pattern(text: str) -> ShellPattern:
    r"""Read a pattern. `\}` and `\/` stand for the letter, as do `\*`, `\?` and `\\`. Raises: DockerfileError."""
    steps: list[tuple[str, bool]] = []
    position = 0
    while position < len(text):
        letter, after = text[position], text[position + 1 : position + 2]
        position += 1
        if letter == "\\" and after not in ("}", "/"):
            if after not in (ANY, ONE, "\\") or not after:
                raise DockerfileError(f"invalid pattern ({text}) in substitution: invalid escape '\\{after or '�'}'")
            position += 1
            steps.append((after, False))
        elif letter == ANY:
            steps += [] if steps and steps[-1] == (ANY, True) else [(ANY, True)]
        elif letter != "\\":
            steps.append((letter, letter == ONE))
    return ShellPattern(tuple(steps))


def match_end(pattern: ShellPattern, value: str, start: int = 0, *, longest: bool) -> int | None:
    """Answer where a match that begins at `start` ends: the first such place, or the last; None = no match."""
    machine = _Machine.of(pattern, len(value))
    state, found = machine.first, None
    for position in range(start, len(value) + 1):
        if state & machine.last:
            found = position
            if not longest:
                return found
        if not state or position == len(value):
            break
        state = machine.step(state, value[position])
    return found


def replace(pattern: ShellPattern, value: str, by: str, *, every: bool) -> str:
    """Replace the first match, or all that do not overlap; each as long as can be and the leftmost first."""
    starts = _possible_starts(pattern, value)
    out, position, done = [], 0, -1
    while position <= len(value):
        end = match_end(pattern, value, position, longest=True) if starts >> position & 1 else None
        if end is None or (end == position and position == done):
            out.append(value[position : position + 1])
            position += 1
            continue
        out.append(by)
        if end == position:  # nothing was matched: what stands here stays, and the next match begins after it
            out.append(value[position : position + 1])
        done = end
        position = max(end, position + 1)
        if not every:
            return "".join(out) + value[position:]
    return "".join(out)


def _possible_starts(pattern: ShellPattern, value: str) -> int:
    """Answer, as bits, where matches can begin: what the pattern backwards reaches, begun anew at each place."""
    machine = _Machine.of(pattern.reversed(), len(value))
    state, starts = machine.first, 0
    for position in range(len(value), -1, -1):
        state |= machine.first
        if state & machine.last:
            starts |= 1 << position
        if position:
            state = machine.step(state, value[position - 1])
    return starts


@dataclass(frozen=True, slots=True)
class _Machine:
    """Bit n of a state: the first n steps of the pattern are matched."""

    letters: dict[str, int]  # which steps take this letter
    ones: int  # … any letter but the end of a line
    stars: int
    last: int

    @classmethod
    def of(cls, pattern: ShellPattern, length: int) -> "_Machine":
        if len(pattern.steps) * max(length, 1) > MAX_WORK:
            raise DockerfileError("pattern and value of a substitution are too long")
        letters: dict[str, int] = {}
        ones = stars = 0
        for number, (letter, wild) in enumerate(pattern.steps):
            if wild:
                ones |= (letter == ONE) << number
                stars |= (letter == ANY) << number
            else:
                letters[letter] = letters.get(letter, 0) | 1 << number
        return cls(letters, ones, stars, 1 << len(pattern.steps))

    @property
    def first(self) -> int:
        return self._past_stars(1)

    def step(self, state: int, letter: str) -> int:
        taken = self.letters.get(letter, 0) | (0 if letter == "\n" else self.ones)
        stays = 0 if letter == "\n" else state & self.stars
        return self._past_stars((state & taken) << 1 | stays)

    def _past_stars(self, state: int) -> int:
        return state | (state & self.stars) << 1
