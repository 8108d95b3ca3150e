"""EXPOSE: `80`, `80/udp`, `8000-8010`; of the form of `docker run -p` only the container's port counts. Pure."""

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.go.printing import quote

PROTOCOLS: Final = ("tcp", "udp", "sctp")
MAX_PORT: Final = 65535
NUMBER: Final = re.compile(r"\+?[0-9]{1,10}\Z", re.ASCII)


def read_ports(text: str, warn: Callable[[str, str], None]) -> list[str]:
    """Read one word of EXPOSE into `80/tcp`, … Raises: DockerfileError."""
    address, host, port = _split(text)
    port, _, protocol = port.partition("/")
    if not port:
        raise DockerfileError(f"invalid port: {quote(text)}: no port specified")
    if protocol and protocol.lower() not in PROTOCOLS:
        raise DockerfileError(f"invalid port: {quote(text)}: invalid proto: {protocol}")
    if protocol != protocol.lower():
        warn("ExposeProtoCasing", text)
    if address or host:
        warn("ExposeInvalidFormat", text)
    _check_address(address)
    span = _read_span(port, "containerPort")
    if host:
        host_span = _read_span(host, "hostPort")
        if len(span) > 1 and len(span) != len(host_span):
            raise DockerfileError(f"invalid ranges specified for container and host Ports: {port} and {host}")
    return [f"{number}/{protocol.lower() or 'tcp'}" for number in span]


def _split(text: str) -> tuple[str, str, str]:
    *before, port = text.split(":")
    return (":".join(before[:-1]), before[-1], port) if before else ("", "", port)


def _check_address(text: str) -> None:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if text:
            ipaddress.ip_address(inner)
    except ValueError:
        raise DockerfileError(f"invalid IP address: {inner}") from None


def _read_span(text: str, what: str) -> range:
    first, dash, last = text.partition("-")
    if not NUMBER.match(first) or (dash and not NUMBER.match(last)):
        raise DockerfileError(f"invalid {what}: {text}")
    span = range(int(first), int(last if dash else first) + 1)
    if not span or span[-1] > MAX_PORT:
        raise DockerfileError(f"invalid {what}: {text}")
    return span
