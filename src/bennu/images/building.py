"""`docker build`: buildah does the steps, in storage of its own; bases go there from our store, the result comes back.

A build never reaches for a registry on its own account: every image a Dockerfile names is looked up here, pulled here
if it is missing, and handed to buildah under its id.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, Unavailable
from bennu.images.fetching import Fetched, Step, fetch, parse_manifest
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import Unpacked, disk_error, unpack_error, unpacker
from bennu.images.overlay import remove_tree
from bennu.images.pulling import Begun, Pulled
from bennu.images.pushing import lay_out
from bennu.images.reference import Reference, parse_reference
from bennu.images.skopeo import Source, read_manifest, skopeo
from bennu.images.stages import Dockerfile, parse_dockerfile
from bennu.images.transcript import Transcript
from bennu.process import run, signal_group, started

PROXY_ARGUMENTS: Final = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)
# Every build gives its result this name, which so wanders to the newest; what is meant is known by its id.
RESULT: Final = "localhost/bennu-build:latest"
MAX_DOCKERFILE: Final = 4 << 20
STOP_GRACE_S: Final = 5.0
MISSING: Final = "buildah is not installed: apt-get install buildah"
KEPT_CONFIG: Final = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "OnBuild", "Shell"),
)

log = logging.getLogger(__name__)
Puller = Callable[[Reference], AsyncGenerator[Begun | Step | Pulled, None]]


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
    pull: bool = False
    squash: bool = False
    network: str = "host"  # host | none
    extra_hosts: Sequence[str] = ()
    memory: int = 0
    shm_size: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """For the client's stream, as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Built:
    image: Image


Message = Text | Built | Begun | Step | Pulled


