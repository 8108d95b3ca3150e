"""Which changes of a spec replace tasks: the fact sheet's table, row by row."""

from dataclasses import replace

import pytest
from orchestration.stage import a_node, a_spec

from bennu.orchestration.model.actions import CreateTask
from bennu.orchestration.model.apply import new_task
from bennu.orchestration.model.nouns import ServiceId, TaskId
from bennu.orchestration.model.revisions import accept_update, create_service
from bennu.orchestration.model.spec import (
    EndpointSpec,
    Placement,
    PortSpec,
    Replicated,
    Reservation,
    ServiceSpec,
    TaskRestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from bennu.orchestration.model.states import EndpointMode, TaskState
from bennu.orchestration.slots.outdated import why_outdated

SPEC = a_spec(task=TaskSpec(container=b"v1", registry_auth="a"), endpoint=EndpointSpec())


def changed_task(**fields: object) -> ServiceSpec:
    return replace(SPEC, task=replace(SPEC.task, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "replaced"),
    [
        pytest.param(SPEC, False, id="identical"),
        pytest.param(replace(SPEC, labels={"a": "b"}), False, id="labels"),
        pytest.param(replace(SPEC, mode=Replicated(9)), False, id="replicas"),
        pytest.param(replace(SPEC, update=UpdateConfig(), rollback=UpdateConfig()), False, id="update-config"),
        pytest.param(changed_task(placement=Placement(spread=("node.labels.dc",))), False, id="preference"),
        pytest.param(changed_task(placement=Placement(max_replicas=1)), False, id="max-per-node"),
        pytest.param(changed_task(placement=Placement(("node.id==n1",))), False, id="satisfied-constraint"),
        pytest.param(changed_task(placement=Placement(("node.id==n2",))), True, id="unsatisfied-constraint"),
        pytest.param(changed_task(container=b"v2"), True, id="image-args-env-mounts-…"),
        pytest.param(changed_task(restart=TaskRestartPolicy()), True, id="default-made-explicit"),
        pytest.param(changed_task(reservation=Reservation(1)), True, id="reservations"),
        pytest.param(changed_task(force_update=1), True, id="force"),
        pytest.param(changed_task(registry_auth="b"), False, id="credentials-alone"),
        pytest.param(replace(SPEC, endpoint=EndpointSpec(ports=(PortSpec(80, 8080),))), True, id="ports"),
        pytest.param(replace(SPEC, endpoint=EndpointSpec(EndpointMode.DNSRR)), True, id="endpoint-mode"),
        pytest.param(
            replace(changed_task(placement=Placement(max_replicas=1)), endpoint=EndpointSpec(EndpointMode.DNSRR)),
            True,
            id="ports-are-seen-behind-a-preference",
        ),
    ],
)
def test_what_replaces_tasks(spec: ServiceSpec, replaced: bool) -> None:
    service = create_service(ServiceId("web"), SPEC, now_ns=0)
    task = new_task(CreateTask(1, "test"), service, TaskId("t"), now_ns=0)
    task = replace(task, node_id=a_node("n1").id, status=replace(task.status, state=TaskState.RUNNING))
    updated = accept_update(service, spec, version=7, now_ns=1)
    assert (why_outdated(task, updated, a_node("n1")) is not None) is replaced


def test_an_unplaced_task_satisfies_no_new_constraint() -> None:
    service = create_service(ServiceId("web"), SPEC, now_ns=0)
    task = new_task(CreateTask(1, "test"), service, TaskId("t"), now_ns=0)
    updated = accept_update(service, changed_task(placement=Placement(("node.id==n1",))), version=7, now_ns=1)
    assert why_outdated(task, updated, None) == "its node does not satisfy the new placement constraints"


def test_a_restored_version_is_up_to_date_by_its_number() -> None:
    service = create_service(ServiceId("web"), SPEC, now_ns=0)
    task = new_task(CreateTask(1, "test"), service, TaskId("t"), now_ns=0)
    assert why_outdated(task, service, None) is None
