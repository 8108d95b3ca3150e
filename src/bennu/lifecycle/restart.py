"""The restart decision after a process's end: whether, when, and why. Pure; lives here and nowhere else.

Docker's rules, in their order: a policy of `no` never restarts; a person's stop or kill calls the policy off until
the next start by a person; back-off starts at 100 ms, doubles with each end and stays at a minute, and a run of ten
seconds sets it back. One rule is ours: a container ended for bad health to be restarted is restarted, under `no`, too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MS: Final = 10**6
BACK_OFF_FIRST_NS: Final = 100 * MS
BACK_OFF_MAX_NS: Final = 60_000 * MS
BACK_OFF_RESET_AFTER_NS: Final = 10_000 * MS


class RestartMode(StrEnum):
    NO = "no"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A restart policy. `max_retries` counts for on-failure only; 0 means no limit."""

    mode: RestartMode
    max_retries: int = 0

    @classmethod
    def parse(cls, name: str, max_retries: int) -> "RestartPolicy":
        """Parse the API's words, already validated; "" is `no`."""
        return cls(RestartMode(name or "no"), max_retries)


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a run. `code` None: it is unknown, which counts as a failure.

    `unhealthy`: it was ended to be started again, as `bennu.on-unhealthy=restart` asks: a failure, whatever its code,
    and one that the policy `no` does not let pass.
    """

    code: int | None
    ran_for_ns: int
    stopped_by_user: bool
    unhealthy: bool = False


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """Restarts since a person's last start: their number, the last delay, and whether the policy was called off."""

    count: int
    delay_ns: int
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Restart:
    delay_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stay:
    """The decision not to restart. `delay_ns` is remembered: back-off advances even when nothing is restarted."""

    delay_ns: int
    reason: str
    gave_up: bool = False  # its budget is used up: it stays down at the next start of the daemon, too


@dataclass(frozen=True, slots=True)
class Start:
    reason: str


def next_delay_ns(last_ns: int, ran_for_ns: int) -> int:
    """Compute the next delay: 100 ms, then twice the last, at most a minute; a run of ten seconds begins anew."""
    if last_ns == 0 or ran_for_ns >= BACK_OFF_RESET_AFTER_NS:
        return BACK_OFF_FIRST_NS
    return min(last_ns * 2, BACK_OFF_MAX_NS)


def decide_restart(policy: RestartPolicy, ended: Exit, past: RestartHistory) -> Restart | Stay:
    """Decide what follows the end of a container's main process. Never raises."""
    delay_ns = next_delay_ns(past.delay_ns, ended.ran_for_ns)
    refusal = _refusal(policy, ended, past)
    if refusal:
        return Stay(delay_ns, refusal)
    return Restart(delay_ns, _reason(policy, ended, past))


def _refusal(policy: RestartPolicy, ended: Exit, past: RestartHistory) -> str:
    if policy.mode is RestartMode.NO and not ended.unhealthy:
        return "the restart policy is no"
    if past.cancelled:
        return "a person stopped it"
    if policy.mode is RestartMode.UNLESS_STOPPED and ended.stopped_by_user:
        return "a person stopped it"
    if policy.mode is RestartMode.ON_FAILURE:
        if ended.code == 0 and not ended.unhealthy:
            return "the restart policy is on-failure and it exited with 0"
        if 0 < policy.max_retries <= past.count:
            return f"the restart policy is on-failure and all {policy.max_retries} retries are used"
    return ""


def _reason(policy: RestartPolicy, ended: Exit, past: RestartHistory) -> str:
    if ended.unhealthy and policy.mode is not RestartMode.ON_FAILURE:
        return "it was unhealthy and bennu.on-unhealthy is restart"
    if policy.mode is not RestartMode.ON_FAILURE:
        return f"the restart policy is {policy.mode}"
    limit = f" of {policy.max_retries}" if policy.max_retries else ""
    code = "an unknown code" if ended.code is None else str(ended.code)
    how = "was unhealthy" if ended.unhealthy else f"exited with {code}"
    return f"the restart policy is on-failure and it {how}: retry {past.count + 1}{limit}"


def decide_failed_restart(last_delay_ns: int, *, shortage: bool) -> Restart | Stay:
    """Decide what follows a restart that did not come to a process. Never raises.

    A failure by the container's own fault would repeat. `shortage`: the host had too little of something.
    """
    if shortage:
        return Restart(next_delay_ns(last_delay_ns, 0), "the host had too little to start it with")
    return Stay(last_delay_ns, "a start that fails is not tried again")


def decide_boot(policy: RestartPolicy, ended: Exit, past: RestartHistory) -> Start | Stay:
    """Decide whether a container found ended when the daemon starts is started. Never raises.

    A container stopped by a person stays stopped, except under `always`: Docker's documented exception. (dockerd also
    starts an on-failure container again that a person ended with `kill`; to it that end is a failure like any other.)
    """
    stopped = ended.stopped_by_user and policy.mode is not RestartMode.ALWAYS
    refusal = _refusal(policy, ended, RestartHistory(past.count, past.delay_ns, cancelled=stopped))
    if refusal:
        return Stay(past.delay_ns, refusal)
    return Start(f"the daemon started and {_reason(policy, ended, past)}")
