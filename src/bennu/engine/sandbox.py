"""The meaning of a container's network mode: its own sandbox, another's, or the host's; and the network's files."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.context import EngineContext, Resolving
from bennu.engine.events import Event, event
from bennu.engine.links import JOIN, link_names, note_links, port_links
from bennu.engine.record import Record
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound
from bennu.lifecycle.status import State
from bennu.model import EndpointIPAMConfig, EndpointSettings, HostConfig
from bennu.network import (
    Endpoint,
    EndpointRequest,
    Network,
    Sandbox,
    parse_link,
    parse_port_bindings,
    read_resolv_conf,
    render_hosts,
    render_resolv_conf,
)
from bennu.network.dns.files import ResolvConfRequest, amend_hosts, readdress_hosts
from bennu.network.model import PREDEFINED

FILES: Final = ("hosts", "hostname", "resolv.conf")
CANNOT_JOIN_HOST: Final = "cannot connect container to host network - container must be created in host network mode"
SHARED_CONFLICT: Final = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
NONE_CONFLICT: Final = (
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)
HOSTS: Final = Path("/etc/hosts")
IPV6: Final = Path("/proc/sys/net/ipv6")
NO_IPV6: Final = ("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6")


async def open_sandbox(services: EngineContext, record: Record) -> tuple[Sandbox | None, list[Event]]:
    """Return the container's present sandbox, or open a new one; None for a container in another's network.

    Raises: BennuError, prefixed as dockerd does for a failure of the network.
    """
    if record.sandbox is not None:
        return record.sandbox, []
    mode = record.host_config.network_mode
    if mode.startswith(JOIN):
        return None, []
    exposed = record.config.exposed_ports if isinstance(record.config.exposed_ports, dict) else None
    ports = parse_port_bindings(exposed, record.host_config.port_bindings, record.host_config.publish_all_ports)
    names = record.endpoints or ([mode] if mode == "host" else [])
    requests = [endpoint_request(record, name) for name in names]
    try:
        there = [asked.network for asked in requests if not services.networks.is_switched_off(asked.network)]
        check_together(mode, [services.networks.find(ref) for ref in there])
        sandbox = await services.networks.open_sandbox(
            record.id,
            requests,
            ports if requests else [],
            dns=record.host_config.dns or services.resolving.servers,
            links=port_links(services, record),
        )
    except BennuError as error:
        error.args = (f"failed to set up container networking: {error}",)  # the kind, and what else it tells, stay
        raise
    return sandbox, [network_event(services, "connect", record, endpoint) for endpoint in sandbox.endpoints]


def check_together(mode: str, networks: Sequence[Network]) -> None:
    """Check that a container of this network mode may be on all these networks. Raises: InvalidParameter."""
    for network in networks:
        refused = why_not_connect(mode, network, networks)
        if refused:
            raise InvalidParameter(refused)


def why_not_connect(mode: str, network: Network, others: Iterable[Network]) -> str:
    """Answer why a container of this network mode that is on `others` cannot be on this network; "": it can. Pure."""
    if mode.startswith(JOIN):
        return SHARED_CONFLICT
    if network.driver == "host" and mode != "host":
        return CANNOT_JOIN_HOST
    apart = [other.driver for other in others if other.id != network.id]
    if (mode == "host" and network.driver != "host") or (apart and "host" in (network.driver, *apart)):
        return SHARED_CONFLICT
    if apart and "null" in (network.driver, *apart):
        return NONE_CONFLICT
    return ""


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
    asked = record.endpoints.get(network) or EndpointSettings()
    ipam = asked.ipam_config or EndpointIPAMConfig()
    mac = record.config.mac_address
    return EndpointRequest(
        network=network_ref(record, network),
        container_name=record.name,
        hostname=record.config.hostname,
        aliases=list(asked.aliases or []),
        links={alias: target for target, alias in map(parse_link, asked.links or ())},
        ipv4_address=ipam.ipv4_address,
        ipv6_address=ipam.ipv6_address,
        mac_address=asked.mac_address or (mac if isinstance(mac, str) else ""),
        gw_priority=asked.gw_priority,
        driver_opts=asked.driver_opts,
        link_local_ips=list(ipam.link_local_ips or []),
        ipv6=has_ipv6(record.host_config),
    )


def network_ref(record: Record, name: str) -> str:
    """Answer what one of a container's networks is to be found by: its id once the container was on it, else the name.

    A network made anew under that name is another one, as with dockerd. `bridge`, `host` and `none` are what they are
    called, whoever makes them anew.
    """
    asked = record.endpoints.get(name)
    return asked.network_id if asked and asked.network_id and name not in PREDEFINED else name


def name_networks(services: EngineContext, asked: Mapping[str, EndpointSettings]) -> dict[str, EndpointSettings]:
    """Key the requests by the networks' names; those named by an id are bound to it, and no other id counts."""
    named = {}
    for ref, settings in asked.items():
        try:
            network = services.networks.find(ref)
        except (NotFound, InvalidParameter):  # told at the start; it may be there by then
            named[ref] = msgspec.structs.replace(settings, network_id="")
        else:
            bound = "" if ref == network.name else network.id
            named[network.name] = msgspec.structs.replace(settings, network_id=bound)
    return named


