"""Legacy links (`--link` on the default bridge): other containers' names in the hosts file, facts in the environment.

A link is to a container, not to its name or its address: it stays when the other one is renamed, and when that starts
anew, the hosts files that name it are written again. Where containers of the default bridge are kept apart
(`--icc=false`) it also opens the ports that the other one exposes. On user-defined networks a link is a name in the
embedded DNS and none of this applies.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from bennu.engine.context import EngineContext, Neighbour
from bennu.engine.record import Record
from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.model import HostConfig
from bennu.network import PortLink, parse_link
from bennu.network.nat.port_bindings import parse_exposed

IMAGE_VARIABLES: Final = frozenset({"HOME", "PATH"})  # of the linked container: about it alone
JOIN: Final = "container:"


def legacy_links(host: HostConfig) -> list[tuple[str, str]]:
    """List (container, alias) of each link on the default bridge, as asked for."""
    if host.network_mode not in ("", "default", "bridge"):
        return []
    return [parse_link(text) for text in host.links or ()]


def bind_links(services: EngineContext, host: HostConfig) -> dict[str, str]:
    """Find the containers to link to; their ids by alias. Raises: InvalidParameter."""
    return {alias: _target(services, target).id for target, alias in legacy_links(host)}


def _target(services: EngineContext, name: str) -> Neighbour:
    """Find the container that has the network of the one named. Raises: InvalidParameter."""
    try:
        found = services.index.find(name)
        while (mode := found.record.host_config.network_mode).startswith(JOIN):
            name = mode.removeprefix(JOIN)
            found = services.index.find(name)
    except NotFound as error:
        raise InvalidParameter(f"could not get container for {name}: {error}") from None
    if mode == "host":
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    return found


def check_links_run(services: EngineContext, record: Record) -> None:
    """Check that the containers it is linked to run on the default bridge. Raises: BennuError."""
    for other, alias in linked(services, record):
        if not other.running:
            raise BennuError(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
        if not addresses_of(other):
            raise BennuError(f"Cannot link to /{other.name}, as it does not belong to the default network")


def link_names(services: EngineContext, record: Record) -> dict[str, list[str]]:
    """Map the addresses of each running linked container to its names for this container."""
    found: dict[str, list[str]] = {}
    for other, alias in linked(services, record):
        for address in addresses_of(other):
            names = found.setdefault(address, [])
            names += [name for name in (alias, other.config.hostname, other.name) if name not in names]
    return found


def port_links(services: EngineContext, record: Record) -> list[PortLink]:
    """List the ports that the container's links open; none where the default bridge keeps nobody apart."""
    if not legacy_links(record.host_config) or services.networks.is_switched_off("bridge"):
        return []
    if services.networks.find("bridge").icc:
        return []
    return [
        PortLink(address, proto, number, other.id)
        for other, _ in linked(services, record)
        for address in addresses_of(other)
        for spec in other.config.exposed_ports or ()
        for number, proto in parse_exposed(spec)
    ]


def link_variables(services: EngineContext, record: Record) -> list[str]:
    """List the environment variables, as `NAME=value`, of all a container's links."""
    return [
        variable
        for other, alias in linked(services, record)
        for variable in variables_of(
            alias,
            record.name,
            next(iter(addresses_of(other)), ""),
            other.config.exposed_ports or (),
            other.config.env or (),
        )
    ]


def variables_of(alias: str, owner: str, address: str, exposed: Iterable[str], environment: Sequence[str]) -> list[str]:
    """List the variables of one link: the other's ports, its name, and its environment. Pure."""
    prefix = alias.upper().replace("-", "_")
    ports = {port for spec in exposed for port in parse_exposed(spec)}
    ordered = sorted(ports, key=lambda port: (port[1] != "tcp", port[1], port[0]))
    found = [f"{prefix}_PORT={proto}://{address}:{number}" for number, proto in ordered[:1]]
    for number, proto in ordered:
        one = f"{prefix}_PORT_{number}_{proto.upper()}"
        found += [f"{one}={proto}://{address}:{number}", f"{one}_ADDR={address}"]
        found += [f"{one}_PORT={number}", f"{one}_PROTO={proto}"]
    for first, last, proto in _ranges(ordered):
        one = f"{prefix}_PORT_{first}_{proto.upper()}"
        found += [f"{one}_START={proto}://{address}:{first}", f"{one}_PORT_START={first}"]
        found += [f"{one}_END={proto}://{address}:{last}", f"{one}_PORT_END={last}"]
    found.append(f"{prefix}_NAME=/{owner}/{alias}")
    pairs = [entry.partition("=") for entry in environment if "=" in entry]
    return found + [f"{prefix}_ENV_{name}={value}" for name, _, value in pairs if name not in IMAGE_VARIABLES]


def _ranges(ordered: Iterable[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """List the runs of two or more neighbouring ports of one protocol: first, last, protocol."""
    runs: list[tuple[int, int, str]] = []
    for number, proto in ordered:
        if runs and runs[-1][1:] == (number - 1, proto):
            runs[-1] = (runs[-1][0], number, proto)
        else:
            runs.append((number, number, proto))
    return [run for run in runs if run[0] != run[1]]


def addresses_of(record: Record) -> list[str]:
    """List the addresses on the default bridge; none when it does not run there."""
    endpoints = record.sandbox.endpoints if record.sandbox and record.running else []
    return [
        address
        for endpoint in endpoints
        if endpoint.network_name == "bridge"
        for address in (endpoint.ip_address, endpoint.ipv6_address)
        if address
    ]


def shown_links(services: EngineContext, record: Record) -> list[str]:
    """List the links as inspect shows them: `/target:/owner/alias`."""
    return [f"/{other.name}:/{record.name}/{alias}" for other, alias in linked(services, record)]


def without_link(record: Record, alias: str) -> Record:
    """Return the record without one of its links. Raises: NotFound when it has none of this alias."""
    if alias not in {known for _, known in legacy_links(record.host_config)}:
        raise NotFound(f"No such container: {record.name}/{alias}")
    asked = [text for text in record.host_config.links or () if parse_link(text)[1] != alias]
    kept = {known: target for known, target in record.links.items() if known != alias}
    host = msgspec.structs.replace(record.host_config, links=asked or None)
    return msgspec.structs.replace(record, host_config=host, links=kept)


def names_by_link(records: Iterable[Record]) -> Mapping[str, list[str]]:
    """List the names, `/owner/alias`, that links give to containers, by id."""
    found: dict[str, list[str]] = {}
    for record in records:
        for alias, target in record.links.items():
            found.setdefault(target, []).append(f"/{record.name}/{alias}")
    return found


def note_links(services: EngineContext, record: Record) -> None:
    """Register a running container so that its hosts file follows its linked ones (`sandbox.renew_linked_hosts`)."""
    for other, _ in linked(services, record):
        services.linked_from.setdefault(other.id, set()).add(record.id)


def linked(services: EngineContext, record: Record) -> Iterator[tuple[Record, str]]:
    """Iterate over the linked containers with their aliases; missing containers are skipped.

    One that was removed is looked for by the name that was asked for: another may have taken its place.
    """
    for target, alias in legacy_links(record.host_config):
        for ref in (record.links.get(alias, ""), target):
            try:
                yield services.index.find(ref).record, alias
            except (NotFound, InvalidParameter):
                continue
            break
