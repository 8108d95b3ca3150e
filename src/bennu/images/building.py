"""`docker build`: buildah does the steps in storage of its own; bases go there from our store, the result comes back.

A build never reaches for a registry on its own account: every image a Dockerfile names is looked up here, pulled here
if it is missing, and handed to buildah under its id. What a Dockerfile may say is decided before buildah sees it.
"""

import asyncio
import contextlib
import errno
import json
import os
import posixpath
import signal
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.beneath import clean
from bennu.confined.client import HELPER, OUR_FAULT, Failure, Folder
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, Unavailable
from bennu.images.build_output import BuildOutput
from bennu.images.build_place import BuildPlace, BuildPlaces
from bennu.images.buildah import PROXIES, Buildah
from bennu.images.dockerfile_stages import Dockerfile, parse_dockerfile
from bennu.images.dockerignore import MAX_IGNORE_BYTES, is_ignored
from bennu.images.fetching import Fetched, FetchProgress, fetch, parse_manifest
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import disk_error, unpacking
from bennu.images.overlay import remove_tree
from bennu.images.pulling import Begun, Pulled
from bennu.images.pushing import lay_out
from bennu.images.reference import Reference, parse_reference
from bennu.images.skopeo import Source, read_manifest, skopeo
from bennu.kernel.libc import open_beneath
from bennu.process import signal_group, started

MAX_DOCKERFILE: Final = 4 << 20
STOP_GRACE_S: Final = 5.0
KEPT_CONFIG: Final = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "OnBuild", "Shell"),
)

Puller = Callable[[Reference], AsyncGenerator[Begun | FetchProgress | Pulled, None]]


