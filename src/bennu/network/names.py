"""Who is called what on which network, pure: the part of the embedded DNS that knows containers."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from bennu.network.model import Endpoint, Sandbox

REVERSE_ZONES: Final = (".in-addr.arpa", ".ip6.arpa")


class NameIndex:
    """The names and addresses of all endpoints on networks that have names. Made anew when an endpoint changes."""

    def __init__(self, sandboxes: Iterable[Sandbox]) -> None:
        self._by_name: dict[tuple[str, str], list[Endpoint]] = defaultdict(list)
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        for sandbox in sandboxes:
            for endpoint in sandbox.endpoints:
                for name in {name.lower() for name in endpoint.dns_names}:
                    self._by_name[endpoint.network_id, name].append(endpoint)
                for address in filter(None, (endpoint.ip_address, endpoint.ipv6_address)):
                    self._by_address[endpoint.network_id, address] = endpoint

    def find(self, asker: Sandbox, name: str) -> list[Endpoint]:
        """Who answers to `name` as seen from a sandbox: on the first of its networks where anybody does.

        `name` has no final dot; case does not matter. `NAME.NETWORK` asks on that network alone. A link's alias
        is known to the one who has the link.
        """
        name = name.lower()
        for endpoint in asker.endpoints:
            links = {alias.lower(): target.lower() for alias, target in endpoint.links.items()}
            bare = name.removesuffix(f".{endpoint.network_name.lower()}")
            for wanted in dict.fromkeys((links.get(name, name), bare)):
                found = self._by_name.get((endpoint.network_id, wanted))
                if found:
                    return found
        return []

    def find_pointer(self, asker: Sandbox, reverse_name: str) -> str | None:
        """The name behind an address on one of the sandbox's networks, as `NAME.NETWORK`."""
        address = address_of(reverse_name)
        for endpoint in asker.endpoints:
            found = self._by_address.get((endpoint.network_id, address))
            if found is not None and found.dns_names:
                return f"{found.dns_names[0]}.{found.network_name}"
        return None


def address_of(reverse_name: str) -> str:
    """`2.0.17.172.in-addr.arpa` → `172.17.0.2`; "" for what is no address."""
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
