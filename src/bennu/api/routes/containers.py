"""`/containers`: create, the verbs that change a container's state, and what is read of it at once."""

import time
from collections.abc import Collection
from typing import Any, Final

import msgspec
from aiohttp import web

from bennu.api.http.body import NOTHING, check_content_type, decode_beside, read_body, read_bounded
from bennu.api.http.peer import requester_of
from bennu.api.http.query import api_minor, filters, flag, integer, is_version_at_least, text
from bennu.api.http.responses import empty_response, json_line, json_list_response, json_response, no_content_response
from bennu.api.http.streams import ends_with_client, open_chunks
from bennu.api.http.terminal import read_size
from bennu.api.routes.older_clients import translate
from bennu.api.shapes.inspect import inspect_container
from bennu.api.shapes.instants import parse_moment
from bennu.api.shapes.list import choose, list_entry
from bennu.confined.client import measure_tree
from bennu.decoding import decode, fold
from bennu.engine.container import Container
from bennu.engine.defaults import is_cgroup_v2
from bennu.engine.engine import Engine
from bennu.engine.links import names_by_link
from bennu.engine.network_connect import remove_link
from bennu.engine.top import read_processes
from bennu.engine.update import update_container
from bennu.engine.validate import check_endpoint, discard_unsupported
from bennu.engine.wait_conditions import WaitCondition
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, NotImplementedHere
from bennu.images.platform import host_architecture, read_platform
from bennu.model import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicyShape, Shape

CONFIG_KEYS: Final = frozenset(map(fold, ContainerConfig.__struct_encode_fields__))


