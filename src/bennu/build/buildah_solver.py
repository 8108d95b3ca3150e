"""A `Solver` that has buildah do the steps: what it prints becomes vertices, logs and failures of BuildKit's kind."""

import asyncio
import contextlib
import hashlib
import json
import posixpath
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Final

from bennu.build.graph import LocalSource, Location
from bennu.build.request import CONTEXT, DOCKERFILE, BuildInputs, BuildStepFailed, Solved, SolveRequest
from bennu.build.snapshots import Snapshot
from bennu.build.vertices import STDOUT, Progress, Vertex, VertexLog, VertexStatus
from bennu.build.wire.messages import CacheRecord
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.images.building import Builder, BuildFailed, BuildRequest, Built, GivenContext, Puller, Text
from bennu.images.dockerfile_stages import Dockerfile, Line, parse_dockerfile
from bennu.images.fetching import FetchProgress
from bennu.images.images import Images
from bennu.images.platform import host_architecture, wanted_platform
from bennu.images.pulling import Begun, Pulled, pull
from bennu.images.reference import Reference
from bennu.images.skopeo import Auth

STEP: Final = re.compile(r"Step ([0-9]+)/[0-9]+ : (.*)\Z", re.DOTALL)
Announce = Callable[[str, str, str], Awaitable[None]]


class Steps:
    """Follows the classic builder's text, and tells of its steps as vertices."""

    def __init__(self, dockerfile: Dockerfile, progress: Progress) -> None:
        self._progress = progress
        self._names = list(step_names(dockerfile))
        self.now: Vertex | None = None
        self.line: Line | None = None

    def hear(self, text: str) -> None:
        step = STEP.match(text)
        if step is not None:
            self._begin(int(step[1]), step[2])
        elif self.now is None or text == "\n":
            return
        elif text.startswith(" ---> "):
            if text == " ---> Using cache\n":
                self.now = _changed(self.now, cached=True)
        else:
            self._progress.log(VertexLog(self.now.digest, STDOUT, text.encode(), time.time_ns()))

    def _begin(self, number: int, text: str) -> None:
        self.end()
        known = number <= len(self._names)
        name, self.line = self._names[number - 1] if known else (f"[internal] {text}", None)
        self.now = Vertex(_digest(f"{number} {name} {time.time_ns()}"), name, started_ns=time.time_ns())
        self._progress.vertex(self.now)

    def end(self, error: str = "") -> None:
        if self.now is not None:
            self._progress.vertex(_changed(self.now, completed_ns=time.time_ns(), error=error))
            self.now = None


def step_names(dockerfile: Dockerfile) -> "list[tuple[str, Line]]":
    """Name the steps as BuildKit does: `[stage-1 2/5] RUN make`; those that touch no files count, too."""
    names = []
    for number, stage in enumerate(dockerfile.stages):
        total = len(stage.lines)
        title = stage.name or (f"stage-{number}" if len(dockerfile.stages) > 1 else "")
        for place, line in enumerate(stage.lines, 1):
            shown = f"FROM {stage.base}" if place == 1 else line.text
            names.append((f"[{f'{title} ' if title else ''}{place}/{total}] {shown}", line))
    return names


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _changed(vertex: Vertex, *, cached: bool = False, completed_ns: int | None = None, error: str = "") -> Vertex:
    cached = cached or vertex.cached
    return Vertex(vertex.digest, vertex.name, vertex.inputs, vertex.started_ns, completed_ns, cached, error)


@contextlib.contextmanager
def told(progress: Progress, name: str) -> Iterator[str]:
    """Tell of the work in the block as a vertex; gives its digest."""
    vertex = Vertex(_digest(f"{name} {time.time_ns()}"), name, started_ns=time.time_ns())
    progress.vertex(vertex)
    try:
        yield vertex.digest
    except BaseException as error:
        progress.vertex(_changed(vertex, completed_ns=time.time_ns(), error=str(error) or type(error).__name__))
        raise
    progress.vertex(_changed(vertex, completed_ns=time.time_ns()))


