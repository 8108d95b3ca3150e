"""What a look at the machine found: one fact, how bad it is, and the command that cures it."""

from dataclasses import dataclass
from enum import StrEnum


class FindingVerdict(StrEnum):
    OK = "ok"
    WARN = "warn"  # containers run, something named in the text does not
    FAIL = "fail"  # no container can run


@dataclass(frozen=True, slots=True)
class Finding:
    """`cure` is a command to type, or what to change when no single command does it."""

    name: str
    verdict: FindingVerdict
    text: str
    cure: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, FindingVerdict.OK, text)


def warn(name: str, text: str, cure: str = "") -> Finding:
    return Finding(name, FindingVerdict.WARN, text, cure)


def fail(name: str, text: str, cure: str = "") -> Finding:
    return Finding(name, FindingVerdict.FAIL, text, cure)
