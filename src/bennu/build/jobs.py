"""Builds under way as clients know them: by a reference, from Control.Solve to its answer."""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bennu.build.request import Solved
from bennu.build.telling import Recorder
from bennu.build.wire.grpc import Code, RpcFailed
from bennu.build.wire.messages import Definition, Empty, Input, Op, Result, SourceOp
from bennu.errors import NotFound

WAIT_S: Final = 5.0  # calls that belong to a build may come a moment before it
MAX_JOBS: Final = 1024
SCHEME: Final = "bennu://"
T = TypeVar("T")


@dataclass(slots=True)
class BuildJob:
    """One build of a client's. `returned` gets what the client's own part of the build came to."""

    ref: str
    session: str
    stack: contextlib.AsyncExitStack
    frontend_attrs: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Definition] = field(default_factory=dict)
    allow_host_network: bool = False  # steps that ask for this host's network may have it
    recorder: Recorder = field(default_factory=Recorder)
    results: dict[str, Solved] = field(default_factory=dict)
    tasks: set["asyncio.Future[Any]"] = field(default_factory=set)
    returned: "asyncio.Future[Result | RpcFailed]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def run(self, work: Awaitable[T]) -> T:
        """Do work that ends with the job. Raises: RpcFailed when the job ends; whatever the work raises."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise RpcFailed(Code.CANCELED, "context canceled")
            return task.result()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self.tasks.discard(task)

    async def wait_returned(self) -> Result:
        """Wait for what the client returns. Raises: RpcFailed, if that is an error."""
        outcome = await self.returned
        if isinstance(outcome, RpcFailed):
            raise outcome
        return outcome

    def keep(self, solved: Solved) -> str:
        """Keep a result until the job ends; answer its reference."""
        name = secrets.token_hex(16)
        self.results[name] = solved
        return name


class Jobs:
    """The builds of one host."""

    def __init__(self) -> None:
        self._known: dict[str, BuildJob] = {}
        self._came = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def open(self, ref: str, session: str) -> AsyncIterator[BuildJob]:
        """Have a job for the block; with it all ends that runs for it. Raises: RpcFailed."""
        if not ref or ref in self._known:
            raise RpcFailed(Code.INVALID_ARGUMENT, f"job ID {ref} exists" if ref else "a build needs a reference")
        if len(self._known) >= MAX_JOBS:
            raise RpcFailed(Code.RESOURCE_EXHAUSTED, "too many builds at once")
        async with contextlib.AsyncExitStack() as stack:
            job = BuildJob(ref, session, stack)
            async with self._came:
                self._known[ref] = job
                self._came.notify_all()
            try:
                yield job
            finally:
                del self._known[ref]
                job.recorder.end()
                tasks = list(job.tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, ref: str) -> BuildJob:
        """Wait a moment for a job, if need be. Raises: NotFound."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S), self._came:
                await self._came.wait_for(lambda: ref in self._known)
        found = self._known.get(ref)
        if found is None:
            raise NotFound(f"no such job {ref}")
        return found

    def result(self, name: str) -> Solved | None:
        """Answer a result of any job that is under way: targets of one bake use each other's."""
        return next((job.results[name] for job in self._known.values() if name in job.results), None)

    def end(self, ref: str) -> None:
        """End a build, if it is there."""
        job = self._known.get(ref)
        if job is not None:
            if not job.returned.done():
                job.returned.set_result(RpcFailed(Code.CANCELED, "context canceled"))
            for task in job.tasks:
                task.cancel()


def definition_of(name: str) -> Definition:
    """Write a result as a graph that a client can hand back: one source, and the end that points at it."""
    source = Op(source=SourceOp(f"{SCHEME}{name}")).encode()
    end = Op(inputs=[Input(_digest(source))]).encode()
    return Definition([source, end], {_digest(source): Empty(), _digest(end): Empty()})


def _digest(op: bytes) -> str:
    return "sha256:" + hashlib.sha256(op).hexdigest()


def name_of(definition: Definition) -> str:
    """Answer the result that a client hands back; "": it is none of ours, or nothing. Raises: Malformed."""
    for data in definition.ops:
        op = Op.decode(data)
        if op.source is not None and op.source.identifier.startswith(SCHEME):
            return op.source.identifier.removeprefix(SCHEME)
    return ""