def bound_endpoints(record: Record) -> dict[str, EndpointSettings]:
    """Return the requests of a container that gives its sandbox up, bound to the networks that it was on. Pure."""
    held = record.sandbox.endpoints if record.sandbox else ()
    bound = {}
    for name, asked in record.endpoints.items():
        on = next((one for one in held if name == one.network_name or _is_id(name, one.network_id)), None)
        if on is None:
            bound[name] = asked
        else:
            names = list(on.dns_names) or None
            bound[on.network_name] = msgspec.structs.replace(asked, network_id=on.network_id, dns_names=names)
    return bound


def _is_id(ref: str, network_id: str) -> bool:
    """Tell whether a key means the network of this id: an earlier bennud kept the ids and beginnings that it got."""
    return len(ref) >= 12 and network_id.startswith(ref)


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
    own_uts = host.uts_mode != "host"
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
    """Write the files that the container gets from its network; answer where they are. Blocks.

    A container in another's network has that one's files. Raises: BennuError.
    """
    mode = record.host_config.network_mode
    if mode.startswith(JOIN):
        owner = services.index.find(mode.removeprefix(JOIN)).id
        return {name: services.folder(owner) / name for name in FILES}
    folder = services.folder(record.id)
    for name, text in render_files(services, record).items():
        (folder / name).write_text(text)  # in place: a running container has this very file mounted
    return {name: folder / name for name in FILES}


def render_files(services: EngineContext, record: Record) -> dict[str, str]:
    """Render the texts of the container's own files, by name. Blocks: reads the host's. Raises: BennuError."""
    return {
        "hosts": _hosts(services, record),
        "hostname": f"{record.config.hostname}\n",
        "resolv.conf": _resolv_conf(services.resolving, record),
    }


def amend_files(services: EngineContext, record: Record, before: Mapping[str, str]) -> None:
    """Bring the files of a running container up to date after its networks have changed. Blocks. Raises: BennuError.

    `before`: what was rendered before the change. What the container itself has written stays, as with dockerd: in
    `hosts` line by line; a resolv.conf that was changed is left alone.
    """
    folder, after = services.folder(record.id), render_files(services, record)
    hosts, resolv_conf = folder / "hosts", folder / "resolv.conf"
    hosts.write_text(amend_hosts(hosts.read_text(), before["hosts"], after["hosts"]))
    if resolv_conf.read_text() == before["resolv.conf"]:
        resolv_conf.write_text(after["resolv.conf"])


def host_gateways(services: EngineContext) -> Sequence[str]:
    """List what `host-gateway` stands for, the same for all containers: as configured, else the default bridge's."""
    if services.resolving.host_gateways:
        return services.resolving.host_gateways
    try:
        return [pool.gateway for pool in services.networks.find("bridge").ipam if pool.gateway]
    except NotFound:
        return []


def renew_linked_hosts(services: EngineContext, record: Record) -> None:
    """Write a started container's address into the hosts files of the containers linked to it, in the background."""
    for linking_id in services.linked_from.pop(record.id, ()):
        services.tasks.create_task(_renew_hosts(services, linking_id), name=f"renew the links of {linking_id[:12]}")


async def _renew_hosts(services: EngineContext, container_id: str) -> None:
    with contextlib.suppress(NotFound):  # removed meanwhile
        container = services.index.find(container_id)
        async with container.lock:
            if container.record.running:
                await services.networks.set_links(container_id, port_links(services, container.record))
                await asyncio.to_thread(_readdress, services, container.record)
                note_links(services, container.record)


def _readdress(services: EngineContext, record: Record) -> None:
    path = services.folder(record.id) / "hosts"
    path.write_text(readdress_hosts(path.read_text(), link_names(services, record)))


def _hosts(services: EngineContext, record: Record) -> str:
    host = record.host_config
    if host.network_mode == "host" and not host.extra_hosts:
        with contextlib.suppress(FileNotFoundError):
            return HOSTS.read_text()
    endpoints: Sequence[Endpoint] = record.sandbox.endpoints if record.sandbox else ()
    return render_hosts(
        record.config.hostname,
        record.config.domainname,
        addresses=[address for one in endpoints for address in (one.ip_address, one.ipv6_address) if address],
        extra_hosts=host.extra_hosts or (),
        links=link_names(services, record),
        host_gateways=host_gateways(services),
        ipv6=has_ipv6(host),
    )


def _resolv_conf(usual: Resolving, record: Record) -> str:
    host, sandbox = record.host_config, record.sandbox
    asked = ResolvConfRequest(
        servers=host.dns or usual.servers,
        search=host.dns_search or usual.search,
        options=host.dns_options or usual.options,
        embedded=sandbox is not None and sandbox.has_embedded_dns,
        ipv6=sandbox is not None and any(endpoint.ipv6_address for endpoint in sandbox.endpoints),
        is_host=host.network_mode == "host",
    )
    return render_resolv_conf(read_resolv_conf(), asked)


def has_ipv6(host: HostConfig) -> bool:
    """Tell whether the container's network has IPv6 at all: this kernel has, and no sysctl of its own says no."""
    sysctls = host.sysctls or {}
    switched_off = any(str(sysctls.get(name, "")).strip() == "1" for name in NO_IPV6)
    return not switched_off and IPV6.exists()
