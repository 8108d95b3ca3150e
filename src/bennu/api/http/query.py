"""Reads query parameters as dockerd does (moby `api/server/httputils/form.go`), pinned by `test_reading.py`."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from aiohttp import web

from bennu.api.http.versions import API_VERSION, parse_version
from bennu.decoding import decode
from bennu.errors import InvalidParameter

FALSE_WORDS: Final = frozenset({"", "0", "no", "false", "none"})
BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")
INT64: Final = 2**63
INTEGER: Final = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """Read a yes or no: "", 0, no, false and none are false in any case; anything else is true."""
    if name not in request.query:
        return default
    return request.query[name].strip().lower() not in FALSE_WORDS


def text(request: web.Request, name: str, default: str = "") -> str:
    """Read a text; `default` when it is absent."""
    return request.query.get(name, default)


def header(request: web.Request, name: str) -> str:
    """Read a header; "" when absent. Bytes that are no UTF-8 become U+FFFD, as when Go writes them as JSON."""
    return request.headers.get(name, "").encode(errors="surrogateescape").decode(errors="replace")


def check_query_text(text: str) -> None:
    """Refuse a query that Go would not parse. Raises: InvalidParameter in its words."""
    if ";" in text:
        raise InvalidParameter("invalid semicolon separator in query")
    if broken := BROKEN_ESCAPE.search(text):
        raise InvalidParameter(f'invalid URL escape "{broken[0]}"')


def integer(request: web.Request, name: str) -> int | None:
    """Read an integer; None when absent or empty. Raises: InvalidParameter in Go's words."""
    value = request.query.get(name, "")
    return parse_integer(value) if value else None


def parse_integer(value: str) -> int:
    """Read a decimal number of 64 bits. Raises: InvalidParameter in the words of Go's `strconv.Atoi`."""
    if not INTEGER.match(value):
        raise InvalidParameter(f'strconv.Atoi: parsing "{value[:100]}": invalid syntax')
    if len(value) > 20 or not -INT64 <= int(value) < INT64:
        raise InvalidParameter(f'strconv.Atoi: parsing "{value[:100]}": value out of range')
    return int(value)


def instant_ns(request: web.Request, name: str) -> int | None:
    """Read `since` or `until`, `seconds[.nanos]`, as ns since the epoch; None when absent. Raises: InvalidParameter.

    As moby `api/types/time/timestamp.go`.
    """
    value = request.query.get(name, "")
    if not value:
        return None
    seconds, _, fraction = value.partition(".")
    bad = f'invalid value for "{name}": invalid timestamp "{value[:100]}"'
    if not INTEGER.match(seconds) or len(seconds) > 12:
        raise InvalidParameter(f'{bad}: invalid seconds "{seconds[:100]}": invalid syntax')
    if fraction and not re.fullmatch(r"[0-9]+", fraction, re.ASCII):
        raise InvalidParameter(f'{bad}: invalid nanoseconds "{fraction[:100]}": invalid syntax')
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))


class Filters(Mapping[str, list[str]]):
    """`filters=`: the values asked for, by key; a key that was not asked for has none.

    As moby `api/types/filters/parse.go`.
    """

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> list[str]:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self, key: str) -> list[str]:
        """Answer the values of a key; empty when it was not asked for."""
        return self._values.get(key, [])

    def check(self, accepted: Collection[str]) -> None:
        """Refuse keys that are not `accepted`. Raises: InvalidParameter naming the first of them."""
        for key in self._values:
            if key not in accepted:
                raise InvalidParameter(f"invalid filter '{key}'")

    def boolean(self, key: str) -> bool | None:
        """Answer the value of a yes/no filter; None when it was not asked for. Raises: InvalidParameter."""
        values = {value.lower() for value in self.all(key)}
        if not values:
            return None
        if values <= {"1", "true", "t"}:
            return True
        if values <= {"0", "false", "f"}:
            return False
        raise InvalidParameter(f"invalid filter '{key}=[{' '.join(self.all(key))}]'")

    def labels_match(self, labels: Mapping[str, str] | None, key: str = "label") -> bool:
        """Tell whether each `k` or `k=v` that was asked for is among the labels."""
        return all(_has_label(labels or {}, wanted) for wanted in self.all(key))

    def labels_refuse(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether any of the `label!` filters is among the labels."""
        return any(_has_label(labels or {}, unwanted) for unwanted in self.all("label!"))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, has_value, value = wanted.partition("=")
    return key in labels and (not has_value or labels[key] == value)


def filters(request: web.Request, name: str = "filters") -> Filters:
    """Read `{"k":["v"]}` or the legacy `{"k":{"v":true}}`. Raises: InvalidParameter."""
    value = request.query.get(name, "")
    if not value:
        return Filters({})
    try:
        parsed = decode(value.encode(errors="surrogateescape"), dict[str, list[str] | dict[str, bool] | None])
    except InvalidParameter:
        raise InvalidParameter("invalid filter") from None
    return Filters({key: _values(wanted) for key, wanted in (parsed or {}).items()})


def _values(wanted: list[str] | dict[str, bool] | None) -> list[str]:
    if isinstance(wanted, dict):
        return [value for value, asked in wanted.items() if asked]
    return wanted or []


def api_minor(request: web.Request) -> int:
    """Answer the minor of the version in the path, the newest without one. Raises: InvalidParameter."""
    return parse_version(request.match_info.get("version", API_VERSION))


def is_version_at_least(request: web.Request, minor: int) -> bool:
    """Tell whether the client speaks API 1.`minor` or newer."""
    return api_minor(request) >= minor
