"""Turns limits of `HostConfig` into `linux.resources` and `process.rlimits` of an OCI configuration. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bennu.model import HostConfig, Ulimit
from bennu.runtime.failures import CREATE_PREFIX, RuntimeFailure
from bennu.runtime.hostfacts import HostFacts

CPU_PERIOD_US: Final = 100_000
UNLIMITED: Final = 2**64 - 1  # RLIM_INFINITY
RLIMITS: Final = frozenset(
    f"RLIMIT_{name}"
    for name in (
        *("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC"),
        *("RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
    )
)


def build_resources(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    """Write memory, cpu, pids and block I/O, without device rules. Empty objects are left out."""
    resources = {
        "memory": _memory(host, facts),
        "cpu": _cpu(host),
        "pids": {"limit": host.pids_limit} if host.pids_limit and host.pids_limit > 0 else {},
        "blockIO": _block_io(host, facts),
    }
    return {name: value for name, value in resources.items() if value}


def _memory(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
    if host.memory_swap and facts.swap_limit:
        memory["swap"] = host.memory_swap
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if not facts.cgroup_v2:
        # Version 2 has neither.
        if host.memory_swappiness is not None and host.memory_swappiness >= 0:
            memory["swappiness"] = host.memory_swappiness
        if host.oom_kill_disable:
            memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> dict[str, Any]:
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus > 0:
        period = CPU_PERIOD_US
        quota = host.nano_cpus * CPU_PERIOD_US // 10**9
    values = {
        "shares": host.cpu_shares,
        "quota": max(0, quota),  # negative: no limit, which is written by leaving it out
        "period": period,
        "realtimeRuntime": host.cpu_realtime_runtime,
        "realtimePeriod": host.cpu_realtime_period,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    return {name: value for name, value in values.items() if value}


def _block_io(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    return {"weight": host.blkio_weight} if host.blkio_weight and facts.blkio_weight else {}


def build_rlimits(ulimits: Sequence[Ulimit], facts: HostFacts) -> list[dict[str, Any]]:
    """Write process limits, lowered to what we may give. Raises: RuntimeFailure (128) for an unknown name."""
    asked = [_rlimit(ulimit, facts) for ulimit in ulimits]
    if facts.given_files is None or any(limit["type"] == "RLIMIT_NOFILE" for limit in asked):
        return asked
    soft, hard = facts.given_files
    return [*asked, {"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]


def _rlimit(ulimit: Ulimit, facts: HostFacts) -> dict[str, Any]:
    name = f"RLIMIT_{ulimit.name.upper()}"
    if name not in RLIMITS:
        raise RuntimeFailure(f"{CREATE_PREFIX}wrong rlimit value: {name}: unknown", 128)
    hard = UNLIMITED if ulimit.hard < 0 else ulimit.hard
    soft = UNLIMITED if ulimit.soft < 0 else ulimit.soft
    highest = facts.hard_limits.get(name, -1)
    if highest >= 0:
        hard = min(hard, highest)
    return {"type": name, "soft": min(soft, hard), "hard": hard}


def decide_oom_score_adj(asked: int, facts: HostFacts) -> int:
    """Answer the score asked for, or the lowest that we may give."""
    return asked if facts.can_raise_limits else max(asked, facts.oom_score_adj)


def lifted_limits(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List which of memory, cpu and pids lose their limit: OCI runtimes do not agree on how to write that."""
    kinds = (("memory", "limit"), ("cpu", "quota"), ("pids", "limit"))
    return [kind for kind, name in kinds if name in before.get(kind, {}) and name not in after.get(kind, {})]
