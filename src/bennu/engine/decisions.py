"""What follows an end, asked of the pure rules with what a container's record knows."""

import random
import time
from typing import Final

import msgspec

from bennu.engine.record import Record
from bennu.lifecycle.death import Decision, Ending, Verb
from bennu.lifecycle.governor import CrashHistory, govern, govern_boot, parse_governor, score_after_end
from bennu.lifecycle.restart import (
    Exit,
    Restart,
    RestartHistory,
    RestartPolicy,
    Start,
    Stay,
    decide_boot,
    decide_failed_restart,
    decide_restart,
)
from bennu.lifecycle.status import State

KEPT_RESTARTS: Final = 1000  # instants for the governor's budget


def decide_after(record: Record, ending: Ending, *, daemon_ends: bool) -> Restart | Stay:
    """Whether and when the container is started again. `daemon_ends`: it was stopped along with the daemon."""
    if daemon_ends:
        return Stay(record.restart_delay_ns, "the daemon is shutting its containers down")
    policy = record.host_config.restart_policy
    decision = decide_restart(
        RestartPolicy.parse(policy.name, policy.maximum_retry_count),
        Exit(
            code=ending.exit_code,
            ran_for_ns=max(0, ending.finished_at_ns - record.started_at_ns),
            stopped_by_user=record.manually_stopped,
            unhealthy=record.revive,
        ),
        RestartHistory(
            count=record.restart_count,
            delay_ns=record.restart_delay_ns,
            cancelled=record.restart_cancelled,
        ),
    )
    return _governed(record, decision, ending.exit_code)


def _governed(record: Record, decision: Restart | Stay, code: int | None) -> Restart | Stay:
    if (governor := parse_governor(record.config.labels or {})) is None:
        return decision
    past, now_ns = crash_history(record), time.time_ns()
    return govern(governor, decision, past, code=code, now_ns=now_ns, draw=random.random())


def decide_after_failed_start(record: Record, *, shortage: bool) -> Restart | Stay:
    """Whether a start that failed is tried again. `shortage`: the host had too little of something."""
    if record.state is not State.RESTARTING:
        return Stay(record.restart_delay_ns, "a start that fails is not tried again")
    decision = decide_failed_restart(record.restart_delay_ns, shortage=shortage)
    return _governed(record, decision, record.exit_code)


def with_restart(record: Record, delay_ns: int, now_ns: int) -> Record:
    """The record of a container that has just ended and is to be started again."""
    return msgspec.structs.replace(
        record,
        state=State.RESTARTING,
        restart_count=record.restart_count + 1,
        restart_due_ns=now_ns + delay_ns,
        restarts_ns=[*record.restarts_ns, now_ns][-KEPT_RESTARTS:],
        crash_score=score_after_end(crash_history(record), now_ns),
        scored_at_ns=now_ns,
    )


def tell_decision(record: Record, decision: Restart | Stay, next_try_at_ns: int = 0) -> Decision:
    """What follows, for the certificate: also what a person asked for, and what `--rm` does."""
    if isinstance(decision, Restart):
        return Decision("restart", decision.reason, next_try_at_ns)
    errand = record.errand
    if errand is not None and errand.outlasts_end:
        if errand.verb is Verb.RESTART:
            return Decision("restart", "a restart was asked for")
        return Decision("remove", "its removal was asked for")
    if record.host_config.auto_remove:
        return Decision("remove", "--rm asks for it")
    return Decision("stay", decision.reason)


def wants_start(record: Record) -> bool:
    """Whether a container found ended when the daemon starts is to be started by its policy."""
    if record.state is not State.EXITED or not record.started_before or record.errand is not None:
        return False
    ended = Exit(
        code=record.exit_code,
        ran_for_ns=max(0, record.finished_at_ns - record.started_at_ns),
        stopped_by_user=record.manually_stopped,
    )
    policy = record.host_config.restart_policy
    past = RestartHistory(count=record.restart_count, delay_ns=0, cancelled=False)
    decision = decide_boot(RestartPolicy.parse(policy.name, policy.maximum_retry_count), ended, past)
    if (governor := parse_governor(record.config.labels or {})) is not None:
        decision = govern_boot(governor, decision, code=record.exit_code, gave_up=record.gave_up)
    return isinstance(decision, Start)


def crash_history(record: Record) -> CrashHistory:
    return CrashHistory(record.crash_score, record.scored_at_ns, record.restarts_ns)
