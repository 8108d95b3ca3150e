"""A check of rows when they are read, so that the code that uses a row need not check it."""

from bennu.cluster.convert import read_template
from bennu.cluster.tables import Row, ServiceRow, TaskRow
from bennu.orchestration.model.constraints import parse_constraints
from bennu.orchestration.model.spec import TaskSpec


def check_row(row_id: str, row: Row | None) -> None:
    """Check that a row makes sense. Raises: the error of whatever is wrong with it."""
    specs: list[TaskSpec] = []
    match row:
        case ServiceRow(service=service):
            specs = [service.spec.task, *(one.spec.task for one in service.revisions)]
            specs += [service.previous.spec.task] if service.previous else []
        case TaskRow(task=task):
            specs = [task.spec]
    if row is not None and row.id != row_id:
        raise ValueError(f"it says that its id is {row.id}")
    for spec in specs:
        read_template(spec.container)
        parse_constraints(spec.placement.constraints)
