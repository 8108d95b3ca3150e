"""The cluster's pure parts: what is stored comes back, what clients send is shown again."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bennu.cluster import codec
from bennu.cluster.api_types import ServiceSpecWire
from bennu.cluster.connections import LISTEN, parse_sockets
from bennu.cluster.convert import spec_json, to_core
from bennu.cluster.deadline_queue import DeadlineQueue
from bennu.cluster.ports import allocate_ports
from bennu.cluster.tables import ServiceRow, TaskRow
from bennu.errors import InvalidParameter
from bennu.orchestration.model.actions import CreateTask
from bennu.orchestration.model.apply import new_task
from bennu.orchestration.model.nouns import RollingRun, Service, ServiceId, SlotKey, TaskId, UpdateStatus
from bennu.orchestration.model.revisions import accept_update, create_service
from bennu.orchestration.model.spec import EndpointSpec, PortSpec
from bennu.orchestration.model.states import UpdateState

SENT = {
    "Name": "web",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox:latest",
            "Args": ["sleep", "9"],
            "Env": ["V=2"],
            "Init": False,
            "DNSConfig": {},
        },
        "Resources": {"Limits": {}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 3000000000, "MaxAttempts": 0},
        "Placement": {"Constraints": ["node.role==manager"], "MaxReplicas": 2},
        "ForceUpdate": 0,
    },
    "Mode": {"Replicated": {"Replicas": 2}},
    "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]},
}


def read(sent: dict[str, object]) -> ServiceSpecWire:
    return msgspec.convert(sent, type=ServiceSpecWire)


def service() -> Service:
    made = create_service(ServiceId("s"), to_core(read(SENT)), now_ns=5)
    changed = dict(SENT, Labels={})
    return accept_update(made, to_core(read(changed)), version=7, now_ns=9)


def test_a_specification_is_shown_as_it_was_sent_with_the_daemons_additions() -> None:
    shown = spec_json(to_core(read(SENT)))
    template = shown["TaskTemplate"]
    assert template["ContainerSpec"].pop("Isolation") == "default"
    assert template.pop("Runtime") == "container"
    assert shown == SENT


def test_networks_are_shown_where_they_were_given() -> None:
    template, asked = {"ContainerSpec": {"Image": "busybox"}}, [{"Target": "n"}]
    beside = spec_json(to_core(read({"Name": "web", "TaskTemplate": template, "Networks": asked})))
    within = spec_json(to_core(read({"Name": "web", "TaskTemplate": template | {"Networks": asked}})))
    assert (beside["Networks"], beside["TaskTemplate"].get("Networks")) == (asked, None)
    assert (within.get("Networks"), within["TaskTemplate"]["Networks"]) == (None, asked)
    assert to_core(read(beside)) == to_core(read({"Name": "web", "TaskTemplate": template, "Networks": asked}))


def test_rules_of_placement_are_shown_only_where_they_were_given() -> None:
    for sent in ({"Placement": {}}, {}):
        shown = spec_json(to_core(read(dict(SENT, TaskTemplate={"ContainerSpec": {"Image": "busybox"}, **sent}))))
        assert {key: value for key, value in shown["TaskTemplate"].items() if key == "Placement"} == sent


def test_an_explicit_default_is_another_wish_than_an_absent_one() -> None:
    explicit = dict(SENT, TaskTemplate=dict(SENT["TaskTemplate"], RestartPolicy={"Condition": "any"}))  # type: ignore[call-overload]
    absent = dict(SENT, TaskTemplate={k: v for k, v in SENT["TaskTemplate"].items() if k != "RestartPolicy"})  # type: ignore[attr-defined]
    assert to_core(read(explicit)).task != to_core(read(absent)).task


def test_rows_come_back_from_the_store_as_they_went_in() -> None:
    rollout = RollingRun(3, 2, slots=frozenset({SlotKey(1), SlotKey(0, "n")}), failed=(SlotKey(1),))
    status = UpdateStatus(UpdateState.UPDATING, "update in progress", started_at_ns=3)
    stored = ServiceRow(id="s", service=msgspec_free_replace(service(), update_status=status, rollout=rollout))
    assert codec.decode(ServiceRow, codec.encode(stored)) == stored
    task = new_task(CreateTask(1, "because"), service(), TaskId("t"), now_ns=4)
    row = TaskRow(id="t", task=task, service_name="web")
    assert codec.decode(TaskRow, codec.encode(row)) == row


def msgspec_free_replace(made: Service, **changes: object) -> Service:
    from dataclasses import replace

    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_port_is_published_once_and_an_automatic_one_stays() -> None:
    wanted = EndpointSpec(ports=(PortSpec(80),))
    first = allocate_ports(wanted, ())
    holder = ServiceRow(id="x", service=service(), ports=first)
    second = allocate_ports(wanted, (holder,))
    assert first[0].published == 30000
    assert second[0].published == 30001
    assert allocate_ports(wanted, (holder,), before=second) == second
    with pytest.raises(InvalidParameter, match="port '30000' is already in use by service 'web'"):
        allocate_ports(EndpointSpec(ports=(PortSpec(80, 30000),)), (holder,))


def test_sockets_are_read_from_the_kernels_table() -> None:
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:0050 00000000:0000 0A 00000000:00000000\n"
    )
    assert parse_sockets(text) == [(8000, LISTEN, False), (80, LISTEN, True)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9))), st.integers(0, 9))
def test_wakes_are_a_dictionary_whose_least_is_known(puts: list[tuple[str, int | None]], now_ns: int) -> None:
    deadlines, plain = DeadlineQueue(), {}
    for key, at_ns in puts:
        deadlines.put(key, at_ns)
        plain[key] = at_ns
    there = {key: at_ns for key, at_ns in plain.items() if at_ns is not None}
    assert deadlines.next_ns() == min(there.values(), default=None)
    assert sorted(deadlines.take_due(now_ns)) == sorted(key for key, at_ns in there.items() if at_ns <= now_ns)
    assert deadlines.next_ns() == min((at_ns for at_ns in there.values() if at_ns > now_ns), default=None)
