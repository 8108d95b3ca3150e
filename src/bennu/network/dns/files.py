"""Renders /etc/hosts and /etc/resolv.conf of a container: pure, text in, text out.

Rules: moby, libnetwork/etchosts/etchosts.go and libnetwork/internal/resolvconf/resolvconf.go.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.errors import InvalidParameter

EMBEDDED_DNS: Final = "127.0.0.11"
PUBLIC_DNS: Final = ("8.8.8.8", "8.8.4.4")  # dockerd's fallback when the host has no server that a container can reach
HOST_GATEWAY: Final = "host-gateway"
HOSTS_HEAD: Final = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def render_hosts(
    hostname: str,
    domainname: str = "",
    *,
    addresses: Iterable[str] = (),
    extra_hosts: Iterable[str] = (),
    links: Mapping[str, Sequence[str]] | None = None,
    host_gateway: str = "",
) -> str:
    """Render a container's hosts file.

    Args:
        addresses: the container's own, one line each with its host name.
        extra_hosts: `name:address` as in `HostConfig.ExtraHosts`; the address may be `host-gateway`.
        links: address → names, of legacy links.
        host_gateway: what `host-gateway` stands for; "" refuses it.
    Raises: InvalidParameter.
    """
    lines = [*HOSTS_HEAD]
    lines += [_extra_line(entry, host_gateway) for entry in extra_hosts]
    lines += [f"{address}\t{' '.join(names)}" for address, names in (links or {}).items()]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}" for address in addresses if names]
    return "\n".join(lines) + "\n"


def parse_link(text: str) -> tuple[str, str]:
    """Parse `CONTAINER[:ALIAS]` of a legacy link into container and alias. Raises: InvalidParameter."""
    target, _, alias = text.partition(":")
    target = target.removeprefix("/")
    alias = alias.rpartition("/")[2] or target  # inspect's own form is `/db:/web/database`
    if not target or ":" in alias or not text.isprintable():
        raise InvalidParameter(f"bad format for links: {text}")
    return target, alias


def _extra_line(entry: str, host_gateway: str) -> str:
    name, separator, address = entry.partition(":")
    if not separator:
        name, separator, address = entry.partition("=")
    if not name or not address:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == HOST_GATEWAY:
        if not host_gateway:
            raise InvalidParameter("unable to derive the IP value for host-gateway")
        address = host_gateway
    return f"{address.strip('[]')}\t{name}"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The content of a resolv.conf; `search` None: there is no such line."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Parse resolv.conf(5) text. Unknown and malformed lines are skipped; the last `search` or `domain` wins."""
    servers: list[str] = []
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += tuple(words[1:])
    return ResolvConf(tuple(servers), search, options)


def reachable_servers(servers: Iterable[str]) -> list[str]:
    """Return the servers that a container can reach, which are not on loopback; if there are none, public ones."""
    able = [server for server in servers if not ipaddress.ip_address(server.partition("%")[0]).is_loopback]
    return able or list(PUBLIC_DNS)


def render_resolv_conf(
    host_text: str,
    *,
    dns: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_options: Sequence[str] = (),
    embedded: bool = False,
) -> str:
    """Render a container's resolv.conf: the host's, overridden by what the client asked.

    Args:
        dns_search: `["."]` means none at all.
        embedded: the server is 127.0.0.11, which forwards what it does not know (`upstream_servers`).
    """
    host = parse_resolv_conf(host_text)
    servers = [EMBEDDED_DNS] if embedded else list(dns) or reachable_servers(host.servers)
    search = list(dns_search or host.search or ())
    options = list(dns_options or host.options)
    if embedded and not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")  # a container's bare name must be asked as it is
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def upstream_servers(host_text: str, dns: Sequence[str] = ()) -> list[str]:
    """List the servers that the embedded DNS forwards to; it asks from the host's namespace, so loopback is fine."""
    return list(dns) or list(parse_resolv_conf(host_text).servers) or list(PUBLIC_DNS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
