"""One build while it runs: what it does with each kind of node, and what it borrows for that."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bennu.beneath import entry_of
from bennu.build import graph
from bennu.build.cache import Cache, CacheRecord
from bennu.build.graph import (
    Copy,
    Exec,
    Files,
    GitSource,
    GraphNode,
    HttpSource,
    ImageSource,
    LocalSource,
    MountKind,
    Scratch,
    SolvedSource,
    inputs,
)
from bennu.build.place import BuildPlace, BuildPlaces
from bennu.build.request import BuildInputs, SolveRequest
from bennu.build.snapshots import IMAGE_LAYER, StepSnapshot
from bennu.build.solver import NodeResult, Telling
from bennu.build.sources import SourceFailed, check_out, fetch_url, find_commit
from bennu.build.steps.cache_mounts import CacheMounts
from bennu.build.steps.exec_step import StepRequest, StepRunner
from bennu.build.steps.trees import Folders, Selection, apply_files, digest_tree, select
from bennu.errors import BennuError, NotFound, NotImplementedHere
from bennu.images import Images
from bennu.images.platform import host_architecture

DIGESTS_KEPT: Final = 4096
URL_MODE: Final = 0o600
BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "ppc64le": "ppc64le", "loong64": "loongarch64"}
NATIVE_TOO: Final = {"amd64": "386"}
MADE_KINDS: Final = {HttpSource: "source.http", GitSource: "source.git.checkout"}


@dataclass(frozen=True, slots=True)
class BuildTools:
    """What all builds of this host share."""

    cache: Cache
    images: Images
    places: BuildPlaces
    steps: StepRunner
    caches: CacheMounts
    content: dict[tuple[tuple[str, ...], tuple[Selection, ...]], str] = field(default_factory=dict)


class NodeRun:
    """The operations of one build. Entered for as long as it runs: then it gives back what it borrowed."""

    def __init__(self, tools: BuildTools, request: SolveRequest, inputs: BuildInputs) -> None:
        self.tools = tools
        self.request = request
        self.inputs = inputs
        self._stack = contextlib.AsyncExitStack()
        self._free: dict[str, list[BuildPlace]] = {}
        self.hold: Callable[[Collection[str]], None] = lambda layers: None

    async def __aenter__(self) -> Self:
        hold_records = self._stack.enter_context(self.tools.cache.holding())
        held = self._stack.enter_context(self.tools.images.layers.hold())

        def hold(layers: Collection[str]) -> None:
            hold_records(layers)
            for layer in layers:
                if layer.startswith(IMAGE_LAYER):
                    held.add(layer)

        self.hold = hold
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[BuildPlace]:
        """Lend a place to one step; steps that run at the same time have one each. Raises: BennuError."""
        network = self.request.network
        free = self._free.setdefault(network, [])
        if free:
            place = free.pop()
        else:
            opening = self.tools.places.open(network, self.request.extra_hosts)
            place = await self._stack.enter_async_context(opening)
        try:
            yield place
        finally:
            free.append(place)

    # --- keys ---------------------------------------------------------------------------------------------------------

    async def key(self, node: GraphNode, given: Mapping[GraphNode, NodeResult]) -> str:
        match node:
            case Exec():
                return graph.key(node, await self._exec_inputs(node, given))
            case Files():
                return graph.key(node, await self._files_inputs(node, given))
            case _:
                return ""

    async def _exec_inputs(self, node: Exec, given: Mapping[GraphNode, NodeResult]) -> list[str]:
        found = [_identity(given[node.base])]
        for mount in node.mounts:
            if mount.source is None:
                continue
            source = given[mount.source]
            if mount.kind is MountKind.BIND:
                found.append(await self._content(source, (Selection(mount.source_path or "/"),)))
            else:
                found.append(_identity(source))
        return found

    async def _files_inputs(self, node: Files, given: Mapping[GraphNode, NodeResult]) -> list[str]:
        found = [_identity(given[node.base])]
        for action in node.actions:
            if isinstance(action, Copy):
                found.append(await self._content(given[action.source], tuple(select(action))))
        return found

    async def _content(self, source: NodeResult, selections: tuple[Selection, ...]) -> str:
        if source.folder is not None and not source.state:
            return await digest_tree([source.folder], selections)
        known = self.tools.content
        place = ((source.state,) if source.folder is not None else source.snapshot.layers, selections)
        if place not in known:
            digest = await digest_tree(self._folders(source), selections)
            while len(known) >= DIGESTS_KEPT:
                del known[next(iter(known))]
            known[place] = digest
        return known[place]

    def recall(self, key: str) -> NodeResult | None:
        found = self.tools.cache.find(key)
        if found is None:
            return None
        self.hold(found.layers)
        self.tools.cache.use(found)
        return NodeResult(found.snapshot)

    # --- work ---------------------------------------------------------------------------------------------------------

    async def run(
        self, node: GraphNode, key: str, given: Mapping[GraphNode, NodeResult], telling: Telling
    ) -> NodeResult:
        match node:
            case Scratch():
                return NodeResult(cached=True)
            case ImageSource():
                return self._image(node)
            case SolvedSource():
                return NodeResult(self.request.solved[node.solved].snapshot, cached=True)
            case LocalSource():
                tree = await self.inputs.tree(node)
                return NodeResult(folder=tree.folder, state=tree.state)
            case HttpSource():
                return await self._url(node)
            case GitSource():
                return await self._git(node)
            case Exec():
                return await self._exec(node, key, given, telling)
            case Files():
                return await self._files(node, key, given)
            case _:
                raise BennuError(f"nobody knows how to run {node.name}")

    def _image(self, node: ImageSource) -> NodeResult:
        image = self.tools.images.get(node.image_id)
        if image is None:
            raise NotFound(f"No such image: {node.image_id}")
        return NodeResult(StepSnapshot(tuple(image.diff_ids)), cached=True)

    async def _exec(self, node: Exec, key: str, given: Mapping[GraphNode, NodeResult], telling: Telling) -> NodeResult:
        base = given[node.base]
        await asyncio.to_thread(check_can_run, node.platform)
        async with self.tools.cache.snapshots.work() as work, self.place() as place:
            request = StepRequest(
                step=node,
                base=self._folders(base),
                into=work,
                sources={one: self._folders(given[one]) for one in inputs(node)},
                place=place,
                lender=self.inputs,
                limits=self.request.limits,
                caches=self.tools.caches,
            )
            await self.tools.steps.run(request, telling.log)
            return await self._keep(node, key, base.snapshot, work)

    async def _files(self, node: Files, key: str, given: Mapping[GraphNode, NodeResult]) -> NodeResult:
        base = given[node.base]
        async with self.tools.cache.snapshots.work() as work:
            sources = {one: self._folders(given[one]) for one in inputs(node)}
            await apply_files(node, self._folders(base), work, sources)
            return await self._keep(node, key, base.snapshot, work)

    async def _url(self, node: HttpSource) -> NodeResult:
        """Fetch a file each time, and keep it once: whether it has changed only its bytes can tell."""
        async with self.tools.cache.snapshots.work() as work:
            async with self.place() as place:
                try:
                    fetched = await fetch_url(node.url, place, work)
                except SourceFailed as error:
                    raise SourceFailed(f"failed to load cache key: {error}") from error
            if node.checksum and fetched.digest != node.checksum:
                raise SourceFailed(f"digest mismatch {fetched.digest}: {node.checksum}")
            key = graph.key(node, [fetched.digest, str(fetched.mtime_ns)])
            if (known := self.recall(key)) is not None:
                return NodeResult(known.snapshot, cached=True)
            await asyncio.to_thread(_lay_file, node, fetched.path, work / "diff", fetched.mtime_ns)
            return await self._keep(node, key, StepSnapshot(), work)

    async def _git(self, node: GitSource) -> NodeResult:
        async with self.tools.cache.snapshots.work() as work, self.place() as place:
            commit = await find_commit(node, place, work)
            key = graph.key(node, [commit])
            if (known := self.recall(key)) is not None:
                return NodeResult(known.snapshot, cached=True)
            await check_out(node, commit, place, work)
            return await self._keep(node, key, StepSnapshot(), work)

    async def _keep(self, node: GraphNode, key: str, base: StepSnapshot, work: Path) -> NodeResult:
        """Make a record of the layer in `work/diff`; it is held from the beginning."""
        cache = self.tools.cache
        layer = await cache.snapshots.keep(work)
        self.hold([layer])
        now = time.time_ns()
        snapshot = base.over(layer)
        record = CacheRecord(
            id=layer,
            key=key,
            layers=list(snapshot.layers),
            description=node.name,
            created_ns=now,
            used_ns=now,
            kind=MADE_KINDS.get(type(node), "regular"),
        )
        try:
            await cache.add(record)
        except BaseException:
            await asyncio.shield(cache.snapshots.remove([layer]))
            raise
        return NodeResult(snapshot)

    def _folders(self, result: NodeResult) -> Folders:
        return [result.folder] if result.folder is not None else self.tools.cache.snapshots.folders(result.snapshot)


def check_can_run(platform: str) -> None:
    """Find out whether this host runs programs of a platform. Blocking, but short. Raises: NotImplementedHere."""
    architecture = platform.split("/")[1] if platform else host_architecture()
    if architecture in (host_architecture(), NATIVE_TOO.get(host_architecture())):
        return
    interpreter = BINFMT / f"qemu-{MACHINES.get(architecture, architecture)}"
    with contextlib.suppress(OSError):
        if interpreter.read_text().startswith("enabled"):
            return
    raise NotImplementedHere(
        f"this host cannot run programs of {platform}: it has no interpreter for them in {BINFMT} "
        f"(apt-get install qemu-user-static)"
    )


def _identity(result: NodeResult) -> str:
    """Name a root filesystem; results of one name are the same files."""
    return " ".join(result.snapshot.layers)


def _lay_file(node: HttpSource, answer: Path, folder: Path, mtime_ns: int | None) -> None:
    """Make a root of one file, as the node says."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    place = entry_of(folder, node.filename)
    answer.rename(place)
    os.chown(place, node.uid, node.gid)
    place.chmod(URL_MODE if node.mode is None else node.mode)
    if mtime_ns is not None:
        os.utime(place, ns=(mtime_ns, mtime_ns))
