"""The volumes of one host, with a record in the store each.

One of the local driver is a folder under the root of all; one of a plugin's is wherever the plugin has it
(`plugin_volumes.py`), and only what we know of it is kept here.

A crash at any instruction leaves a volume whole or absent: a creation is acknowledged when its record is written, and
an empty folder without one is swept away at `open`; a removal first marks the record, then deletes the data, then the
record, and is finished at `open`. A folder that holds data but has no record is never deleted: it is a volume again.
"""

import asyncio
import builtins
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec

from bennu.beneath import entry_of
from bennu.confined.client import measure_tree
from bennu.errors import BennuError, Conflict, NotFound
from bennu.plugins import Plugins
from bennu.process import run
from bennu.store import Delete, Put, Store, Transaction, aside
from bennu.volumes.mounting import check_options, is_mounted, mount_options, unmount
from bennu.volumes.plugin_volumes import PluginVolumes
from bennu.volumes.volume import ANONYMOUS_LABEL, NAME, Volume, check_name

PREFIX: Final = "volumes/"
DATA: Final = "_data"
DELETE_TIMEOUT_S: Final = 3600

log = logging.getLogger(__name__)


Commit = Callable[[Put | Delete, str, Volume], Awaitable[None]]


class VolumeUsers(Protocol):
    """Who knows the containers."""

    def users_of_volume(self, name: str) -> list[str]:
        """List the ids of the containers that use it."""
        ...

    def running_users_of_volume(self, name: str) -> list[str]:
        """List those of them that run."""
        ...


