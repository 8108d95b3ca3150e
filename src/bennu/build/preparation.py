"""What is needed before anything can run: the Dockerfile, the contexts' ignore files, the images it stands on."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.job import NodeRun
from bennu.build.plan.options import BaseImage, BuildPlan, ImageNeed, PlanOptions, SolvedContext
from bennu.build.plan.planner import make_plan
from bennu.build.plan.read import BuildFile, missing_image, needed_images
from bennu.build.plan.read import read_file as read_dockerfile
from bennu.build.remote_context import RemoteContext
from bennu.build.request import CONTEXT, DOCKERFILE, BuildStepFailed
from bennu.build.solver import Telling
from bennu.build.vertices import Progress, Vertex, VertexWarning
from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.images.dockerignore import read_patterns
from bennu.images.image import Image
from bennu.images.platform import host_architecture
from bennu.images.pulling import Pulled, pull
from bennu.images.reference import parse_reference

MAX_DOCKERFILE: Final = 4 << 20
IGNORE_FILE: Final = ".dockerignore"


@contextlib.asynccontextmanager
async def internal_step(progress: Progress, name: str) -> AsyncIterator[Telling]:
    """Tell of something the daemon does for a build, as a vertex of its own."""
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    telling = Telling(Vertex(digest, name), progress)
    telling.start()
    try:
        yield telling
    except BennuError as error:
        telling.end(error=str(error))
        raise
    except asyncio.CancelledError:
        telling.end(error="context canceled")
        raise
    telling.end()


class Preparation:
    """Leads from a request to a plan."""

    def __init__(self, job: NodeRun, progress: Progress, remote: RemoteContext | None) -> None:
        self._job = job
        self._request = job.request
        self._progress = progress
        self._remote = remote

    async def plan(self) -> BuildPlan:
        """Make the plan; images it needs are here then. Raises: BuildStepFailed; BennuError."""
        name, source = await self._read_dockerfile()
        try:
            options = await self._options(name)
            file = read_dockerfile(source, options)
            known: dict[ImageNeed, BaseImage] = {}
            while needs := needed_images(file, known):
                known |= await self._find_images(file, needs)
            plan = make_plan(file, known)
        except DockerfileError as error:
            raise BuildStepFailed(str(error), location=error.location, source=(name, source)) from error
        self._warn(plan, name, source)
        self._job.inputs.tell_plan(file.parsed, plan.last)
        return plan

    async def _read_dockerfile(self) -> tuple[str, bytes]:
        name = self._request.filename
        if self._remote and self._remote.dockerfile:
            name = self._remote.dockerfile
        async with internal_step(self._progress, f"[internal] load build definition from {name}") as telling:
            found = await self._read(DOCKERFILE, name)
            if found is None:
                raise InvalidParameter(f"failed to read dockerfile: open {name}: no such file or directory")
            source = found
            if len(source) > MAX_DOCKERFILE:
                raise InvalidParameter("the Dockerfile is too large")
            telling.done_status(f"transferring dockerfile: {len(source)}B", len(source))
        return name, source

    async def _read(self, context: str, name: str) -> bytes | None:
        """Read a file of the context or beside the Dockerfile; None: it is not there."""
        reader = self._remote.read_files([name]) if self._remote else self._job.inputs.read_files(context, [name])
        return (await reader).get(name)

    async def _options(self, name: str) -> PlanOptions:
        asked = self._request
        host = f"linux/{host_architecture()}"
        return PlanOptions(
            host_platform=host,
            platform=asked.platform,
            target=asked.target,
            arguments=asked.arguments,
            labels=asked.labels,
            no_cache=asked.no_cache,
            no_cache_stages=frozenset(asked.no_cache_filter),
            network=asked.network if asked.network in ("none", "host") else "default",
            hosts=self._job.tools.places.hosts(asked.extra_hosts),
            hostname=asked.hostname,
            limits=asked.ulimits,
            cgroup_parent=asked.cgroup_parent,
            shm_size=asked.shm_size,
            contexts=asked.contexts,
            excludes=await self._read_ignore_files(name),
            solved={key: SolvedContext(key, dict(one.config)) for key, one in asked.solved.items()},
            main_context=self._remote.node if self._remote else None,
        )

    async def _read_ignore_files(self, dockerfile: str) -> Mapping[str, tuple[str, ...]]:
        """Read what each local context leaves out; a file beside the Dockerfile counts for the main one."""
        async with internal_step(self._progress, f"[internal] load {IGNORE_FILE}") as telling:
            text = await self._read(DOCKERFILE, f"{dockerfile}{IGNORE_FILE}")
            if text is None:
                text = await self._read(CONTEXT, IGNORE_FILE)
            found = {CONTEXT: read_patterns(text)} if text else {}
            for name, context in self._request.contexts.items():
                if context.startswith("local:"):
                    local = context.removeprefix("local:")
                    text = (await self._job.inputs.read_files(local, [IGNORE_FILE])).get(IGNORE_FILE)
                    if text:
                        found[name] = read_patterns(text)
            telling.done_status("transferring context: 2B", 2)
        return found

    # --- images -------------------------------------------------------------------------------------------------------

    async def _find_images(self, file: BuildFile, needs: list[ImageNeed]) -> dict[ImageNeed, BaseImage]:
        """Find each image, or pull it. Raises: BuildStepFailed, BennuError of the registry."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._find_image(file, need)) for need in needs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {need: task.result() for need, task in zip(needs, tasks, strict=True)}

    async def _find_image(self, file: BuildFile, need: ImageNeed) -> BaseImage:
        async with internal_step(self._progress, need.name) as telling:
            image = None if self._request.pull else self._here(need)
            try:
                image = image or await self._pull(need)
            except BennuError as error:
                missing = missing_image(file, need, str(error))
                raise BuildStepFailed(str(missing), location=need.location, vertex=telling.digest) from error
            self._job.hold(image.diff_ids)
            return BaseImage(image.id, image.raw)

    def _here(self, need: ImageNeed) -> Image | None:
        with contextlib.suppress(NotFound):
            image = self._job.tools.images.find(need.written or need.reference)
            return image if _is_for(image, need.platform) else None
        return None

    async def _pull(self, need: ImageNeed) -> Image:
        reference = parse_reference(need.reference).tagged()
        auth = await self._job.inputs.credentials(reference.domain)
        async with contextlib.aclosing(pull(self._job.tools.images, reference, auth)) as steps:
            async for step in steps:
                self._job.inputs.tell_pull(step)
                if isinstance(step, Pulled):
                    if not _is_for(step.image, need.platform):
                        raise NotFound(f"no match for platform in manifest: {need.platform}")
                    return step.image
        raise BennuError(f"{need.reference} did not come")

    def _warn(self, plan: BuildPlan, name: str, source: bytes) -> None:
        digest = "sha256:" + hashlib.sha256(f"[internal] load build definition from {name}".encode()).hexdigest()
        for warning in plan.warnings:
            lines = (warning.location.first, warning.location.last)
            told = VertexWarning(digest, 1, warning.text, (warning.detail,), warning.url, name, source, lines)
            self._progress.warning(told)


def _is_for(image: Image, platform: str) -> bool:
    """Tell whether an image is for a platform; one that says nothing is for all."""
    system, architecture, *_ = platform.split("/")
    return image.os == system and image.architecture in ("", architecture)
