"""`POST /build`: the endpoint of the classic builder (moby `api/server/router/build/build_routes.go`)."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from bennu.api.http.body import body_of, decode_clean
from bennu.api.http.progress import Message, error_message, stream_progress
from bennu.api.http.query import filters, flag, integer, text
from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client
from bennu.api.routes.images import ImageRoutes, pull_lines
from bennu.api.shapes.instants import parse_moment
from bennu.build.classic import ClassicInputs
from bennu.build.classic_text import ClassicText
from bennu.build.graph import StepLimit
from bennu.build.request import BuildStepFailed, SolveRequest
from bennu.build.traced_call import TracedCall
from bennu.build.usage import PruneRequest, freed_bytes
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter, NotFound, NotImplementedHere
from bennu.images import Images
from bennu.images.platform import wanted_platform
from bennu.images.pulling import Step
from bennu.images.reference import Reference, parse_reference
from bennu.images.registry.logins import parse_logins
from bennu.model import HostConfig, Ulimit

if TYPE_CHECKING:
    from bennu.build.traced import TracedBuilds

TOLD_AHEAD: Final = 64  # messages that wait for a client to read them
PRUNE_FILTERS = frozenset({"until", "unused-for", "label", "label!"})
BUILDKIT_FILTERS = frozenset({"id", "parent", "type", "description", "inuse", "shared", "private", "mutable"})
Shape = TypeVar("Shape")


def routes(engine: Engine) -> list[web.RouteDef]:
    api = BuildRoutes(engine)
    return [
        web.route("POST", "/build", api.build),
        web.route("POST", "/build/prune", api.prune),
        web.route("POST", "/build/cancel", api.cancel),
    ]


class BuildRoutes:
    def __init__(self, engine: Engine) -> None:
        services = engine.services
        self._images = services.images
        self._journal = services.journal
        self._routes = ImageRoutes(engine)
        self._builder = engine.builder
        self._front = engine.build_front

    @ends_with_client
    async def build(self, request: web.Request) -> web.StreamResponse:
        if text(request, "version") == "2":
            return await self._build_traced(request)
        messages = self._messages(request, read_request(request, self._images))
        return await stream_progress(request, quietly(messages) if flag(request, "q") else messages)

    async def _messages(self, request: web.Request, asked: "ClassicRequest") -> AsyncGenerator[Message, None]:
        """Run the build beside the stream of what it tells; whoever leaves the stream ends it."""
        told: asyncio.Queue[Message | None] = asyncio.Queue()
        building = asyncio.ensure_future(self._build(request, asked, told.put_nowait))
        building.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (message := await told.get()) is not None:
                yield message
            await building
        finally:
            if not building.done():
                building.cancel()
                await asyncio.wait([building])

    async def _build(self, request: web.Request, asked: "ClassicRequest", tell: Callable[[Message], None]) -> None:
        solving = asked.solving
        told = ClassicText(lambda words: tell({"stream": words}), solving.labels, solving.target, removes=asked.removes)

        def hear_pull(step: Step) -> None:
            for line in pull_lines(step):
                tell(line)

        async with contextlib.AsyncExitStack() as kept:
            work = await kept.enter_async_context(self._builder.work())
            logins = parse_logins(request.headers.get("X-Registry-Config", ""))
            inputs = ClassicInputs(self._images.layers, body_of(request), logins, work, told.plan, hear_pull)
            try:
                solved = await self._builder.solve(solving, inputs, told, kept)
            except BuildStepFailed as error:
                raise told.explain(error) from error
            told.end()
            known = {image.id for image in self._images.list()}
            image = await self._builder.export_image(solved, asked.tags, told, squash=asked.squash)
        if image.id not in known:
            await self._routes.announce("create", image.id, image.id, image.labels)
        tell({"aux": {"ID": image.id}})
        tell({"stream": f"Successfully built {image.id[7:19]}\n"})
        for tag in asked.tags:
            await self._routes.announce("tag", image.id, str(tag), image.labels)
            tell({"stream": f"Successfully tagged {tag}\n"})

    async def _build_traced(self, request: web.Request) -> web.StreamResponse:
        """Build in the way of BuildKit's clients without gRPC: progress comes in lines, the rest by the session."""
        traced = await self._front.traced()
        build_id = text(request, "buildid")
        if build_id.startswith("upload-request:"):
            await traced.upload(build_id, body_of(request))
            return web.Response()
        asked = read_request(request, self._images)
        check_outputs(request)
        remote = text(request, "remote")
        is_local = remote in ("client-session", "upload-request")
        call = TracedCall(
            solving=replace(asked.solving, context_url="" if is_local else remote),
            tags=asked.tags,
            session=text(request, "session"),
            build_id=build_id,
            logins=parse_logins(request.headers.get("X-Registry-Config", "")),
            body=None if remote else body_of(request),
            is_uploaded=remote == "upload-request",
        )
        return await stream_progress(request, self._traced_messages(traced, call), errors_in_stream=True)

    async def _traced_messages(self, traced: "TracedBuilds", call: TracedCall) -> AsyncGenerator[Message, None]:
        told: asyncio.Queue[Message | None] = asyncio.Queue(TOLD_AHEAD)

        async def tell(response: bytes) -> None:
            await told.put({"id": "moby.buildkit.trace", "aux": base64.b64encode(response).decode()})

        async def build() -> str:
            try:
                return await traced.build(call, tell)
            finally:
                await told.put(None)

        building = asyncio.ensure_future(build())
        try:
            while (message := await told.get()) is not None:
                yield message
            yield {"id": "moby.image.id", "aux": {"ID": await building}}
        finally:
            building.cancel()
            await asyncio.wait([building])

    async def prune(self, request: web.Request) -> web.Response:
        gone = await self._builder.prune(read_prune(request))
        freed = freed_bytes(gone)
        await self._journal.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return json_response({"CachesDeleted": [one.id for one in gone] or None, "SpaceReclaimed": freed})

    async def cancel(self, request: web.Request) -> web.Response:
        build_id = text(request, "id")
        if not build_id:
            raise InvalidParameter("build ID not provided")
        (await self._front.traced()).cancel(build_id)
        return web.Response()


