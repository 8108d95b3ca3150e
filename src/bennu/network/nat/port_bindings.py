"""Parses port specifications of clients into requests for host ports: pure.

The grammar is that of github.com/docker/go-connections, nat/nat.go.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.model import PortBinding
from bennu.network.model import PortRequest

NUMBER: Final = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
PROTOCOLS: Final = ("tcp", "udp")


def parse_port_bindings(
    exposed: Iterable[str] | None,
    bindings: Mapping[str, Sequence[PortBinding] | None] | None,
    publish_all: bool = False,
) -> list[PortRequest]:
    """Parse `PortBindings`, `ExposedPorts` (names like "80/tcp") and `PublishAllPorts`; in order of the ports.

    A port without a binding gets any free host port. Raises: InvalidParameter, NotImplementedHere.
    """
    wanted: dict[tuple[str, int], list[PortRequest]] = {}
    for spec, entries in (bindings or {}).items():
        port, proto = parse_port(spec)
        requests = [_request(port, proto, entry) for entry in entries or [PortBinding()]]
        wanted.setdefault((proto, port), []).extend(requests)
    if publish_all:
        for spec in exposed or ():
            for port, proto in parse_exposed(spec):
                wanted.setdefault((proto, port), [PortRequest(container_port=port, proto=proto)])
    return [request for key in sorted(wanted) for request in wanted[key]]


def parse_port(spec: str) -> tuple[int, str]:
    """Parse `80` or `80/udp` into number and protocol. Raises: InvalidParameter, NotImplementedHere (SCTP)."""
    text, _, proto = spec.partition("/")
    number = _number(text)
    if number is None or number == 0:
        raise InvalidParameter(f'invalid port specification: "{text[:100]}"')
    return number, _protocol(proto)


def parse_exposed(spec: str) -> list[tuple[int, str]]:
    """Parse a port or a range such as `8000-8010/tcp` into (number, protocol) pairs. Raises: as `parse_port`."""
    text, _, proto = spec.partition("/")
    first, last = _range(text, text)
    if first == 0:
        raise InvalidParameter(f'invalid port specification: "{text[:100]}"')
    return [(number, _protocol(proto)) for number in range(first, last + 1)]


def _request(port: int, proto: str, entry: PortBinding) -> PortRequest:
    text, _, _ = entry.host_port.partition("/")
    first, last = _range(text, entry.host_port) if text else (0, 0)
    host_ip = entry.host_ip.strip("[]")
    if host_ip:
        try:
            host_ip = str(ipaddress.ip_address(host_ip))
        except ValueError:
            raise InvalidParameter(f"invalid IP address in port binding: {entry.host_ip[:100]}") from None
    return PortRequest(container_port=port, proto=proto, host_ip=host_ip, host_port_first=first, host_port_last=last)


def _range(text: str, shown: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    first, last = _number(low), _number(high if dash else low)
    if first is None or last is None or last < first:
        raise InvalidParameter(f'invalid port specification: "{shown[:100]}"')
    return first, last


def _number(text: str) -> int | None:
    if not NUMBER.match(text) or int(text) > 65535:
        return None
    return int(text)


def _protocol(text: str) -> str:
    proto = text.lower() or "tcp"
    if proto == "sctp":
        raise NotImplementedHere("publishing SCTP ports is not implemented")
    if proto not in PROTOCOLS:
        raise InvalidParameter(f"invalid proto: {text[:100]}")
    return proto


def exposed_names(exposed: Mapping[str, Any] | Iterable[str] | None) -> list[str]:
    """Expand the keys of `ExposedPorts` to single ports with their protocol, such as "80/tcp"."""
    return [f"{port}/{proto}" for spec in exposed or () for port, proto in parse_exposed(spec)]
