"""`POST /build`: the endpoint of the classic builder (moby `api/server/router/build/build_routes.go`)."""

import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from bennu.api.http.body import body_of, decode_clean
from bennu.api.http.progress import Message, error_message, stream_progress
from bennu.api.http.query import filters, flag, integer, text
from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client
from bennu.api.routes.images import ImageRoutes, pull_lines
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.images.building import BuildRequest, Built, Text
from bennu.images.fetching import FetchProgress
from bennu.images.platform import host_architecture
from bennu.images.pulling import Begun, Pulled, pull
from bennu.images.reference import Reference, parse_reference
from bennu.images.skopeo import login_for, parse_logins

# Limits of the steps' containers that are not honoured: asking for one is refused, never ignored.
REFUSED: tuple[str, ...] = ("cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems", "cgroupparent")

KEPT_SPACE: tuple[str, ...] = ("reserved-space", "keep-storage", "max-used-space", "min-free-space")


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

        def bring(reference: Reference) -> AsyncGenerator[Begun | FetchProgress | Pulled, None]:
            return pull(self._images, reference, login_for(reference, logins))

        async with contextlib.aclosing(self._builder.build(asked, body_of(request), bring)) as steps:
            async for step in steps:
                match step:
                    case Text():
                        yield {"stream": step.text}
                    case Built(image):
                        yield {"aux": {"ID": image.id}}
                        yield {"stream": f"Successfully built {image.id[7:19]}\n"}
                        for tag in asked.tags:
                            await self._routes.announce("tag", image.id, str(tag), image.labels)
                            yield {"stream": f"Successfully tagged {tag}\n"}
                    case _:
                        for line in pull_lines(step):
                            yield line

    async def prune(self, request: web.Request) -> web.Response:
        """Remove the cache of builds, which is one piece and bears no label."""
        asked = filters(request)
        for key in set(asked) - {"label", "label!"}:
            raise NotImplementedHere(f"the filter {key} of the build cache is not implemented")
        for name in KEPT_SPACE:
            if integer(request, name):
                raise NotImplementedHere(f"keeping a part of the build cache ({name}) is not implemented")
        freed = 0 if asked.all("label") else await self._builder.prune()
        await self._journal.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return json_response({"CachesDeleted": None, "SpaceReclaimed": freed})

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
    platform = text(request, "platform")
    if platform and platform.split("/")[:2] != ["linux", host_architecture()]:
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


def read_map(request: web.Request, name: str) -> dict[str, str | None]:
    value = text(request, name)
    try:
        return (decode_clean(value.encode(), dict[str, str | None]) if value else None) or {}
    except InvalidParameter as error:
        raise InvalidParameter(f"error reading {name}: {error}") from None
