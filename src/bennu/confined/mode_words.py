"""What `--chmod` means: octal, or the words of chmod(1) as BSD's setmode(3) and so BuildKit reads them. Pure."""

from collections.abc import Callable
from typing import Final

from bennu.confined.words import Refused

USER, GROUP, OTHER = 0o4700, 0o2070, 0o0007
STICKY: Final = 0o1000
ALL: Final = USER | GROUP | OTHER  # what `a` stands for, and nobody
EXECUTE: Final = 0o111
WHO: Final = {"a": ALL, "u": USER, "g": GROUP, "o": OTHER}
PERMISSIONS: Final = {"r": 0o444, "w": 0o222, "x": 0o111}
CLASSES: Final = {"u": 6, "g": 3, "o": 0}

Change = Callable[[int, bool], int]  # mode, whether it is a folder's → mode


def parse_mode(text: str) -> Change:
    """Answer the function that changes a mode. Raises: Refused."""
    if text[:1].isdigit():
        try:
            mode = int(text, 8)
        except ValueError:
            raise Refused(f"invalid mode {text}") from None
        if mode & ~0o7777:
            raise Refused(f"invalid mode {text}")
        return lambda _mode, _folder: mode
    changes = [change for clause in text.split(",") for change in _parse_clause(clause)]

    def apply(mode: int, folder: bool) -> int:
        could_execute = bool(mode & EXECUTE) or folder
        for change in changes:
            mode = change(mode, could_execute)
        return mode

    return apply


def _parse_clause(clause: str) -> list[Change]:
    who, place = 0, 0
    while place < len(clause) and clause[place] in WHO:
        who |= WHO[clause[place]]
        place += 1
    if place == len(clause):
        raise Refused("invalid syntax")
    changes: list[Change] = []
    while place < len(clause):
        operator = clause[place]
        if operator not in "+-=":
            raise Refused("invalid syntax")
        end = place + 1
        while end < len(clause) and clause[end] not in "+-=":
            end += 1
        changes += _parse_action(who, operator, clause[place + 1 : end])
        place = end
    return changes


def _parse_action(who: int, operator: str, words: str) -> list[Change]:
    """Read what stands behind `+`, `-` or `=`: permissions, and copies of other classes, in their order."""
    changes: list[Change] = []
    affected, bits, if_executable = who, 0, 0
    has_cleared = operator != "="
    for word in words:
        if word in PERMISSIONS or (word == "X" and operator == "-"):
            bits |= PERMISSIONS.get(word, EXECUTE)
        elif word == "X":
            if_executable = EXECUTE
        elif word in "st":
            if not who or who & ~0o7:
                affected |= STICKY if word == "t" else 0
                bits |= STICKY if word == "t" else 0o6000
        elif word in CLASSES:
            changes += _giving(affected, operator, bits) if bits else []
            changes += _giving_if_executable(affected, if_executable)
            changes.append(_copying(word, operator, who or ALL))
            bits = if_executable = 0
            has_cleared = True
        else:
            raise Refused("invalid syntax")
    if bits or not has_cleared:
        changes += _giving(affected, operator, bits)
    return changes + _giving_if_executable(affected, if_executable)


def _giving(who: int, operator: str, bits: int) -> list[Change]:
    given = bits & (who or ALL | STICKY)
    if operator == "-":
        return [lambda mode, _: mode & ~given]
    cleared = (who or ALL) if operator == "=" else 0
    return [lambda mode, _: mode & ~cleared | given]


def _giving_if_executable(who: int, bits: int) -> list[Change]:
    given = bits & (who or ALL)
    return [lambda mode, could_execute: mode | given if could_execute else mode] if given else []


def _copying(source: str, operator: str, who: int) -> Change:
    """Copy the bits of one class to the classes of `who`; `g=u` reads what the changes before have made."""
    targets = [shift for word, shift in CLASSES.items() if who & (0o4 << CLASSES[word])]

    def change(mode: int, _folder: bool) -> int:
        value = mode >> CLASSES[source] & 0o7
        for shift in targets:
            mode &= ~((value if operator == "-" else 0o7 if operator == "=" else 0) << shift)
            mode |= 0 if operator == "-" else value << shift
        return mode

    return change