async def quietly(messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Message, None]:
    """Pass on only the id, and with a failure what led to it (`docker build --quiet`)."""
    told: list[Message] = []
    async with contextlib.aclosing(messages):
        try:
            async for message in messages:
                told.append(message)
        except BennuError as error:
            if not told:
                raise
            for message in [*told, error_message(error)]:
                yield message
            return
    for message in told:
        if "aux" in message:
            yield {"stream": f"{message['aux']['ID']}\n"}


@dataclass(frozen=True, slots=True)
class ClassicRequest:
    """A request of the classic endpoint: the build, and what is made of its result."""

    solving: SolveRequest
    tags: Sequence[Reference]
    squash: bool
    removes: bool  # the containers of its steps are to be removed, as clients ask by default


def read_request(request: web.Request, images: Images) -> ClassicRequest:
    """Read the build asked for. Raises: InvalidParameter; NotImplementedHere for what would have to be ignored."""
    if any("\0" in name + value for name, value in request.query.items()):
        raise InvalidParameter("a build option contains a NUL")
    refuse_what_is_not_here(request)
    arguments = {key: value for key, value in read_map(request, "buildargs").items() if value is not None}
    solving = SolveRequest(
        filename=text(request, "dockerfile") or "Dockerfile",
        target=text(request, "target"),
        arguments=arguments,
        labels={key: value or "" for key, value in read_map(request, "labels").items()},
        platform=text(request, "platform"),
        context_url="" if (remote := text(request, "remote")) == "client-session" else remote,
        no_cache=flag(request, "nocache") or not may_use_cache(read_list(request, "cachefrom"), images),
        pull=flag(request, "pull"),
        network=text(request, "networkmode") or "default",
        extra_hosts=tuple(
            host for entry in request.query.getall("extrahosts", []) for host in entry.split(",") if host
        ),
        shm_size=max(0, integer(request, "shmsize") or 0),
        ulimits=read_ulimits(request),
        limits=HostConfig(
            memory=max(0, integer(request, "memory") or 0),
            memory_swap=integer(request, "memswap") or 0,
            cpu_shares=integer(request, "cpushares") or 0,
            cpu_period=integer(request, "cpuperiod") or 0,
            cpu_quota=integer(request, "cpuquota") or 0,
            cpuset_cpus=text(request, "cpusetcpus"),
            cpuset_mems=text(request, "cpusetmems"),
        ),
    )
    removes = flag(request, "rm", default=True) or flag(request, "forcerm")
    return ClassicRequest(solving, read_tags(request), flag(request, "squash"), removes)


