"""`/services/{id}/logs` and `/tasks/{id}/logs`: what all the tasks have written, in one stream."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from aiohttp import web

from bennu.api.http.query import flag
from bennu.api.http.streams import STDERR, STDOUT, ends_with_client, frame, open_chunks, stream_type
from bennu.api.routes.logs import read_query
from bennu.cluster import Cluster
from bennu.cluster.convert import container_spec
from bennu.cluster.state import Changed
from bennu.cluster.tables import TaskRow
from bennu.engine.container import Container
from bennu.engine.logs.reader import LogQuery, LogRecord, read_logs
from bennu.errors import InvalidParameter, NotFound
from bennu.go.rfc3339 import format_rfc3339_padded


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = ServiceLogRoutes(cluster)
    return [
        web.route("GET", "/services/{id}/logs", api.of_service),
        web.route("GET", "/tasks/{id}/logs", api.of_task),
    ]


class ServiceLogRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @ends_with_client
    async def of_service(self, request: web.Request) -> web.StreamResponse:
        service_id = self._cluster.services.find(request.match_info["id"]).id
        tty = container_spec(self._cluster.state.services.rows[service_id].service.spec.task).tty
        return await ServiceLogStream(self._cluster, request, tty).run(lambda row: row.task.service_id == service_id)

    @ends_with_client
    async def of_task(self, request: web.Request) -> web.StreamResponse:
        self._cluster.state.require_cluster()
        task = self._cluster.state.tasks.find(request.match_info["id"], lambda row: row.name, "task")
        tty = container_spec(task.task.spec).tty
        return await ServiceLogStream(self._cluster, request, tty).run(lambda row: row.id == task.id)


class ServiceLogStream:
    """Merges the logs of tasks for one client; when it follows, tasks that come later join."""

    def __init__(self, cluster: Cluster, request: web.Request, tty: bool) -> None:
        self._cluster = cluster
        self._request = request
        self._tty = tty
        self._query = read_service_query(request)
        self._lines: asyncio.Queue[tuple[TaskRow, list[LogRecord]] | None] = asyncio.Queue(maxsize=64)
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def run(self, wanted: Callable[[TaskRow], bool]) -> web.StreamResponse:
        response = await open_chunks(self._request, stream_type(self._request, multiplexed=not self._tty))
        state = self._cluster.state

        def consider(row: TaskRow) -> None:
            if row.container_id and row.id not in self._readers and wanted(row):
                self._read(row)

        def on_change(told: list[Changed]) -> None:
            for item in told:
                if isinstance(item.after, TaskRow):
                    consider(item.after)

        for row in sorted(state.tasks, key=lambda row: row.created_ns):
            consider(row)
        if self._query.follow:
            state.watchers.append(on_change)
        try:
            while self._query.follow or any(not task.done() for task in self._readers.values()) or self._lines.qsize():
                item = await self._next()
                if item is not None:
                    await response.write(b"".join(self._dressed(item[0], record) for record in item[1]))
        finally:
            if self._query.follow:
                state.watchers.remove(on_change)
            for task in self._readers.values():
                task.cancel()
        return response

    async def _next(self) -> tuple[TaskRow, list[LogRecord]] | None:
        item = await self._lines.get()
        self._lines.task_done()
        return item

    def _read(self, row: TaskRow) -> None:
        try:
            container = self._cluster.engine.find(row.container_id)
        except NotFound:
            return
        task = asyncio.ensure_future(self._feed(row, container))
        self._readers[row.id] = task

    async def _feed(self, row: TaskRow, container: Container) -> None:
        path = self._cluster.engine.services.log_path(container.id)
        try:
            async with aclosing(read_logs(path, self._query, ended=container.exited)) as batches:
                async for records in batches:
                    await self._lines.put((row, records))
        finally:
            # Wakes the writer, which then sees that this one has ended.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        if not self._lines.full():
            self._lines.put_nowait(None)

    def _dressed(self, row: TaskRow, record: LogRecord) -> bytes:
        stamp = f"{format_rfc3339_padded(record.at_ns)} ".encode() if flag(self._request, "timestamps") else b""
        details = f"{_details(row)} ".encode() if flag(self._request, "details") else b""
        data = stamp + details + record.data
        return data if self._tty else frame(STDERR if record.stream == "stderr" else STDOUT, data)


def read_service_query(request: web.Request) -> LogQuery:
    if not (flag(request, "stdout") or flag(request, "stderr")):
        raise InvalidParameter("must specify at least one of 'stdout' or 'stderr'")
    return read_query(request)


def _details(row: TaskRow) -> str:
    return (
        f"com.docker.swarm.node.id={row.task.node_id or ''},com.docker.swarm.service.id={row.task.service_id},"
        f"com.docker.swarm.task.id={row.id}"
    )
