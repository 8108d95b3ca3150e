"""The settings of a swarm, as clients give and read them, and the addresses it gives to its networks."""

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from bennu.cluster.errors import invalid
from bennu.errors import InvalidParameter, NotImplementedHere

DEFAULT_POOL: Final = "10.0.0.0/8"
DEFAULT_SIZE: Final = 24
SMALLEST_SUBNET: Final = 29  # of it eight addresses are left
LOWEST_DATA_PORT: Final = 1024
HIGHEST_DATA_PORT: Final = 49151
DEFAULT_DATA_PORT: Final = 4789
HOUR_NS: Final = 3600 * 10**9
SHORTEST_HEARTBEAT_NS: Final = 10**8
LONGEST_HEARTBEAT_NS: Final = 24 * HOUR_NS  # a node that died is not noticed earlier
ZERO_COUNTS: Final = frozenset({"TaskHistoryRetentionLimit", "KeepOldSnapshots"})
SPEC_DEFAULTS: Final[dict[str, Any]] = {
    "Name": "default",
    "Labels": {},
    "Orchestration": {"TaskHistoryRetentionLimit": 5},
    "Raft": {
        "SnapshotInterval": 10000,
        "KeepOldSnapshots": 0,
        "LogEntriesForSlowFollowers": 500,
        "ElectionTick": 10,
        "HeartbeatTick": 1,
    },
    "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
    "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
    "TaskDefaults": {},
    "EncryptionConfig": {"AutoLockManagers": False},
}
NUMBERS: Final = frozenset(
    name
    for part in SPEC_DEFAULTS.values()
    if isinstance(part, dict)
    for name, value in part.items()
    if type(value) is int
)


def complete_swarm_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults for what is absent or zero. Raises: InvalidParameter, NotImplementedHere."""
    full = {
        key: _section(key, spec.get(key), default) if isinstance(default, dict) else default
        for key, default in SPEC_DEFAULTS.items()
    }
    if full["EncryptionConfig"].get("AutoLockManagers"):
        raise NotImplementedHere("locking managers (autolock) is not implemented")
    for name in ("ForceRotate", "SigningCACert", "SigningCAKey", "ExternalCAs"):
        if full["CAConfig"].pop(name, None):
            raise NotImplementedHere(f"CAConfig.{name} is not implemented: a swarm of one node has no certificates")
    if full["TaskDefaults"].get("LogDriver"):
        raise NotImplementedHere("TaskDefaults.LogDriver is not implemented")
    if full["Dispatcher"]["HeartbeatPeriod"] < SHORTEST_HEARTBEAT_NS:
        raise invalid("minimum heartbeat period is: 100ms")
    if full["Dispatcher"]["HeartbeatPeriod"] > LONGEST_HEARTBEAT_NS:
        raise invalid("maximum heartbeat period is: 24h0m0s")
    if full["CAConfig"]["NodeCertExpiry"] < HOUR_NS:
        raise invalid("minimum certificate expiry time is: 1h0m0s")
    return full


def _section(key: str, given: Any, default: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict | None):
        raise InvalidParameter(f"{key} must be an object")
    section = dict(default)
    for name, value in (given or {}).items():
        if name in NUMBERS and not (isinstance(value, int | None) and not isinstance(value, bool)):
            raise InvalidParameter(f"{key}.{name} must be a whole number")
        # A zero is what clients send who know nothing of a field; no history at all is a wish.
        if value is not None and (value or name not in NUMBERS or name in ZERO_COUNTS):
            section[name] = value
    return section


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
