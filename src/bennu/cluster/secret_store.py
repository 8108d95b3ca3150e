"""Secrets and configs: small files that services mount. They differ only in who may read them again."""

import base64
from dataclasses import replace
from typing import Final, Literal

from bennu.cluster.convert import container_spec
from bennu.cluster.errors import check_version, exists, invalid
from bennu.cluster.events import blob_event
from bennu.cluster.ids import new_id
from bennu.cluster.secret_box import SecretBox
from bennu.cluster.state import Change, ClusterState
from bennu.cluster.tables import BlobRow, ServiceRow

MAX_SECRET: Final = 512_000
MAX_CONFIG: Final = 1_024_000


class SecretStore:
    """The secrets, or the configs. A secret's data is sealed before it reaches the store."""

    def __init__(self, kind: Literal["secret", "config"], state: ClusterState, box: SecretBox) -> None:
        self.kind = kind
        self._state = state
        self._table = state.secrets if kind == "secret" else state.configs
        self._box = box

    def check_active(self) -> None:
        """Refuse to work outside a swarm, as all verbs do. Raises: Unavailable."""
        self._state.require_cluster()

    def all(self) -> list[BlobRow]:
        self.check_active()
        return list(self._table)

    def find(self, ref: str) -> BlobRow:
        self.check_active()
        return self._table.find(ref, lambda row: row.name, self.kind)

    def read(self, row: BlobRow) -> bytes:
        return self._box.open(row.data) if self.kind == "secret" else base64.b64decode(row.data)

    async def create(self, name: str, labels: dict[str, str], data: bytes, templating: str) -> str:
        limit = MAX_SECRET if self.kind == "secret" else MAX_CONFIG
        if not 0 < len(data) < limit:
            raise invalid(f"{self.kind} data must be larger than 0 and less than {limit} bytes")
        async with self._state.lock:
            if any(row.name == name for row in self._table):
                raise exists(f"{self.kind} {name} already exists")
            kept = self._box.seal(data) if self.kind == "secret" else base64.b64encode(data).decode()
            row = BlobRow(id=new_id(), name=name, labels=labels, data=kept, templating=templating)
            change = Change(events=[blob_event(self.kind, "create", row)])
            change.put(self._table, row)
            await self._state.commit(change)
        return row.id

    async def update(self, ref: str, labels: dict[str, str], version: int) -> None:
        async with self._state.lock:
            row = self.find(ref)
            check_version(row.index, version)
            data = self._box.renew(row.data) if self.kind == "secret" else row.data
            changed = replace(row, labels=labels, data=data)
            change = Change(events=[blob_event(self.kind, "update", changed)])
            change.put(self._table, changed)
            await self._state.commit(change)

    async def remove(self, ref: str) -> None:
        async with self._state.lock:
            row = self.find(ref)
            users = sorted(service.name for service in self._state.services if _uses(service, self.kind, row.id))
            if users:
                word = "service" if len(users) == 1 else "services"
                raise invalid(f"{self.kind} '{row.name}' is in use by the following {word}: {', '.join(users)}")
            change = Change(events=[blob_event(self.kind, "remove", row)])
            change.delete(self._table, row.id)
            await self._state.commit(change)


def _uses(row: ServiceRow, kind: str, blob_id: str) -> bool:
    spec = container_spec(row.service.spec.task)
    if kind == "secret":
        return any(ref.secret_id == blob_id for ref in spec.secrets or ())
    return any(ref.config_id == blob_id for ref in spec.configs or ())
