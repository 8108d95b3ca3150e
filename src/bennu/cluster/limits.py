"""Limits on how much one service, and all services together, may ask of the state.

Each task is a record, kept and looked at.
"""

from collections.abc import Iterable
from typing import Final

from bennu.cluster import codec
from bennu.cluster.api_types import Mode
from bennu.cluster.errors import invalid, unknown
from bennu.orchestration.model.spec import MAX_TASKS, Replicated, ReplicatedJob, ServiceSpec

MAX_TASKS_OF_SWARM: Final = 50_000
MAX_SPEC_BYTES: Final = 1536 * 1024  # as much as the original's log takes in one piece
MAX_TASKS_BYTES: Final = 256 * 1024 * 1024  # of all tasks of a service, each of which has its specification


def check_numbers(mode: Mode) -> None:
    """Refuse a mode that asks for too many tasks. Raises: InvalidParameter."""
    asked = {
        "replicas": mode.replicated.replicas if mode.replicated else None,
        "concurrent tasks": mode.replicated_job.max_concurrent if mode.replicated_job else None,
        "completions": mode.replicated_job.total_completions if mode.replicated_job else None,
    }
    for word, number in asked.items():
        if number is not None and number > MAX_TASKS:
            raise invalid(f"ServiceMode: {number} {word} are too many: a service may have {MAX_TASKS}")


def check_size(spec: ServiceSpec, others: Iterable[ServiceSpec]) -> None:
    """Refuse a service that is too large by itself or together with the others.

    Raises: BennuError, InvalidParameter.
    """
    size, tasks = len(codec.encode(spec)), tasks_of(spec)
    if size > MAX_SPEC_BYTES:
        raise unknown("raft: raft message is too large and can't be sent")
    if size * tasks > MAX_TASKS_BYTES:
        raise invalid(
            f"ServiceMode: {tasks} tasks with a specification of {size} bytes are too much: all tasks of a service may "
            f"have {MAX_TASKS_BYTES} bytes"
        )
    total = tasks + sum(map(tasks_of, others))
    if total > MAX_TASKS_OF_SWARM:
        raise invalid(f"ServiceMode: {total} tasks in all are too many: a swarm may have {MAX_TASKS_OF_SWARM}")


def tasks_of(spec: ServiceSpec) -> int:
    """Count the tasks a service asks for; a global one asks for as many as there are nodes, which are few."""
    match spec.mode:
        case Replicated(number) | ReplicatedJob(_, number):
            return number
        case _:
            return 1
