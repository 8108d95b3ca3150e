"""Keeping the logs of running containers within `max-size` and `max-file`."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from bennu.engine.log_files import rotate, rotated
from bennu.engine.record import Record
from bennu.engine.services import Services
from bennu.errors import BennuError, InvalidParameter

LOOK_EVERY_S: Final = 1.0
SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kKmMgGtTpP]?)(?:[iI]?[bB])?", re.ASCII)
UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogBounds:
    """A file is put aside once it has `max_bytes`; `max_files` are kept, the one being written included."""

    max_bytes: int
    max_files: int


def parse_bounds(driver: str, options: Mapping[str, str]) -> LogBounds | None:
    """From the options of a log driver; None: the log may grow without end. Raises: InvalidParameter."""
    defaults = {"max-size": "20m", "max-file": "5"} if driver == "local" else {}
    asked = defaults | dict(options)
    files = asked.get("max-file", "1")
    if not files.isascii() or not files.removeprefix("-").isdecimal() or len(files) > 9:
        raise InvalidParameter(f'strconv.Atoi: parsing "{files[:100]}": invalid syntax')
    if int(files) < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    size = asked.get("max-size", "-1")
    if size == "-1":
        return None
    match = SIZE.fullmatch(size)
    if match is None or not (max_bytes := round(float(match[1]) * UNITS[match[2].lower()])):
        raise InvalidParameter(f"invalid size: '{size[:100]}'")
    return LogBounds(max_bytes, int(files))


async def keep_logs_in_bounds(services: Services, records: Callable[[], Iterable[Record]]) -> None:
    """Look once a second at the log of each running container with bounds, until cancelled.

    A file can be larger than its bound by what is written within a second.
    """
    while True:
        for record in list(records()):
            if record.pid:
                await _look(services, record)
        await asyncio.sleep(LOOK_EVERY_S)


async def _look(services: Services, record: Record) -> None:
    config = record.host_config.log_config
    bounds = parse_bounds(config.type, config.config or {}) if config.type != "none" else None
    if bounds is None:
        return
    path = services.log_path(record.id)
    try:
        if path.stat().st_size >= bounds.max_bytes:
            await rotate(path, partial(services.runtime.reopen_log, record.id), bounds.max_files)
    except FileNotFoundError:
        if rotated(path, 1).exists():  # put aside by a daemon that died before it could tell conmon
            with contextlib.suppress(BennuError):  # it has ended meanwhile
                await services.runtime.reopen_log(record.id)
    except (BennuError, OSError) as error:
        log.warning("the log of container %s could not be rotated: %s", record.id[:12], error)