class BuildFailed(BennuError):
    """A step failed; `code` is there when a command's exit code is the reason."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class BuildRequest:
    dockerfile: str = "Dockerfile"
    tags: Sequence[Reference] = ()
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    use_cache: bool = True
    cache_from: Sequence[str] = ()  # only from builds of these images; empty: from all
    pull: bool = False
    squash: bool = False
    network: str = "default"  # as the client wrote it
    extra_hosts: Sequence[str] = ()
    memory: int = 0
    shm_size: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A text for the client's stream, passed on as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Built:
    image: Image
    is_new: bool  # False: all of it came from the cache


Message = Text | Built | Begun | FetchProgress | Pulled


class Builder:
    """Runs all builds of one host."""

    def __init__(self, images: Images, buildah: Buildah, places: BuildPlaces) -> None:
        self._images = images
        self._buildah = buildah
        self._places = places
        self._active = 0
        self._has_settings = False
        self._has_remains = False  # of builds that were cut off, by us or with a former daemon
        self._preparing = asyncio.Lock()  # builds begin, and the cache goes, one after the other

    async def open(self) -> None:
        """Remove what builds of a former daemon left behind."""
        async with self._preparing:
            await self._places.clear()
            self._has_remains = await asyncio.to_thread(self._buildah.storage.exists)
            with contextlib.suppress(Unavailable):  # no buildah any more: whoever wants to build hears of it
                await self._clear()

    # --- one build ------------------------------------------------------------------------------------------------

    async def build(
        self, request: BuildRequest, context: AsyncIterable[bytes], pull: Puller
    ) -> AsyncGenerator[Message, None]:
        """Build an image, yielding what happens and at last `Built`; `pull` brings images that are not here.

        Raises: BuildFailed; InvalidParameter, NotFound, Unavailable; NotImplementedHere.
        """
        async with self._preparing:
            await self._clear()
            self._active += 1
        work = self._images.layers.new_path()
        try:
            await asyncio.to_thread(work.mkdir, 0o700)
            async with (
                self._places.open(request.network, request.extra_hosts) as place,
                contextlib.aclosing(self._work(request, context, pull, work, place)) as messages,
            ):
                async for message in messages:
                    yield message
        except OSError as error:
            if error.errno == errno.E2BIG:  # the kernel's limit for what buildah is told
                raise InvalidParameter("a label or build argument is too long") from error
            raise disk_error(error) from error
        finally:
            await asyncio.shield(self._leave(work))

    async def _leave(self, work: Path) -> None:
        self._active -= 1
        await asyncio.to_thread(remove_tree, work)
        if self._has_remains:
            async with self._preparing:
                await self._clear()

    async def _work(
        self, request: BuildRequest, context: AsyncIterable[bytes], pull: Puller, work: Path, place: BuildPlace
    ) -> AsyncGenerator[Message, None]:
        folder = await self._unpack_context(work, context)
        dockerfile = await _read_dockerfile(folder, request)
        await _leave_out(folder, request.dockerfile)
        bases: dict[str, Image] = {}
        async with contextlib.aclosing(self._gather(request, dockerfile, bases, pull)) as steps:
            async for step in steps:
                yield step
        dockerfile.check_triggers({name: image.config.on_build or () for name, image in bases.items()})
        for image in set(bases.values()):
            await self._lend(image, work)
        async with contextlib.aclosing(self._run(request, dockerfile, bases, work, place)) as messages:
            async for message in messages:
                yield message

    async def _unpack_context(self, work: Path, context: AsyncIterable[bytes]) -> Path:
        folder = work / "context"
        await asyncio.to_thread(folder.mkdir)
        draft = await self._images.layers.receive(context)
        try:
            with await asyncio.to_thread(draft.path.open, "rb") as source, unpacking():
                tree = Folder(folder, writable=True)
                async with HELPER.begin("unpack_tree", tree, input=source.fileno()) as session:
                    await session.result()
        finally:
            draft.path.unlink(missing_ok=True)
        return folder

    async def _gather(
        self, request: BuildRequest, dockerfile: Dockerfile, bases: dict[str, Image], pull: Puller
    ) -> AsyncGenerator[Message, None]:
        """Find each image that the Dockerfile names, or pull it."""
        for name in dockerfile.images():
            if not request.pull:
                with contextlib.suppress(NotFound):
                    bases[name] = self._images.find(name)
                    continue
            async with contextlib.aclosing(pull(parse_reference(name).tagged())) as steps:
                async for step in steps:
                    yield step
            bases[name] = self._images.find(name)

    async def _run(
        self, request: BuildRequest, dockerfile: Dockerfile, bases: Mapping[str, Image], work: Path, place: BuildPlace
    ) -> AsyncGenerator[Message, None]:
        ids = {name: image.id.removeprefix("sha256:") for name, image in bases.items()}
        file = work / "Dockerfile"
        await asyncio.to_thread(file.write_text, dockerfile.rewritten(ids))
        transcript = BuildOutput(dockerfile, bool(request.labels), ids)
        world = await asyncio.to_thread(self._buildah.furnish, work, place)
        argv = [
            *world,
            *_build_argv(request, place, work, use_cache=request.use_cache and self._may_use_cache(request)),
            f"--iidfile={work / 'id'}",
            f"--file={file}",
            str(work / "context"),
        ]
        async with contextlib.aclosing(self._follow(argv, work / "tmp", transcript)) as texts:
            async for text in texts:
                yield Text(text)
        base = dockerfile.stages[-1].base
        start_interval_ns = _start_interval_ns(dockerfile, bases)
        built_hex = (await asyncio.to_thread((work / "id").read_text)).removeprefix("sha256:")
        yield await self._take(built_hex, request, bases.get(base), start_interval_ns)

    def _may_use_cache(self, request: BuildRequest) -> bool:
        """Tell whether an image that the cache may come from is here, if the client names any."""
        for name in request.cache_from:
            with contextlib.suppress(NotFound, InvalidParameter):
                return bool(self._images.find(name))
        return not request.cache_from

    async def _follow(
        self, argv: Sequence[str | Path], tmp: Path, transcript: BuildOutput
    ) -> AsyncGenerator[str, None]:
        """Run buildah to its end; a client that leaves ends buildah and the step it is at."""
        running = started(argv, stderr=asyncio.subprocess.STDOUT, env=self._buildah.environment(tmp))
        async with running as process:
            assert process.stdout is not None
            try:
                async for line in lines_of(process.stdout):
                    for text in transcript.show(line):
                        yield text
                code = await process.wait()
            except BaseException:
                self._has_remains = True
                await asyncio.shield(_end(process))
                raise
        if code != 0:
            raise BuildFailed(*transcript.failure())

    # --- between the two storages ---------------------------------------------------------------------------------

    async def _lend(self, image: Image, work: Path) -> None:
        """Copy an image into buildah's storage under its own id."""
        image_hex = image.id.removeprefix("sha256:")
        if (self._buildah.storage / "overlay-images" / image_hex).is_dir():
            return
        folder = work / f"lent-{image_hex}"
        await asyncio.to_thread(lay_out, self._images, image, folder)
        source = Source(f"dir:{folder}", env=self._environment())
        await skopeo(["copy", "--quiet", source.location, f"containers-storage:localhost/lent:{image_hex}"], source)
        await asyncio.to_thread(remove_tree, folder)

    async def _take(self, built_hex: str, request: BuildRequest, base: Image | None, start_interval_ns: int) -> Built:
        """Bring a built image into our store; only its new layers are copied."""
        source = Source(f"containers-storage:@{built_hex}", env=self._environment())
        manifest = parse_manifest(await read_manifest(source))
        with self._images.layers.hold() as hold:
            async with contextlib.aclosing(fetch(self._images, source, manifest, hold)) as steps:
                async for step in steps:
                    if isinstance(step, Fetched):
                        parent = base.id if base is not None and self._images.get(base.id) else ""
                        config = tidy(step.config, start_interval_ns)
                        known = {image.id for image in self._images.list()}
                        image = await self._images.add(config, parent=parent, tags=request.tags)
                        return Built(image, image.id not in known)
        raise BennuError("the built image could not be read")

    # --- buildah's storage ----------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        return self._buildah.environment(self._images.layers.tmp)

    async def _clear(self) -> None:
        """Write buildah's settings and remove what builds that were cut off left. Raises: Unavailable."""
        if self._active:
            return
        if not self._has_settings:
            await asyncio.to_thread(self._buildah.write_settings)
            self._has_settings = True
        if self._has_remains:
            await self._buildah.clear(self._images.layers.tmp)
            self._has_remains = False

    async def prune(self, *, made_before_ns: int | None = None, keep_bytes: int = 0) -> int:
        """Drop what is cached; answer the bytes that became free. Raises: Conflict while a build runs.

        `made_before_ns`: what is younger stays, and what it is made from. `keep_bytes`: a cache no larger stays whole.
        """
        async with self._preparing:
            if self._active:
                raise Conflict("the build cache is in use: a build is running")
            await self._clear()
            tmp = self._images.layers.tmp
            before = await asyncio.to_thread(self._buildah.used_bytes)
            if before <= keep_bytes:
                return 0
            if made_before_ns is None:
                await self._buildah.call(tmp, "rmi", "--all", "--force")
            else:
                for step in await self._buildah.made_before(tmp, made_before_ns):
                    await self._buildah.call(tmp, "rmi", step)  # refused while something younger is made from it
            return max(0, before - await asyncio.to_thread(self._buildah.used_bytes))


