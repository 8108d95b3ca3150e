"""Connection of containers to networks and disconnection from them, running or not; removal of networks and links.

What dockerd refuses and in which words: moby, daemon/container_operations.go and runconfig/errors.go.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.engine import Engine
from bennu.engine.links import port_links, without_link
from bennu.engine.record import Record
from bennu.engine.sandbox import amend_files, endpoint_request, network_ref, render_files, why_not_connect
from bennu.engine.validate import check_endpoint
from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound
from bennu.kernel.procfs import is_alive
from bennu.model import EndpointSettings
from bennu.network import Network
from bennu.network.dns.files import forget_host
from bennu.network.ipam.catalogue import dns_names

TAKEN_DOWN_S: Final = 3.0  # from the end of a process until what its container held is given back
CANNOT_LEAVE_HOST: Final = "cannot disconnect container from host network - container was created in host network mode"


async def connect_container(
    services: EngineContext, container: Container, ref: str, settings: EndpointSettings
) -> None:
    """Connect it to a network, now if it runs and at its next start. Raises: BennuError; then nothing has changed."""
    async with container.lock:
        record = container.record
        network = services.networks.find(ref)
        check_endpoint(settings)
        settings.network_id = ""  # which network it is, the path of the request says
        _check_may_connect(services, record, network)
        kept = {
            name: asked
            for name, asked in record.endpoints.items()
            if name == network.name or _find(services, record, name) is not network
        }
        changed = msgspec.structs.replace(record, endpoints=kept | {network.name: settings})
        request = endpoint_request(changed, network.name)
        if network.has_names:
            settings.dns_names = dns_names(request, record.id)
        if record.sandbox is None:
            services.networks.check(request)
            await container.commit(changed, [])
            return
        before = await asyncio.to_thread(render_files, services, record)
        await services.networks.connect_sandbox(record.id, request)
        try:
            await container.commit(changed, [])
        except BaseException:
            await asyncio.shield(services.networks.disconnect_sandbox(record.id, network.id))
            raise
        await asyncio.to_thread(amend_files, services, changed, before)


async def disconnect_container(services: EngineContext, container: Container, ref: str) -> None:
    """Take the container off a network. Raises: BennuError."""
    async with container.lock:
        record = container.record
        network = services.networks.find(ref)
        if record.running and network.driver == "host" and record.host_config.network_mode == "host":
            raise InvalidParameter(CANNOT_LEAVE_HOST)
        names = [name for name in record.endpoints if name == network.name or _find(services, record, name) is network]
        if not names:
            article = "" if record.running else "the "
            raise BennuError(f"container {record.id} is not connected to {article}network {network.name}")
        endpoints = {name: settings for name, settings in record.endpoints.items() if name not in names}
        changed = msgspec.structs.replace(record, endpoints=endpoints)
        held = record.sandbox.endpoints if record.sandbox else []
        # A container that an earlier bennud started has no endpoint on `none`.
        if not any(endpoint.network_id == network.id for endpoint in held):
            await container.commit(changed, [])
            return
        before = await asyncio.to_thread(render_files, services, record)
        await services.networks.disconnect_sandbox(record.id, network.id)
        await container.commit(changed, [])
        await asyncio.to_thread(amend_files, services, changed, before)


def _check_may_connect(services: EngineContext, record: Record, network: Network) -> None:
    others = _networks_of(services, record)
    refused = why_not_connect(record.host_config.network_mode, network, others)
    if refused:
        raise InvalidParameter(refused)
    if record.sandbox is not None and any(other.id == network.id for other in others):
        if network.scope == "swarm":
            raise Forbidden(f"/{record.name} is already attached to network {network.name}")
        raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")


def _networks_of(services: EngineContext, record: Record) -> list[Network]:
    """List the networks of a container that exist."""
    return [network for name in record.endpoints if (network := _find(services, record, name)) is not None]


def _find(services: EngineContext, record: Record, name: str) -> Network | None:
    """Find one of a container's networks; None if it is gone, or was made anew since the container was on it."""
    return _named(services, network_ref(record, name))


def _named(services: EngineContext, ref: str) -> Network | None:
    """Find a network by its name, or by an id or its beginning."""
    try:
        return services.networks.find(ref)
    except (NotFound, InvalidParameter):
        return None


# --- removals ---------------------------------------------------------------------------------------------------


async def remove_network(engine: Engine, ref: str) -> None:
    """Remove a network; wait for containers on it whose process has ended but that are not taken down yet.

    A client that has seen the last output of a container may remove its network before we have seen the end.
    Raises: BennuError.
    """
    networks = engine.services.networks
    try:
        await networks.remove(ref)
    except Forbidden:
        ending = [one for one in _users(engine, ref) if not is_alive(one.record.pid)]
        if not ending:
            raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_DOWN_S):
                for container in ending:
                    await _taken_down(container)
        await networks.remove(ref)


def _users(engine: Engine, ref: str) -> list[Container]:
    networks, found = engine.services.networks, []
    for container_id in networks.endpoints_of(networks.find(ref)):
        with contextlib.suppress(NotFound):
            found.append(engine.find(container_id))
    return found


async def _taken_down(container: Container) -> None:
    await container.exited.wait()
    async with container.lock:  # whoever has noted the end holds it until what the container held is given back
        return


async def remove_link(engine: Engine, name: str) -> None:
    """Remove the link from the owner's record, hosts file and open ports; both containers go on as they are.

    Raises: NotFound; BennuError for a name without an owner.
    """
    engine.find(name)
    owner_name, _, alias = name.removeprefix("/").rpartition("/")
    if not owner_name:
        raise BennuError("Conflict, cannot remove the default link name of the container")
    owner, services = engine.find(owner_name), engine.services
    async with owner.lock:
        await owner.commit(without_link(owner.record, alias), [])
        if owner.record.running:
            await services.networks.set_links(owner.id, port_links(services, owner.record))
            await asyncio.to_thread(_forget, services.folder(owner.id) / "hosts", alias)


def _forget(hosts: Path, alias: str) -> None:
    hosts.write_text(forget_host(hosts.read_text(), alias))