class Builder:
    """All builds of one host. `run_root` is for what a reboot may take: buildah's mount counts."""

    def __init__(self, images: Images, root: Path, run_root: Path) -> None:
        self._images = images
        self._root = root
        self._run_root = run_root
        self._active = 0
        self._clean = False  # nothing is left of builds that were cut off, by us or with a former daemon
        self._preparing = asyncio.Lock()  # builds begin, and the cache goes, one after the other

    # --- one build ------------------------------------------------------------------------------------------------

    async def build(
        self, request: BuildRequest, context: AsyncIterable[bytes], pull: Puller
    ) -> AsyncGenerator[Message, None]:
        """Yields what happens, at last `Built`; `pull` brings images that are not here.

        Raises: BuildFailed; InvalidParameter, NotFound, Unavailable.
        """
        async with self._preparing:
            await self._prepare()
            self._active += 1
        work = self._images.layers.new_path()
        try:
            await asyncio.to_thread(work.mkdir, 0o700)
            folder = await self._unpack_context(work, context)
            dockerfile = await asyncio.to_thread(_read_dockerfile, folder, request)
            bases: dict[str, Image] = {}
            async with contextlib.aclosing(self._gather(request, dockerfile, bases, pull)) as steps:
                async for step in steps:
                    yield step
            for image in set(bases.values()):
                await self._lend(image, work)
            async with contextlib.aclosing(self._run(request, dockerfile, bases, work, folder)) as messages:
                async for message in messages:
                    yield message
        except OSError as error:
            raise disk_error(error) from error
        finally:
            self._active -= 1
            await asyncio.shield(asyncio.to_thread(remove_tree, work))

    async def _unpack_context(self, work: Path, context: AsyncIterable[bytes]) -> Path:
        folder = work / "context"
        await asyncio.to_thread(folder.mkdir)
        draft = await self._images.layers.receive(context)
        told = Unpacked(error="the unpacker died without a word")
        try:
            with await asyncio.to_thread(draft.path.open, "rb") as source:
                async with started(unpacker("tree", folder), stdin=source.fileno()) as process:
                    assert process.stdout is not None and process.stderr is not None
                    async for line in process.stdout:
                        told = msgspec.json.decode(line, type=Unpacked)
                    complaint = (await process.stderr.read()).decode(errors="replace")
        finally:
            draft.path.unlink(missing_ok=True)
        if told.error:
            raise unpack_error(told, complaint)
        return folder

    async def _gather(
        self, request: BuildRequest, dockerfile: Dockerfile, bases: dict[str, Image], pull: Puller
    ) -> AsyncGenerator[Message, None]:
        """Find every image the Dockerfile names here, or bring it here."""
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
        self, request: BuildRequest, dockerfile: Dockerfile, bases: Mapping[str, Image], work: Path, folder: Path
    ) -> AsyncGenerator[Message, None]:
        ids = {name: image.id.removeprefix("sha256:") for name, image in bases.items()}
        file = work / "Dockerfile"
        await asyncio.to_thread(file.write_text, dockerfile.rewritten(ids))
        transcript = Transcript(dockerfile, RESULT, bool(request.labels), ids)
        argv = [*self._argv(request), f"--tag={RESULT}", f"--file={file}", str(folder)]
        async with contextlib.aclosing(self._follow(argv, transcript)) as texts:
            async for text in texts:
                yield Text(text)
        base = dockerfile.stages[-1].base
        start_interval_ns = _start_interval_ns(dockerfile, bases)
        yield Built(await self._take(transcript.image_id, request, bases.get(base), start_interval_ns))

    def _argv(self, request: BuildRequest) -> list[str]:
        # A daemon that is killed takes its builds along: nobody would be left to take the result.
        argv = ["setpriv", "--pdeathsig=TERM", "--"] if shutil.which("setpriv") else []
        argv += ["buildah", "build", "--format=docker", "--layers", "--pull=never", "--identity-label=false"]
        argv += ["--isolation=oci", f"--runtime={shutil.which('crun') or 'runc'}", "--ignorefile=/dev/null"]
        argv += [f"--network={request.network}", "--force-rm"]
        given = {key: value for key, value in request.arguments.items() if value is not None}
        # buildah's cache takes an instruction for the same whatever a build argument in it stands for.
        cacheable = request.use_cache and not set(given) - PROXY_ARGUMENTS
        argv += [] if cacheable else ["--no-cache"]
        argv += ["--squash"] if request.squash else []
        argv += [f"--memory={request.memory}"] if request.memory else []
        argv += [f"--shm-size={request.shm_size}b"] if request.shm_size else []
        argv += [f"--add-host={host}" for host in request.extra_hosts]
        argv += [f"--label={key}={value}" for key, value in request.labels.items()]
        return argv + [f"--build-arg={key}={value}" for key, value in given.items()]

    async def _follow(self, argv: Sequence[str], transcript: Transcript) -> AsyncGenerator[str, None]:
        """Run buildah to its end; a client that leaves ends it, and the step it is at."""
        try:
            running = started(argv, stderr=asyncio.subprocess.STDOUT, env=self._env())
            async with running as process:
                assert process.stdout is not None
                try:
                    async for line in lines_of(process.stdout):
                        for text in transcript.show(line):
                            yield text
                    code = await process.wait()
                except BaseException:
                    self._clean = False
                    await asyncio.shield(_end(process))
                    raise
        except FileNotFoundError:
            raise Unavailable(MISSING) from None
        if code != 0 or not transcript.image_id:
            raise BuildFailed(*transcript.failure())

    # --- between the two storages ---------------------------------------------------------------------------------

    async def _lend(self, image: Image, work: Path) -> None:
        """Have an image in buildah's storage under its own id."""
        image_hex = image.id.removeprefix("sha256:")
        if (self._root / "storage" / "overlay-images" / image_hex).is_dir():
            return
        folder = work / f"lent-{image_hex}"
        await asyncio.to_thread(lay_out, self._images, image, folder)
        source = Source(f"dir:{folder}", env=self._env())
        await skopeo(["copy", "--quiet", source.location, f"containers-storage:localhost/lent:{image_hex}"], source)
        await asyncio.to_thread(remove_tree, folder)

    async def _take(self, built_hex: str, request: BuildRequest, base: Image | None, start_interval_ns: int) -> Image:
        """Bring a built image into our store: only its new layers travel."""
        source = Source(f"containers-storage:@{built_hex}", env=self._env())
        manifest = parse_manifest(await read_manifest(source))
        with self._images.layers.hold() as hold:
            async with contextlib.aclosing(fetch(self._images, source, manifest, hold)) as steps:
                async for step in steps:
                    if isinstance(step, Fetched):
                        parent = base.id if base is not None and self._images.get(base.id) else ""
                        config = tidy(step.config, start_interval_ns)
                        return await self._images.add(config, parent=parent, tags=request.tags)
        raise BennuError("the built image could not be read")

    # --- buildah's storage ----------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Storage and configuration of buildah; what builds of a former daemon left behind is removed once."""
        if self._clean or self._active:
            return
        if shutil.which("buildah") is None:
            raise Unavailable(MISSING)
        await asyncio.to_thread(self._write_settings)
        await self._buildah("rm", "--all")
        self._clean = True

    def _write_settings(self) -> None:
        for folder in (self._root, self._run_root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        storage = {"driver": "overlay", "graphroot": str(self._root / "storage"), "runroot": str(self._run_root)}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in storage.items())
        (self._root / "storage.conf").write_text(
            f'[storage]\n{lines}[storage.options.overlay]\nskip_mount_home = "true"\n'
        )
        (self._root / "registries.conf").write_text(
            'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'
        )

    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self._root / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self._root / "registries.conf"),
            "TMPDIR": str(self._images.layers.tmp),
        }

    async def _buildah(self, *arguments: str) -> bool:
        done = await run(["buildah", *arguments], timeout_s=120, env=self._env())
        if done.exit_code != 0:
            log.warning("buildah %s: %s", arguments[0], done.stderr.decode(errors="replace").strip())
        return done.exit_code == 0

    async def prune(self) -> int:
        """Drop everything cached; answers the bytes gained. Raises: Conflict while a build runs."""
        async with self._preparing:
            if self._active:
                raise Conflict("the build cache is in use: a build is running")
            await self._prepare()
            before = await asyncio.to_thread(_used_bytes, self._root)
            await self._buildah("rmi", "--all", "--force")
            return max(0, before - await asyncio.to_thread(_used_bytes, self._root))


