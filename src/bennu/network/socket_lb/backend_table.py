"""Which backends take the connections to which published port of this host: pure, a table that changes in steps."""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from bennu.network.frontends import Frontend, backends_of
from bennu.network.model import PortForward

SocketAddress = tuple[str, int]  # IPv4 address and port
ANY: Final = "0.0.0.0"
MAX_BACKENDS: Final = 128  # of one socket address; it bounds the size of a map's value


class BackendTable:
    """The published TCP ports of IPv4 and the backends of each. As in the rules, services win over containers.

    `test_a_services_port_comes_before_a_containers_while_it_is_there` pins that order.
    """

    def __init__(self) -> None:
        self._containers: dict[int, dict[str, SocketAddress]] = {}  # by port of the host, by its address
        self._services: dict[int, tuple[SocketAddress, ...]] = {}  # also those that nobody serves

    def apply(
        self,
        gone: Collection[PortForward],
        came: Collection[PortForward],
        frontends: Iterable[tuple[Frontend | None, Frontend | None]],
    ) -> dict[SocketAddress, tuple[SocketAddress, ...]]:
        """Take a change in and return the backends of each socket address that it touches; 0.0.0.0 is every address.

        No backends, (), leave a socket address to the rules: nobody serves it, so they refuse it; or it has more
        than `MAX_BACKENDS`.

        Args:
            gone, came: forwards of containers.
            frontends: services as they were and as they are now; None is a service that shows nothing.
        """
        changes = list(frontends)
        before, after = [one for one, _ in changes if one], [one for _, one in changes if one]
        touched = {(one.host_ip, one.host_port) for one in (*gone, *came) if _is_eligible(one)}
        touched |= {(ANY, number) for frontend in (*before, *after) for number in _tcp_ports(frontend)}
        self._forget(gone, before)
        self._note(came, after)
        touched |= {(host_ip, number) for _, number in touched for host_ip in self._containers.get(number, ())}
        return {address: self._resolve(*address) for address in touched}

    def _forget(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        for one in filter(_is_eligible, forwards):
            here = self._containers.get(one.host_port, {})
            here.pop(one.host_ip, None)
            if not here:
                self._containers.pop(one.host_port, None)
        for number in (number for frontend in frontends for number in _tcp_ports(frontend)):
            self._services.pop(number, None)

    def _note(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        for one in filter(_is_eligible, forwards):
            self._containers.setdefault(one.host_port, {})[one.host_ip] = (one.target_ip, one.target_port)
        for frontend in frontends:
            self._services |= {number: tuple(backends_of(frontend, "tcp", number)) for number in _tcp_ports(frontend)}

    def _resolve(self, host_ip: str, number: int) -> tuple[SocketAddress, ...]:
        served = self._services.get(number)
        if served is not None:
            return served if host_ip == ANY and len(served) <= MAX_BACKENDS else ()
        target = self._containers.get(number, {}).get(host_ip)
        return (target,) if target else ()


def _is_eligible(forward: PortForward) -> bool:
    return forward.proto == "tcp" and ":" not in forward.host_ip


def _tcp_ports(frontend: Frontend) -> Iterator[int]:
    return (number for proto, number in frontend.ports if proto == "tcp")
