"""Clients' verbs on services."""

from collections.abc import Callable

from bennu.cluster.allocator import Allocator
from bennu.cluster.api_types import ServiceSpecWire
from bennu.cluster.check import check_spec
from bennu.cluster.convert import to_core
from bennu.cluster.errors import check_version, exists, invalid, precondition, unimplemented
from bennu.cluster.events import service_event
from bennu.cluster.ids import new_id
from bennu.cluster.limits import check_size
from bennu.cluster.state import Change, ClusterState
from bennu.cluster.tables import ServiceRow
from bennu.engine.names import random_name
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.orchestration.model.nouns import Service, ServiceId
from bennu.orchestration.model.revisions import accept_rollback, accept_update, create_service


class Services:
    """The verbs on services. Each is on disk when it returns; what follows from it is the manager's work."""

    def __init__(self, state: ClusterState, networks: Allocator, now_ns: Callable[[], int]) -> None:
        self._state = state
        self._networks = networks
        self._now_ns = now_ns

    def find(self, ref: str) -> ServiceRow:
        self._state.require_cluster()
        return self._state.services.find(ref, lambda row: row.name, "service")

    async def create(self, wire: ServiceSpecWire, registry_auth: str) -> str:
        """Create a service and answer its id. Raises: BennuError in the words clients know."""
        self._state.require_cluster()
        wire.name = wire.name or random_name()
        check_spec(wire)
        self._networks.resolve(wire)
        async with self._state.lock:
            self._check_references(wire)
            if any(row.name == wire.name for row in self._state.services):
                raise exists(f"name conflicts with an existing object: service {wire.name} already exists")
            spec = to_core(wire, registry_auth=registry_auth)
            check_size(spec, (row.service.spec for row in self._state.services))
            service_id = new_id()
            service = create_service(ServiceId(service_id), spec, now_ns=self._now_ns())
            async with self._networks.allotted(ServiceRow(id=service_id, service=service), service) as row:
                change = Change(events=[service_event("create", None, row)])
                change.put(self._state.services, row)
                await self._state.commit(change)
        return service_id

    async def update(
        self, ref: str, wire: ServiceSpecWire, version: int, *, registry_auth: str | None, auth_from: str, rollback: str
    ) -> None:
        """Update a service, or restore its previous spec if `rollback` is `previous`. Raises: BennuError."""
        self._state.require_cluster()
        if rollback not in ("", "none", "previous"):
            raise BennuError(f"unrecognized rollback option {rollback}")
        if auth_from not in ("", "spec", "previous-spec"):
            raise InvalidParameter(f"invalid registryAuthFrom '{auth_from}'")
        row = self.find(ref)
        wire.name = wire.name or row.name
        check_spec(wire)
        self._networks.resolve(wire)
        async with self._state.lock:
            row = self.find(row.id)
            check_version(row.index, version)
            now_ns = self._now_ns()
            if rollback == "previous":
                if row.service.previous is None:
                    raise precondition(f"service {row.id} does not have a previous spec")
                service = accept_rollback(row.service, now_ns=now_ns)
            else:
                self._check_references(wire)
                if registry_auth is None:
                    previous = row.service.previous
                    source = previous.spec if auth_from == "previous-spec" and previous else row.service.spec
                    registry_auth = source.task.registry_auth
                spec = to_core(wire, registry_auth=registry_auth)
                check_size(spec, (other.service.spec for other in self._state.services if other.id != row.id))
                try:
                    service = accept_update(row.service, spec, version=version, now_ns=now_ns)
                except NotImplementedHere as error:
                    raise unimplemented(str(error)) from None
            await self.put(row, service)

    async def put(self, row: ServiceRow, service: Service) -> None:
        """Store a service as it is from now on. The caller holds the state's lock. Raises: BennuError."""
        async with self._networks.allotted(row, service) as changed:
            change = Change(events=[service_event("update", row, changed)])
            change.put(self._state.services, changed)
            await self._state.commit(change)

    async def remove(self, ref: str) -> None:
        async with self._state.lock:
            row = self.find(ref)
            change = Change(events=[service_event("remove", None, row)])
            change.delete(self._state.services, row.id)
            await self._state.commit(change)

    def _check_references(self, wire: ServiceSpecWire) -> None:
        spec = wire.task_template.container_spec
        assert spec is not None
        for word, table, asked in (
            ("secret", self._state.secrets, [(ref.secret_id, ref.secret_name) for ref in spec.secrets or ()]),
            ("config", self._state.configs, [(ref.config_id, ref.config_name) for ref in spec.configs or ()]),
        ):
            missing = []
            for row_id, name in asked:
                row = table.get(row_id)
                if row is None or row.name != name:
                    missing.append(name)
            if missing:
                raise invalid(f"{word}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")
