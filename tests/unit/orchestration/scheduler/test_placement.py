"""Filters and their words, constraints, the choice of a node, spread; and a brute force oracle."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestration.stage import S, a_node, a_spec

from bennu.orchestration.model.actions import AssignTask, RefuseTask
from bennu.orchestration.model.constraints import BadConstraint, parse_constraint, satisfies
from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, Service, ServiceId, Task, TaskId, TaskStatus
from bennu.orchestration.model.revisions import create_service
from bennu.orchestration.model.spec import EndpointSpec, Placement, Platform, PortSpec, Reservation, TaskSpec
from bennu.orchestration.model.states import Availability, NodeState, PublishMode, TaskState
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet
from bennu.orchestration.scheduler.nodes import apply_to_node, decide_node, enforce, orphan_tasks
from bennu.orchestration.scheduler.placement import place

PLAIN = TaskSpec()


def a_task(number: int, spec: TaskSpec = PLAIN, node: str | None = None, **fields: object) -> Task:
    state = TaskState.RUNNING if node else TaskState.PENDING
    fields.setdefault("status", TaskStatus(state, applied_at_ns=0))
    fields.setdefault("desired", TaskState.RUNNING)
    fields.setdefault("service_id", ServiceId("web"))
    return Task(
        id=TaskId(f"t{number:03d}"),
        slot=number,
        spec=spec,
        spec_version=0,
        created_at_ns=number,
        node_id=NodeId(node) if node else None,
        **fields,  # type: ignore[arg-type]
    )


def a_service(spec: TaskSpec = PLAIN) -> Service:
    return create_service(ServiceId("web"), a_spec(task=spec), now_ns=0)


def placed(tasks: list[Task], nodes: list[Node], others: list[Task] | None = None) -> dict[str, str]:
    node_set = NodeSet(nodes, [*tasks, *(others or [])])
    plan = place(a_service(), tasks, node_set, FailureLog(others or []), now_ns=0)
    return {action.task_id: action.node_id for action in plan.actions if isinstance(action, AssignTask)}


def refusal(task: Task, nodes: list[Node], others: list[Task] | None = None) -> str:
    plan = place(a_service(), [task, *(others or [])], NodeSet(nodes, [task, *(others or [])]), FailureLog(), now_ns=0)
    (action,) = plan.actions
    assert isinstance(action, RefuseTask)
    assert plan.waits[0].reason == action.err
    return action.err


PORT = EndpointSpec(ports=(PortSpec(80, 8080, mode=PublishMode.HOST),))


@pytest.mark.parametrize(
    ("spec", "nodes", "words"),
    [
        pytest.param(TaskSpec(), [], "no suitable node", id="no-node-at-all"),
        pytest.param(
            TaskSpec(),
            [a_node("a", state=NodeState.DOWN)],
            "no suitable node (1 node not available for new tasks)",
            id="down",
        ),
        pytest.param(
            TaskSpec(),
            [a_node("a", availability=Availability.PAUSE), a_node("b", availability=Availability.DRAIN)],
            "no suitable node (2 nodes not available for new tasks)",
            id="paused-and-drained",
        ),
        pytest.param(
            TaskSpec(reservation=Reservation(memory_bytes=9 << 30)),
            [a_node("a"), a_node("b"), a_node("c", state=NodeState.DOWN)],
            "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)",
            id="most-failures-first",
        ),
        pytest.param(
            TaskSpec(plugins=frozenset({("Volume", "nfs")})),
            [a_node("a")],
            "no suitable node (missing plugin on 1 node)",
            id="plugin",
        ),
        pytest.param(
            TaskSpec(placement=Placement(("node.role==manager",))),
            [a_node("a"), a_node("b")],
            "no suitable node (scheduling constraints not satisfied on 2 nodes)",
            id="constraint",
        ),
        pytest.param(
            TaskSpec(placement=Placement(platforms=(Platform("linux", "arm64"), Platform("windows", "amd64")))),
            [a_node("a")],
            "no suitable node (unsupported platform on 1 node)",
            id="platform",
        ),
        pytest.param(
            TaskSpec(cluster_volumes=frozenset({"v"})),
            [a_node("a")],
            "no suitable node (cannot fulfill requested CSI volume mounts on 1 node)",
            id="volume",
        ),
        pytest.param(
            TaskSpec(reservation=Reservation(generic=(("gpu", 3),))),
            [a_node("a", resources=NodeResources(generic={"gpu": 2}))],
            "no suitable node (insufficient resources on 1 node)",
            id="generic",
        ),
    ],
)
def test_a_refusal_counts_nodes_in_docker_s_words(spec: TaskSpec, nodes: list[Node], words: str) -> None:
    assert refusal(a_task(1, spec), nodes) == words


def test_a_host_port_is_taken_until_its_task_is_beyond_running() -> None:
    stopping = a_task(2, node="a", endpoint=PORT, desired=TaskState.SHUTDOWN)
    assert refusal(a_task(1, endpoint=PORT), [a_node("a")], [stopping]) == (
        "no suitable node (host-mode port already in use on 1 node)"
    )
    over = replace(stopping, status=TaskStatus(TaskState.SHUTDOWN))
    assert placed([a_task(1, endpoint=PORT)], [a_node("a")], [over]) == {"t001": "a"}


def test_the_limit_per_node_counts_what_was_placed_a_moment_before() -> None:
    spec = TaskSpec(placement=Placement(max_replicas=1))
    plan = place(
        a_service(spec),
        [a_task(n, spec) for n in (1, 2, 3)],
        NodeSet([a_node("a"), a_node("b")]),
        FailureLog(),
        now_ns=0,
    )
    assert [type(action).__name__ for action in plan.actions] == ["AssignTask", "AssignTask", "RefuseTask"]
    assert plan.actions[-1].reason == "no suitable node (max replicas per node limit exceed)"


def test_amd64_and_x86_64_are_one() -> None:
    spec = TaskSpec(placement=Placement(platforms=(Platform("linux", "amd64"),)))
    assert placed([a_task(1, spec)], [a_node("a", architecture="x86_64")]) == {"t001": "a"}


def test_named_resources_are_handed_out_once() -> None:
    spec = TaskSpec(reservation=Reservation(generic=(("gpu", 1),)))
    node = a_node("a", resources=NodeResources(generic={"gpu": frozenset({"u1", "u2"})}))
    plan = place(a_service(spec), [a_task(n, spec) for n in (1, 2, 3)], NodeSet([node]), FailureLog(), now_ns=0)
    granted = [action.granted for action in plan.actions if isinstance(action, AssignTask)]
    assert granted == [(("gpu", "u1"),), (("gpu", "u2"),)]


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        pytest.param("node.hostname==A", True, id="case-insensitive"),
        pytest.param(" node.hostname == a ", True, id="blanks"),
        pytest.param("node.hostname!=b", True, id="unequal"),
        pytest.param("node.hostname==a*", False, id="no-patterns"),
        pytest.param("node.role==worker", True, id="role"),
        pytest.param("node.platform.os==linux", True, id="os"),
        pytest.param("node.platform.arch==amd64", False, id="arch-is-raw"),
        pytest.param("node.labels.dc==east", True, id="label"),
        pytest.param("node.labels.DC==east", False, id="label-key-is-case-sensitive"),
        pytest.param("node.labels.none!=x", True, id="absent-label-is-empty"),
        pytest.param("node.labels.none==x", False, id="absent-label-equals-nothing"),
        pytest.param("engine.labels.ssd==yes", True, id="engine-label"),
        pytest.param("node.colour==red", False, id="unknown-key"),
        pytest.param("node.colour!=red", False, id="unknown-key-never-matches"),
        pytest.param("node.ip==10.1.2.3", True, id="address"),
        pytest.param("node.ip==10.1.0.0/16", True, id="network"),
        pytest.param("node.ip!=10.1.0.0/16", False, id="not-network"),
        pytest.param("node.ip!=nonsense", False, id="malformed-network-matches-nothing"),
    ],
)
def test_constraints(text: str, matches: bool) -> None:
    node = a_node("a", labels={"dc": "East"}, engine_labels={"ssd": "yes"}, address="10.1.2.3")
    assert satisfies((text,), node) is matches


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node.id", "constraint expected one operator from ==, !="),
        ("no de==a", "key 'no de' is invalid"),
        ("node.id==@", "value '@' is invalid"),
        ("x==a", "key 'x' is invalid"),
    ],
)
def test_unreadable_constraints(text: str, words: str) -> None:
    with pytest.raises(BadConstraint, match=words.replace("(", r"\(")):
        parse_constraint(text)


def test_fewer_tasks_of_the_service_come_before_fewer_tasks_in_all() -> None:
    others = [a_task(10 + n, node="b", service_id=ServiceId("db")) for n in range(5)]
    mine = [a_task(2, node="a")]
    assert placed([a_task(1), *mine], [a_node("a"), a_node("b")], others) == {"t001": "b"}


def test_a_node_where_the_version_failed_five_times_lately_is_avoided() -> None:
    node_set, failures = NodeSet([a_node("a"), a_node("b")], [a_task(9, node="b")]), FailureLog()
    for number in range(20, 25):
        failed = a_task(number, node="a", status=TaskStatus(TaskState.FAILED, applied_at_ns=10 * S))
        failures.note(failed)
        failures.note(replace(failed, desired=TaskState.SHUTDOWN))  # the same failure, told again
        plan = place(a_service(), [a_task(1)], node_set, failures, now_ns=20 * S)
        (action,) = plan.actions
        assert isinstance(action, AssignTask)
        assert action.node_id == ("b" if number == 24 else "a")
    (action,) = place(a_service(), [a_task(1)], node_set, failures, now_ns=311 * S).actions
    assert isinstance(action, AssignTask) and action.node_id == "a"


def test_spread_evens_out_groups_before_nodes() -> None:
    nodes = [a_node("n1", labels={"dc": "a"}), a_node("n2", labels={"dc": "a"}), a_node("n3", labels={"dc": "b"})]
    spec = TaskSpec(placement=Placement(spread=("node.labels.dc",)))
    where = Counter(placed([a_task(n, spec) for n in range(1, 7)], nodes).values())
    assert where == {"n1": 2, "n2": 1, "n3": 3} or where == {"n1": 1, "n2": 2, "n3": 3}


def test_a_full_group_leaves_the_rest_to_the_others() -> None:
    nodes = [
        a_node("n1", labels={"dc": "a"}, resources=NodeResources(0, 100)),
        a_node("n2", labels={"dc": "b"}, resources=NodeResources(0, 1000)),
    ]
    spec = TaskSpec(placement=Placement(spread=("node.labels.dc",)), reservation=Reservation(memory_bytes=100))
    assert Counter(placed([a_task(n, spec) for n in range(1, 7)], nodes).values()) == {"n1": 1, "n2": 5}


def test_a_successor_may_go_where_its_predecessor_is() -> None:
    old = [a_task(1, node="a"), a_task(2, node="b")]
    new = replace(a_task(1), id=TaskId("new"), created_at_ns=99, spec_version=1)
    assert placed([new, *old], [a_node("a"), a_node("b")]) == {"new": "a"}


def fits(nodes: list[Node], where: tuple[int, ...], sizes: list[int], limit: int) -> bool:
    used, count = Counter[int](), Counter[int]()
    for node, size in zip(where, sizes, strict=True):
        used[node] += size
        count[node] += 1
    return all(used[n] <= nodes[n].resources.memory_bytes for n in used) and (not limit or max(count.values()) <= limit)


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    size=st.integers(0, 2),
    number=st.integers(1, 5),
    limit=st.integers(0, 3),
)
def test_against_brute_force(capacity: list[int], size: int, number: int, limit: int) -> None:
    """Equal tasks: as many are placed as any assignment could place, and as evenly as any of those is."""
    nodes = [a_node(f"n{i}", resources=NodeResources(0, c)) for i, c in enumerate(capacity)]
    spec = TaskSpec(reservation=Reservation(memory_bytes=size), placement=Placement(max_replicas=limit))
    got = placed([a_task(n, spec) for n in range(1, number + 1)], nodes)
    best, evenest = 0, 10**9
    for count in range(number, 0, -1):
        possible = [w for w in product(range(len(nodes)), repeat=count) if fits(nodes, w, [size] * count, limit)]
        if possible:
            best = count
            evenest = min(sum(n * n for n in Counter(w).values()) for w in possible)
            break
    assert len(got) == best
    if best:
        assert sum(n * n for n in Counter(got.values()).values()) == evenest


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(TaskState)), st.booleans()), max_size=30))
def test_a_fleet_is_a_function_of_what_was_put(steps: list[tuple[int, TaskState, bool]]) -> None:
    """Any order of puts and drops ends in the same as a node set built anew."""
    nodes = [a_node("a"), a_node("b")]
    node_set, known = NodeSet(nodes), dict[TaskId, Task]()
    spec = TaskSpec(reservation=Reservation(1, 2))
    for number, state, dropped in steps:
        task = a_task(number, spec, "ab"[number % 2], endpoint=PORT, status=TaskStatus(state))
        if dropped:
            node_set.drop_task(task.id)
            known.pop(task.id, None)
        else:
            node_set.put_task(task)
            known[task.id] = task
    fresh = NodeSet(nodes, known.values())
    for node_id, info in node_set.infos.items():
        assert info == fresh.infos[node_id]


def test_a_node_is_down_without_its_lease_and_up_with_it() -> None:
    node = a_node("a")
    assert decide_node(node, is_alive=True).actions == ()
    (action,) = decide_node(node, is_alive=False).actions
    down = apply_to_node(node, action, now_ns=15 * S)  # type: ignore[arg-type]
    assert (down.state, down.message, down.down_since_ns) == (NodeState.DOWN, "heartbeat failure", 15 * S)
    assert decide_node(down, is_alive=False).actions == ()
    (action,) = decide_node(down, is_alive=True).actions
    up = apply_to_node(down, action, now_ns=16 * S)  # type: ignore[arg-type]
    assert (up.state, up.message, up.down_since_ns) == (NodeState.READY, "", None)


def test_a_node_that_no_longer_fits_rejects_its_tasks() -> None:
    spec = TaskSpec(placement=Placement(("node.labels.dc==a",)))
    service, task = a_service(spec), a_task(1, spec, "a")
    assert enforce(a_node("a", labels={"dc": "a"}), [task], {service.id: service}).actions == ()
    (action,) = enforce(a_node("a"), [task], {service.id: service}).actions
    assert (action.err, action.state) == ("assigned node no longer meets constraints", TaskState.REJECTED)  # type: ignore[union-attr]
    assert enforce(a_node("a", availability=Availability.PAUSE), [task], {service.id: service}).actions == ()


def test_a_reservation_of_nothing_of_a_kind_the_node_lacks_is_no_reason_to_reject() -> None:
    task = a_task(1, TaskSpec(reservation=Reservation(generic=(("gpu", 0),))), "a")
    assert enforce(a_node("a"), [task], {}).actions == ()


def test_tasks_are_orphaned_after_a_day_or_with_their_node() -> None:
    task = a_task(1, node="a")
    down = a_node("a", state=NodeState.DOWN, down_since_ns=0)
    assert orphan_tasks(down, [task], now_ns=S).waits[0].until_ns == 86_400 * S
    assert len(orphan_tasks(down, [task], now_ns=86_400 * S).actions) == 1
    (action,) = orphan_tasks(None, [task], now_ns=0).actions
    assert action.message == "Task belonged to a node that has been deleted"  # type: ignore[union-attr]
