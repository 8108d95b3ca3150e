"""The meaning of a container's network mode: its own sandbox, another's, or the host's; and the network's files."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.engine.context import EngineContext, Resolving
from bennu.engine.events import Event, event
from bennu.engine.links import link_names, note_links
from bennu.engine.record import Record
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound
from bennu.lifecycle.status import State
from bennu.model import EndpointIPAMConfig, HostConfig
from bennu.network import (
    Endpoint,
    EndpointRequest,
    Sandbox,
    parse_link,
    parse_port_bindings,
    read_resolv_conf,
    render_hosts,
    render_resolv_conf,
)

JOIN: Final = "container:"
FILES: Final = ("hosts", "hostname", "resolv.conf")


async def open_sandbox(services: EngineContext, record: Record) -> tuple[Sandbox | None, list[Event]]:
    """Return the container's present sandbox, or open a new one; None for a container in another's network.

    Raises: BennuError, prefixed as dockerd does for a failure of the network.
    """
    if record.sandbox is not None:
        return record.sandbox, []
    mode = record.host_config.network_mode
    if mode == "host" or mode.startswith(JOIN):
        return None, []
    exposed = record.config.exposed_ports if isinstance(record.config.exposed_ports, dict) else None
    ports = parse_port_bindings(exposed, record.host_config.port_bindings, record.host_config.publish_all_ports)
    requests = [] if mode == "none" else [endpoint_request(record, name) for name in record.endpoints]
    try:
        sandbox = await services.networks.open_sandbox(
            record.id, requests, ports if requests else [], dns=record.host_config.dns or services.resolving.servers
        )
    except BennuError as error:
        error.args = (f"failed to set up container networking: {error}",)  # the kind, and what else it tells, stay
        raise
    return sandbox, [network_event(services, "connect", record, endpoint) for endpoint in sandbox.endpoints]


def check_endpoints(services: EngineContext, record: Record) -> None:
    """Check that the networks that exist can grant the container's requests. Raises: InvalidParameter."""
    for name in record.endpoints:
        try:
            services.networks.check(endpoint_request(record, name))
        except NotFound:
            continue
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid config for network {name}: {error}") from None


def endpoint_request(record: Record, network: str) -> EndpointRequest:
    """Make the request of a container to one of its networks."""
    asked = record.endpoints[network]
    ipam = asked.ipam_config or EndpointIPAMConfig()
    mac = record.config.mac_address
    return EndpointRequest(
        network=network,
        container_name=record.name,
        hostname=record.config.hostname,
        aliases=list(asked.aliases or []),
        links={alias: target for target, alias in map(parse_link, asked.links or ())},
        ipv4_address=ipam.ipv4_address,
        ipv6_address=ipam.ipv6_address,
        mac_address=asked.mac_address or (mac if isinstance(mac, str) else ""),
        gw_priority=asked.gw_priority,
        driver_opts=asked.driver_opts,
    )


def network_event(services: EngineContext, action: str, record: Record, endpoint: Endpoint) -> Event:
    kind = services.networks.type_of(endpoint.network_id)
    attributes = {"container": record.id, "name": endpoint.network_name, "type": kind}
    return event("network", action, endpoint.network_id, attributes)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces of a container. None: one of its own; "": the host's; else the path of another container's."""

    network: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    shm: str = ""  # a /dev/shm that is shared: where it is on the host


def namespaces_of(services: EngineContext, record: Record) -> Namespaces:
    """Resolve the container's namespaces. Raises: Conflict when a container to join does not run; NotFound."""
    host = record.host_config
    network = record.sandbox.netns if record.sandbox else joined_namespace(services, "network", host.network_mode)
    ipc = joined_namespace(services, "ipc", host.ipc_mode)
    shm = ""
    if host.ipc_mode == "shareable":
        shm = str(services.runtime.make_shm(record.id, host.shm_size))
    elif host.ipc_mode.startswith(JOIN):
        donor = _owner_of_ipc(services, record)
        if donor.host_config.ipc_mode != "host":
            shm = str(services.runtime.shm_of(donor.id))
    own_uts = host.uts_mode != "host" and host.network_mode != "host"
    return Namespaces(network, joined_namespace(services, "pid", host.pid_mode), ipc, None if own_uts else "", shm)


def joined_namespace(services: EngineContext, kind: str, mode: str) -> str | None:
    """Resolve a mode: "" is the host's, a path another container's, None neither. Raises: Conflict, NotFound."""
    if mode == "host":
        return ""
    return _namespace_of(services, kind, mode.removeprefix(JOIN)) if mode.startswith(JOIN) else None


