"""`GET /events`: streams the journal with Docker's filters and legacy fields (moby `daemon/events/filter.go`)."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from aiohttp import web

from bennu.api.http.query import Filters, filters, instant_ns, is_version_at_least
from bennu.api.http.responses import json_line
from bennu.api.http.streams import ends_with_client, open_chunks
from bennu.engine.engine import Engine
from bennu.engine.events import Event
from bennu.errors import InvalidParameter
from bennu.pace import Pace

# Filters that name objects: matched by prefix against the actor's id and its name, whatever the event's type.
OBJECTS: Final = ("container", "network", "volume", "plugin", "daemon", "service", "node", "secret", "config")
WITH_ARGUMENTS: Final = ("health_status", "exec_create", "exec_start")  # actions that go on after a colon


def routes(engine: Engine) -> list[web.RouteDef]:
    return [web.route("GET", "/events", EventRoutes(engine).events)]


class EventRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def events(self, request: web.Request) -> web.StreamResponse:
        asked = filters(request)
        since_ns, until_ns = instant_ns(request, "since"), instant_ns(request, "until")
        if since_ns is not None and until_ns is not None and since_ns > until_ns:
            raise InvalidParameter(
                f"`since` time ({request.query['since']}) cannot be after `until` time ({request.query['until']})"
            )
        response = await open_chunks(request)
        knows_image_create = is_version_at_least(request, 46)
        pace = Pace()
        async with aclosing(self._engine.services.journal.follow(since_ns, until_ns)) as following:
            async for item in following:
                if matches(item, asked) and (knows_image_create or (item.type, item.action) != ("image", "create")):
                    await response.write(json_line(event_json(item)))
                await pace.rest()
        return response


def event_json(item: Event) -> dict[str, Any]:
    """Write an event; `status`, `id` and `from` are for clients older than API 1.52."""
    legacy: dict[str, Any] = {}
    if item.type in ("container", "image"):
        legacy = {"status": item.action, "id": item.actor.id}
        if item.type == "container" and item.actor.attributes.get("image"):
            legacy["from"] = item.actor.attributes["image"]
    return legacy | {
        "Type": item.type,
        "Action": item.action,
        "Actor": {"ID": item.actor.id, "Attributes": item.actor.attributes},
        "scope": item.scope,
        "time": item.time,
        "timeNano": item.time_nano,
    }


def matches(item: Event, asked: Filters) -> bool:
    """Tell whether an event is asked for: keys AND, values of one key OR, labels AND; unknown keys are ignored."""
    return (
        _is_one_of(item.type, asked.all("type"))
        and _is_one_of(item.scope, asked.all("scope"))
        and _action_matches(item.action, asked.all("event"))
        and asked.labels_match(item.actor.attributes)
        and all(_object_matches(item, asked.all(kind)) for kind in OBJECTS)
        and _image_matches(item, asked.all("image"))
    )


def _is_one_of(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted


def _action_matches(action: str, wanted: Sequence[str]) -> bool:
    if not wanted or action in wanted:
        return True
    # One value that names such an action makes all of them prefixes, as in dockerd.
    return bool(set(wanted) & set(WITH_ARGUMENTS)) and any(action.startswith(value) for value in wanted)


def _object_matches(item: Event, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    name = item.actor.attributes.get("name", "")
    return any(item.actor.id.startswith(value) or name.startswith(value) for value in wanted)


def _image_matches(item: Event, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    attribute = "name" if item.type == "image" else "image"
    names = {item.actor.attributes.get(attribute, "")} | ({item.actor.id} if item.type == "image" else set())
    return any(value in names or value in {_without_tag(name) for name in names} for value in wanted)


def _without_tag(reference: str) -> str:
    """Cut the tag or digest off: `host:5000/a:1` → `host:5000/a`."""
    bare = reference.partition("@")[0]
    head, colon, tag = bare.rpartition(":")
    return head if colon and "/" not in tag else bare
