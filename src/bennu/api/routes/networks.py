"""`/networks`: lists, makes and removes networks, connects containers to them."""

import hashlib
import ipaddress
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.name_patterns import name_pattern
from bennu.api.http.query import Filters, filters, is_version_at_least, text
from bennu.api.http.responses import empty_response, json_list_response, json_response, no_content_response
from bennu.api.routes.containers import check_endpoints
from bennu.api.shapes.instants import parse_moment, rfc3339
from bennu.engine.engine import Engine
from bennu.engine.network_connect import connect_container, disconnect_container, remove_network
from bennu.errors import InvalidParameter, NotFound
from bennu.model import EndpointSettings, NetworkingConfig, Shape
from bennu.network import Endpoint, Network, NetworkRequest
from bennu.network.ipam.addresses import mac_of
from bennu.network.model import Ipam

LIST_FILTERS: Final = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNE_FILTERS: Final = frozenset({"label", "label!", "until"})
Json = dict[str, Any]


class ConnectBody(Shape):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectBody(Shape):
    container: str = ""
    force: bool = False


def routes(engine: Engine) -> list[web.RouteDef]:
    api = NetworkRoutes(engine)
    return [
        web.route("GET", "/networks", api.list),
        web.route("GET", "/networks/", api.list),
        web.route("POST", "/networks/create", api.create),
        web.route("POST", "/networks/prune", api.prune),
        web.route("GET", "/networks/{id}", api.inspect),
        web.route("DELETE", "/networks/{id}", api.remove),
        web.route("POST", "/networks/{id}/connect", api.connect),
        web.route("POST", "/networks/{id}/disconnect", api.disconnect),
    ]


class NetworkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._networks = engine.services.networks

    async def list(self, request: web.Request) -> web.Response:
        fits = network_filter(filters(request), lambda network: bool(self._networks.endpoints_of(network)))
        found = [network for network in self._networks.all() if fits(network)]
        detailed = not is_version_at_least(request, 28)
        endpoints_of = self._networks.endpoints_of
        return await json_list_response(
            found, lambda network: network_json(network, dict(endpoints_of(network)) if detailed else {})
        )

    async def inspect(self, request: web.Request) -> web.Response:
        network = self._networks.find(request.match_info["id"])
        if text(request, "scope") not in ("", network.scope):
            raise NotFound(f"network {request.match_info['id']} not found")
        document = network_json(network, dict(self._networks.endpoints_of(network)))
        if network.scope == "swarm" and self._networks.balancer.vips_answering(network):
            document["Containers"][f"lb-{network.name}"] = balancer_json(network)
        return json_response(document)

    async def create(self, request: web.Request) -> web.Response:
        body = await read_body(request, NetworkRequest)
        if not is_version_at_least(request, 48):
            body.enable_ipv4 = None
        network = await self._networks.create(body)
        return json_response({"Id": network.id, "Warning": ""}, 201)

    async def remove(self, request: web.Request) -> web.Response:
        await remove_network(self._engine, request.match_info["id"])
        return no_content_response()

    async def connect(self, request: web.Request) -> web.Response:
        body = await read_body(request, ConnectBody)
        container = self._engine.find(body.container)
        settings = body.endpoint_config or EndpointSettings()
        check_endpoints(NetworkingConfig(endpoints_config={request.match_info["id"]: settings}))
        await connect_container(self._engine.services, container, request.match_info["id"], settings)
        return empty_response()

    async def disconnect(self, request: web.Request) -> web.Response:
        body = await read_body(request, DisconnectBody)
        try:
            container = self._engine.find(body.container)
        except NotFound:
            if not body.force:
                raise
            raise NotFound(f"endpoint {body.container} not found") from None
        await disconnect_container(self._engine.services, container, request.match_info["id"])
        return empty_response()

    async def prune(self, request: web.Request) -> web.Response:
        asked = filters(request)
        asked.check(PRUNE_FILTERS)
        limits = [parse_moment(value, time.time_ns()) for value in asked.all("until")]

        def unused(network: Network) -> bool:
            return (
                asked.labels_match(network.labels)
                and not asked.labels_refuse(network.labels)
                and all(network.created_ns <= limit for limit in limits)
            )

        return json_response({"NetworksDeleted": await self._networks.prune(unused) or None})


def network_filter(asked: Filters, in_use: Callable[[Network], bool]) -> Callable[[Network], bool]:
    """Make the test of which networks a list shows (moby `daemon/network/filter.go`). Raises: InvalidParameter."""
    asked.check(LIST_FILTERS)
    dangling = asked.boolean("dangling")
    for kind in asked.all("type"):
        if kind not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{kind}'")

    def fits(network: Network) -> bool:
        tests = {
            "driver": lambda value: value == network.shown_driver,
            "id": lambda value: _matches(value, network.id),
            "name": lambda value: _matches(value, network.name),
            "scope": lambda value: value == network.scope,
            "type": lambda value: (value == "builtin") == network.is_predefined,
        }
        return (
            all(not asked.all(key) or any(map(test, asked.all(key))) for key, test in tests.items())
            and asked.labels_match(network.labels)
            and (dangling is None or dangling == (not network.is_predefined and not in_use(network)))
        )

    return fits


def _matches(pattern: str, text: str) -> bool:
    """Tell whether the pattern equals the text or is found in it; dockerd takes it for a regular expression."""
    expression = name_pattern(pattern)
    return pattern in text if expression is None else pattern == text or expression.search(text) is not None


def network_json(network: Network, endpoints: dict[str, Endpoint]) -> Json:
    """Write a network as dockerd 28 shows it."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": network.scope,
        "Driver": network.shown_driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options,
            "Config": [ipam_json(pool) for pool in (*network.unused_ipam, *network.ipam)] or None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {container_id: endpoint_json(endpoint) for container_id, endpoint in endpoints.items()},
        "Options": network.options,
        "Labels": network.labels,
    }


def ipam_json(pool: Ipam) -> Json:
    shown = {"Subnet": pool.subnet}
    if pool.ip_range:
        shown["IPRange"] = pool.ip_range
    if pool.gateway and not pool.gateway_is_implied:
        shown["Gateway"] = pool.gateway
    return shown | ({"AuxiliaryAddresses": pool.aux} if pool.aux else {})


def endpoint_json(endpoint: Endpoint) -> Json:
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac_address,
        "IPv4Address": _with_length(endpoint.ip_address, endpoint.ip_prefix_len),
        "IPv6Address": _with_length(endpoint.ipv6_address, endpoint.ipv6_prefix_len),
    }


def balancer_json(network: Network) -> Json:
    """Write the load balancer of a swarm's network as an endpoint: it is the bridge, at the gateway's address."""
    pool = next(pool for pool in network.ipam if pool.version == 4)
    return {
        "Name": f"{network.name}-endpoint",
        "EndpointID": hashlib.sha256(f"lb-{network.id}".encode()).hexdigest(),
        "MacAddress": mac_of(pool.gateway) if pool.gateway else "",
        "IPv4Address": _with_length(pool.gateway, ipaddress.ip_network(pool.subnet).prefixlen),
        "IPv6Address": "",
    }


def _with_length(address: str, prefix_len: int) -> str:
    return str(ipaddress.ip_interface(f"{address}/{prefix_len}")) if address else ""
