"""Reads what a registry asks of its clients: the header `WWW-Authenticate` (RFC 7235, RFC 6750). Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
SCHEME: Final = re.compile(rf"\s*({TOKEN})(?:\s+|\Z)")
PARAMETER: Final = re.compile(rf'\s*({TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({TOKEN}))\s*(,|\Z)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """A way to be let in; `scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read one challenge a header, as registries send them; what is none is passed over."""
    found = []
    for header in headers:
        if not (scheme := SCHEME.match(header)):
            continue
        parameters: dict[str, str] = {}
        place = scheme.end()
        while one := PARAMETER.match(header, place):
            quoted, plain = one[2], one[3]
            parameters[one[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            place = one.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return found
