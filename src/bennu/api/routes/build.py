"""`POST /build`: the endpoint of the classic builder (moby `api/server/router/build/build_routes.go`)."""

import contextlib
import time
from collections.abc import AsyncGenerator
from typing import TypeVar

from aiohttp import web

from bennu.api.http.body import body_of, decode_clean
from bennu.api.http.progress import Message, error_message, stream_progress
from bennu.api.http.query import filters, flag, integer, text
from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client
from bennu.api.routes.images import ImageRoutes, pull_lines
from bennu.api.shapes.instants import parse_moment
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.images.building import BuildRequest, Built, Text
from bennu.images.platform import host_architecture, wanted_platform
from bennu.images.pulling import Step, pull
from bennu.images.reference import Reference, parse_reference
from bennu.images.registry.logins import login_for, parse_logins

# Limits of the steps' containers that are not honoured: asking for one is refused, never ignored.
REFUSED: tuple[str, ...] = ("cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems", "cgroupparent")
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

    @ends_with_client
    async def build(self, request: web.Request) -> web.StreamResponse:
        asked = read_request(request)
        messages = self._messages(request, asked)
        return await stream_progress(request, quietly(messages) if flag(request, "q") else messages)

    async def _messages(self, request: web.Request, asked: BuildRequest) -> AsyncGenerator[Message, None]:
        logins = parse_logins(request.headers.get("X-Registry-Config", ""))

        def bring(reference: Reference) -> AsyncGenerator[Step, None]:
            return pull(self._images, reference, login_for(reference, logins))

        async with contextlib.aclosing(self._builder.build(asked, body_of(request), bring)) as steps:
            async for step in steps:
                match step:
                    case Text():
                        yield {"stream": step.text}
                    case Built(image, is_new):
                        if is_new:
                            await self._routes.announce("create", image.id, image.id, image.labels)
                        yield {"aux": {"ID": image.id}}
                        yield {"stream": f"Successfully built {image.id[7:19]}\n"}
                        for tag in asked.tags:
                            await self._routes.announce("tag", image.id, str(tag), image.labels)
                            yield {"stream": f"Successfully tagged {tag}\n"}
                    case _:
                        for line in pull_lines(step):
                            yield line

    async def prune(self, request: web.Request) -> web.Response:
        freed = await self._prune(request)
        await self._journal.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return json_response({"CachesDeleted": None, "SpaceReclaimed": freed})

    async def _prune(self, request: web.Request) -> int:
        """Drop what the filters choose. Raises: InvalidParameter; NotImplementedHere for filters of BuildKit's."""
        asked = filters(request)
        for name in asked:
            if name in BUILDKIT_FILTERS:
                raise NotImplementedHere(f"the filter {name} of the build cache is not implemented")
        try:
            asked.check(PRUNE_FILTERS)
            moments = [*asked.all("until"), *asked.all("unused-for")]
            if len(moments) > 1:
                raise InvalidParameter("filters expect only one value")
            before = [parse_moment(moment, time.time_ns()) for moment in moments]
        except InvalidParameter as error:
            raise InvalidParameter(f"failed to prune build cache: {error}") from None
        for name in ("max-used-space", "min-free-space"):
            if text(request, name) not in ("", "0"):
                raise NotImplementedHere(f"{name} is not implemented")
        keep_bytes = max(integer(request, "keep-storage") or 0, integer(request, "reserved-space") or 0)
        if asked.all("label"):  # nothing in this cache has a label
            return 0
        return await self._builder.prune(made_before_ns=before[0] if before else None, keep_bytes=keep_bytes)

    async def cancel(self, request: web.Request) -> web.Response:
        raise NotImplementedHere("cancelling a BuildKit build is not implemented")


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


def read_request(request: web.Request) -> BuildRequest:
    """Read the build asked for. Raises: InvalidParameter; NotImplementedHere for what would have to be ignored."""
    if any("\0" in name + value for name, value in request.query.items()):
        raise InvalidParameter("a build option contains a NUL")
    refuse_what_is_not_here(request)
    return BuildRequest(
        dockerfile=text(request, "dockerfile") or "Dockerfile",
        tags=read_tags(request),
        arguments=read_map(request, "buildargs"),
        labels={key: value or "" for key, value in read_map(request, "labels").items()},
        target=text(request, "target"),
        use_cache=not flag(request, "nocache"),
        cache_from=read_list(request, "cachefrom"),
        pull=flag(request, "pull"),
        squash=flag(request, "squash"),
        network=text(request, "networkmode") or "default",
        extra_hosts=[host for entry in request.query.getall("extrahosts", []) for host in entry.split(",") if host],
        memory=max(0, integer(request, "memory") or 0),
        shm_size=max(0, integer(request, "shmsize") or 0),
    )


def refuse_what_is_not_here(request: web.Request) -> None:
    """Refuse BuildKit and remote contexts. Raises: NotImplementedHere."""
    if text(request, "version") == "2":
        raise NotImplementedHere("BuildKit builds are not implemented")
    if text(request, "remote") not in ("", "client-session"):
        raise NotImplementedHere("building from a remote context is not implemented")
    platform = wanted_platform(text(request, "platform"))
    if platform is not None and platform.architecture != host_architecture():
        raise NotImplementedHere("building for other platforms is not implemented")
    for name in REFUSED:
        if text(request, name) not in (("",) if name.startswith("cpuset") else ("", "0")):
            raise NotImplementedHere(f"the build option {name} is not implemented")
    for name in ("ulimits", "securityopt"):
        if text(request, name) not in ("", "null", "[]"):
            raise NotImplementedHere(f"the build option {name} is not implemented")


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
