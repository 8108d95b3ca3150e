"""The names that the embedded DNS knows: of containers and services, on each network. Pure."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from bennu.network.frontends import Frontend
from bennu.network.model import Endpoint, Sandbox

REVERSE_ZONES: Final = (".in-addr.arpa", ".ip6.arpa")


class ServiceNames:
    """The names of services, changed one service at a time. If several services share a name, all of them answer."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], dict[str, tuple[str, ...]]] = defaultdict(dict)
        self._known: dict[str, Iterable[tuple[str, str]]] = {}  # by service: its keys

    def put(self, frontend: Frontend) -> None:
        """Replace the names of one service."""
        self.drop(frontend.service_id)
        found = dns_answers(frontend)
        for key, addresses in found.items():
            self._answers[key][frontend.service_id] = addresses
        self._known[frontend.service_id] = found.keys()

    def drop(self, service_id: str) -> None:
        """Remove the names of one service. Idempotent."""
        for key in self._known.pop(service_id, ()):
            del self._answers[key][service_id]
            if not self._answers[key]:
                del self._answers[key]

    def find(self, network_id: str, name: str) -> list[str] | None:
        """Look up a lower-case name; [] while no task of it serves, None if no service has the name."""
        found = self._answers.get((network_id, name))
        return None if found is None else [address for addresses in found.values() for address in addresses]


class NameIndex:
    """An index of all endpoints on networks that have names. Immutable; a new one is built when an endpoint changes."""

    def __init__(self, sandboxes: Iterable[Sandbox], services: ServiceNames | None = None) -> None:
        self._services = services or ServiceNames()
        self._by_name: dict[tuple[str, str], list[Endpoint]] = defaultdict(list)
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        for sandbox in sandboxes:
            for endpoint in sandbox.endpoints:
                for name in {name.lower() for name in endpoint.dns_names}:
                    self._by_name[endpoint.network_id, name].append(endpoint)
                for address in filter(None, (endpoint.ip_address, endpoint.ipv6_address)):
                    self._by_address[endpoint.network_id, address] = endpoint

    def find(self, asker: Sandbox, name: str) -> list[str] | None:
        """Look up `name` as one sandbox sees it: on the first of its networks where it has addresses.

        `name` has no final dot; case does not matter. `NAME.NETWORK` is looked up on that network alone. An alias of
        a link is known only to the sandbox that has the link. Returns [] for a service without tasks that serve, None
        for an unknown name.
        """
        name = name.lower()
        is_known = False
        for endpoint in asker.endpoints:
            links = {alias.lower(): target.lower() for alias, target in endpoint.links.items()}
            bare = name.removesuffix(f".{endpoint.network_name.lower()}")
            for wanted in dict.fromkeys((links.get(name, name), bare)):
                found = self._find_on(endpoint.network_id, wanted)
                if found:
                    return found
                is_known = is_known or found is not None
        return [] if is_known else None

    def _find_on(self, network_id: str, name: str) -> list[str] | None:
        containers = self._by_name.get((network_id, name))
        if containers is None:
            return self._services.find(network_id, name)
        return [address for one in containers for address in (one.ip_address, one.ipv6_address) if address]

    def find_pointer(self, asker: Sandbox, reverse_name: str) -> str | None:
        """Look up a PTR name: `NAME.NETWORK` of the endpoint with that address on one of the sandbox's networks."""
        address = address_of(reverse_name)
        for endpoint in asker.endpoints:
            found = self._by_address.get((endpoint.network_id, address))
            if found is not None and found.dns_names:
                return f"{found.dns_names[0]}.{found.network_name}"
        return None


def address_of(reverse_name: str) -> str:
    """Parse `2.0.17.172.in-addr.arpa` to `172.17.0.2`, ip6.arpa likewise (RFC 1035, RFC 3596); "" if it is neither."""
    name = reverse_name.lower()
    for zone in REVERSE_ZONES:
        if name.endswith(zone):
            labels = name.removesuffix(zone).split(".")[::-1]
            digits = "".join(labels)
            text = ".".join(labels) if zone == REVERSE_ZONES[0] else ":".join(_groups(digits))
            try:
                return str(ipaddress.ip_address(text))
            except ValueError:
                return ""
    return ""


def _groups(digits: str) -> list[str]:
    return [digits[start : start + 4] for start in range(0, len(digits), 4)]


def dns_answers(frontend: Frontend) -> dict[tuple[str, str], tuple[str, ...]]:
    """List the answers for the names of a service, by (network id, lower-case name); () while no task serves there.

    `NAME` is the virtual address, or all tasks if it has none (dnsrr); `tasks.NAME` is always all tasks. These are
    swarm's rules (moby, libnetwork/service_common.go); test_services_answer_while_somebody_serves.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for frontend_address in frontend.addresses:
        tasks = tuple(
            address
            for backend in frontend.backends
            for one in backend.addresses
            if one.network_id == frontend_address.network_id
            for address in (one.ip, one.ip6)
            if address
        )
        for name in frontend_address.names:
            found[frontend_address.network_id, name.lower()] = (
                (frontend_address.vip,) if frontend_address.vip and tasks else tasks
            )
            found[frontend_address.network_id, f"tasks.{name.lower()}"] = tasks
    return found
