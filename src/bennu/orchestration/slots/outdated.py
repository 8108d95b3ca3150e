"""The rules of outdated tasks: which changes of a spec replace tasks, and which do not.

Law: a task is outdated exactly if a task made now would be a different task. Docker's rules, in this order:

1. Same spec version as the service: up to date. (A rollback restores the number, so what it restores is untouched.)
2. Only the placement differs, and the task's node satisfies the new constraints: up to date. A change of spread
   preferences or of the limit per node therefore never moves anything.
3. Else outdated if the task template differs or the endpoint it was made with differs.

Registry credentials alone replace no task that is ready to running. Parting from Docker: rule 2 looks at the endpoint
too (there, a changed placement preference hides every later change of ports), and tasks are compared with the endpoint
they were really made with (there, a stale copy in the service can make every update replace everything).
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.constraints import satisfies
from bennu.orchestration.model.nouns import Node, Service, Task
from bennu.orchestration.model.states import TaskState


def why_outdated(task: Task, service: Service, node: Node | None) -> str | None:
    """Say why the task is outdated; None if it is up to date.

    `node` is the task's node; None if unassigned or gone.
    """
    if task.spec_version == service.spec_version:
        return None
    wanted, actual = service.spec.task, task.spec
    if wanted.registry_auth != actual.registry_auth and TaskState.READY <= task.state <= TaskState.RUNNING:
        actual = replace(actual, registry_auth=wanted.registry_auth)
    if task.endpoint != service.spec.endpoint:
        return "its published ports or endpoint mode changed"
    if wanted == actual:
        return None
    if wanted == replace(actual, placement=wanted.placement):
        if satisfies(wanted.placement.constraints, node):
            return None
        return "its node does not satisfy the new placement constraints"
    return _first_difference(wanted.force_update != actual.force_update, wanted.container != actual.container)


def _first_difference(forced: bool, container: bool) -> str:
    if container:
        return "the container's specification changed"
    if forced:
        return "an update was forced"
    return "the task template changed"
