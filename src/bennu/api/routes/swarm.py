"""`/swarm`: makes, shows, changes and leaves this node's swarm."""

import ipaddress
import json
from typing import Any

import msgspec
from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.query import flag, is_version_at_least
from bennu.api.http.responses import empty_response, json_response
from bennu.api.shapes.service import meta_json
from bennu.cluster import Cluster
from bennu.cluster.api_types import SwarmSpecWire
from bennu.cluster.errors import ALREADY_PART, JOIN_LATER
from bennu.cluster.tables import ClusterRow
from bennu.errors import Conflict, InvalidParameter, NotImplementedHere, Unavailable
from bennu.model import Shape

Json = dict[str, Any]


class InitBody(Shape):
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: list[str] | None = None
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock_managers: bool = False
    availability: str = ""
    spec: SwarmSpecWire = msgspec.field(default_factory=SwarmSpecWire)


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = SwarmRoutes(cluster)
    return [
        web.route("GET", "/swarm", api.inspect),
        web.route("POST", "/swarm/init", api.init),
        web.route("POST", "/swarm/join", api.join),
        web.route("POST", "/swarm/leave", api.leave),
        web.route("POST", "/swarm/update", api.update),
        web.route("GET", "/swarm/unlockkey", api.unlock_key),
        web.route("POST", "/swarm/unlock", api.unlock),
    ]


class SwarmRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def init(self, request: web.Request) -> web.Response:
        body = await read_body(request, InitBody)
        if not is_version_at_least(request, 39):
            body.default_addr_pool, body.subnet_size = None, 0
        if not is_version_at_least(request, 40):
            body.data_path_port = 0
        if body.force_new_cluster:
            raise NotImplementedHere("ForceNewCluster is not implemented")
        if body.auto_lock_managers:
            raise NotImplementedHere("locking managers (autolock) is not implemented")
        _check_advertised(body.advertise_addr)
        node_id = await self._cluster.init(
            listen_addr=body.listen_addr,
            advertise_addr=body.advertise_addr,
            availability=body.availability,
            spec=msgspec.to_builtins(body.spec),
            address_pools=body.default_addr_pool or (),
            subnet_size=body.subnet_size,
            data_path_port=body.data_path_port,
        )
        return json_response(node_id)

    async def join(self, request: web.Request) -> web.Response:
        if self._cluster.is_active:
            raise Unavailable(ALREADY_PART)
        raise NotImplementedHere(JOIN_LATER)

    async def leave(self, request: web.Request) -> web.Response:
        await self._cluster.leave(force=flag(request, "force"))
        return empty_response()

    async def inspect(self, request: web.Request) -> web.Response:
        return json_response(swarm_json(self._cluster.state.require_cluster()))

    async def update(self, request: web.Request) -> web.Response:
        version = read_version(request, "swarm")
        spec = msgspec.to_builtins(await read_body(request, SwarmSpecWire))
        await self._cluster.update(
            spec,
            version,
            worker=flag(request, "rotateWorkerToken"),
            manager=flag(request, "rotateManagerToken"),
            unlock_key=flag(request, "rotateManagerUnlockKey"),
        )
        return empty_response()

    async def unlock_key(self, request: web.Request) -> web.Response:
        return json_response({"UnlockKey": self._cluster.state.require_cluster().unlock_key})

    async def unlock(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        raise Conflict("swarm is not locked")


def _check_advertised(address: str) -> None:
    host = address.rpartition(":")[0] if address.count(":") == 1 else address
    try:
        parsed = ipaddress.ip_address(host.strip("[]")) if host else None
    except ValueError:
        return  # the name of an interface
    if parsed is not None and parsed.is_unspecified:
        raise InvalidParameter(
            "advertise address must be a non-zero IP address or network interface (with optional port number)"
        )


def read_version(request: web.Request, kind: str) -> int:
    """Read `?version=N`. Raises: InvalidParameter in Go's words."""
    value = request.query.get("version", "")
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        why = f'strconv.ParseUint: parsing "{value[:100]}": invalid syntax'
        if kind in ("secret", "config"):
            raise InvalidParameter(f"invalid {kind} version")
        raise InvalidParameter(f"invalid {kind} version '{value[:100]}': {why}")
    return int(value)


def token(cluster: ClusterRow, secret: str) -> str:
    return f"SWMTKN-1-{cluster.ca_digest}-{secret}"


def cluster_info_json(cluster: ClusterRow) -> Json:
    return meta_json(cluster) | {
        "Spec": json.loads(cluster.spec),
        "TLSInfo": {},
        "RootRotationInProgress": False,
        "DefaultAddrPool": list(cluster.address_pools),
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }


def swarm_json(cluster: ClusterRow) -> Json:
    tokens = {"Worker": token(cluster, cluster.worker_secret), "Manager": token(cluster, cluster.manager_secret)}
    return cluster_info_json(cluster) | {"JoinTokens": tokens}


def info_json(cluster: Cluster) -> Json:
    """Write `Swarm` of `/info`."""
    row = cluster.state.cluster
    if row is None:
        return {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        }
    node = cluster.state.nodes.rows[row.node_id].node
    return {
        "NodeID": row.node_id,
        "NodeAddr": node.address,
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "Error": "",
        "RemoteManagers": [{"NodeID": row.node_id, "Addr": f"{node.address}:2377"}],
        "Nodes": len(cluster.state.nodes.rows),
        "Managers": 1,
        "Cluster": cluster_info_json(row),
    }