def check_outputs(request: web.Request) -> None:
    """Refuse results that are to go elsewhere than into the images. Raises: InvalidParameter, NotImplementedHere."""
    outputs = _read_json(request, "outputs", list[dict[str, Any]]) or []
    for output in outputs:
        kind = output.get("Type", "")
        if kind not in ("", "moby", "image", "docker"):
            raise NotImplementedHere(f"the output type {kind} is not implemented for this way to build")


def may_use_cache(cache_from: Sequence[str], images: Images) -> bool:
    """Tell whether an image that the cache may come from is here, if the client names any."""
    for name in cache_from:
        with contextlib.suppress(NotFound, InvalidParameter):
            return bool(images.find(name))
    return not cache_from


def read_ulimits(request: web.Request) -> tuple[StepLimit, ...]:
    found = _read_json(request, "ulimits", list[Ulimit]) or []
    return tuple(StepLimit(one.name, one.soft, one.hard) for one in found)


def read_prune(request: web.Request) -> PruneRequest:
    """Read what is to be pruned. Raises: InvalidParameter."""
    asked = filters(request)
    try:
        asked.check(PRUNE_FILTERS | BUILDKIT_FILTERS)
        moments = [*asked.all("until"), *asked.all("unused-for")]
        if len(moments) > 1 or any(len(asked.all(name)) > 1 for name in BUILDKIT_FILTERS):
            raise InvalidParameter("filters expect only one value")
        before = [parse_moment(moment, time.time_ns()) for moment in moments]
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to prune build cache: {error}") from None
    conditions = [
        f"{name}{'~=' if name == 'id' else '=='}{value}"
        for name in sorted(BUILDKIT_FILTERS)
        for value in asked.all(name)
    ]
    if asked.all("label"):  # nothing in this cache has a label
        conditions.append("label==none")
    return PruneRequest(
        everything=flag(request, "all"),
        filters=(",".join(conditions),) if conditions else (),
        unused_before_ns=before[0] if before else None,
        reserved_space=max(integer(request, "keep-storage") or 0, integer(request, "reserved-space") or 0),
        max_used_space=integer(request, "max-used-space") or 0,
        min_free_space=integer(request, "min-free-space") or 0,
    )


def refuse_what_is_not_here(request: web.Request) -> None:
    """Refuse what would have to be ignored. Raises: NotImplementedHere."""
    wanted_platform(text(request, "platform"))
    if text(request, "cgroupparent"):
        raise NotImplementedHere("the build option cgroupparent is not implemented")
    if text(request, "securityopt") not in ("", "null", "[]"):
        raise NotImplementedHere("the build option securityopt is not implemented")


def read_tags(request: web.Request) -> list[Reference]:
    tags: dict[Reference, None] = {}
    for value in request.query.getall("t", []):
        if value:
            name = parse_reference(value)
            if name.digest:
                raise InvalidParameter("build tag cannot contain a digest")
            tags[name.tagged()] = None
    return list(tags)


def read_list(request: web.Request, name: str) -> list[str]:
    return _read_json(request, name, list[str]) or []


def read_map(request: web.Request, name: str) -> dict[str, str | None]:
    return _read_json(request, name, dict[str, str | None]) or {}


def _read_json(request: web.Request, name: str, shape: type[Shape]) -> Shape | None:
    value = text(request, name)
    try:
        return decode_clean(value.encode(), shape) if value else None
    except InvalidParameter as error:
        raise InvalidParameter(f"error reading {name}: {error}") from None