class ContainerCreateBody(ContainerConfig):
    """The body of a create: `Config` at the top level, `HostConfig` and `NetworkingConfig` beside it."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None

    def config(self) -> ContainerConfig:
        return ContainerConfig(**{name: getattr(self, name) for name in ContainerConfig.__struct_fields__})


class UpdateBody(HostConfig):
    """The body of an update: the limits that can be changed, and the restart policy beside them."""

    restart_policy: RestartPolicyShape | None = None  # type: ignore[assignment]


class WaitError(Shape):
    message: str


class WaitAnswer(Shape, omit_defaults=True):
    error: WaitError | None = None
    status_code: int | None = None


def routes(engine: Engine) -> list[web.RouteDef]:
    api = ContainerRoutes(engine)
    one = "/containers/{id:.+}"  # a link's name, OWNER/ALIAS, has a slash
    return [
        web.route("GET", "/containers/json", api.list_all),
        web.route("POST", "/containers/create", api.create),
        web.route("POST", "/containers/prune", api.prune),
        web.route("GET", f"{one}/json", api.inspect),
        web.route("GET", f"{one}/top", api.top),
        web.route("POST", f"{one}/start", api.start),
        web.route("POST", f"{one}/stop", api.stop),
        web.route("POST", f"{one}/restart", api.restart),
        web.route("POST", f"{one}/kill", api.kill),
        web.route("POST", f"{one}/pause", api.pause),
        web.route("POST", f"{one}/unpause", api.unpause),
        web.route("POST", f"{one}/rename", api.rename),
        web.route("POST", f"{one}/update", api.update),
        web.route("POST", f"{one}/resize", api.resize),
        web.route("POST", f"{one}/wait", api.wait),
        web.route("DELETE", one, api.remove),
    ]


class ContainerRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pruning = False

    def _find(self, request: web.Request) -> Container:
        return self._engine.find(request.match_info["id"])

    # --- reading ------------------------------------------------------------------------------------------------

    async def list_all(self, request: web.Request) -> web.Response:
        limit = integer(request, "limit") or 0
        chosen = choose(self._engine, filters(request), everything=flag(request, "all"), limit=limit)
        minor = api_minor(request)
        sizes = {one.id: await self._sizes(one) for one in chosen} if flag(request, "size") else {}
        links = names_by_link(one.record for one in self._engine.list())
        return await json_list_response(
            chosen, lambda one: list_entry(self._engine, one, minor, sizes.get(one.id), links)
        )

    async def inspect(self, request: web.Request) -> web.Response:
        container = self._find(request)
        sizes = await self._sizes(container) if flag(request, "size") else None
        return json_response(inspect_container(self._engine, container, api_minor(request), sizes))

    async def _sizes(self, container: Container) -> tuple[int, int]:
        """Measure the container's own layer, and that together with its image, in bytes."""
        own = await measure_tree(self._engine.services.folder(container.id) / "diff")
        try:
            image = self._engine.services.images.find(container.record.image_id).size
        except NotFound:
            image = 0
        return own, own + image

    async def top(self, request: web.Request) -> web.Response:
        container = self._find(request)
        container.check_running()
        pids = self._engine.services.runtime.observer.pids(container.id)
        titles, rows = await read_processes(pids, text(request, "ps_args"))
        await container.publish("top")
        return json_response({"Titles": titles, "Processes": rows})

    # --- create and remove --------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        body = await read_create_body(request)
        minor = api_minor(request)
        warnings = self._check_platform(body.image, text(request, "platform") if minor >= 41 else "")
        host, networking = body.host_config or HostConfig(), body.networking_config or NetworkingConfig()
        warnings += translate(body, host, networking, minor, cgroup_v2=is_cgroup_v2())
        check_endpoints(networking)
        facts = self._engine.services.runtime.host
        warnings += discard_unsupported(host, swap_limit=facts.swap_limit, blkio_weight=facts.blkio_weight)
        container_id, more = await self._engine.create(
            text(request, "name") or None, body.config(), host, networking, recursive_read_only=minor >= 44
        )
        return json_response({"Id": container_id, "Warnings": [*warnings, *more]}, 201)

    def _check_platform(self, reference: str, asked: str) -> list[str]:
        """Warn when the image is for another machine. Raises: NotFound when it is not the platform asked for."""
        try:
            image = self._engine.services.images.find(reference)
        except BennuError:
            return []  # told by the creation, in its order
        own, present = f"linux/{host_architecture()}", f"{image.os}/{image.architecture or host_architecture()}"
        if asked:
            wanted = read_platform(asked)
            if wanted is not None and f"{wanted.os}/{wanted.architecture}" != present:
                raise NotFound(
                    f"image with reference {reference} was found but does not match the specified platform: "
                    f"wanted {asked}, actual: {present}"
                )
            return []
        if present == own:
            return []
        return [
            f"The requested image's platform ({present}) does not match the detected host platform ({own}) "
            "and no specific platform was requested"
        ]

    async def remove(self, request: web.Request) -> web.Response:
        if flag(request, "link"):
            await remove_link(self._engine, request.match_info["id"])
            return no_content_response()
        await self._engine.remove(
            request.match_info["id"], requester_of(request), force=flag(request, "force"), volumes=flag(request, "v")
        )
        return no_content_response()

    async def prune(self, request: web.Request) -> web.Response:
        asked = filters(request)
        asked.check({"label", "label!", "until"})
        until_ns = [parse_moment(value, time.time_ns()) for value in asked.all("until")]
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            deleted, reclaimed = [], 0
            for container in self._engine.list():
                record = container.record
                fits = asked.labels_match(record.config.labels) and not asked.labels_refuse(record.config.labels)
                if record.running or not fits or any(record.created_ns > limit for limit in until_ns):
                    continue
                own, _ = await self._sizes(container)
                try:
                    await self._engine.remove(container.id, requester_of(request))
                except (Conflict, NotFound):
                    continue  # started again, or removed by another
                deleted.append(container.id)
                reclaimed += own
        finally:
            self._pruning = False
        await self._engine.services.journal.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})

    async def rename(self, request: web.Request) -> web.Response:
        await self._engine.rename(request.match_info["id"], text(request, "name"))
        return no_content_response()

    async def update(self, request: web.Request) -> web.Response:
        body = await read_body(request, UpdateBody)
        if not is_version_at_least(request, 40):
            body.pids_limit = None
        container = self._find(request)
        await update_container(self._engine.services, container, body, body.restart_policy)
        return json_response({"Warnings": None})

    # --- life and death -----------------------------------------------------------------------------------------

    async def start(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > 7:
            raise InvalidParameter(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        if text(request, "checkpoint"):
            raise NotImplementedHere("starting from a checkpoint is not implemented")
        container = self._find(request)
        await container.check_sources()
        await container.start(requester_of(request))
        return no_content_response()

    async def stop(self, request: web.Request) -> web.Response:
        await self._find(request).stop(requester_of(request), integer(request, "t"), self._signal(request))
        return no_content_response()

    async def restart(self, request: web.Request) -> web.Response:
        called = request.match_info["id"]
        await self._find(request).restart(
            requester_of(request), integer(request, "t"), self._signal(request), called=called
        )
        return no_content_response()

    @staticmethod
    def _signal(request: web.Request) -> str:
        return text(request, "signal") if is_version_at_least(request, 42) else ""

    async def kill(self, request: web.Request) -> web.Response:
        try:
            container = self._find(request)
        except NotFound as error:
            raise NotFound(f"cannot kill container: {request.match_info['id']}: {error}") from None
        await container.kill(text(request, "signal"), requester_of(request), called=request.match_info["id"])
        return no_content_response()

    async def pause(self, request: web.Request) -> web.Response:
        await self._find(request).pause()
        return no_content_response()

    async def unpause(self, request: web.Request) -> web.Response:
        await self._find(request).unpause()
        return no_content_response()

    async def resize(self, request: web.Request) -> web.Response:
        height, width = read_size(request)
        container = self._find(request)
        container.check_running()
        await self._engine.services.runtime.streams.resize(container.id, height, width)
        await container.publish("resize", height=str(height), width=str(width))
        return empty_response()

    @ends_with_client
    async def wait(self, request: web.Request) -> web.StreamResponse:
        """Wait for the condition. The head goes out once the wait is registered: clients start the container on it."""
        condition = parse_condition(text(request, "condition"))
        ended = self._find(request).wait(condition)
        response = await open_chunks(request)
        result = await ended
        error = WaitError(message=result.error) if result.error else None
        await response.write(json_line(WaitAnswer(status_code=result.exit_code, error=error)))
        return response


def parse_condition(name: str) -> WaitCondition:
    try:
        return WaitCondition(name or WaitCondition.NOT_RUNNING)
    except ValueError:
        raise InvalidParameter(f'invalid condition: "{name}"') from None


async def read_create_body(request: web.Request) -> ContainerCreateBody:
    """Read the body. Raises: InvalidParameter, also when no field of `Config` is given at all."""
    check_content_type(request)
    raw = await read_bounded(request)
    if not raw.strip():
        raise InvalidParameter(NOTHING)
    body = await decode_beside(raw, ContainerCreateBody)
    if body is None or not names_config(raw):
        raise InvalidParameter("config cannot be empty in order to create a container")
    return body


def names_config(raw: bytes) -> bool:
    """Tell whether a body that could be decoded has a field of `Config`."""
    try:
        keys: Collection[str] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:  # Go takes more
        keys = decode(raw, dict[str, Any]) or {}
    return not CONFIG_KEYS.isdisjoint(map(fold, keys))


def check_endpoints(networking: NetworkingConfig | None) -> None:
    """Refuse endpoints that cannot be. Raises: InvalidParameter."""
    for endpoint in ((networking.endpoints_config if networking else None) or {}).values():
        if endpoint:
            check_endpoint(endpoint)
