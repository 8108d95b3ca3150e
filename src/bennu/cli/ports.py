"""`-p` and `--expose` turned into ExposedPorts and PortBindings."""

from collections.abc import Iterable
from ipaddress import ip_address

from bennu.cli.failure import Failure

Binding = dict[str, str]


def parse_publish(entries: Iterable[str]) -> dict[str, list[Binding]]:
    """Every `[[ip:][host]:]container[/proto]` as bindings by `port/proto`, ranges spelled out."""
    found: dict[str, list[Binding]] = {}
    for entry in entries:
        if "=" in entry and "target" in entry:
            port, binding = parse_long(entry)
            found.setdefault(port, []).append(binding)
            continue
        for port, binding in parse_short(entry):
            found.setdefault(port, []).append(binding)
    return found


def parse_short(entry: str) -> list[tuple[str, Binding]]:
    address, host, container = split_parts(entry)
    container, slash, protocol = container.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if not container:
        raise Failure(f"no port specified: {entry}<empty>")
    if protocol not in ("tcp", "udp", "sctp"):
        raise Failure(f"invalid proto: {protocol}")
    first, last = parse_range(container, "containerPort")
    if not host:
        return [(f"{port}/{protocol}", binding(address, "")) for port in range(first, last + 1)]
    host_first, host_last = parse_range(host, "hostPort")
    if last - first != host_last - host_first:
        if first != last:
            raise Failure(f"invalid ranges specified for container and host Ports: {container} and {host}")
        return [(f"{first}/{protocol}", binding(address, f"{host_first}-{host_last}"))]
    return [(f"{first + n}/{protocol}", binding(address, str(host_first + n))) for n in range(last - first + 1)]


def binding(address: str, port: str) -> Binding:
    return {"HostIp": address, "HostPort": port}


def split_parts(entry: str) -> tuple[str, str, str]:
    """(address, host port, container port); the address is checked and comes without brackets."""
    parts = entry.rsplit(":", 2)
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    address = parts[0]
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare:
        try:
            ip_address(bare)
        except ValueError:
            raise Failure(f"invalid IP address: {address}") from None
    return bare, parts[1], parts[2]


def parse_range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last) if dash else int(first)
    except ValueError:
        raise Failure(f"invalid {what}: {text}") from None
    if not (0 <= low <= 65535 and 0 <= high <= 65535):
        raise Failure(f"invalid {what}: {text}")
    if high < low:
        raise Failure(f"invalid {what}: {text}")
    return low, high


def parse_long(entry: str) -> tuple[str, Binding]:
    """`target=80,published=8080,protocol=tcp`."""
    fields = dict(part.partition("=")[::2] for part in entry.split(","))
    protocol = fields.get("protocol", "tcp")
    if protocol not in ("tcp", "udp", "sctp"):
        raise Failure(f"invalid protocol value '{protocol}'")
    parse_range(fields.get("target", ""), "target port")
    return f"{fields['target']}/{protocol}", binding("", fields.get("published", ""))


def parse_expose(entries: Iterable[str]) -> list[str]:
    """`8000-8010/tcp` spelled out."""
    ports = []
    for entry in entries:
        if ":" in entry:
            raise Failure(f"invalid port format for --expose: {entry}")
        text, slash, protocol = entry.partition("/")
        try:
            first, last = parse_range(text, "port")
        except Failure as failure:
            raise Failure(f"invalid range format for --expose: {entry}, error: {failure}") from None
        ports += [f"{port}/{protocol.lower() if slash else 'tcp'}" for port in range(first, last + 1)]
    return ports
