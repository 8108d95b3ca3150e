"""Opens the sockets of the embedded DNS on 127.0.0.11.

A thread that has entered the namespace opens them; they stay in that namespace wherever they are used. They are bound
to a free port, and two rules in the namespace translate port 53 of that address to it, so a container may run a name
server of its own on every address. libnetwork does the same with iptables (moby, libnetwork/resolver_unix.go).
"""

import socket
import subprocess
from typing import Final

from bennu.network.dns.files import EMBEDDED_DNS
from bennu.network.namespaces import netns

BIND_TRIES: Final = 20
# Replaces earlier rules by a flush: to delete the table takes the kernel 15 ms, all of this takes 3.
RULES: Final = """
add table ip bennu_dns
add chain ip bennu_dns output {{ type nat hook output priority -100; policy accept; }}
flush chain ip bennu_dns output
add rule ip bennu_dns output ip daddr {address} udp dport 53 dnat to {address}:{port}
add rule ip bennu_dns output ip daddr {address} tcp dport 53 dnat to {address}:{port}
"""

Sockets = tuple[socket.socket, socket.socket]


def open_inside(path: str, port: int) -> Sockets:
    """Open the sockets in the namespace behind `path`. Blocks; only in a thread of its own. Raises: OSError."""
    netns.enter(path)
    return open_here(port)


def open_here(port: int = 0) -> Sockets:
    """Open a UDP and a TCP socket on one port of 127.0.0.11 in this thread's namespace, and lead port 53 to it.

    `port` is the one that the namespace's rules lead to already; 0 if it has none. Blocks. Raises: OSError.
    """
    udp, tcp = _bind_pair(port)
    number = udp.getsockname()[1]
    if number == port:
        return udp, tcp
    try:
        script = RULES.format(address=EMBEDDED_DNS, port=number)
        done = subprocess.run(["nft", "-f", "-"], input=script.encode(), capture_output=True, timeout=30, check=False)
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace")[:300]
            raise OSError(f"nftables refused the rules of the embedded DNS: {reason}")
    except BaseException:
        close_sockets((udp, tcp))
        raise
    return udp, tcp


def close_sockets(sockets: Sockets | None) -> None:
    """Close both; None is fine."""
    for sock in sockets or ():
        sock.close()


def _bind_pair(port: int) -> Sockets:
    for attempt in range(BIND_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((EMBEDDED_DNS, port if attempt == 0 else 0))
            tcp.bind((EMBEDDED_DNS, udp.getsockname()[1]))
            tcp.listen(64)
            return udp, tcp
        except OSError:
            udp.close()
            tcp.close()
            if attempt == BIND_TRIES - 1:
                raise
    raise AssertionError("unreachable")