class Volumes:
    """All volumes of one host."""

    def __init__(
        self,
        root: Path,
        store: Store,
        users: VolumeUsers | None = None,
        commit: Commit | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        """Keep the volumes below `root`; `users` None: nobody uses any; `plugins` keep those of other drivers.

        `commit` writes a change together with the event (`create`, `destroy`) that announces it; None: without.
        """
        self._users = users
        self._commit = commit or self._commit_alone
        self._root = root
        self._plugins = PluginVolumes(plugins or Plugins())
        self._store = store
        self._volumes: dict[str, Volume] = {}
        self._lock = asyncio.Lock()
        self._fillings: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by name
        # By name: of two keepers only one gets it, and what options name may be on a server that never answers, so no
        # other volume waits.
        self._mountings: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._mounted_for: dict[str, set[str]] = {}  # by name: who asked for it; a container that starts runs not yet
        self._held: dict[str, set[str]] = {}  # by the id of a container that is being made: its volumes' names

    async def _commit_alone(self, write: Put | Delete, action: str, volume: Volume) -> None:
        await self._store.commit(Transaction([write]))

    def users(self, name: str) -> builtins.list[str]:
        """List the ids of the containers that use it, or are being made with it."""
        holders = [container_id for container_id, names in self._held.items() if name in names]
        return holders + (self._users.users_of_volume(name) if self._users is not None else [])

    def running_users(self, name: str) -> builtins.list[str]:
        return self._users.running_users_of_volume(name) if self._users is not None else []

    # --- what there is --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the records; finish what a former daemon left half done."""
        found = await aside.load(self._store, PREFIX, msgspec.json.Decoder(Volume).decode)
        unread = {one.key.removeprefix(PREFIX) for one in await aside.read_aside(self._store, PREFIX)}
        gone = {volume.name for volume in found if volume.removing}
        for volume in found:
            if volume.removing and volume.is_local:
                await _delete_tree(Path(volume.mountpoint).parent)
        await asyncio.to_thread(self._repair, [volume for volume in found if volume.is_local and not volume.removing])
        self._volumes = {volume.name: volume for volume in found if volume.name not in gone}
        for name in sorted(gone):
            await self._store.commit(Transaction([Delete(PREFIX + name)]))
        for name in await asyncio.to_thread(self._find_unrecorded, unread):
            log.warning("volume %s has data and no record: taken up again", name)
            volume = self._new(name, None, None)
            await self._store.commit(Transaction([Put(PREFIX + name, msgspec.json.encode(volume))]))
            self._volumes[name] = volume

    def _repair(self, found: builtins.list[Volume]) -> None:
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for volume in found:
            Path(volume.mountpoint).mkdir(mode=0o755, parents=True, exist_ok=True)

    def _find_unrecorded(self, unread: Set[str]) -> builtins.list[str]:
        """Find folders with data and without a record, not those of `unread` records; remove the empty ones."""
        names = []
        for folder in sorted(self._root.iterdir()):
            if (
                folder.name in self._volumes
                or folder.name in unread
                or not folder.is_dir()
                or not NAME.fullmatch(folder.name)
            ):
                continue
            if (folder / DATA).is_dir() and any((folder / DATA).iterdir()):
                names.append(folder.name)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return names

    def find(self, name: str) -> Volume:
        """Find a volume by name. Raises: NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def list(self) -> builtins.list[Volume]:
        return sorted(self._volumes.values(), key=lambda volume: volume.name)

    # --- birth ----------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        born_with: str = "",
    ) -> Volume:
        """Create a volume, or answer the one of that name as it is. The name "" makes an anonymous one.

        `driver` "": whatever keeps one of that name, else the local one.
        `born_with`: the container about to be created with it; see `sweep`.
        Raises: InvalidParameter, NotFound (driver), Conflict (another driver's), with dockerd's words; OSError.
        """
        if not name:
            name, labels = secrets.token_hex(32), {**(labels or {}), ANONYMOUS_LABEL: ""}
        elif not driver:
            await self._adopt(name)
        if driver not in ("", "local"):
            return await self._create_by_plugin(name, driver, options, labels, born_with)
        check_name(name)
        if name in self._volumes:  # whatever is being done with it
            return _of_driver(self._volumes[name], driver)
        async with _lock_of(self._mountings, name), self._lock:
            if name in self._volumes:
                return _of_driver(self._volumes[name], driver)
            check_options(name, options or {})
            volume = self._new(name, options, labels)
            volume.born_with = born_with
            await asyncio.to_thread(Path(volume.mountpoint).mkdir, 0o755, True, True)
            await self._commit(Put(PREFIX + name, msgspec.json.encode(volume)), "create", volume)
            self._volumes[name] = volume
            return volume

    def _new(self, name: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> Volume:
        return Volume(
            name=name,
            mountpoint=str(entry_of(self._root, name) / DATA),
            created_ns=time.time_ns(),
            labels=None if labels is None else dict(labels),
            options=None if options is None else dict(options),
        )

    async def _create_by_plugin(
        self,
        name: str,
        driver: str,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str] | None,
        born_with: str,
    ) -> Volume:
        async with _lock_of(self._mountings, name):
            if name in self._volumes:
                return _of_driver(self._volumes[name], driver)
            volume = await self._plugins.create(name, driver, options, labels)
            volume.born_with = born_with
            await self._commit(Put(PREFIX + name, msgspec.json.encode(volume)), "create", volume)
            self._volumes[name] = volume
            return volume

    async def _adopt(self, name: str) -> None:
        """Take up a volume that no record knows and a plugin has."""
        if name in self._volumes:
            return
        volume = await self._plugins.find(name)
        if volume is None:
            return
        async with _lock_of(self._mountings, name):
            if name not in self._volumes:
                await self._store.commit(Transaction([Put(PREFIX + name, msgspec.json.encode(volume))]))
                self._volumes[name] = volume

    async def list_foreign(self) -> tuple[builtins.list[Volume], builtins.list[str]]:
        """List the volumes of plugins that no record knows, not made here; and a warning for each that told nothing."""
        found, warnings = await self._plugins.list()
        return [volume for volume in found if volume.name not in self._volumes], warnings

    async def look_up(self, name: str) -> Volume:
        """Find a volume by name, also one that only a plugin knows. Raises: NotFound."""
        await self._adopt(name)
        return self.find(name)

    def filling(self, name: str) -> asyncio.Lock:
        """Give the lock that keeps two containers that are made with a new volume at once from both filling it."""
        return _lock_of(self._fillings, name)

    @contextlib.contextmanager
    def holding(self, container_id: str) -> Iterator[Callable[[str], None]]:
        """Keep the volumes that the yielded function is given, by name, from being removed.

        A container is being made with them, and is on no record yet.
        """
        names = self._held[container_id] = set[str]()
        try:
            yield names.add
        finally:
            del self._held[container_id]

    # --- use ------------------------------------------------------------------------------------------------------

    async def mount(self, name: str, user: str) -> None:
        """Mount what the volume's options name, for `user`: a container about to start, or a copy. Idempotent.

        It stays mounted until `unmount_unused` is told that this user is done. Raises: NotFound; BennuError with the
        reason.
        """
        volume = self.find(name)
        if not volume.is_local:
            await self._mount_by_plugin(volume, user)
        if not volume.options or not volume.is_local:
            return
        async with _lock_of(self._mountings, name):
            if not await asyncio.to_thread(is_mounted, volume.mountpoint):
                await mount_options(volume.mountpoint, volume.options)
            self._mounted_for.setdefault(name, set()).add(user)

    async def _mount_by_plugin(self, volume: Volume, user: str) -> None:
        async with _lock_of(self._mountings, volume.name):
            if user in volume.mounted_by:
                return
            volume.mountpoint = await self._plugins.mount(volume, user)
            volume.mounted_by = [*volume.mounted_by, user]
            await self._store.commit(Transaction([Put(PREFIX + volume.name, msgspec.json.encode(volume))]))

    async def _unmount_by_plugin(self, volume: Volume, user: str) -> None:
        async with _lock_of(self._mountings, volume.name):
            if user not in volume.mounted_by:
                return
            await self._plugins.unmount(volume, user)
            volume.mounted_by = [one for one in volume.mounted_by if one != user]
            await self._store.commit(Transaction([Put(PREFIX + volume.name, msgspec.json.encode(volume))]))

    async def unmount_unused(self, name: str, user: str) -> None:
        """Unmount a volume that `user` is done with, unless others use it, or a container runs with it. Idempotent.

        Raises: BennuError with the reason.
        """
        volume = self._volumes.get(name)
        if volume is not None and not volume.is_local:
            await self._unmount_by_plugin(volume, user)
        if volume is None or not volume.options or not volume.is_local:
            return
        async with _lock_of(self._mountings, name):
            users = self._mounted_for.get(name, set())
            users.discard(user)
            if users or any(one != user for one in self.running_users(name)):
                return
            self._mounted_for.pop(name, None)
            if await asyncio.to_thread(is_mounted, volume.mountpoint):
                await unmount(volume.mountpoint)

    # --- end ------------------------------------------------------------------------------------------------------

    async def remove(self, name: str, *, force: bool = False, by_container: str = "") -> None:
        """Remove a volume with its data; `force`: one that does not exist is no error.

        `by_container`: the one container whose use of it does not count, since it is being removed.
        Raises: NotFound, Conflict when containers use it.
        """
        await self._adopt(name)
        async with _lock_of(self._mountings, name):
            if force and name not in self._volumes:
                return
            volume = self.find(name)
            self._check_unused(name, by_container)
            if not volume.is_local:
                await asyncio.shield(self._remove_by_plugin(volume, force=force))
                return
            if await asyncio.to_thread(is_mounted, volume.mountpoint):
                await unmount(volume.mountpoint)
            self._mounted_for.pop(name, None)
            async with self._lock:
                self._check_unused(name, by_container)
                await asyncio.shield(self._remove(volume))

    def _check_unused(self, name: str, by_container: str) -> None:
        users = [user for user in self.users(name) if user != by_container]
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")

    async def _remove(self, volume: Volume) -> None:
        marked = msgspec.structs.replace(volume, removing=True)
        await self._store.commit(Transaction([Put(PREFIX + volume.name, msgspec.json.encode(marked))]))
        self._volumes.pop(volume.name, None)
        await _delete_tree(Path(volume.mountpoint).parent)
        await self._commit(Delete(PREFIX + volume.name), "destroy", volume)

    async def _remove_by_plugin(self, volume: Volume, *, force: bool) -> None:
        try:
            await self._plugins.remove(volume)
        except BennuError as error:
            if not force:
                raise
            log.warning("volume %s is forgotten, and its plugin failed to remove it: %s", volume.name, error)
        await self._commit(Delete(PREFIX + volume.name), "destroy", volume)
        self._volumes.pop(volume.name, None)

    def set_free(self, names: Iterable[str]) -> builtins.list[Put]:
        """Make the writes by which volumes outlive the container they were born with; commit them with its deletion."""
        born = [volume for name in names if (volume := self._volumes.get(name)) is not None and volume.born_with]
        freed = [msgspec.structs.replace(volume, born_with="") for volume in born]
        return [Put(PREFIX + volume.name, msgspec.json.encode(volume)) for volume in freed]

    async def sweep(self, cut_short: Container[str]) -> None:
        """Remove volumes born with containers whose creation never came to its end."""
        for volume in self.list():
            if volume.born_with in cut_short and not self.users(volume.name):
                log.warning("volume %s of a container that was never created is removed", volume.name)
                await self.remove(volume.name)

    async def prune(self, wanted: Callable[[Volume], bool]) -> tuple[builtins.list[str], int]:
        """Remove unused ones among the `wanted`; answer their names and the bytes that became free."""
        names, freed = [], 0
        for volume in self.list():
            if not volume.is_local or not wanted(volume) or self.users(volume.name):
                continue
            size = await self.measure(volume)
            try:
                await self.remove(volume.name)
            except (NotFound, Conflict):
                continue  # somebody was faster
            names.append(volume.name)
            freed += size
        return names, freed

    async def measure(self, volume: Volume) -> int:
        """Count the bytes of its files, each inode once; 0 for one whose data lives elsewhere: by options or plugin."""
        if volume.options or not volume.is_local:
            return 0
        return await measure_tree(Path(volume.mountpoint))


def _of_driver(volume: Volume, driver: str) -> Volume:
    """Answer the volume, if it is this driver's or nobody said which. Raises: Conflict in dockerd's words."""
    if driver not in ("", volume.driver):
        raise Conflict(f"create {volume.name}: volume name must be unique")
    return volume


def _lock_of(locks: WeakValueDictionary[str, asyncio.Lock], name: str) -> asyncio.Lock:
    lock = locks.get(name)
    if lock is None:
        lock = locks[name] = asyncio.Lock()
    return lock


async def _delete_tree(folder: Path) -> None:
    """Delete a folder, however deep; what is mounted below is left alone. Raises: BennuError."""
    done = await run(["rm", "-rf", "--one-file-system", "--", folder], timeout_s=DELETE_TIMEOUT_S)
    if done.exit_code != 0:
        raise BennuError(f"cannot delete {folder}: {done.stderr.decode(errors='replace').strip()}")
