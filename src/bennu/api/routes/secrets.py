"""`/secrets` and `/configs`: alike, but that the data of secrets is never shown."""

import base64
import binascii
import re
from typing import Any, Final

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.query import filters
from bennu.api.http.responses import empty_response, json_list_response, json_response, no_content_response
from bennu.api.routes.swarm import read_version
from bennu.api.shapes.service import blob_json
from bennu.cluster import Cluster
from bennu.cluster.errors import invalid
from bennu.cluster.secret_store import SecretStore
from bennu.cluster.tables import BlobRow
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.model import Shape

FILTERS: Final = frozenset({"id", "name", "names", "label"})
NAME: Final = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?\Z", re.ASCII)
MAX_NAME: Final = 64


class TemplatingDriver(Shape):
    name: str = ""
    options: dict[str, str] | None = None


class BlobBody(Shape):
    name: str = ""
    labels: dict[str, str] | None = None
    data: str = ""
    driver: dict[str, Any] | None = None
    templating: TemplatingDriver | None = None


def routes(cluster: Cluster) -> list[web.RouteDef]:
    found: list[web.RouteDef] = []
    for store in (cluster.secrets, cluster.configs):
        api, kind = BlobRoutes(store), store.kind
        found += [
            web.route("GET", f"/{kind}s", api.list),
            web.route("POST", f"/{kind}s/create", api.create),
            web.route("GET", f"/{kind}s/{{id}}", api.inspect),
            web.route("DELETE", f"/{kind}s/{{id}}", api.remove),
            web.route("POST", f"/{kind}s/{{id}}/update", api.update),
        ]
    return found


class BlobRoutes:
    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self._kind = store.kind

    async def list(self, request: web.Request) -> web.Response:
        asked = filters(request)
        asked.check(FILTERS)

        def fits(row: BlobRow) -> bool:
            return (
                (not asked.all("id") or any(map(row.id.startswith, asked.all("id"))))
                and (not asked.all("name") or any(map(row.name.startswith, asked.all("name"))))
                and (not asked.all("names") or row.name in asked.all("names"))
                and asked.labels_match(row.labels)
            )

        rows = [row for row in self._store.all() if fits(row)]
        return await json_list_response(rows, lambda row: blob_json(self._kind, row))

    async def inspect(self, request: web.Request) -> web.Response:
        return json_response(blob_json(self._kind, self._store.find(request.match_info["id"])))

    async def create(self, request: web.Request) -> web.Response:
        self._store.check_active()
        body = await read_body(request, BlobBody)
        if body.driver:
            raise NotImplementedHere(f"{self._kind} drivers are not implemented")
        if not body.name:
            raise invalid("name must be provided")
        if len(body.name) > MAX_NAME or not NAME.match(body.name):
            raise invalid(
                f"invalid name, only {MAX_NAME} [a-zA-Z0-9-_.] characters allowed, "
                "and the start and end character must be [a-zA-Z0-9]"
            )
        templating = body.templating.name if body.templating else ""
        if templating not in ("", "golang"):
            raise NotImplementedHere(f"the templating driver {templating} is not implemented")
        data = decode_data(body.data)
        row_id = await self._store.create(body.name, body.labels or {}, data, templating)
        return json_response({"ID": row_id}, 201)

    async def update(self, request: web.Request) -> web.Response:
        row = self._store.find(request.match_info["id"])
        version = read_version(request, self._kind)
        body = await read_body(request, BlobBody)
        if body.name not in ("", row.name) or (body.data and decode_data(body.data) != self._store.read(row)):
            raise invalid("only updates to Labels are allowed")
        await self._store.update(row.id, body.labels or {}, version)
        return empty_response()

    async def remove(self, request: web.Request) -> web.Response:
        await self._store.remove(request.match_info["id"])
        return no_content_response()


def decode_data(text: str) -> bytes:
    """Decode base64, also of the URL-safe alphabet. Raises: InvalidParameter."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter("invalid JSON: illegal base64 data") from None
