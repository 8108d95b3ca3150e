"""Texts of options turned into values. Every failure is a ValueError with the words docker uses."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bennu.cli.failure import Failure

SIZE: Final = re.compile(r"^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$")
SIZE_UNITS: Final = " kmgtp"
DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
ULIMITS: Final = re.compile(
    "core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack"
)
SECOND: Final = 1_000_000_000


def parse_size(text: str) -> int:
    """Bytes, in powers of 1024: `64m`, `1.5GiB`, `4096`."""
    found = SIZE.match(text.lower())
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(found[1]) * 1024 ** SIZE_UNITS.index(found[2] or " "))


def parse_swap(text: str) -> int:
    """A size, or -1 for no limit."""
    return -1 if text == "-1" else parse_size(text)


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration as Go writes it: `1m30s`, `500ms`, `1.5h`, `0`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, position = 0, 0
    for part in DURATION_PART.finditer(rest):
        if part.start() != position:
            break
        whole, _, fraction = part[1].partition(".")
        unit = NANOSECONDS[part[2]]
        total += int(whole or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = part.end()
    if not rest or position != len(rest):
        kind = "missing unit in duration" if re.fullmatch(r"[\d.]+", rest) else "invalid duration"
        raise ValueError(f'time: {kind} "{text}"')
    return sign * total


def parse_cpus(text: str) -> int:
    """Billionths of a processor."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if number != number or abs(number) == float("inf"):
        raise ValueError(f"failed to parse {text} as a rational number")
    nano = round(number * SECOND, 3)
    if nano != int(nano):
        raise ValueError("value is too precise")
    return int(nano)


def parse_ulimit(text: str) -> dict[str, str | int]:
    """`name=soft[:hard]`."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if not ULIMITS.fullmatch(name):
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{parts[-1]}": invalid syntax') from None
    soft, hard = numbers[0], numbers[-1]
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def parse_label(text: str) -> str:
    if text.startswith("="):
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def parse_env(text: str) -> str:
    """`NAME=value`, or `NAME` whose value is taken from this process's environment when the body is made."""
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def parse_host_mapping(text: str) -> str:
    """`name:address` or `name=address`; comes out with a colon, the address without brackets."""
    found = re.match(r"^([^=:]*)[=:](.*)$", text)
    if found is None or not found[1]:
        raise ValueError(f'bad format for add-host: "{text}"')
    address = found[2]
    if address == "host-gateway":
        return f"{found[1]}:{address}"
    from ipaddress import ip_address

    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ip_address(address)
    except ValueError:
        raise ValueError(f'invalid IP address in add-host: "{found[2]}"') from None
    return f"{found[1]}:{address}"


def parse_device_rule(text: str) -> str:
    if re.match(r"^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$", text) is None:
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def parse_attach(text: str) -> str:
    stream = text.lower()
    if stream not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return stream


def read_lines_file(path: str, what: str) -> list[str]:
    """The lines of an env or label file: no comments, no blank lines, no leading space. `what` names it in errors."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise Failure(f"{what} file {path} contains invalid utf8 bytes") from None
    found = []
    for line in lines:
        line = line.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or re.search(r"\s", name):
            problem = f"variable '{name}' contains whitespaces" if name else f"no variable name on line '{line}'"
            raise Failure(f"invalid {what} file ({path}): {problem}")
        found.append(line)
    return found


def collect_env(files: Iterable[str], given: Iterable[str]) -> list[str]:
    """Files first, then what was typed. A bare name takes this process's value, and stays bare when there is none."""
    import os

    lines = [line for path in files for line in read_lines_file(path, "env")]
    resolved: list[str] = []
    for number, entry in enumerate([*lines, *given]):
        if "=" in entry:
            resolved.append(entry)
        elif entry in os.environ:
            resolved.append(f"{entry}={os.environ[entry]}")
        elif number >= len(lines):
            resolved.append(entry)
    return resolved


def collect_labels(files: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    return as_mapping([line for path in files for line in read_lines_file(path, "label")] + list(given))


def as_mapping(entries: Iterable[str]) -> dict[str, str]:
    """`k=v` texts as a mapping; a bare `k` has the value ""."""
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def parse_filter(text: str) -> str:
    if text and "=" not in text:
        raise ValueError("bad format of filter (expected name=value)")
    return text


def parse_filters(entries: Iterable[str]) -> dict[str, list[str]]:
    """`name=value` texts as the API's `filters`."""
    filters: dict[str, list[str]] = {}
    for entry in filter(None, entries):
        name, _, value = entry.partition("=")
        values = filters.setdefault(name.strip().lower(), [])
        if value.strip() not in values:
            values.append(value.strip())
    return filters


def encode_filters(entries: Iterable[str]) -> str | None:
    """The `filters` query parameter, or None when there are none."""
    filters = parse_filters(entries)
    if not filters:
        return None
    from json import dumps

    return dumps({name: dict.fromkeys(values, True) for name, values in filters.items()})


def parse_timestamp(text: str, now_ns: int) -> str:
    """`since`/`until` as the API wants them (`seconds.nanoseconds`): a duration before now, a Unix time or a date."""
    try:
        moment = now_ns - parse_duration(text)
        return f"{moment // SECOND}.{moment % SECOND:09d}"
    except ValueError:
        pass
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        return text
    from datetime import datetime

    fraction = re.search(r"\.(\d+)", text)
    plain = text.replace(fraction[0], "", 1) if fraction else text
    try:
        parsed = datetime.fromisoformat(plain)
    except ValueError:
        raise Failure(f'failed to parse value as time or duration: "{text}"') from None
    nanoseconds = (fraction[1] if fraction else "")[:9].ljust(9, "0")
    return f"{int(parsed.timestamp())}.{nanoseconds}"


def parse_integer_text(text: str, prefix: str) -> int:
    """A count. Raises: Failure with `prefix` in front."""
    if not text.isascii() or not text.isdecimal():
        raise Failure(f'{prefix}strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)
