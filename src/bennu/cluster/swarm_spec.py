"""The settings of a swarm, as clients give and read them."""

from typing import Any, Final

from bennu.errors import InvalidParameter, NotImplementedHere

HOUR_NS: Final = 3600 * 10**9
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


def complete_swarm_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """With the defaults for what is absent. Raises: InvalidParameter, NotImplementedHere."""
    full: dict[str, Any] = {}
    for key, default in SPEC_DEFAULTS.items():
        given = spec.get(key)
        if isinstance(default, dict) and key != "Labels":
            full[key] = default | {name: part for name, part in (given or {}).items() if part is not None}
        else:
            full[key] = given or default
    full["Name"] = "default"
    if full["EncryptionConfig"].get("AutoLockManagers"):
        raise NotImplementedHere("locking managers (autolock) is not implemented")
    expiry = full["CAConfig"].get("NodeCertExpiry") or SPEC_DEFAULTS["CAConfig"]["NodeCertExpiry"]
    full["CAConfig"]["NodeCertExpiry"] = expiry
    full["Dispatcher"]["HeartbeatPeriod"] = full["Dispatcher"].get("HeartbeatPeriod") or 5_000_000_000
    if expiry < HOUR_NS:
        raise InvalidParameter("minimum certificate expiry time is: 1h0m0s")
    return full
