"""Chooses the proxy for an address, by the variables of the environment that Go programs look at. Pure.

The rules are those of Go's `golang.org/x/net/http/httpproxy`.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Answer the URL of the proxy through which `url` is to be asked; None: directly. Raises: ValueError."""
    parts = urlsplit(url)
    proxy = _value(environment, f"{parts.scheme}_proxy")
    if not proxy or not _goes_by_proxy(parts.hostname or "", parts.port or PORTS[parts.scheme], environment):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _goes_by_proxy(host: str, port: int, environment: Mapping[str, str]) -> bool:
    if host == "localhost":
        return False
    address = _address(host)
    if address is not None and address.is_loopback:
        return False
    entries = [entry.strip().lower() for entry in _value(environment, "no_proxy").split(",")]
    return not any(_excludes(entry, host.lower(), address, port) for entry in entries if entry)


def _excludes(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
    """Tell whether an entry of NO_PROXY names a host: `*`, an address, a subnet, or a domain; some with a port."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, wanted = entry.rpartition(":") if entry.count(":") == 1 or "]:" in entry else (entry, "", "")
    if colon and wanted != str(port):
        return False
    name = name.strip("[]")
    if (own := _address(name)) is not None:
        return own == address
    domain = name.removeprefix("*").removeprefix(".")
    return host.endswith(f".{domain}") or (host == domain and not name.startswith((".", "*.")))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
