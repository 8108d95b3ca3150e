"""`/volumes`: lists, makes, removes and prunes volumes."""

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.name_patterns import name_pattern
from bennu.api.http.query import Filters, filters, flag, is_version_at_least
from bennu.api.http.responses import json_response, no_content_response
from bennu.api.shapes.instants import rfc3339
from bennu.engine.engine import Engine
from bennu.errors import NotImplementedHere
from bennu.model import Shape
from bennu.volumes import Volume

LIST_FILTERS: Final = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS: Final = frozenset({"label", "label!"})
Json = dict[str, Any]


class VolumeCreateBody(Shape):
    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


def routes(engine: Engine) -> list[web.RouteDef]:
    api = VolumeRoutes(engine)
    return [
        web.route("GET", "/volumes", api.list),
        web.route("POST", "/volumes/create", api.create),
        web.route("POST", "/volumes/prune", api.prune),
        web.route("GET", "/volumes/{name:.+}", api.inspect),
        web.route("DELETE", "/volumes/{name:.+}", api.remove),
    ]


class VolumeRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volumes = engine.services.volumes

    async def list(self, request: web.Request) -> web.Response:
        fits = volume_filter(filters(request), lambda volume: bool(self._volumes.users(volume.name)))
        foreign, warnings = await self._volumes.list_foreign()
        every = sorted([*self._volumes.list(), *foreign], key=lambda one: one.name)
        return json_response(
            {"Volumes": [volume_json(volume) for volume in every if fits(volume)], "Warnings": warnings or None}
        )

    async def create(self, request: web.Request) -> web.Response:
        body = await read_body(request, VolumeCreateBody)
        if body.cluster_volume_spec is not None:
            raise NotImplementedHere("cluster volumes are not implemented")
        volume = await self._volumes.create(body.name, body.driver, body.driver_opts, body.labels)
        return json_response(volume_json(volume), 201)

    async def inspect(self, request: web.Request) -> web.Response:
        return json_response(volume_json(await self._volumes.look_up(request.match_info["name"])))

    async def remove(self, request: web.Request) -> web.Response:
        await self._volumes.remove(request.match_info["name"], force=flag(request, "force"))
        return no_content_response()

    async def prune(self, request: web.Request) -> web.Response:
        """Remove unused anonymous volumes; with the filter `all`, or before API 1.42, named ones too."""
        asked = filters(request)
        knows_all = is_version_at_least(request, 42)
        asked.check(PRUNE_FILTERS | {"all"} if knows_all else PRUNE_FILTERS)
        every = bool(asked.boolean("all")) if knows_all else True

        def wanted(volume: Volume) -> bool:
            return (
                (every or volume.anonymous)
                and asked.labels_match(volume.labels)
                and not asked.labels_refuse(volume.labels)
            )

        names, freed = await self._volumes.prune(wanted)
        await self._engine.services.journal.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return json_response({"VolumesDeleted": names, "SpaceReclaimed": freed})


def volume_json(volume: Volume) -> Json:
    """Write a volume as inspect, list and create show it."""
    return {
        "CreatedAt": rfc3339(volume.created_ns // 10**9 * 10**9),
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": volume.scope,
    }


def volume_filter(asked: Filters, is_used: Callable[[Volume], bool]) -> Callable[[Volume], bool]:
    """Make the test of what is asked for: keys AND, values of one key OR, labels AND. Raises: InvalidParameter."""
    asked.check(LIST_FILTERS)
    dangling = asked.boolean("dangling")

    def fits(volume: Volume) -> bool:
        return (
            (dangling is None or dangling != is_used(volume))
            and (not asked.all("driver") or volume.driver in asked.all("driver"))
            and (not asked.all("name") or any(_name_matches(volume.name, name) for name in asked.all("name")))
            and asked.labels_match(volume.labels)
        )

    return fits


def _name_matches(name: str, wanted: str) -> bool:
    """Match an unanchored regular expression, as dockerd does; a malformed one matches only itself."""
    pattern = name_pattern(wanted)
    return name == wanted or (pattern is not None and pattern.search(name) is not None)
