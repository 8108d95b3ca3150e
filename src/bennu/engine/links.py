"""Legacy links (`--link` on the default bridge): other containers' names in the hosts file, facts in the environment.

A link is to a container, not to its address: when the other one starts anew, the hosts files that name it are written
again. On user-defined networks a link is a name in the embedded DNS and none of this applies.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bennu.engine.context import EngineContext
from bennu.engine.record import Record
from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.model import HostConfig
from bennu.network import parse_link
from bennu.network.nat.port_bindings import parse_exposed

IMAGE_VARIABLES: Final = frozenset({"HOME", "PATH"})  # of the linked container: about it alone


def legacy_links(host: HostConfig) -> list[tuple[str, str]]:
    """List (container, alias) of each link on the default bridge."""
    if host.network_mode not in ("", "default", "bridge"):
        return []
    return [parse_link(text) for text in host.links or ()]


def bind_links(services: EngineContext, host: HostConfig) -> dict[str, str]:
    """Map the targets of the links to the ids of their containers. Raises: InvalidParameter if one does not exist."""
    bound = {}
    for target, _ in legacy_links(host):
        try:
            bound[target] = services.index.find(target).id
        except NotFound as error:
            raise InvalidParameter(f"could not get container for {target}: {error}") from None
    return bound


def shown_links(services: EngineContext, record: Record) -> list[str]:
    """List the links of a container as dockerd shows them, by the present names: `/target:/owner/alias`."""
    return [f"/{other.name}:/{record.name}/{alias}" for other, alias in _linked(services, record)]


def check_links_run(services: EngineContext, record: Record) -> None:
    """Check that the containers it is linked to run on the default bridge. Raises: BennuError."""
    for other, alias in _linked(services, record):
        if not address_of(other):
            raise BennuError(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")


def link_names(services: EngineContext, record: Record) -> dict[str, list[str]]:
    """Map the address of each running linked container to its names for this container."""
    found: dict[str, list[str]] = {}
    for other, alias in _linked(services, record):
        if address := address_of(other):
            names = found.setdefault(address, [])
            names += [name for name in (alias, other.config.hostname, other.name) if name not in names]
    return found


def link_variables(services: EngineContext, record: Record) -> list[str]:
    """List the environment variables, as `NAME=value`, of all a container's links."""
    return [
        variable
        for other, alias in _linked(services, record)
        for variable in variables_of(
            alias, record.name, address_of(other), other.config.exposed_ports or (), other.config.env or ()
        )
    ]


def variables_of(alias: str, owner: str, address: str, exposed: Iterable[str], environment: Sequence[str]) -> list[str]:
    """List the variables of one link: the other's ports, its name, and its environment. Pure."""
    prefix = alias.upper().replace("-", "_")
    ports = sorted({port for spec in exposed for port in parse_exposed(spec)})  # of one number: tcp before udp
    found = [f"{prefix}_PORT={proto}://{address}:{number}" for number, proto in ports[:1]]
    for number, proto in ports:
        one = f"{prefix}_PORT_{number}_{proto.upper()}"
        found += [f"{one}={proto}://{address}:{number}", f"{one}_ADDR={address}"]
        found += [f"{one}_PORT={number}", f"{one}_PROTO={proto}"]
    found.append(f"{prefix}_NAME=/{owner}/{alias}")
    pairs = [entry.partition("=") for entry in environment if "=" in entry]
    return found + [f"{prefix}_ENV_{name}={value}" for name, _, value in pairs if name not in IMAGE_VARIABLES]


def address_of(record: Record) -> str:
    """Return the address on the default bridge; "" when it does not run there."""
    endpoints = record.sandbox.endpoints if record.sandbox and record.running else []
    return next((endpoint.ip_address for endpoint in endpoints if endpoint.network_name == "bridge"), "")


def note_links(services: EngineContext, record: Record) -> None:
    """Register a running container so that its hosts file follows its linked ones (`sandbox.renew_linked_hosts`)."""
    for other, _ in _linked(services, record):
        services.linked_from.setdefault(other.id, set()).add(record.id)


def _linked(services: EngineContext, record: Record) -> Iterator[tuple[Record, str]]:
    """Iterate over the linked containers with their aliases; missing containers are skipped."""
    for target, alias in legacy_links(record.host_config):
        try:
            yield services.index.find(record.links.get(target, target)).record, alias
        except (NotFound, InvalidParameter):
            continue
