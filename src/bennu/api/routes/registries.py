"""What is asked of registries: `/auth`, `/distribution` and the search for images."""

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.query import Filters, filters, integer, text
from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter
from bennu.images.inquiries import check_login, inspect_remote
from bennu.images.reference import HEX64, SHA256, parse_reference
from bennu.images.registries import Registries
from bennu.images.registry.logins import Auth, parse_auth
from bennu.images.searching import search

SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})


def routes(engine: Engine) -> list[web.RouteDef]:
    api = RegistryRoutes(engine)
    return [
        web.route("POST", "/auth", api.log_in),
        web.route("GET", "/distribution/{name:.+}/json", api.inspect),
        web.route("GET", "/images/search", api.search),
    ]


class RegistryRoutes:
    def __init__(self, engine: Engine) -> None:
        self._images = engine.services.images

    @property
    def _registries(self) -> Registries:
        return self._images.registries

    @ends_with_client
    async def log_in(self, request: web.Request) -> web.Response:
        token = await check_login(self._registries, await read_body(request, Auth))
        return json_response({"IdentityToken": token, "Status": "Login Succeeded"})

    @ends_with_client
    async def inspect(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if HEX64.match(name) or SHA256.match(name):
            raise BennuError("no manifest found for full image ID")
        auth = parse_auth(request.headers.get("X-Registry-Auth", ""))
        return json_response(await inspect_remote(self._registries, parse_reference(name), auth))

    @ends_with_client
    async def search(self, request: web.Request) -> web.Response:
        try:
            limit = integer(request, "limit") or 0
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid limit specified: {error}") from None
        asked = filters(request)
        asked.check(SEARCH_FILTERS)
        least_stars = _least_stars(asked)
        is_official = asked.boolean("is-official")
        if asked.boolean("is-automated"):
            return json_response([])  # there are none any more
        auth = parse_auth(request.headers.get("X-Registry-Auth", ""))
        found = await search(
            self._registries, text(request, "term"), limit, auth, is_official=is_official, least_stars=least_stars
        )
        return json_response(found)


def _least_stars(asked: Filters) -> int:
    """Read the greatest of the numbers of stars that are wanted. Raises: InvalidParameter in Docker's words."""
    most = 0
    for value in asked.all("stars"):
        try:
            most = max(most, int(value))
        except ValueError:
            reason = f'strconv.Atoi: parsing "{value}": invalid syntax'
            raise InvalidParameter(f"invalid filter 'stars={value}': {reason}") from None
    return most
