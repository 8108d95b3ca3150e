"""What a container's log options ask for, checked in dockerd's order and words. Pure.

dockerd looks at the values of some options only as a container starts; here all are looked at as it is created.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.go.bool import parse_bool
from bennu.go.units import parse_size

LOG_DRIVERS: Final = ("", "json-file", "local", "none")
DOCKER_LOG_DRIVERS: Final = ("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")
BOUND_OPTIONS: Final = frozenset({"max-size", "max-file", "compress"})
ATTRIBUTE_OPTIONS: Final = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
JSON_OPTIONS: Final = BOUND_OPTIONS | ATTRIBUTE_OPTIONS
ALL_DRIVERS_OPTIONS: Final = frozenset({"mode", "max-buffer-size"})
CACHE: Final = "cache-"  # options of the copy that dockerd keeps for drivers it cannot read: no driver here has one
BLOCKING: Final = ("", "blocking")
NON_BLOCKING: Final = "non-blocking"
RING_BYTES: Final = 10**6
LOCAL_BYTES: Final = 20 * 1024 * 1024
LOCAL_FILES: Final = 5
REGEX_OPTIONS: Final = ("labels-regex", "env-regex")
# Go's alone: Python takes them for something else.
GO_ALONE: Final = re.compile(r"\[\[:|\\[pPzQC]")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a log is written. `max_bytes` 0: no bound; `ring_bytes` -1: the container waits for its log."""

    is_json: bool = True
    max_bytes: int = 0
    max_files: int = 1
    compress: bool = False
    ring_bytes: int = -1


def parse_log_options(driver: str, options: Mapping[str, str]) -> LogSettings | None:
    """Parse what is asked of a driver; None: no log is kept. Raises: InvalidParameter; NotImplementedHere."""
    if driver in DOCKER_LOG_DRIVERS:
        raise NotImplementedHere(f"the log driver {driver} is not implemented")
    if driver not in LOG_DRIVERS:
        raise InvalidParameter(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    if driver == "none":
        return None
    ring_bytes = _parse_ring(options)
    for option in options:
        if option not in ALL_DRIVERS_OPTIONS and not option.startswith(CACHE):
            _check_known(driver, option)
    if driver == "local":
        return _parse_local(options, ring_bytes)
    _check_regexes(options)
    return _parse_json(options, ring_bytes)


def _parse_ring(options: Mapping[str, str]) -> int:
    mode, size = options.get("mode", ""), options.get("max-buffer-size")
    if mode not in (*BLOCKING, NON_BLOCKING):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if size is not None and mode != NON_BLOCKING:
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    try:
        ring_bytes = RING_BYTES if size is None else parse_size(size, 1024)
    except ValueError as error:
        raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from error
    return ring_bytes if mode == NON_BLOCKING else -1


def _check_known(driver: str, option: str) -> None:
    if driver == "local" and option not in BOUND_OPTIONS:
        raise InvalidParameter(f"unknown log opt '{option}' for log driver local")
    if option not in JSON_OPTIONS:
        raise InvalidParameter(f"unknown log opt '{option}' for json-file log driver")


def _parse_json(options: Mapping[str, str], ring_bytes: int) -> LogSettings:
    max_bytes = 0
    try:
        if "max-size" in options:
            max_bytes = parse_size(options["max-size"])
            if not max_bytes:
                raise ValueError("max-size must be a positive number")
        max_files = _parse_number(options.get("max-file", "1"))
        if max_files < 1:
            raise ValueError("max-file cannot be less than 1")
        compress = parse_bool(options.get("compress", "false"))
    except ValueError as error:
        _refuse(str(error))
    if compress and (max_files == 1 or not max_bytes):
        _refuse("compress cannot be true when max-file is less than 2 or max-size is not set")
    return LogSettings(True, max_bytes, max_files, compress, ring_bytes)


def _parse_local(options: Mapping[str, str], ring_bytes: int) -> LogSettings:
    size, files = options.get("max-size"), options.get("max-file")
    try:
        max_bytes = LOCAL_BYTES if size is None else parse_size(size)
    except ValueError as error:
        _refuse(f"invalid value for max-size: {size}: {error}")
    try:
        max_files = LOCAL_FILES if files is None else _parse_number(files)
    except ValueError as error:
        _refuse(f"invalid value for max-file: {files}: {error}")
    try:
        compress = parse_bool(options.get("compress", "true"))
    except ValueError as error:
        _refuse(f"error reading compress log option: {error}")
    if max_files < 0:
        _refuse("max file count cannot be less than 0")
    if compress and max_files <= 1:
        _refuse("compression cannot be enabled when max file count is 1")
    return LogSettings(False, max(1, max_bytes), max(1, max_files), compress, ring_bytes)


def _parse_number(text: str) -> int:
    """Read a number as `strconv.Atoi` does, up to nine digits. Raises: ValueError in Go's words."""
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f'strconv.Atoi: parsing "{text[:100]}": invalid syntax')
    return int(text)


def _check_regexes(options: Mapping[str, str]) -> None:
    for option in REGEX_OPTIONS:
        pattern = options.get(option, "")
        if GO_ALONE.search(pattern):
            raise NotImplementedHere(f"the log option {option} is not implemented for what only Go's expressions have")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            _refuse(f"error parsing regexp: {error}: `{pattern[:100]}`")


def _refuse(what: str) -> NoReturn:
    raise InvalidParameter(f"failed to initialize logging driver: {what}")
