"""The health of a container: the time of its next probe, and the meaning of the results. Pure.

Docker's rules. A run begins as `starting`; the first probe comes one interval after the start, each further one an
interval after the end of the last. A failure within the start period does not count while the container has never
been healthy; `retries` failures in a row make it unhealthy, one success makes it healthy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.duration import format_duration
from bennu.lifecycle.probe import HEALTH, OUTPUT_BYTES, Probe, command_probe, probe_from_labels

SECOND_NS: Final = 10**9
DEFAULT_INTERVAL_NS: Final = 30 * SECOND_NS
DEFAULT_TIMEOUT_NS: Final = 30 * SECOND_NS
DEFAULT_START_INTERVAL_NS: Final = 5 * SECOND_NS
DEFAULT_RETRIES: Final = 3
KEPT_RESULTS: Final = 5
TASK_LABEL: Final = "com.docker.swarm.task.id"
TIMED_OUT: Final = -1  # exit code of a probe that was not done in time, or could not be run


class HealthStatus(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class OnUnhealthy(StrEnum):
    """The action on an unhealthy plain container; Docker does nothing."""

    NONE = "none"
    RESTART = "restart"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A health check in force. Durations in ns; all defaults are filled in."""

    probe: Probe
    interval_ns: int = DEFAULT_INTERVAL_NS
    timeout_ns: int = DEFAULT_TIMEOUT_NS
    start_period_ns: int = 0
    start_interval_ns: int = DEFAULT_START_INTERVAL_NS
    retries: int = DEFAULT_RETRIES


@dataclass(frozen=True, slots=True)
class HealthState:
    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """The state after a result.

    `changed`: the status did, which is when Docker sends an event. `failed`: the failures in a row have just become
    enough, which is when an action is taken; also of a container that counted as unhealthy while it was not monitored.
    """

    state: HealthState
    changed: bool
    failed: bool
    reason: str


def not_monitored(state: HealthState | None) -> HealthState | None:
    """Mark an unmonitored container (paused, ended) as unhealthy: dockerd's rule, without an event."""
    return replace(state, status=HealthStatus.UNHEALTHY) if state else None


def judge(state: HealthState, check: Check, *, exit_code: int, started_after_ns: int) -> Judged:
    """Decide the meaning of a probe's result.

    Args:
        started_after_ns: the time from the container's start to the start of the probe.
    """
    if exit_code == 0:
        healthy = HealthState(HealthStatus.HEALTHY)
        return Judged(healthy, state.status is not HealthStatus.HEALTHY, False, "the probe succeeded")
    if state.status is HealthStatus.STARTING and started_after_ns < check.start_period_ns:
        return Judged(state, False, False, "the probe failed, which does not count within the start period")
    streak = state.failing_streak + 1
    if streak < check.retries:
        return Judged(HealthState(state.status, streak), False, False, f"failure {streak} of {check.retries} in a row")
    changed = state.status is not HealthStatus.UNHEALTHY
    enough = f"{streak} probes in a row failed" if streak > 1 else "a probe failed"
    return Judged(HealthState(HealthStatus.UNHEALTHY, streak), changed, streak == check.retries, enough)


def next_wait_ns(state: HealthState, check: Check, *, running_for_ns: int) -> int:
    """Compute the wait from the end of the last probe (or the start) to the beginning of the next one."""
    if state.status is HealthStatus.STARTING and running_for_ns < check.start_period_ns:
        return check.start_interval_ns
    return check.interval_ns


def plan_check(
    test: Sequence[str] | None,
    *,
    interval_ns: int = 0,
    timeout_ns: int = 0,
    start_period_ns: int = 0,
    start_interval_ns: int = 0,
    retries: int = 0,
    shell: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Check | None:
    """Make the check in force from `Config.Healthcheck` (0 = default) and Bennu's labels; None: there is none.

    `bennu.health.http` and `bennu.health.tcp` replace the command; NONE switches off these, too.
    Raises: InvalidParameter for a malformed label.
    """
    probe = probe_from_labels(HEALTH, labels or {}) or command_probe(test, shell)
    if probe is None or list(test or ())[:1] == ["NONE"]:
        return None
    return Check(
        probe=probe,
        interval_ns=interval_ns or DEFAULT_INTERVAL_NS,
        timeout_ns=timeout_ns or DEFAULT_TIMEOUT_NS,
        start_period_ns=start_period_ns,
        start_interval_ns=start_interval_ns or DEFAULT_START_INTERVAL_NS,
        retries=retries or DEFAULT_RETRIES,
    )


def on_unhealthy(labels: Mapping[str, str]) -> OnUnhealthy:
    """Return the action of `bennu.on-unhealthy`; none for a service's task, which its service replaces.

    Raises: InvalidParameter.
    """
    text = labels.get("bennu.on-unhealthy", "none")
    try:
        asked = OnUnhealthy(text)
    except ValueError:
        raise InvalidParameter(f"label bennu.on-unhealthy: {text!r} is not one of none, restart, stop, kill") from None
    return OnUnhealthy.NONE if TASK_LABEL in labels else asked


def cut_output(output: bytes) -> str:
    """Cut a probe's output to 4096 bytes, with a mark when there was more."""
    text = output[:OUTPUT_BYTES].decode(errors="replace")
    return text + "..." if len(output) > OUTPUT_BYTES else text


def timeout_text(timeout_ns: int, output: str) -> str:
    """Format Docker's words for a probe that was not done in time."""
    text = f"Health check exceeded timeout ({format_duration(timeout_ns)})"
    return f"{text}: {output}" if output else text
