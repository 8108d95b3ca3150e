"""Reads the host's own /etc/resolv.conf; apart from `files.py` because that is pure."""

import contextlib
import ipaddress
from pathlib import Path
from typing import Final

from bennu.network.ipam.addresses import Subnet

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVED_CONF: Final = Path("/run/systemd/resolve/resolv.conf")


def resolver_addresses(text: str) -> list[Subnet]:
    """List the addresses of all `nameserver` lines, as networks of one address."""
    found: list[Subnet] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_network(words[1].partition("%")[0]))
    return found


def read_resolv_conf() -> str:
    """Read the host's file; if it names only systemd-resolved's stub, the file with the servers behind the stub.

    "" if there is none. The stub is 127.0.0.53 (systemd-resolved.service(8)), which no container can reach.
    """
    try:
        text = RESOLV_CONF.read_text(errors="replace")
    except OSError:
        return ""
    if resolver_addresses(text) == [ipaddress.ip_network("127.0.0.53")]:
        with contextlib.suppress(OSError):
            return RESOLVED_CONF.read_text(errors="replace")
    return text
