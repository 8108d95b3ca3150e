"""The local volume driver: each volume is one folder under its root, with a record in the store.

The record comes first and the folder after it is made whole at `open`, so a volume that was acknowledged is always
there, and a folder without a record is half a creation (or half a removal) and is taken away.
"""

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bennu.errors import Conflict, InvalidParameter, NotFound, NotImplementedHere
from bennu.store import Delete, Put, Store, Transaction

PREFIX: Final = "volumes/"
NAME: Final = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
ANONYMOUS_LABEL: Final = "com.docker.volume.anonymous"


class Volume(msgspec.Struct, kw_only=True):
    """One volume as it is kept on disk."""

    name: str
    driver: str = "local"
    mountpoint: str
    created_ns: int
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels


class Volumes:
    """All volumes of one host. `users` is set by the engine: which containers use a volume, by id."""

    def __init__(self, root: Path, store: Store) -> None:
        self.users: Callable[[str], list[str]] = lambda name: []
        self._root = root
        self._store = store
        self._volumes: dict[str, Volume] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Read the records; make missing folders, take away folders without a record."""
        entries = await self._store.read_prefix(PREFIX)
        found = [msgspec.json.decode(entry.value, type=Volume) for entry in entries]
        self._volumes = {volume.name: volume for volume in found}
        await asyncio.to_thread(self._repair)

    def _repair(self) -> None:
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for volume in self._volumes.values():
            Path(volume.mountpoint).mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in self._root.iterdir():
            if folder.is_dir() and folder.name not in self._volumes:
                shutil.rmtree(folder, ignore_errors=True)

    def find(self, name: str) -> Volume:
        """Raises: NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def list(self) -> "list[Volume]":
        return sorted(self._volumes.values(), key=lambda volume: volume.name)

    async def create(
        self,
        name: str,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Create it, or answer the one of that name. "" makes an anonymous one.

        Raises: InvalidParameter, NotFound (driver), NotImplementedHere (mount options).
        """
        labels = dict(labels or {})
        if not name:
            name, labels[ANONYMOUS_LABEL] = secrets.token_hex(32), ""
        if not NAME.match(name):
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if options:
            raise NotImplementedHere("options of the local volume driver (type, o, device) are not implemented")
        async with self._lock:
            if name in self._volumes:
                return self._volumes[name]
            mountpoint = self._root / name / "_data"
            await asyncio.to_thread(mountpoint.mkdir, 0o755, True, True)
            volume = Volume(name=name, mountpoint=str(mountpoint), created_ns=time.time_ns(), labels=labels)
            await self._store.commit(Transaction([Put(PREFIX + name, msgspec.json.encode(volume))]))
            self._volumes[name] = volume
            return volume

    async def remove(self, name: str, *, force: bool = False, by_container: str = "") -> None:
        """Remove it with its data; `force` tolerates that there is none.

        `by_container`: the one container whose use of it does not count, since it is being removed.
        Raises: NotFound, Conflict when containers use it.
        """
        if force and name not in self._volumes:
            return
        volume = self.find(name)
        users = [user for user in self.users(name) if user != by_container]
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        async with self._lock:
            await self._store.commit(Transaction([Delete(PREFIX + name)]))
            self._volumes.pop(name, None)
            await asyncio.to_thread(shutil.rmtree, Path(volume.mountpoint).parent, True)
