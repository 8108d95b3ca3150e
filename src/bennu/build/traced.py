"""The second way to BuildKit: `POST /build?version=2`, whose answer carries the progress of the first way in lines.

(moby `builder/builder-next/builder.go`.) The context is the session's folders, the body of the request, or the body of
another request that names the build: `remote=upload-request`.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from bennu.build.front import Front
from bennu.build.jobs import BuildJob
from bennu.build.traced_call import TracedCall
from bennu.build.wire.session import while_there
from bennu.confined.client import HELPER, Folder
from bennu.errors import InvalidParameter
from bennu.images.image import Image
from bennu.images.layers import unpacking

UPLOAD: Final = "upload-request"
UPLOAD_WAIT_S: Final = 30.0


Tell = Callable[[bytes], Awaitable[None]]  # gets StatusResponses, written


class TracedBuilds:
    """The builds of the second way on one host."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._uploads: dict[str, asyncio.Future[AsyncIterable[bytes]]] = {}

    async def build(self, asked: TracedCall, tell: Tell) -> str:
        """Build and export; answer the image's id. `tell` gets the progress. Raises: BuildStepFailed, BennuError."""
        ref = asked.build_id or secrets.token_hex(16)
        async with self._front.jobs.open(ref, asked.session) as job:
            telling = asyncio.create_task(_tell_all(job, tell))
            try:
                return (await job.run(self._run(job, asked))).id
            finally:
                job.recorder.end()
                await asyncio.gather(telling, return_exceptions=True)

    async def _run(self, job: BuildJob, asked: TracedCall) -> Image:
        async with contextlib.AsyncExitStack() as stack:
            inputs = await self._front.bridge.lend(job, {})
            inputs.logins = asked.logins
            body = asked.body
            if asked.is_uploaded:
                body = await self._wait_upload(job.ref, stack)
            if body is not None:
                inputs.bring = lambda work: unpack_body(body, work)
            work = self._front.solve(asked.solving, inputs, job)
            if asked.session:
                session = await self._front.sessions.find(asked.session)
                solved = await while_there(session, work)
            else:
                solved = await work
            return await self._front.export_image(solved, asked.tags, job)

    async def _wait_upload(self, ref: str, stack: contextlib.AsyncExitStack) -> AsyncIterable[bytes]:
        """Wait for the request that brings the context of a build. Raises: InvalidParameter."""
        waited = self._uploads.setdefault(ref, asyncio.get_running_loop().create_future())
        stack.callback(self._uploads.pop, ref, None)
        try:
            async with asyncio.timeout(UPLOAD_WAIT_S):
                return await waited
        except TimeoutError:
            raise InvalidParameter("the build's context did not come") from None

    async def upload(self, build_id: str, body: AsyncIterable[bytes]) -> None:
        """Hand a body to the build that waits for it, and wait until it has been read. Raises: InvalidParameter."""
        name = build_id.removeprefix(f"{UPLOAD}:")
        if not name:
            raise InvalidParameter("an upload has to name its build")
        waited = self._uploads.setdefault(name, asyncio.get_running_loop().create_future())
        if waited.done():
            raise InvalidParameter(f"the context of the build {name} is there already")
        read = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in body:
                    yield piece
            finally:
                read.set()

        waited.set_result(pieces())
        try:
            async with asyncio.timeout(UPLOAD_WAIT_S):
                await self._front.jobs.find(name)
            await read.wait()
        finally:
            self._uploads.pop(name, None)

    def cancel(self, build_id: str) -> None:
        """End a build, if it is there."""
        self._front.jobs.end(build_id)


async def _tell_all(job: BuildJob, tell: Tell) -> None:
    async for response in job.recorder.responses():
        await tell(response.encode())


async def unpack_body(body: AsyncIterable[bytes], work: Path) -> None:
    """Unpack a tar into `work/context`. Raises: InvalidParameter."""
    unfinished = work / "upload"
    await asyncio.to_thread(unfinished.mkdir)
    with unpacking():
        async with HELPER.begin("unpack_tree", Folder(unfinished, writable=True), input=True) as session:
            await session.feed(body)
    unfinished.rename(work / "context")
