"""`docker update`: other limits and another restart policy for a container that exists, running or not."""

import os
from typing import Any, Final

import msgspec

from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.record import Record
from bennu.engine.validate import check_resources, check_restart_policy
from bennu.errors import BennuError, Conflict
from bennu.lifecycle.status import State
from bennu.model import HostConfig, RestartPolicyShape

# What can be changed; 0, "" and null mean "as it was".
CHANGEABLE: Final = (
    *("blkio_weight", "cpu_period", "cpu_quota", "cpu_realtime_period", "cpu_realtime_runtime", "cpu_shares"),
    *("cpuset_cpus", "cpuset_mems", "memory", "memory_reservation", "memory_swap", "nano_cpus"),
)


async def update_container(
    services: EngineContext, container: Container, asked: HostConfig, policy: RestartPolicyShape | None
) -> None:
    """Update the container, at once where a process lives, and on disk. Raises: BennuError with dockerd's words."""
    changed = plan_update(container.record, asked, policy, removing=container.removing)
    has_process = container.record.state in (State.RUNNING, State.PAUSED)
    if has_process and _differs(container.record.host_config, changed):
        await services.runtime.update(container.id, changed)
    await container.change("update", {}, host_config=changed)


def plan_update(record: Record, asked: HostConfig, policy: RestartPolicyShape | None, *, removing: bool) -> HostConfig:
    """Compute the host configuration after the update. Pure. Raises: InvalidParameter, Conflict, BennuError."""
    failed = f"Cannot update container {record.id}: "
    present = record.host_config
    changes: dict[str, Any] = {name: value for name in CHANGEABLE if (value := getattr(asked, name))}
    if policy is not None and policy.name:
        check_restart_policy(policy)
        if present.auto_remove:
            raise Conflict(f"{failed}Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = policy
    if removing or record.state in (State.REMOVING, State.DEAD):
        raise BennuError(f'{failed}container is marked for removal and cannot be "update"')
    fixed_swap = present.memory_swap if not asked.memory_swap and present.memory_swap != -1 else None
    if fixed_swap is not None and asked.memory > fixed_swap:
        raise Conflict(
            f"{failed}Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    if asked.pids_limit is not None:
        changes["pids_limit"] = max(0, asked.pids_limit)  # 0 and any negative number: no limit
    changed = msgspec.structs.replace(present, **changes)
    check_resources(changed, os.cpu_count() or 1)
    return changed


def _differs(before: HostConfig, after: HostConfig) -> bool:
    return any(getattr(before, name) != getattr(after, name) for name in (*CHANGEABLE, "pids_limit"))
