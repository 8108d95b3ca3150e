"""Published ports of services: numbers for ports that ask for any, and no two services on one port. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from bennu.cluster.errors import invalid, unknown
from bennu.cluster.tables import ServiceRow
from bennu.orchestration.model.spec import EndpointSpec, PortSpec
from bennu.orchestration.model.states import PublishMode

FIRST: Final = 30000
LAST: Final = 32767
Key = tuple[str, int]


def is_ingress(port: PortSpec) -> bool:
    return port.mode is PublishMode.INGRESS


def needs_ingress(endpoint: EndpointSpec | None) -> bool:
    """Tell whether the swarm's ingress network is needed: for a port that is published in ingress mode."""
    return endpoint is not None and any(map(is_ingress, endpoint.ports))


def allocate_ports(
    endpoint: EndpointSpec | None, others: Iterable[ServiceRow], before: tuple[PortSpec, ...] = ()
) -> tuple[PortSpec, ...]:
    """Give each port the number it uses; an automatic number stays what it was. Raises: InvalidParameter."""
    if endpoint is None:
        return ()
    taken: dict[Key, tuple[ServiceRow, PortSpec]] = {
        (port.protocol, port.published): (row, port) for row in others for port in row.ports if port.published
    }
    for port in endpoint.ports:
        _check_free(port, taken)
    used = set(taken) | {(port.protocol, port.published) for port in endpoint.ports}
    kept = {(port.protocol, port.target): port.published for port in before if port.mode is PublishMode.INGRESS}
    chosen: list[PortSpec] = []
    for port in endpoint.ports:
        if port.published or port.mode is PublishMode.HOST:
            chosen.append(port)
            continue
        number = kept.get((port.protocol, port.target), 0)
        if not number or (port.protocol, number) in used:
            number = _choose(port.protocol, used)
        used.add((port.protocol, number))
        chosen.append(replace(port, published=number))
    return tuple(chosen)


def are_numbers_of(ports: Sequence[PortSpec], asked: Sequence[PortSpec]) -> bool:
    """Tell whether `ports` are the ports asked for, with numbers where the choice was left open."""
    return len(ports) == len(asked) and all(
        port == (wanted if wanted.published else replace(wanted, published=port.published))
        for port, wanted in zip(ports, asked, strict=True)
    )


def _check_free(port: PortSpec, taken: dict[Key, tuple[ServiceRow, PortSpec]]) -> None:
    found = taken.get((port.protocol, port.published)) if port.published else None
    if found is None:
        return
    holder, theirs = found
    if port.mode is PublishMode.HOST and theirs.mode is PublishMode.HOST:
        return  # the scheduler keeps them apart, node by node
    what = "an ingress port" if theirs.mode is PublishMode.INGRESS else "a host-published port"
    raise invalid(f"port '{port.published}' is already in use by service '{holder.name}' ({holder.id}) as {what}")


def _choose(protocol: str, used: set[Key]) -> int:
    for number in range(FIRST, LAST + 1):
        if (protocol, number) not in used:
            return number
    raise unknown("no free port left between 30000 and 32767")
