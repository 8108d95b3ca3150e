"""All builds of one host: what entrances ask for is planned, run and made into an image here."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bennu.build.cache import Cache
from bennu.build.export_image import Exporter
from bennu.build.job import BuildTools, NodeRun
from bennu.build.place import BuildPlaces
from bennu.build.plan.draft import finish_config
from bennu.build.plan.requests import Answer
from bennu.build.preparation import Preparation, internal_step
from bennu.build.remote_context import fetch_context
from bennu.build.request import BuildInputs, BuildStepFailed, Solved, SolveRequest
from bennu.build.snapshots import Snapshots
from bennu.build.solver import NodeFailed, Solver
from bennu.build.steps.cache_mounts import CacheMounts
from bennu.build.steps.exec_step import StepFailed, StepRunner
from bennu.build.steps.trees import Folders, MissingSource
from bennu.build.usage import CACHE_MOUNT, PruneRequest, UsageRecord, automatic_prunes, choose_to_prune
from bennu.build.vertices import Progress
from bennu.errors import BennuError, Conflict
from bennu.images import Image, Images
from bennu.images.overlay import remove_tree
from bennu.images.reference import Reference
from bennu.store import Store

REST_S: Final = 600.0  # between two looks at what the cache takes
FORMER_CACHE: Final = "buildah"  # earlier versions kept it beside ours

log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Something else than layers that is kept from build to build, and counted and pruned with them."""

    async def usage(self) -> Sequence[UsageRecord]: ...

    async def remove(self, id: str) -> None:
        """Remove one. Idempotent. Raises: Conflict while it is used."""
        ...


class _MountShelf:
    """The folders of `RUN --mount=type=cache`."""

    def __init__(self, caches: CacheMounts) -> None:
        self._caches = caches

    async def usage(self) -> Sequence[UsageRecord]:
        return [
            UsageRecord(
                id=one.name,
                description=f"cached mount {one.target} with id {json.dumps(one.id)}",
                kind=CACHE_MOUNT,
                size=one.size,
                created_ns=one.created_ns,
                used_ns=one.used_ns,
                in_use=one.in_use,
                mutable=True,
            )
            for one in await self._caches.usage()
        ]

    async def remove(self, id: str) -> None:
        await self._caches.remove(id)