def _start_interval_ns(dockerfile: Dockerfile, bases: Mapping[str, Image]) -> int:
    """What a builder that does not know it has left out, or lost from the base image."""
    found = dockerfile.start_interval()
    if isinstance(found, int):
        return found
    check = bases[found].config.healthcheck if found in bases else None
    return check.start_interval if check else 0


def tidy(config: bytes, start_interval_ns: int = 0) -> bytes:
    """The configuration as Docker would have written it: what buildah adds for itself is left out.

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
    """Lines without their ends; one that is endless comes in pieces."""
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
    """Asked first: buildah then ends the container of its step."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()


def _read_dockerfile(folder: Path, request: BuildRequest) -> Dockerfile:
    """Blocking. Links in the context lead nowhere outside of it. Raises: InvalidParameter."""
    path = Path(os.path.normpath(os.path.join("/", request.dockerfile)))  # noqa: PTH118
    real = (folder / path.relative_to("/")).resolve()
    if not real.is_relative_to(folder.resolve()) or not real.is_file():
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {request.dockerfile}")
    if real.stat().st_size > MAX_DOCKERFILE:
        raise InvalidParameter("the Dockerfile is too large")
    text = real.read_text(errors="replace")
    if not text.strip():
        raise InvalidParameter(f"the Dockerfile ({request.dockerfile}) cannot be empty")
    return parse_dockerfile(text, request.arguments, request.target)


def _used_bytes(root: Path) -> int:
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
    return total