def _build_argv(request: BuildRequest, place: BuildPlace, work: Path, *, use_cache: bool) -> list[str]:
    argv = ["buildah", "build", "--format=docker", "--layers", "--pull=never", "--identity-label=false"]
    argv += ["--isolation=oci", f"--runtime={work / 'runtime'}", "--ignorefile=/dev/null", "--force-rm"]
    # The network it is in is the build's own. Our proxies are not the steps' business.
    argv += [f"--network={'host' if place.connected else 'none'}", "--http-proxy=false"]
    argv += [f"--cgroupns={place.cgroupns}"]
    given = {key: value for key, value in request.arguments.items() if value is not None}
    # buildah's cache takes an instruction for the same whatever a build argument in it stands for.
    cacheable = use_cache and not set(given) - PROXIES
    argv += [] if cacheable else ["--no-cache"]
    argv += ["--squash"] if request.squash else []
    argv += [f"--memory={request.memory}"] if request.memory else []
    argv += [f"--shm-size={request.shm_size}b"] if request.shm_size else []
    argv += [f"--label={key}={value}" for key, value in request.labels.items()]
    # The result has no name in buildah's storage: builds that end together would take each other's for their own.
    return argv + [f"--build-arg={key}={value}" for key, value in given.items()]


def _start_interval_ns(dockerfile: Dockerfile, bases: Mapping[str, Image]) -> int:
    """Answer the health check's start interval, which old builders leave out or lose from the base image."""
    found = dockerfile.start_interval()
    if isinstance(found, int):
        return found
    check = bases[found].config.healthcheck if found in bases else None
    return check.start_interval if check else 0