class BuildahSolver:
    """Builds with today's builder of `images`."""

    def __init__(self, builder: Builder, images: Images, announce: Announce) -> None:
        self._builder = builder
        self._images = images
        self._announce = announce

    async def solve(self, request: SolveRequest, inputs: BuildInputs, progress: Progress) -> Solved:
        check_request(request)
        with told(progress, f"[internal] load build definition from {request.filename}"):
            names = [request.filename, f"{request.filename}.dockerignore", request.filename.lower()]
            files = await inputs.read_files(DOCKERFILE, names)
        data = files.get(request.filename, files.get(request.filename.lower()))
        if data is None:
            raise InvalidParameter(
                f"failed to solve: failed to read dockerfile: open {request.filename}: no such file or directory"
            )
        with told(progress, "[internal] load .dockerignore"):
            ignore = files.get(f"{request.filename}.dockerignore")
            if ignore is None:
                ignore = (await inputs.read_files(CONTEXT, [".dockerignore"])).get(".dockerignore", b"")
        with told(progress, "[internal] load build context"):
            tree = await inputs.tree(LocalSource(context=CONTEXT, exclude=ignore_patterns(ignore)))
        given = GivenContext(tree.folder, data.decode("utf-8", "replace"))
        return await self._build(request, given, inputs, progress, data)

    async def _build(
        self, request: SolveRequest, context: GivenContext, inputs: BuildInputs, progress: Progress, data: bytes
    ) -> Solved:
        asked = BuildRequest(
            dockerfile=request.filename,
            arguments=request.arguments,
            labels=request.labels,
            target=request.target,
            use_cache=not request.no_cache,
            pull=request.pull,
            network=request.network,
            extra_hosts=request.extra_hosts,
            memory=request.limits.memory,
            shm_size=request.shm_size,
        )
        parsed = parse_dockerfile(context.dockerfile, asked.arguments, asked.target, has_labels=bool(asked.labels))
        steps = Steps(parsed, progress)
        built: Built | None = None
        messages = self._builder.build(asked, context, self._puller(inputs, progress))
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    if isinstance(message, Text):
                        steps.hear(message.text)
                    elif isinstance(message, Built):
                        built = message
        except BuildFailed as error:
            failed = step_failure(steps, error, request.filename, data)
            steps.end(str(failed))
            raise failed from error
        except BaseException:
            steps.end("context canceled")
            raise
        steps.end()
        assert built is not None
        blob = self._images.layers.blob_path(built.image.id)
        config = json.loads(await asyncio.to_thread(blob.read_bytes))
        return Solved(Snapshot((f"image:{built.image.id}",)), config, f"linux/{host_architecture()}")

    def _puller(self, inputs: BuildInputs, progress: Progress) -> Puller:
        async def bring(reference: Reference) -> AsyncGenerator[Begun | FetchProgress | Pulled, None]:
            with told(progress, f"[internal] load metadata for {reference.full_name}:{reference.tag}"):
                auth = await inputs.credentials(reference.domain)
                async with contextlib.aclosing(pull(self._images, reference, auth or Auth())) as steps:
                    async for step in steps:
                        yield step

        return bring

    async def export_image(self, solved: Solved, tags: Sequence[Reference], progress: Progress) -> str:
        image = self._images.find(solved.snapshot.layers[0].removeprefix("image:"))
        with told(progress, "exporting to image") as vertex:
            _done(progress, vertex, "exporting layers")
            _done(progress, vertex, f"writing image {image.id}")
            for tag in tags:
                await self._images.tag(image, tag)
                _done(progress, vertex, f"naming to {tag.full_name}:{tag.tag}")
                await self._announce("tag", image.id, str(tag))
        return image.id

    async def usage(self) -> Sequence[CacheRecord]:
        size = await self._builder.used_bytes()
        return (
            [CacheRecord("buildah", mutable=True, size=size, description="steps", record_type="regular")]
            if size
            else []
        )

    async def prune(self, *, made_before_ns: int | None, keep_bytes: int) -> int:
        return await self._builder.prune(made_before_ns=made_before_ns, keep_bytes=keep_bytes)


def _done(progress: Progress, vertex: str, name: str) -> None:
    now = time.time_ns()
    progress.status(VertexStatus(name, vertex, name, 0, 0, now, now, now))


def step_failure(steps: Steps, error: BuildFailed, filename: str, data: bytes) -> BuildStepFailed:
    """Say in BuildKit's words why a step failed."""
    message = str(error)
    line = steps.line
    if error.code is not None and (
        match := re.match(r"The command '(.*)' returned a non-zero code: ", message, re.DOTALL)
    ):
        message = f'process "{match[1]}" did not complete successfully: exit code: {error.code}'
    place = Location(line.number, line.number) if line is not None else None
    return BuildStepFailed(message, code=error.code, location=place, source=(filename, data))


def check_request(request: SolveRequest) -> None:
    """Refuse what this builder would ignore. Raises: NotImplementedHere."""
    asked = {
        "a remote context": request.context_url,
        "a named context (--build-context)": request.contexts,
        "--ulimit": request.ulimits,
        "--cgroup-parent": request.cgroup_parent,
        "--no-cache-filter": request.no_cache_filter,
    }
    for name, value in asked.items():
        if value:
            raise NotImplementedHere(f"{name} is not implemented")
    platform = wanted_platform(request.platform)
    if platform is not None and platform.architecture != host_architecture():
        raise NotImplementedHere("building for other platforms is not implemented")


def ignore_patterns(text: bytes) -> tuple[str, ...]:
    """Read a `.dockerignore` as patterns for the client to leave out (moby/patternmatcher `ignorefile`)."""
    patterns = []
    for line in text.decode("utf-8", "replace").removeprefix("\ufeff").splitlines():
        word = line.strip() if not line.startswith("#") else ""
        sign = "!" if word.startswith("!") else ""
        word = word.removeprefix("!").strip()
        if word:
            clean = posixpath.normpath(word)
            patterns.append(sign + (clean.lstrip("/") or "/" if len(clean) > 1 else clean))
    return tuple(patterns)
