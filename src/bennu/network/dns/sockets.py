"""The embedded DNS's sockets on 127.0.0.11.

They are made inside the namespace by a thread that enters it, and belong to it from then on wherever they are used.
They listen on a free port, and two rules in the namespace lead port 53 of that address to it, so that a container
may run a name server of its own on every address.
"""

import socket
import subprocess
from typing import Final

from bennu.network.dns.files import EMBEDDED_DNS
from bennu.network.namespaces import netns

BIND_TRIES: Final = 20
# Whatever was there before is replaced. Not by deleting the table: that takes the kernel 15 ms, all of this takes 3.
RULES: Final = """
add table ip bennu_dns
add chain ip bennu_dns output {{ type nat hook output priority -100; policy accept; }}
flush chain ip bennu_dns output
add rule ip bennu_dns output ip daddr {address} udp dport 53 dnat to {address}:{port}
add rule ip bennu_dns output ip daddr {address} tcp dport 53 dnat to {address}:{port}
"""

Sockets = tuple[socket.socket, socket.socket]


def open_inside(path: str, port: int) -> Sockets:
    """As `open_here`, in the namespace behind `path`. Blocking, in a thread of its own. Raises: OSError."""
    netns.enter(path)
    return open_here(port)


def open_here(port: int = 0) -> Sockets:
    """A UDP and a TCP socket on one port of 127.0.0.11 in the calling thread's namespace, to which port 53 leads.

    `port` is the one it had before, to which the namespace's rules lead; 0 if it never had one. Raises: OSError.
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