def tidy(config: bytes, start_interval_ns: int = 0) -> bytes:
    """Rewrite the built configuration as Docker would have it: what buildah adds for itself is left out.

    `start_interval_ns`: of the health check, if it has one.

    The same input gives the same output, so a build that is all cache gives the same image.
    """
    raw: dict[str, Any] = json.loads(config)
    given = raw.get("config") or {}
    raw["config"] = {key: given[key] for key in KEPT_CONFIG if given.get(key)}
    if start_interval_ns and "Healthcheck" in raw["config"]:
        raw["config"]["Healthcheck"]["StartInterval"] = start_interval_ns
    for step in raw.get("history") or []:
        if str(step.get("comment", "")).startswith("FROM "):
            del step["comment"]
    for key in ("container", "container_config", "parent", "comment"):
        raw.pop(key, None)
    return msgspec.json.encode(raw)


async def lines_of(stream: asyncio.StreamReader) -> AsyncGenerator[str, None]:
    """Yield lines without their ends; an endless line comes in pieces."""
    pending = b""
    while data := await stream.read(65536):
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if len(pending) > 65536:
            yield pending.decode(errors="replace")
            pending = b""
    if pending:
        yield pending.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask buildah to end, so that it ends the container of its step, then kill it."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()


async def _read_dockerfile(folder: Path, request: BuildRequest) -> Dockerfile:
    """Read the Dockerfile; links in the context lead nowhere outside of it. Raises: InvalidParameter."""
    try:
        read = await HELPER.ask("read", Folder(folder), path=f"/{request.dockerfile}", limit=MAX_DOCKERFILE)
    except Failure as failure:
        if failure.kind in OUR_FAULT:
            raise
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {request.dockerfile}") from failure
    if read["longer"]:
        raise InvalidParameter("the Dockerfile is too large")
    text: str = read["text"]
    if not text:
        raise InvalidParameter(f"the Dockerfile ({request.dockerfile}) cannot be empty")
    return parse_dockerfile(text, request.arguments, request.target, has_labels=bool(request.labels))


async def _leave_out(folder: Path, dockerfile: str) -> None:
    """Remove `.dockerignore` and the Dockerfile where the former names them: clients send both all the same."""
    try:
        read = await HELPER.ask("read", Folder(folder), path="/.dockerignore", limit=MAX_IGNORE_BYTES)
    except Failure as failure:
        if failure.kind in OUR_FAULT:
            raise
        return  # there is none
    named = [name for name in (".dockerignore", clean(dockerfile)[1:]) if is_ignored(read["text"], name)]
    await asyncio.to_thread(_unlink_beneath, folder, named)


def _unlink_beneath(folder: Path, paths: Sequence[str]) -> None:
    """Remove files of a context, whose links lead nowhere outside of it. Blocking."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            head, name = posixpath.split(path)
            with contextlib.suppress(OSError):  # what cannot be reached is not of the context
                place = open_beneath(root, head or ".")
                try:
                    os.unlink(name, dir_fd=place)
                finally:
                    os.close(place)
    finally:
        os.close(root)
