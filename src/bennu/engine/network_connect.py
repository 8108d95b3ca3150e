"""Connection of containers to networks and disconnection from them, running or not."""

import asyncio
from typing import Final

import msgspec

from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.record import Record
from bennu.engine.sandbox import JOIN, endpoint_request, make_files
from bennu.engine.validate import check_endpoint
from bennu.errors import BennuError, Forbidden
from bennu.model import EndpointSettings
from bennu.network import Network

HOST_CONFLICT: Final = "container cannot be disconnected from host network or connected to host network"
SHARED_CONFLICT: Final = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
NONE_CONFLICT: Final = (
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)


async def connect_container(
    services: EngineContext, container: Container, ref: str, settings: EndpointSettings
) -> None:
    """Connect it to a network, now if it runs and at its next start. Raises: BennuError; then nothing has changed."""
    async with container.lock:
        record = container.record
        network = services.networks.find(ref)
        _check_may_change(record, network)
        check_endpoint(settings)
        endpoints = record.endpoints | {network.name: settings}
        changed = msgspec.structs.replace(record, endpoints=endpoints)
        if record.sandbox is None:
            services.networks.check(endpoint_request(changed, network.name))
            await container.commit(changed, [])
            return
        await services.networks.connect_sandbox(record.id, endpoint_request(changed, network.name))
        try:
            await container.commit(changed, [])
        except BaseException:
            await asyncio.shield(services.networks.disconnect_sandbox(record.id, network.id))
            raise
        await asyncio.to_thread(make_files, services, changed)


async def disconnect_container(services: EngineContext, container: Container, ref: str) -> None:
    """Take the container off a network. Raises: BennuError."""
    async with container.lock:
        record = container.record
        network = services.networks.find(ref)
        if network.driver == "host":
            raise Forbidden(HOST_CONFLICT)
        names = [name for name in record.endpoints if _is_name_of(network, name)]
        if not names:
            raise BennuError(f"container {record.id} is not connected to the network {network.name}")
        endpoints = {name: settings for name, settings in record.endpoints.items() if name not in names}
        changed = msgspec.structs.replace(record, endpoints=endpoints)
        if record.sandbox is not None:
            await services.networks.disconnect_sandbox(record.id, network.id)
        await container.commit(changed, [])
        if record.sandbox is not None:
            await asyncio.to_thread(make_files, services, changed)


def _check_may_change(record: Record, network: Network) -> None:
    mode = record.host_config.network_mode
    if network.driver == "host":
        raise Forbidden(HOST_CONFLICT)
    if mode == "host" or mode.startswith(JOIN):
        raise Forbidden(SHARED_CONFLICT)
    if mode == "none" or network.driver == "null":
        raise Forbidden(NONE_CONFLICT)
    if record.sandbox is not None and any(_is_name_of(network, name) for name in record.endpoints):
        raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")


def _is_name_of(network: Network, name: str) -> bool:
    """Tell whether a stored name means this network.

    Containers remember their networks as the client named them: by name, or by an id or its beginning.
    """
    return name == network.name or (len(name) >= 12 and network.id.startswith(name))
