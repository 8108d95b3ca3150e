"""Events of scope swarm: what changed about a service, a node, a secret or a config."""

from bennu.cluster.convert import container_spec
from bennu.cluster.tables import BlobRow, NodeRow, ServiceRow
from bennu.engine.events import Event, event
from bennu.orchestration.model.spec import Replicated


def service_event(action: str, before: ServiceRow | None, after: ServiceRow) -> Event:
    """Describe a change of a service. Attributes: the name, and the old and new value of what differs."""
    attributes = {"name": after.name}
    if before is not None:
        pairs = (
            ("image", _image(before), _image(after)),
            ("replicas", _replicas(before), _replicas(after)),
            ("updatestate", _rollout(before), _rollout(after)),
        )
        attributes |= _differences(pairs)
    return _swarm("service", action, after.id, attributes)


def node_event(action: str, before: NodeRow | None, after: NodeRow) -> Event:
    attributes = {"name": after.node.hostname}
    if before is not None:
        old, new = before.node, after.node
        pairs = (
            ("state", old.state.value, new.state.value),
            ("availability", old.availability.value, new.availability.value),
            ("role", old.role.value, new.role.value),
        )
        attributes |= _differences(pairs)
    return _swarm("node", action, after.id, attributes)


def blob_event(kind: str, action: str, row: BlobRow) -> Event:
    """Describe a change of a secret or config; `kind` says which."""
    return _swarm(kind, action, row.id, {"name": row.name})


def _swarm(kind: str, action: str, row_id: str, attributes: dict[str, str]) -> Event:
    told = event(kind, action, row_id, attributes)
    told.scope = "swarm"
    return told


def _differences(pairs: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, old, new in pairs:
        if old == new:
            continue
        if old:
            shown[f"{name}.old"] = old
        if new:
            shown[f"{name}.new"] = new
    return shown


def _image(row: ServiceRow) -> str:
    return container_spec(row.service.spec.task).image


def _replicas(row: ServiceRow) -> str:
    mode = row.service.spec.mode
    return str(mode.replicas) if isinstance(mode, Replicated) else ""


def _rollout(row: ServiceRow) -> str:
    status = row.service.update_status
    return status.state.value if status else ""
