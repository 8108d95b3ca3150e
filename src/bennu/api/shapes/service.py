"""Services, tasks, nodes, secrets and configs as clients see them."""

from collections.abc import Iterable, Mapping
from typing import Any

from bennu.api.shapes.instants import rfc3339
from bennu.cluster.convert import endpoint_json, fill_defaults, port_json, spec_json, template_json
from bennu.cluster.tables import BlobRow, NodeRow, Row, ServiceRow, TaskRow
from bennu.model import Shape
from bennu.network import Network
from bennu.orchestration.model.counts import count_tasks
from bennu.orchestration.model.nouns import UpdateStatus
from bennu.orchestration.model.states import NodeState, Role

Json = dict[str, Any]


class NodeSpecBody(Shape):
    name: str = ""
    labels: dict[str, str] | None = None
    role: str = "manager"
    availability: str = "active"


def meta_json(row: Row) -> Json:
    return {
        "ID": row.id,
        "Version": {"Index": row.index},
        "CreatedAt": rfc3339(row.created_ns),
        "UpdatedAt": rfc3339(row.updated_ns),
    }


def service_json(row: ServiceRow, *, insert_defaults: bool = False) -> Json:
    service = row.service
    shown = meta_json(row) | {"Spec": spec_json(service.spec)}
    if insert_defaults:
        fill_defaults(shown["Spec"])
    if service.previous is not None:
        shown["PreviousSpec"] = spec_json(service.previous.spec)
        if insert_defaults:
            fill_defaults(shown["PreviousSpec"])
    endpoint = service.spec.endpoint
    shown["Endpoint"] = {"Spec": endpoint_json(endpoint) if endpoint else {}}
    if row.ports:
        shown["Endpoint"]["Ports"] = [port_json(port) for port in row.ports]
    if row.vips:
        shown["Endpoint"]["VirtualIPs"] = [{"NetworkID": vip.network_id, "Addr": vip.address} for vip in row.vips]
    if service.update_status is not None:
        shown["UpdateStatus"] = update_status_json(service.update_status)
    if service.job is not None:
        shown["JobStatus"] = {"JobIteration": iteration_json(service.job.iteration)} | (
            {"LastExecution": rfc3339(service.job.last_execution_ns)} if service.job.last_execution_ns else {}
        )
    return shown


def iteration_json(number: int) -> Json:
    return {"Index": number} if number else {}


def update_status_json(status: UpdateStatus) -> Json:
    shown: Json = {"State": status.state.value}
    if status.started_at_ns is not None:
        shown["StartedAt"] = rfc3339(status.started_at_ns)
    if status.completed_at_ns is not None:
        shown["CompletedAt"] = rfc3339(status.completed_at_ns)
    return shown | {"Message": status.message}


def service_status_json(row: ServiceRow, tasks: Iterable[TaskRow]) -> Json:
    """Write `ServiceStatus` of a list: counts of tasks."""
    counts = count_tasks(row.service, (item.task for item in tasks))
    return {"RunningTasks": counts.running, "DesiredTasks": counts.desired, "CompletedTasks": counts.completed}


def task_json(row: TaskRow, networks: dict[str, Network], *, is_job: bool) -> Json:
    """Write a task.

    `is_job`: docker's client waits for ever for tasks of a job that do not say which round they are of.
    """
    task = row.task
    shown = meta_json(row) | {"Labels": {}, "Spec": template_json(task.spec), "ServiceID": task.service_id}
    shown["Spec"].pop("Runtime", None)
    if task.slot:
        shown["Slot"] = task.slot
    if task.node_id is not None:
        shown["NodeID"] = task.node_id
    shown["Status"] = _status_json(row)
    shown["DesiredState"] = task.desired.word
    attached = [
        {"Network": network_json(networks[item.network_id]), "Addresses": [item.address]}
        for item in row.attachments
        if item.network_id in networks and networks[item.network_id].scope == "swarm"
    ]
    if attached:
        shown["NetworksAttachments"] = attached
    if task.granted:
        shown["GenericResources"] = [_granted_json(kind, value) for kind, value in task.granted]
    if is_job:
        shown["JobIteration"] = iteration_json(task.iteration)
    return shown


def _status_json(row: TaskRow) -> Json:
    status = row.task.status
    shown: Json = {"Timestamp": rfc3339(status.timestamp_ns), "State": status.state.word, "Message": status.message}
    if status.err:
        shown["Err"] = status.err
    if row.container_id:
        code = 0 if status.exit_code is None else status.exit_code
        shown["ContainerStatus"] = {"ContainerID": row.container_id, "PID": row.pid, "ExitCode": code}
    shown["PortStatus"] = {}
    if row.bound:
        shown["PortStatus"]["Ports"] = [
            {
                "Protocol": port.protocol,
                "TargetPort": port.target,
                "PublishedPort": port.published,
                "PublishMode": "host",
            }
            for port in row.bound
        ]
    return shown


def _granted_json(kind: str, value: str) -> Json:
    if value.isdecimal():
        return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(value)}}
    return {"NamedResourceSpec": {"Kind": kind, "Value": value}}


def generic_json(resources: Mapping[str, int | frozenset[str]]) -> list[Json] | None:
    """Write a node's generic resources: a count, or each piece by its name."""
    found = [
        _granted_json(kind, word)
        for kind, value in sorted(resources.items())
        for word in ([str(value)] if isinstance(value, int) else sorted(value))
    ]
    return found or None


def network_json(network: Network) -> Json:
    spec: Json = {"Name": network.name, "Labels": network.labels, "DriverConfiguration": {"Name": "overlay"}}
    spec |= {"Ingress": True} if network.ingress else {}
    return {
        "ID": network.id,
        "Version": {},
        "CreatedAt": rfc3339(network.created_ns),
        "UpdatedAt": rfc3339(network.created_ns),
        "Spec": spec,
        "DriverState": {"Name": "overlay"},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": [{"Subnet": pool.subnet} for pool in network.ipam]},
    }


def node_json(row: NodeRow) -> Json:
    node = row.node
    spec: Json = {"Labels": dict(node.labels), "Role": node.role.value, "Availability": node.availability.value}
    if row.name:
        spec["Name"] = row.name
    status: Json = {"State": node.state.value}
    if node.message:
        status["Message"] = node.message
    status["Addr"] = node.address
    plugins = [{"Type": kind, "Name": name} for kind, name in sorted(node.plugins)]
    shown = meta_json(row) | {
        "Spec": spec,
        "Description": {
            "Hostname": node.hostname,
            "Platform": {"Architecture": node.architecture, "OS": node.os},
            "Resources": {"NanoCPUs": node.resources.nano_cpus, "MemoryBytes": node.resources.memory_bytes},
            "Engine": {"EngineVersion": row.engine_version, "Plugins": plugins},
            "TLSInfo": {},
        },
        "Status": status,
    }
    if generic := generic_json(node.resources.generic):
        shown["Description"]["Resources"]["GenericResources"] = generic
    if node.engine_labels:
        shown["Description"]["Engine"]["Labels"] = dict(node.engine_labels)
    if node.role is Role.MANAGER:
        reachability = "reachable" if node.state is NodeState.READY else "unknown"
        shown["ManagerStatus"] = {"Leader": True, "Reachability": reachability, "Addr": f"{node.address}:2377"}
    return shown


def blob_json(kind: str, row: BlobRow) -> Json:
    spec: Json = {"Name": row.name, "Labels": dict(row.labels)}
    if kind == "config":
        spec["Data"] = row.data
    if row.templating:
        spec["Templating"] = {"Name": row.templating}
    return meta_json(row) | {"Spec": spec}
