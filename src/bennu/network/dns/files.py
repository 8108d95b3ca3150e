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
PUBLIC_DNS6: Final = ("2001:4860:4860::8888", "2001:4860:4860::8844")
HOST_GATEWAY: Final = "host-gateway"
HOSTS_HEAD: Final = ("127.0.0.1\tlocalhost",)
HOSTS_HEAD6: Final = (
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
RESOLV_CONF_HEAD: Final = (
    "# Made by Bennu from the host's file and the container's options. Bennu does not touch it",
    "# any more once it was changed by hand, until the container starts anew.",
)


def render_hosts(
    hostname: str,
    domainname: str = "",
    *,
    addresses: Iterable[str] = (),
    extra_hosts: Iterable[str] = (),
    links: Mapping[str, Sequence[str]] | None = None,
    host_gateways: Sequence[str] = (),
    ipv6: bool = True,
) -> str:
    """Render a container's hosts file.

    Args:
        addresses: the container's own, one line each with its host name, and with the first label of a dotted one.
        extra_hosts: `name:address` as in `HostConfig.ExtraHosts`; the address may be `host-gateway`.
        links: address → names, of legacy links.
        host_gateways: what `host-gateway` stands for, a line each; none refuses it.
        ipv6: False where IPv6 is switched off in the container: no line has an address of it.
    Raises: InvalidParameter.
    """
    lines = [*HOSTS_HEAD, *HOSTS_HEAD6]
    for entry in extra_hosts:
        lines += _extra_lines(entry, host_gateways)
    lines += [f"{address}\t{' '.join(names)}" for address, names in (links or {}).items()]
    full = f"{hostname}.{domainname}" if domainname else hostname
    names = f"{full} {full.partition('.')[0]}" if "." in full else full
    lines += [f"{address}\t{names}" for address in addresses if names]
    return "".join(f"{line}\n" for line in lines if ipv6 or ":" not in line.partition("\t")[0])


def amend_hosts(text: str, before: str, after: str) -> str:
    """Bring a hosts file, which the container may have changed, from one rendering to the next: line by line.

    Lines of `before` that `after` has not are removed where they still are; new ones come last.
    """
    old, new = before.splitlines(), after.splitlines()
    kept = [line for line in text.splitlines() if line in new or line not in old]
    return "".join(f"{line}\n" for line in [*kept, *(line for line in new if line not in old)])


def readdress_hosts(text: str, links: Mapping[str, Sequence[str]]) -> str:
    """Write the lines of legacy links in a hosts file anew; a link without a line gets one. Its alias comes first."""
    lines = text.splitlines()
    for address, names in links.items():
        wanted = f"{address}\t{' '.join(names)}"
        at = [
            number
            for number, line in enumerate(lines)
            if _first_name(line) == names[0] and (":" in line.partition("\t")[0]) == (":" in address)
        ]
        if at:
            lines[at[0]] = wanted
        else:
            lines.append(wanted)
    return "".join(f"{line}\n" for line in lines)


def forget_host(text: str, name: str) -> str:
    """Drop the lines of a hosts file whose first name this is."""
    return "".join(f"{line}\n" for line in text.splitlines() if _first_name(line) != name)


def _first_name(line: str) -> str:
    return line.partition("\t")[2].partition(" ")[0]


def parse_link(text: str) -> tuple[str, str]:
    """Parse `CONTAINER[:ALIAS]` of a legacy link into container and alias. Raises: InvalidParameter."""
    target, _, alias = text.partition(":")
    target = target.removeprefix("/")
    alias = alias.rpartition("/")[2] or target  # inspect's own form is `/db:/web/database`
    if not target or ":" in alias or not text.isprintable():
        raise InvalidParameter(f"bad format for links: {text}")
    return target, alias


def _extra_lines(entry: str, host_gateways: Sequence[str]) -> list[str]:
    name, separator, address = entry.partition(":")
    if not separator:
        name, separator, address = entry.partition("=")
    if not name or not address:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address != HOST_GATEWAY:
        return [f"{address.strip('[]')}\t{name}"]
    if not host_gateways:
        raise InvalidParameter("unable to derive the IP value for host-gateway")
    return [f"{gateway}\t{name}" for gateway in host_gateways]


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The content of a resolv.conf; `search` None: there is no such line."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    other: tuple[str, ...] = ()  # whole lines with directives that nobody here knows, such as `sortlist`


def parse_resolv_conf(text: str) -> ResolvConf:
    """Parse resolv.conf(5) text. Malformed lines are skipped; the last `search` or `domain` wins."""
    servers: list[str] = []
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    other: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                servers += [address] if _is_address(address) else []
            case ["search" | "domain", first, *more]:
                search = (first, *more)
            case ["options", first, *more]:
                options += (first, *more)
            case [] | ["nameserver" | "search" | "domain" | "options"]:
                continue
            case _:
                other.append(line)
    return ResolvConf(tuple(servers), search, options, tuple(other))


def reachable_servers(servers: Iterable[str], *, ipv6: bool = True) -> list[str]:
    """Return the servers that a container can reach: not on loopback, and of IPv6 only where it has that.

    If there are none, public ones.
    """
    addresses = [(server, ipaddress.ip_address(server.partition("%")[0])) for server in servers]
    able = [server for server, one in addresses if not one.is_loopback and (ipv6 or one.version == 4)]
    return able or [*PUBLIC_DNS, *(PUBLIC_DNS6 if ipv6 else ())]


@dataclass(frozen=True, slots=True)
class ResolvConfRequest:
    """What a container's resolv.conf is to say, apart from the host's; empty: what the host's says."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()  # `["."]` means none at all
    options: Sequence[str] = ()
    embedded: bool = False  # the server is 127.0.0.11, which forwards what it does not know (`upstream_servers`)
    ipv6: bool = False  # the container has IPv6
    is_host: bool = False  # it is in the host's own network, where the host's servers can be asked as they are


def render_resolv_conf(host_text: str, asked: ResolvConfRequest) -> str:
    """Render a container's resolv.conf from the text of the host's and what is asked for."""
    host = parse_resolv_conf(host_text)
    servers = list(asked.servers or host.servers)
    forwarded = servers or list(PUBLIC_DNS)
    if asked.embedded:
        servers = [EMBEDDED_DNS]
    elif not asked.servers and not asked.is_host:
        servers = reachable_servers(host.servers, ipv6=asked.ipv6)
    search = [domain for domain in asked.search or host.search or () if domain != "."]
    options = list(asked.options or host.options)
    if asked.embedded:
        options = _with_ndots(options)
    lines = [*RESOLV_CONF_HEAD, *(f"nameserver {server}" for server in servers)]
    if search:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    lines += host.other
    if asked.embedded:
        whence = "from the container's own network" if asked.servers else "from the host's network"
        lines.append(f"# What {EMBEDDED_DNS} does not know it asks of {', '.join(forwarded)} ({whence}).")
    return "\n".join(lines) + "\n"


def _with_ndots(options: Iterable[str]) -> list[str]:
    """Let a container's bare name be asked as it is, unless somebody said otherwise in a number."""
    kept = [option for option in options if not option.startswith("ndots") or option[6:].isdecimal()]
    return kept if any(option.startswith("ndots:") for option in kept) else [*kept, "ndots:0"]


def upstream_servers(host_text: str) -> list[str]:
    """List the servers that the embedded DNS forwards to from the host's namespace, so loopback is fine."""
    return list(parse_resolv_conf(host_text).servers) or list(PUBLIC_DNS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
