"""The bounds of running containers' logs: `max-size` and `max-file`."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from bennu.engine.background import Background
from bennu.engine.logs.files import rotate, rotated
from bennu.engine.record import Record
from bennu.errors import BennuError, InvalidParameter
from bennu.kernel.inotify import FileWrites
from bennu.runtime import Runtime

FASTEST_BYTES_PER_S: Final = 500_000_000  # of conmon, twice what was seen
SHORTEST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.5
ROTATION_TAKES_S: Final = 0.03
AGAIN_AFTER_S: Final = 1.0
SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kKmMgGtTpP]?)(?:[iI]?[bB])?", re.ASCII)
UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The bounds of a log: a file is rotated at `max_bytes`; `max_files` are kept, including the one being written."""

    max_bytes: int
    max_files: int


def parse_bounds(driver: str, options: Mapping[str, str]) -> LogBounds | None:
    """Parse the options of a log driver; None: the log may grow without end. Raises: InvalidParameter."""
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


class Kept(Protocol):
    """The container whose log is kept."""

    @property
    def record(self) -> Record: ...


class LogServices(Protocol):
    """The part of the engine that keeping a log takes."""

    @property
    def tasks(self) -> Background: ...

    @property
    def writes(self) -> FileWrites: ...

    @property
    def runtime(self) -> Runtime: ...

    def log_path(self, container_id: str) -> Path: ...


class LogKeeper:
    """The task that rotates the log of one container in time, while it runs.

    A quiet log costs nothing: the kernel tells of the next write to it. From then on its size is looked at as often as
    the fastest writer could fill the remaining room, until it is quiet again. So a file exceeds its bound by no more
    than the bytes written in the hundredths of a second that one rotation takes.
    """

    def __init__(self, services: LogServices, container: Kept) -> None:
        self._services = services
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to watch the log if it has bounds. Idempotent."""
        config = self._container.record.host_config.log_config
        bounds = parse_bounds(config.type, config.config or {}) if config.type != "none" else None
        if bounds is not None and (self._task is None or self._task.done()):
            name = f"log of {self._container.record.id[:12]}"
            self._task = self._services.tasks.create_task(self._keep(bounds), name=name)

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _keep(self, bounds: LogBounds) -> None:
        services = self._services
        path = services.log_path(self._container.record.id)
        size, looked_at = size_of(path), time.monotonic()
        while True:
            await asyncio.sleep(pause_before_full(size, bounds))
            before, before_at = size, looked_at
            size, looked_at = size_of(path), time.monotonic()
            rate = max(0, size - before) / (looked_at - before_at)
            if is_due(size, rate, bounds) or (not size and rotated(path, 1).exists() and not path.exists()):
                # To its end also if the container ends now: a log that conmon was not told of would be in two places.
                name = f"rotate the log of {self._container.record.id[:12]}"
                await asyncio.shield(services.tasks.create_task(self._rotate(path, bounds), name=name))
                size, looked_at = 0, time.monotonic()
            elif size == before:
                await services.writes.wait_written(path, size)

    async def _rotate(self, path: Path, bounds: LogBounds) -> None:
        container_id = self._container.record.id
        reopen = partial(self._services.runtime.streams.reopen_log, container_id)
        try:
            if path.exists():
                await rotate(path, reopen, bounds.max_files)
            else:  # put aside by a daemon that died before it could tell conmon
                await reopen()
        except (BennuError, OSError) as error:
            log.warning("the log of container %s could not be rotated: %s", container_id[:12], error)
            await asyncio.sleep(AGAIN_AFTER_S)


def is_due(size: int, bytes_per_s: float, bounds: LogBounds) -> bool:
    """Tell whether a file reaches its bound before a rotation begun now is done. Never true of a half-empty file."""
    return size >= bounds.max_bytes / 2 and size + bytes_per_s * ROTATION_TAKES_S >= bounds.max_bytes


def pause_before_full(size: int, bounds: LogBounds) -> float:
    """Compute the pause in seconds before the size has to be looked at again."""
    return min(max((bounds.max_bytes - size) / FASTEST_BYTES_PER_S, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)


def size_of(path: Path) -> int:
    """Return the size of the file in bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
