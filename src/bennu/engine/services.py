"""What every container of this host shares: the adapters, the journal, the folders, the owner of background tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bennu.engine.events import Journal
from bennu.images import Images
from bennu.network import Networks
from bennu.runtime import Runtime
from bennu.store import Store
from bennu.volumes import Volumes

if TYPE_CHECKING:
    from bennu.engine.container import Container


@dataclass(slots=True)
class Services:
    data_root: Path
    exec_root: Path
    boot_id: str
    store: Store
    journal: Journal
    images: Images
    networks: Networks
    volumes: Volumes
    runtime: Runtime
    tasks: asyncio.TaskGroup
    find: "Callable[[str], Container]"  # another container by name or id; raises NotFound
    forget: "Callable[[Container], None]"  # a container is gone from the disk: drop it from the index
    remove: "Callable[[Container], Awaitable[None]]"  # what auto-removal does, with force and anonymous volumes
    default_stop_timeout_s: int = 10

    def folder(self, container_id: str) -> Path:
        """The durable folder of one container: writable layer, log, hosts files."""
        return self.data_root / "containers" / container_id
