"""The sysctls of the interfaces we make, by path below /proc/sys/net.

Containers may send anything, router advertisements and ICMP redirects too, and the kernel's defaults let these
configure the host. So an interface has its sysctls before it is up and can listen
(`test_a_router_advertisement_from_a_container_gives_the_host_no_route_and_no_address`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bennu.host import sysctl

# An interface must learn no routers, addresses or redirects from the containers on it.
NO_AUTOCONFIGURATION: Final = {"accept_ra": "0", "accept_redirects": "0", "autoconf": "0"}


def bridge_sysctls(name: str, *, ipv6: bool, route_localnet: bool) -> dict[str, str]:
    """Return the sysctls of a network's bridge. `route_localnet`: published ports are reached at 127.0.0.1."""
    return {
        **{f"ipv6/conf/{name}/{key}": value for key, value in NO_AUTOCONFIGURATION.items()},
        # While the kernel asks whether anybody else has the bridge's link-local address, nothing is forwarded to
        # neighbours it has yet to find: two seconds in which a new network's containers cannot be reached by IPv6.
        f"ipv6/conf/{name}/accept_dad": "0",
        f"ipv6/conf/{name}/disable_ipv6": "0" if ipv6 else "1",
        f"ipv4/conf/{name}/accept_redirects": "0",
        f"ipv4/conf/{name}/route_localnet": "1" if route_localnet else "0",
    }


def host_veth_sysctls(name: str) -> dict[str, str]:
    """Return the sysctls of the host's end of a veth pair, a bridge port, which needs no address of its own."""
    return {f"ipv6/conf/{name}/disable_ipv6": "1", f"ipv6/conf/{name}/accept_ra": "0"}


def container_sysctls(name: str) -> dict[str, str]:
    """Return the sysctls of a container's interface with IPv6, whose addresses and routes only we set; from inside."""
    return {
        **{f"ipv6/conf/{name}/{key}": value for key, value in NO_AUTOCONFIGURATION.items()},
        f"ipv6/conf/{name}/disable_ipv6": "0",
    }


def apply(sysctls: Mapping[str, str]) -> None:
    """Set the sysctls, in this order, in this thread's namespace; those that the kernel lacks are skipped."""
    for name, value in sysctls.items():
        sysctl.write(name, value)


def apply_asked(sysctls: Mapping[str, str]) -> None:
    """Set the sysctls that a client asked for, in this thread's namespace. Raises: OSError, which names the bad one."""
    for name, value in sysctls.items():
        try:
            Path("/proc/sys/net", name).write_text(f"{value}\n")
        except OSError as error:
            raise OSError(
                error.errno, f"cannot set the sysctl net.{name.replace('/', '.')} to {value!r}: {error.strerror}"
            ) from error


def find_deviations(sysctls: Mapping[str, str]) -> list[str]:
    """List the sysctls that differ, as `name=value`. Cheap: it runs for every bridge every two seconds."""
    return [f"{name}={value}" for name, value in _read(sysctls) if value != sysctls[name]]


def _read(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        value = sysctl.read(name)
        if value is not None:
            yield name, value


def drop_advertised(name: str) -> None:
    """Let a bridge of an earlier daemon, which still accepted advertisements, drop what it learned from them."""
    if sysctl.read(f"ipv6/conf/{name}/accept_ra") not in (None, "0"):
        sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "1")
