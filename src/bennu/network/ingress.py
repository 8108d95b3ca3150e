"""Published ports of services: one port, many tasks, balanced by the kernel for each new connection.

A connection keeps the task it was given, whatever changes after: the kernel translates only its first packet by these
rules. All changes of one call are one transaction of the kernel, so there is no instant with half of them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from bennu.store import Put, Store, Transaction

KEY: Final = "network-ingress"


class Backend(msgspec.Struct, frozen=True, order=True):
    """A task that takes connections: `owner` is its id."""

    owner: str
    ip: str
    port: int


class IngressPort(msgspec.Struct, frozen=True, order=True):
    """A port of this host; without backends connections are refused."""

    proto: str
    published: int
    backends: tuple[Backend, ...] = ()


class Ingress:
    """What is published now, durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ports: tuple[IngressPort, ...] = ()

    @property
    def targets(self) -> set[tuple[str, int]]:
        """The TCP addresses and ports connections go to."""
        return {(one.ip, one.port) for port in self.ports if port.proto == "tcp" for one in port.backends}

    async def load(self) -> None:
        entry = await self._store.read(KEY)
        if entry is not None:
            self.ports = msgspec.json.decode(entry.value, type=tuple[IngressPort, ...])

    async def save(self, ports: Sequence[IngressPort]) -> None:
        """Raises: Unavailable; then nothing has changed."""
        wanted = tuple(sorted(ports))
        if wanted == self.ports:
            return
        await self._store.commit(Transaction([Put(KEY, msgspec.json.encode(wanted))]))
        self.ports = wanted


def render_ingress(ports: Sequence[IngressPort]) -> list[str]:
    """The rules of chain `services`: each new connection goes to the next of the port's tasks."""
    return [_rule(port) for port in ports if port.backends]


def render_ingress_change(table: str, before: Sequence[IngressPort], after: Sequence[IngressPort]) -> str:
    """From one set of ports to another, in one transaction; "" when nothing changes."""
    old, new = render_ingress(before), render_ingress(after)
    if old == new:
        return ""
    lines = [f"flush chain inet {table} services", *(f"add rule inet {table} services {rule}" for rule in new)]
    return "".join(f"{line}\n" for line in lines)


def _rule(port: IngressPort) -> str:
    match = f"meta nfproto ipv4 meta l4proto {port.proto} th dport {port.published}"
    if len(port.backends) == 1:
        (only,) = port.backends
        return f"{match} dnat ip to {only.ip}:{only.port}"
    targets = ", ".join(f"{number} : {one.ip} . {one.port}" for number, one in enumerate(port.backends))
    return f"{match} dnat ip to numgen inc mod {len(port.backends)} map {{ {targets} }}"
