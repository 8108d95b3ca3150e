"""Secrets and configs inside tasks: each a file of its own in memory, mounted read-only into the container."""

import asyncio
import base64
import logging
import os
import shutil
from pathlib import Path
from typing import Final

from bennu.beneath import entry_of
from bennu.cluster.api_types import ConfigReference, FileTarget, SecretReference
from bennu.cluster.convert import container_spec
from bennu.cluster.secret_box import SecretBox
from bennu.cluster.state import ClusterState
from bennu.cluster.tables import NodeRow, TaskRow
from bennu.cluster.task_container import template_context
from bennu.errors import BennuError, NotImplementedHere
from bennu.model import BindOptions, Mount
from bennu.orchestration.tasks.templates import Payload, TemplateContext, expand
from bennu.process import run

SECRETS_AT: Final = "/run/secrets"
ALONE: Final = BindOptions(read_only_non_recursive=True)  # nothing is mounted below a file
DEFAULT_MODE: Final = 0o444
PERMISSIONS: Final = 0o777  # of the 32 bits that a mode has in the API
TEMPLATING: Final = "golang"
Found = tuple[str, FileTarget, bytes, str]  # path inside, attributes, data as stored, templating
log = logging.getLogger(__name__)


class TaskFiles:
    """The files of this node's tasks, in a file system that is never written to a disk."""

    def __init__(self, state: ClusterState, box: SecretBox, root: Path) -> None:
        self._state = state
        self._box = box
        self._root = root
        self._mounting = asyncio.Lock()

    async def provide(self, row: TaskRow, node: NodeRow) -> list[Mount]:
        """Write what the task is to see; answer the mounts. Idempotent. Raises: BennuError for what is gone."""
        wanted = self._wanted(row, node)
        if not wanted:
            return []
        await self._mount_memory()
        folder = entry_of(self._root, row.id)
        return await asyncio.to_thread(_write_all, folder, wanted)

    async def remove(self, task_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, entry_of(self._root, task_id), True)

    def _wanted(self, row: TaskRow, node: NodeRow) -> list[tuple[str, FileTarget, bytes]]:
        """List (path inside, attributes, content) of the task's files."""
        spec = container_spec(row.task.spec)
        secrets = [self._secret(reference) for reference in spec.secrets or ()]
        configs = [self._config(reference) for reference in spec.configs or ()]
        payload = Payload(
            secrets={target.name: _text(data) for _, target, data, _ in secrets},
            configs={target.name: _text(data) for _, target, data, _ in configs},
            env=dict(entry.split("=", 1) for entry in spec.env or () if "=" in entry),
        )
        context = template_context(row, node)
        return [
            (path, target, _expanded(data, templating, context, payload))
            for path, target, data, templating in (*secrets, *configs)
        ]

    def _secret(self, reference: SecretReference) -> Found:
        blob = self._state.secrets.get(reference.secret_id)
        if blob is None:
            raise BennuError(f"unable to get secret from secret store: secret {reference.secret_id} not found")
        target = reference.file or FileTarget(name=reference.secret_name)
        path = target.name if target.name.startswith("/") else f"{SECRETS_AT}/{target.name}"
        return path, target, self._box.open(blob.data), blob.templating

    def _config(self, reference: ConfigReference) -> Found:
        blob = self._state.configs.get(reference.config_id)
        if blob is None:
            raise BennuError(f"unable to get config from config store: config {reference.config_id} not found")
        target = reference.file or FileTarget(name=reference.config_name)
        path = target.name if target.name.startswith("/") else f"/{target.name}"
        return path, target, base64.b64decode(blob.data), blob.templating

    async def _mount_memory(self) -> None:
        async with self._mounting:
            if self._root.is_mount():
                return
            await asyncio.to_thread(self._root.mkdir, 0o700, True, True)
            done = await run(
                ["mount", "-t", "tmpfs", "-o", "mode=0700,noexec,nosuid,nodev", "tmpfs", str(self._root)], timeout_s=10
            )
            if done.exit_code != 0:
                words = done.stderr.decode(errors="replace").strip()
                raise BennuError(f"cannot keep secrets in memory at {self._root}: {words}")

    async def close(self) -> None:
        """Give the memory back, once the node left its swarm."""
        if self._root.is_mount():
            await run(["umount", "-l", str(self._root)], timeout_s=10)


def _expanded(data: bytes, templating: str, context: TemplateContext, payload: Payload) -> bytes:
    if not templating:
        return data
    if templating != TEMPLATING:
        raise NotImplementedHere(f"the templating driver {templating} is not implemented")
    return expand(_text(data), context, payload).encode(errors="surrogateescape")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _write_all(folder: Path, wanted: list[tuple[str, FileTarget, bytes]]) -> list[Mount]:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    mounts = []
    for number, (target, attributes, data) in enumerate(wanted):
        path = folder / str(number)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        os.chown(path, _number(attributes.uid), _number(attributes.gid))
        path.chmod((attributes.mode or DEFAULT_MODE) & PERMISSIONS)
        mounts.append(Mount(type="bind", source=str(path), target=target, read_only=True, bind_options=ALONE))
    return mounts


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