def _namespace_of(services: EngineContext, kind: str, ref: str) -> str:
    try:
        other = services.index.find(ref).record
    except NotFound as error:
        raise _cannot_join(kind, str(error), found=False) from error
    if kind == "network" and other.sandbox is not None:
        return other.sandbox.netns  # outlives a restart of the other
    if other.state is State.RESTARTING:
        raise _cannot_join(kind, f"Container {other.id} is restarting, wait until the container is running")
    if not other.pid:
        if kind == "network":
            why = f"container {other.name} is {other.state.value}"
            raise Conflict(f"cannot join network namespace of a non running container: {why}")
        raise _cannot_join(kind, f"container {other.id} is not running")
    if kind == "ipc" and _owner_of_ipc(services, other).host_config.ipc_mode not in ("shareable", "host"):
        raise InvalidParameter(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    if getattr(other.host_config, f"{kind}_mode") == "host":
        return ""
    return f"/proc/{other.pid}/ns/{'net' if kind == 'network' else kind}"


def _owner_of_ipc(services: EngineContext, record: Record) -> Record:
    """Find the container whose IPC namespace and /dev/shm a container has: its own, or that of whom it has joined."""
    while record.host_config.ipc_mode.startswith(JOIN):
        record = services.index.find(record.host_config.ipc_mode.removeprefix(JOIN)).record
    return record


def _cannot_join(kind: str, why: str, *, found: bool = True) -> BennuError:
    """Name what is wrong with the other container in dockerd's words, and with its status for each namespace."""
    match kind:
        case "network" if found:
            return Conflict(f"cannot join network namespace of container: {why}")
        case "network":
            return BennuError(f"joining network namespace of container: {why}")
        case "ipc":
            return (Conflict if found else InvalidParameter)(f"failed to join IPC namespace: {why}")
        case _:
            return BennuError(f"failed to join PID namespace: {why}")


def make_files(services: EngineContext, record: Record) -> Mapping[str, Path]:
    """Write hosts, hostname and resolv.conf; answer name → path. Joined containers share their files. Blocks.

    Raises: BennuError.
    """
    mode = record.host_config.network_mode
    if mode.startswith(JOIN):
        owner = services.index.find(mode.removeprefix(JOIN)).id
        return {name: services.folder(owner) / name for name in FILES}
    folder = services.folder(record.id)
    texts = {
        "hosts": _hosts(services, record),
        "hostname": f"{record.config.hostname}\n",
        "resolv.conf": _resolv_conf(services.resolving, record.host_config, record.sandbox),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)  # in place: a running container has this very file mounted
    return {name: folder / name for name in FILES}


def renew_linked_hosts(services: EngineContext, record: Record) -> None:
    """Write a started container's address into the hosts files of the containers linked to it, in the background."""
    for linking_id in services.linked_from.pop(record.id, ()):
        services.tasks.create_task(_renew_hosts(services, linking_id), name=f"renew the links of {linking_id[:12]}")


async def _renew_hosts(services: EngineContext, container_id: str) -> None:
    with contextlib.suppress(NotFound):  # removed meanwhile
        container = services.index.find(container_id)
        async with container.lock:
            if container.record.running:
                await asyncio.to_thread(make_files, services, container.record)
                note_links(services, container.record)


def _hosts(services: EngineContext, record: Record) -> str:
    host = record.host_config
    if host.network_mode == "host":
        return Path("/etc/hosts").read_text() + "".join(
            f"{address}\t{name}\n" for name, _, address in (entry.partition(":") for entry in host.extra_hosts or [])
        )
    endpoints: Sequence[Endpoint] = record.sandbox.endpoints if record.sandbox else ()
    addresses = [endpoint.ip_address for endpoint in endpoints if endpoint.ip_address]
    addresses += [endpoint.ipv6_address for endpoint in endpoints if endpoint.ipv6_address]
    gateway = next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), "")
    return render_hosts(
        record.config.hostname,
        record.config.domainname,
        addresses=addresses,
        extra_hosts=host.extra_hosts or (),
        links=link_names(services, record),
        host_gateway=gateway,
    )


def _resolv_conf(usual: Resolving, host: HostConfig, sandbox: Sandbox | None) -> str:
    dns, search, options = host.dns or usual.servers, host.dns_search or usual.search, host.dns_options or usual.options
    if host.network_mode == "host" and not (dns or search or options):
        return read_resolv_conf()
    embedded = sandbox is not None and sandbox.has_embedded_dns
    return render_resolv_conf(read_resolv_conf(), dns=dns, dns_search=search, dns_options=options, embedded=embedded)