class Builder:
    """Runs all builds of one host; lives in one event loop."""

    def __init__(
        self, root: Path, store: Store, images: Images, places: BuildPlaces, steps: StepRunner, boot_id: str
    ) -> None:
        self._root = root
        self._images = images
        self._places = places
        self._snapshots = Snapshots(root, images.layers)
        self._cache = Cache(store, self._snapshots, images.layers, boot_id)
        self._caches = CacheMounts(root / "mounts")
        self._tools = BuildTools(self._cache, images, places, steps, self._caches)
        self._solver = Solver(os.cpu_count() or 1)
        self._exporter = Exporter(images, self._cache)
        self._pruning = asyncio.Lock()
        self._opened = asyncio.Event()
        self._has_grown = asyncio.Event()
        self.shelves: list[Shelf] = [_MountShelf(self._caches)]

    async def read(self) -> None:
        """Read what is cached, and have the images keep what that needs. To be done before the images open."""
        await self._cache.read()
        self._images.keep_also(self._cache.wanted)

    async def open(self) -> None:
        """Remove what builds of a former daemon left half-done. The images are open."""
        try:
            await self._places.clear()
            await self._cache.open()
            await asyncio.to_thread(self._caches.open)
            await asyncio.to_thread(remove_tree, self._root.with_name(FORMER_CACHE))
        finally:
            self._opened.set()

    async def keep_tidy(self) -> None:
        """Prune what builds have made too much of, for as long as this daemon lives."""
        while True:
            await self._has_grown.wait()
            self._has_grown.clear()
            disk = await asyncio.to_thread(shutil.disk_usage, self._root)
            for request in automatic_prunes(disk.total, time.time_ns()):
                try:
                    await self.prune(request)
                except (BennuError, OSError) as error:
                    log.warning("the build cache was not pruned: %s", error)
            await asyncio.sleep(REST_S)

    # --- builds -------------------------------------------------------------------------------------------------------

    async def solve(
        self, request: SolveRequest, inputs: BuildInputs, progress: Progress, kept: AsyncExitStack
    ) -> Solved:
        """Run a build; what its result needs is kept until `kept` closes.

        Raises: BuildStepFailed; InvalidParameter, NotFound, Unavailable; NotImplementedHere.
        """
        await self._opened.wait()
        self._places.check(request.network)
        job = await kept.enter_async_context(NodeRun(self._tools, request, inputs))
        kept.callback(self._has_grown.set)
        kept.push_async_callback(self._cache.flush)
        try:
            remote = await fetch_context(job, self._solver, progress)
            plan = await Preparation(job, progress, remote).plan()
            result = await self._solver.solve(plan.last, job, progress)
        except NodeFailed as failed:
            raise _explain(failed) from failed.error
        return Solved(result.snapshot, plan.config, plan.platform, plan.base_id, plan.created_ns)

    async def answer(
        self, asked: str, request: SolveRequest, inputs: BuildInputs, progress: Progress, kept: AsyncExitStack
    ) -> Answer:
        """Answer what is asked of a Dockerfile instead of a build of it: one of `plan.requests.REQUESTS`.

        Raises: as `solve`.
        """
        await self._opened.wait()
        job = await kept.enter_async_context(NodeRun(self._tools, request, inputs))
        try:
            remote = await fetch_context(job, self._solver, progress)
            return await Preparation(job, progress, remote).answer(asked)
        except NodeFailed as failed:
            raise _explain(failed) from failed.error

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Path]:
        """Give an entrance an empty folder for the block."""
        await self._opened.wait()
        async with self._snapshots.work() as folder:
            yield folder

    def folders(self, solved: Solved) -> Folders:
        """List the folders of a result, topmost first."""
        return self._snapshots.folders(solved.snapshot)

    async def export_image(
        self, solved: Solved, tags: Sequence[Reference], progress: Progress, *, squash: bool = False
    ) -> Image:
        """Make an image of a result and name it. Raises: BennuError."""
        async with internal_step(progress, "exporting to image") as telling:
            with self._images.layers.hold() as hold:
                diff_ids = await self._exporter.pack(solved.snapshot, hold)
                telling.done_status("exporting layers")
                if squash:
                    diff_ids = [await self._exporter.squash(solved.snapshot, hold)]
                times = [self._made_ns(layer) for layer in solved.snapshot.layers]
                config = finish_config(solved.config, diff_ids, times)
                parent = solved.parent if self._images.get(solved.parent) else ""
                image = await self._images.add(msgspec.json.encode(config), parent=parent, tags=tags)
            telling.done_status(f"writing image {image.id}")
            for tag in tags:
                telling.done_status(f"naming to {tag.full_name}:{tag.tag}")
            return image

    def _made_ns(self, layer: str) -> int | None:
        record = self._cache.get(layer)
        return record.created_ns if record is not None else None

    # --- what it takes ------------------------------------------------------------------------------------------------

    async def usage(self) -> list[UsageRecord]:
        """List all that is kept from build to build."""
        await self._opened.wait()
        shared = {diff_id for image in self._images.list() for diff_id in image.diff_ids}
        found = list(await self._cache.usage(shared))
        for shelf in self.shelves:
            found += await shelf.usage()
        return found

    async def prune(self, request: PruneRequest) -> list[UsageRecord]:
        """Remove what a request chooses, and answer it. Raises: InvalidParameter."""
        async with self._pruning:
            free = (await asyncio.to_thread(shutil.disk_usage, self._root)).free
            chosen = choose_to_prune(await self.usage(), request, free)
            own = {one.id for one in chosen if self._cache.get(one.id) is not None}
            gone = set(await self._cache.remove(own))
            for one in chosen:
                for shelf in self.shelves if one.id not in own else ():
                    with contextlib.suppress(Conflict, KeyError):
                        await shelf.remove(one.id)
                        gone.add(one.id)
            await self._images.collect()
            return [one for one in chosen if one.id in gone]


def _explain(failed: NodeFailed) -> BuildStepFailed:
    """Say which step failed, and where it is written."""
    error = failed.error
    code = error.exit_code if isinstance(error, StepFailed) else None
    words = str(error)
    if isinstance(error, MissingSource):
        words = f"failed to compute cache key: {words}"
    return BuildStepFailed(words, code=code, location=failed.node.location, vertex=failed.vertex)
