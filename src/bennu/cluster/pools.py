"""The addresses a swarm gives to its networks, as `swarm init` asks for them."""

import ipaddress
from collections.abc import Iterable
from typing import Final

from bennu.errors import InvalidParameter, NotImplementedHere

DEFAULT_POOL: Final = "10.0.0.0/8"
DEFAULT_SIZE: Final = 24
SMALLEST_SUBNET: Final = 29  # of it eight addresses are left
LOWEST_DATA_PORT: Final = 1024
HIGHEST_DATA_PORT: Final = 49151
DEFAULT_DATA_PORT: Final = 4789


def read_pools(asked: Iterable[str], subnet_size: int) -> tuple[tuple[str, ...], int]:
    """Read the ranges, and the length of the prefixes of the networks in them. Raises: InvalidParameter."""
    size = subnet_size or DEFAULT_SIZE
    if not 0 < size <= SMALLEST_SUBNET:
        raise InvalidParameter(f"subnet size is out of range: {size}")
    pools = [_read_pool(text, size) for text in [*asked] or [DEFAULT_POOL]]
    for number, pool in enumerate(pools):
        for other in pools[:number]:
            if pool.overlaps(other):
                raise InvalidParameter(f"invalid base pool {pool}: it overlaps with {other}")
    return tuple(map(str, pools)), size


def _read_pool(text: str, size: int) -> ipaddress.IPv4Network:
    """Read one range; `10.10.0.0/8` means the whole of 10.0.0.0/8, as for dockerd."""
    try:
        if "/" not in text:
            raise ValueError
        pool = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise InvalidParameter(f"invalid base pool {text[:100]}: invalid CIDR address") from None
    if isinstance(pool, ipaddress.IPv6Network):
        raise NotImplementedHere("address pools of IPv6 are not implemented")
    if size < pool.prefixlen:
        raise InvalidParameter(f'invalid CIDR: "{pool}". Subnet size is too small for pool: {size}')
    return pool


def read_data_port(asked: int) -> int:
    """Check the port of the data path that a client asked for. Raises: InvalidParameter."""
    port = asked or DEFAULT_DATA_PORT
    if not LOWEST_DATA_PORT <= port <= HIGHEST_DATA_PORT:
        raise InvalidParameter(
            f"Datapath port number is not in valid range ({LOWEST_DATA_PORT}-{HIGHEST_DATA_PORT}) : {port}"
        )
    return port
