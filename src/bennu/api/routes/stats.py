"""`GET /containers/{id}/stats`: what a container uses, once or every second."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from bennu.api.http.query import flag
from bennu.api.http.responses import json_line, json_response
from bennu.api.http.streams import ends_with_client, open_chunks
from bennu.api.shapes.instants import NEVER, rfc3339
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.runtime import NotAlive

INTERVAL_S: Final = 1.0
COUNTERS: Final = (
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
)
COLUMNS: Final = (0, 1, 2, 3, 8, 9, 10, 11)  # of /proc/net/dev
NO_CPU: Final = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
Json = dict[str, Any]


def routes(engine: Engine) -> list[web.RouteDef]:
    return [web.route("GET", "/containers/{id}/stats", StatsRoutes(engine).stats)]


class StatsRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def stats(self, request: web.Request) -> web.StreamResponse:
        """Send what the container uses, every second.

        `stream=0` looks twice, a second apart, so that the client can tell cpu time per time; `one-shot=1` looks once
        (moby `daemon/stats.go`).
        """
        container = self._engine.find(request.match_info["id"])
        if flag(request, "stream", default=True):
            return await self._stream(request, container)
        before: Json = {}
        if not flag(request, "one-shot") and container.record.pid:
            before = await self._look(container, {})
            await asyncio.sleep(INTERVAL_S)
        return json_response(await self._look(container, before))

    async def _stream(self, request: web.Request, container: Container) -> web.StreamResponse:
        response = await open_chunks(request)
        before: Json = {}
        while True:
            before = await self._look(container, before)
            await response.write(json_line(before))
            if container.removing or container.id not in {other.id for other in self._engine.list()}:
                return response
            await asyncio.sleep(INTERVAL_S)

    async def _look(self, container: Container, before: Json) -> Json:
        shown: Json = {
            "read": NEVER,
            "preread": before.get("read", NEVER),
            "pids_stats": {},
            "blkio_stats": {},
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": NO_CPU,
            "precpu_stats": before.get("cpu_stats", NO_CPU),
            "memory_stats": {},
            "name": f"/{container.record.name}",
            "id": container.id,
        }
        try:
            seen = await self._engine.services.runtime.observer.stats(container.id)
        except NotAlive:
            return shown
        shown |= {
            "read": rfc3339(time.time_ns()),
            "pids_stats": seen.pids,
            "blkio_stats": seen.blkio,
            "cpu_stats": seen.cpu,
            "memory_stats": seen.memory,
        }
        networks = await asyncio.to_thread(read_interfaces, container.record.pid)
        return shown | ({"networks": networks} if networks else {})


def read_interfaces(pid: int) -> dict[str, dict[str, int]]:
    """Read the counters of a process's network interfaces, without loopback; none when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    named = (line.partition(":") for line in lines)
    return {
        name.strip(): {counter: int(numbers.split()[column]) for counter, column in zip(COUNTERS, COLUMNS, strict=True)}
        for name, _, numbers in named
        if name.strip() != "lo"
    }
