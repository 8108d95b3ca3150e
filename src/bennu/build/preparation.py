"""What is needed before anything can run: the Dockerfile, the contexts' ignore files, the images it stands on."""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.rules import LintWarning
from bennu.build.job import NodeRun
from bennu.build.plan.options import BaseImage, BuildPlan, ImageNeed, PlanError, PlanOptions, SolvedContext
from bennu.build.plan.planner import lint, make_plan
from bennu.build.plan.read import BuildFile, missing_image, needed_images
from bennu.build.plan.read import read_file as read_dockerfile
from bennu.build.plan.requests import LINT, OUTLINE, TARGETS, Answer, answer_lint, answer_outline, answer_targets
from bennu.build.remote_context import RemoteContext
from bennu.build.request import CONTEXT, DOCKERFILE, BuildStepFailed
from bennu.build.solver import Telling
from bennu.build.vertices import Progress, Vertex, VertexWarning
from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.go.platform import ImagePlatform, fits, parse_platform
from bennu.images.dockerignore import read_patterns
from bennu.images.image import Image
from bennu.images.platform import host_architecture
from bennu.images.pulling import Pulled, pull
from bennu.images.reference import parse_reference

MAX_DOCKERFILE: Final = 4 << 20
IGNORE_FILE: Final = ".dockerignore"


@contextlib.asynccontextmanager
async def internal_step(progress: Progress, name: str, *, shared: bool = False) -> AsyncIterator[Telling]:
    """Tell of something the daemon does for a build, as a vertex of its own.

    `shared`: clients show it once for all the targets that they build together.
    """
    digest = "sha256:" + (hashlib.sha256(name.encode()).hexdigest() if shared else secrets.token_hex(32))
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
        self._definition = ""  # the vertex of the Dockerfile

    async def plan(self) -> BuildPlan:
        """Make the plan; images it needs are here then. Raises: BuildStepFailed; BennuError."""
        name, source = await self._read_dockerfile()
        try:
            file, known = await self._read(name, source)
            plan = await asyncio.to_thread(make_plan, file, known)
        except DockerfileError as error:
            self._warn(_noticed(error), name, source)
            raise BuildStepFailed(str(error), location=error.location, source=(name, source)) from error
        self._warn(plan.warnings, name, source)
        self._job.inputs.tell_plan(file.parsed, plan.last)
        return plan

    async def answer(self, asked: str) -> Answer:
        """Answer one of `REQUESTS` instead of a build. Raises: BuildStepFailed; BennuError."""
        name, source = await self._read_dockerfile()
        try:
            if asked == TARGETS:
                return await asyncio.to_thread(answer_targets, source)
            file, known = await self._read(name, source, all_stages=asked == LINT and not self._request.target)
            if asked == OUTLINE:
                plan = await asyncio.to_thread(make_plan, file, known)
                return await asyncio.to_thread(answer_outline, file, source, plan)
            warnings, error = await asyncio.to_thread(lint, file, known)
            return answer_lint(name, source, warnings, error)
        except DockerfileError as error:
            if asked == LINT:
                return answer_lint(name, source, _noticed(error), error)
            raise BuildStepFailed(str(error), location=error.location, source=(name, source)) from error

    async def _read(
        self, name: str, source: bytes, *, all_stages: bool = False
    ) -> tuple[BuildFile, dict[ImageNeed, BaseImage]]:
        """Read a Dockerfile and find its images. It may be large: others have their turn meanwhile.

        Raises: DockerfileError; BennuError.
        """
        options = await self._options(name)
        file = await asyncio.to_thread(read_dockerfile, source, options, all_stages=all_stages)
        known: dict[ImageNeed, BaseImage] = {}
        while needs := await asyncio.to_thread(needed_images, file, known):
            known |= await self._find_images(file, needs)
        return file, known

    async def _read_dockerfile(self) -> tuple[str, bytes]:
        name = self._request.filename
        if self._remote and self._remote.dockerfile:
            name = self._remote.dockerfile
        async with internal_step(self._progress, f"[internal] load build definition from {name}") as telling:
            self._definition = telling.digest
            found = await self._read_text(DOCKERFILE, name)
            if found is None:
                raise InvalidParameter(f"failed to read dockerfile: open {name}: no such file or directory")
            source = found
            if len(source) > MAX_DOCKERFILE:
                raise InvalidParameter("the Dockerfile is too large")
            telling.done_status(f"transferring dockerfile: {len(source)}B", len(source))
        return name, source

    async def _read_text(self, context: str, name: str) -> bytes | None:
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
            allow_host_network=asked.allow_host_network,
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
            text = await self._read_text(DOCKERFILE, f"{dockerfile}{IGNORE_FILE}")
            if text is None:
                text = await self._read_text(CONTEXT, IGNORE_FILE)
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
        async with internal_step(self._progress, need.name, shared=True) as telling:
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
            return image if _is_for(image, need) else None
        return None

    async def _pull(self, need: ImageNeed) -> Image:
        reference = parse_reference(need.reference).tagged()
        auth = await self._job.inputs.credentials(reference.domain)
        async with contextlib.aclosing(
            pull(self._job.tools.images, reference, auth, platform=_platform(need))
        ) as steps:
            async for step in steps:
                self._job.inputs.tell_pull(step)
                if isinstance(step, Pulled):
                    if not _is_for(step.image, need):
                        raise NotFound(f"no match for platform in manifest: {need.platform}")
                    return step.image
        raise BennuError(f"{need.reference} did not come")

    def _warn(self, warnings: Sequence[LintWarning], name: str, source: bytes) -> None:
        for warning in warnings:
            lines = (warning.location.first, warning.location.last)
            told = VertexWarning(self._definition, 1, warning.text, (warning.detail,), warning.url, name, source, lines)
            self._progress.warning(told)


def _platform(need: ImageNeed) -> ImagePlatform:
    return parse_platform(need.platform, host_architecture())


def _noticed(error: DockerfileError) -> tuple[LintWarning, ...]:
    """Answer what was noticed in a Dockerfile before it turned out to be wrong."""
    return error.warnings if isinstance(error, PlanError) else ()


def _is_for(image: Image, need: ImageNeed) -> bool:
    """Tell whether an image is for the platform that is needed; one that says nothing is for all."""
    own = ImagePlatform(image.os, image.architecture, str(image.raw.get("variant") or ""))
    return not image.architecture or fits(_platform(need), own)
