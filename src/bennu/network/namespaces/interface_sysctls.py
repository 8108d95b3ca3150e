"""The kernel's sysctls of the interfaces we make, by their path below /proc/sys/net.

Containers may send anything, router advertisements and redirects too, and the kernel's defaults let these configure
the host. So an interface has its sysctls before it is up: there is no moment at which it would listen.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from bennu.host import sysctl

# What an interface must not learn from who is connected to it: routers, addresses, shorter ways.
NO_AUTOCONFIGURATION: Final = {"accept_ra": "0", "accept_redirects": "0", "autoconf": "0"}


def bridge_sysctls(name: str, *, ipv6: bool, route_localnet: bool) -> dict[str, str]:
    """Of the bridge of a network. `route_localnet`: published ports are reached at 127.0.0.1."""
    return {
        **{f"ipv6/conf/{name}/{key}": value for key, value in NO_AUTOCONFIGURATION.items()},
        f"ipv6/conf/{name}/disable_ipv6": "0" if ipv6 else "1",
        f"ipv4/conf/{name}/accept_redirects": "0",
        f"ipv4/conf/{name}/route_localnet": "1" if route_localnet else "0",
    }


def host_veth_sysctls(name: str) -> dict[str, str]:
    """Of the host's end of a pair: all that comes in there is the bridge's, so it needs no address of its own."""
    return {f"ipv6/conf/{name}/disable_ipv6": "1", f"ipv6/conf/{name}/accept_ra": "0"}


def container_sysctls(name: str) -> dict[str, str]:
    """Of a container's interface with IPv6, seen from within: its addresses and routes are those we lent it."""
    return {
        **{f"ipv6/conf/{name}/{key}": value for key, value in NO_AUTOCONFIGURATION.items()},
        f"ipv6/conf/{name}/disable_ipv6": "0",
    }


def apply(sysctls: Mapping[str, str]) -> None:
    """Set them, in this order, in the calling thread's namespace; those that the kernel lacks are left out."""
    for name, value in sysctls.items():
        sysctl.write(name, value)


def find_deviations(sysctls: Mapping[str, str]) -> list[str]:
    """Those that are there and stand otherwise, as `name=value`. For many interfaces every few seconds: cheap."""
    return [f"{name}={value}" for name, value in _read(sysctls) if value != sysctls[name]]


def _read(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        value = sysctl.read(name)
        if value is not None:
            yield name, value


def drop_advertised(name: str) -> None:
    """Make a bridge of an earlier daemon, which still listened, drop the routes and addresses that it was told."""
    if sysctl.read(f"ipv6/conf/{name}/accept_ra") not in (None, "0"):
        sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "1")
