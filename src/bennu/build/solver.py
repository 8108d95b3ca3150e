"""Runs a graph: what does not need each other side by side, each node once, and nothing that is known already.

Laws: a node begins when all its inputs have ended well. Two nodes that mean the same work are one vertex. What another
build is just making is waited for. The first failure ends all the others, and is the one that is told. What a cancelled
node has begun is gone when `solve` returns.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bennu.build.graph import GraphNode, Merge, digests, inputs, walk
from bennu.build.snapshots import NOTHING, StepSnapshot
from bennu.build.vertices import Progress, Vertex, VertexLog, VertexStatus
from bennu.errors import BennuError


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node gave: a root filesystem of ours, or a folder that a client has sent."""

    snapshot: StepSnapshot = NOTHING
    folder: Path | None = None
    state: str = ""  # names the contents of `folder`; see `ContextTree`
    cached: bool = False


class NodeFailed(BennuError):
    """A node came to grief; `vertex` is its digest, the cause is the error itself."""

    def __init__(self, vertex: str, node: GraphNode, error: BennuError) -> None:
        super().__init__(str(error))
        self.vertex = vertex
        self.node = node
        self.error = error


class Telling:
    """One vertex as it is told of: to the build's own progress, and to those who wait for it in other builds."""

    def __init__(self, vertex: Vertex, progress: Progress) -> None:
        self.vertex = vertex
        self._listeners: list[tuple[str, Progress]] = [(vertex.digest, progress)]

    @property
    def digest(self) -> str:
        return self.vertex.digest

    def announce(self) -> None:
        self._tell(self.vertex)

    def start(self) -> None:
        if self.vertex.started_ns is None:
            self._tell(replace(self.vertex, started_ns=time.time_ns()))

    def end(self, *, cached: bool = False, error: str = "") -> None:
        now = time.time_ns()
        began = self.vertex.started_ns or now
        self._tell(replace(self.vertex, started_ns=began, completed_ns=now, cached=cached, error=error))

    def _tell(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self._listeners[0][1].vertex(vertex)

    def log(self, stream: int, data: bytes) -> None:
        now = time.time_ns()
        for digest, progress in self._listeners:
            progress.log(VertexLog(digest, stream, data, now))

    def status(self, id: str, name: str, current: int, total: int, started_ns: int, *, done: bool = False) -> None:
        now = time.time_ns()
        for digest, progress in self._listeners:
            progress.status(VertexStatus(id, digest, name, current, total, now, started_ns, now if done else None))

    def done_status(self, name: str, size: int = 0) -> None:
        """Tell of something that is done already."""
        now = time.time_ns()
        self.status(name, name, size, size, now, done=True)

    @contextlib.contextmanager
    def heard_by(self, other: "Telling") -> Iterator[None]:
        """Tell another build's vertex of the same work what this one prints, for the block."""
        entry = other._listeners[0]
        self._listeners.append(entry)
        try:
            yield
        finally:
            self._listeners.remove(entry)


class Operations(Protocol):
    """What one build does with its nodes."""

    async def key(self, node: GraphNode, given: Mapping[GraphNode, NodeResult]) -> str:
        """Answer what the result of a node depends on; "": it is never remembered. Raises: BennuError."""
        ...

    def recall(self, key: str) -> NodeResult | None:
        """Give what is known of a key."""
        ...

    async def run(
        self, node: GraphNode, key: str, given: Mapping[GraphNode, NodeResult], telling: Telling
    ) -> NodeResult:
        """Do what a node says, and remember it under its key. Raises: BennuError."""
        ...


@dataclass(slots=True)
class _Running:
    telling: Telling
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Solver:
    """Runs the graphs of all builds of this host; `slots`: how many nodes may work at the same time."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._running: dict[str, _Running] = {}  # by key: who is making it

    async def solve(self, last: GraphNode, operations: Operations, progress: Progress) -> NodeResult:
        """Run a graph to its last node. Raises: NodeFailed of the first node that failed; what was begun is gone."""
        results = await self.solve_all([last], operations, progress)
        return results[0]

    async def solve_all(
        self, lasts: Sequence[GraphNode], operations: Operations, progress: Progress
    ) -> list[NodeResult]:
        """Run several graphs that may share nodes. Raises: NodeFailed."""
        build = _Build(self, operations, progress)
        for last in lasts:
            build.take(last)
        try:
            async with asyncio.TaskGroup() as group:
                build.begin(group)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [build.result(last) for last in lasts]

    async def run_once(
        self,
        node: GraphNode,
        given: Mapping[GraphNode, NodeResult],
        operations: Operations,
        telling: Telling,
    ) -> NodeResult:
        """Find or make the result of one node whose inputs are there."""
        key = await operations.key(node, given)
        while key and not node.no_cache:
            if (found := operations.recall(key)) is not None:
                return replace(found, cached=True)
            if (other := self._running.get(key)) is None:
                break
            telling.start()
            with other.telling.heard_by(telling):
                await other.ended.wait()
        if not key:
            telling.start()
            return await operations.run(node, key, given, telling)
        running = _Running(telling)
        shared = not node.no_cache
        if shared:
            self._running[key] = running
        try:
            async with self._slots:
                telling.start()
                return await operations.run(node, key, given, telling)
        finally:
            if shared:
                del self._running[key]
            running.ended.set()


class _Build:
    """One graph while it runs."""

    def __init__(self, solver: Solver, operations: Operations, progress: Progress) -> None:
        self._solver = solver
        self._operations = operations
        self._progress = progress
        self._digests: dict[GraphNode, str] = {}
        self._nodes: dict[str, GraphNode] = {}  # by digest, inputs first
        self._tasks: dict[str, asyncio.Task[NodeResult]] = {}

    def take(self, last: GraphNode) -> None:
        self._digests |= digests(last)
        for node in walk(last):
            self._nodes.setdefault(self._digests[node], node)

    def begin(self, group: asyncio.TaskGroup) -> None:
        tellings = {digest: Telling(self._vertex(node, digest), self._progress) for digest, node in self._nodes.items()}
        for telling in tellings.values():
            if telling.vertex.name:
                telling.announce()
        for digest, node in self._nodes.items():
            self._tasks[digest] = group.create_task(self._one(node, tellings[digest]))

    def result(self, node: GraphNode) -> NodeResult:
        return self._tasks[self._digests[node]].result()

    def _vertex(self, node: GraphNode, digest: str) -> Vertex:
        return Vertex(digest, node.name, tuple(dict.fromkeys(self._digests[one] for one in inputs(node))))

    async def _one(self, node: GraphNode, telling: Telling) -> NodeResult:
        needed = [(one, self._tasks[self._digests[one]]) for one in inputs(node)]
        for _, task in needed:
            await asyncio.wait([task])
        given = {one: task.result() for one, task in needed}
        if isinstance(node, Merge):
            return self._merge(node, given, telling)
        try:
            result = await self._solver.run_once(node, given, self._operations, telling)
        except BennuError as error:
            telling.end(error=str(error))
            raise NodeFailed(telling.digest, node, error) from error
        except asyncio.CancelledError:
            if telling.vertex.started_ns is not None:
                telling.end(error="context canceled")
            raise
        telling.end(cached=result.cached)
        return result

    def _merge(self, node: Merge, given: Mapping[GraphNode, NodeResult], telling: Telling) -> NodeResult:
        base, layer = given[node.base], given[node.layer]
        cached = base.cached and layer.cached
        telling.end(cached=cached)
        return NodeResult(base.snapshot.over(*layer.snapshot.layers), cached=cached)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose what to tell of several errors: a node's own failure before anything that came of it."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [errors]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            found.append(error)
    return next((one for one in found if isinstance(one, NodeFailed)), found[0])
