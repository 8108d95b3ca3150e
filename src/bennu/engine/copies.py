"""Second copies of all records that the engine needs to be put together again, in files of their own.

    containers/ID/record.json   the record of a container, in the folder that it describes
    containers/ID/making        a mark: no client was ever told of this container
    containers/ID/removing      a mark: it is being removed, and its record goes before its files
    records/…                   a record of any other kind, or one that is set aside, one a file: key, line feed, value

The database is the truth; the copies follow it within a moment, in the background, and are for the day when it is
damaged. They are not synced one by one: the kernel writes them within half a minute. A folder is deleted for the mark
it bears, never because the database does not know it.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

from bennu.errors import Unavailable
from bennu.files import replace_file, set_aside
from bennu.store import Compacted, Store, aside

CONTAINERS: Final = "containers/"
FAMILIES: Final = (CONTAINERS, "images/", "networks/", "network-services/", "volumes/", "cluster/", aside.PREFIX)
COPY: Final = "record.json"
MAKING: Final = "making"
REMOVING: Final = "removing"
SETTLE_S: Final = 0.2  # what changes again within it is written once
TRY_AGAIN_S: Final = 2.0

log = logging.getLogger(__name__)


def is_cut_short(folder: Path) -> bool:
    """Tell whether the container of this folder was being made or removed."""
    return (folder / MAKING).exists() or (folder / REMOVING).exists()


def path_of(data_root: Path, key: str) -> Path:
    if key.startswith(CONTAINERS):
        return data_root / key / COPY
    return data_root / "records" / hashlib.sha256(key.encode()).hexdigest()[:32]


def write_copy(data_root: Path, key: str, value: bytes) -> None:
    """Write the copy of one record. Raises: OSError."""
    replace_file(path_of(data_root, key), value if key.startswith(CONTAINERS) else key.encode() + b"\n" + value)


def read_copies(data_root: Path) -> Iterator[tuple[Path, str, bytes]]:
    """Read copies of all records but containers': file, key, value. Files cut off by a power failure are skipped."""
    folder = data_root / "records"
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        key, _, value = path.read_bytes().partition(b"\n")
        text = key.decode(errors="replace")
        if text.startswith(FAMILIES) and path == path_of(data_root, text):
            yield path, text, value


class Copies:
    """The writer of the copies, which follow the store.

    Call `open` first, then `keep` in the background, and `close` when nothing is written any more.
    """

    def __init__(self, store: Store, data_root: Path) -> None:
        self._store = store
        self._root = data_root
        self._revision = 0
        self._pending: dict[str, bytes | None] = {}
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()  # one at a time: an older value never comes after a newer one

    async def open(self, *, whole: bool) -> None:
        """Make the copies agree with the store; unless the store is proven whole, delete no copy that it lacks."""
        async with self._writing:
            await self._open(whole=whole)

    async def _open(self, *, whole: bool) -> None:
        records: dict[str, bytes] = {}
        self._pending, self._revision = {}, 0
        for family in FAMILIES:
            snapshot = await self._store.snapshot(family)
            self._revision = self._revision or snapshot.revision  # the first: what came later is told again
            records |= {entry.key: entry.value for entry in snapshot.entries}
        try:
            await asyncio.to_thread(self._match, records, whole)
        except OSError as error:
            log.warning("the copies of the records in %s cannot be written: %s", self._root, error)

    async def close(self) -> None:
        await self.open(whole=True)

    def _match(self, records: Mapping[str, bytes], whole: bool) -> None:
        (self._root / "records").mkdir(mode=0o700, exist_ok=True)
        same = set()
        for path, key, value in read_copies(self._root):
            if records.get(key) == value:
                same.add(key)
            elif key not in records and whole:
                path.unlink()
            elif key not in records:
                set_aside(path, self._root / "lost/records")
        for key in records.keys() - same:
            if key.startswith(CONTAINERS):
                self._match_container(key, records[key])
            else:
                write_copy(self._root, key, records[key])

    def _match_container(self, key: str, value: bytes) -> None:
        path = path_of(self._root, key)
        for mark in (MAKING, REMOVING):
            path.with_name(mark).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # its folder is gone
            if not path.exists() or path.read_bytes() != value:
                write_copy(self._root, key, value)

    async def keep(self) -> None:
        """Keep the copies up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="follow the records")
            group.create_task(self._write_settled(), name="copy the records")

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._store.watch("", after=self._revision)) as watch:
                    async for changes in watch:
                        self._revision = changes.revision
                        self._note({key: value for key, value in changes.values.items() if key.startswith(FAMILIES)})
            except Compacted:
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Compare all records again, because too many writes happened meanwhile to be reported one by one."""
        while True:
            try:
                return await self.open(whole=True)
            except Unavailable as error:
                log.warning("the copies of the records in %s fall behind: %s", self._root, error)
                await asyncio.sleep(TRY_AGAIN_S)

    def _note(self, changes: Mapping[str, bytes | None]) -> None:
        if changes:
            self._pending |= changes
            self._due.set()

    async def _write_settled(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(SETTLE_S)
            self._due.clear()
            async with self._writing:
                pending, self._pending = self._pending, {}
                try:
                    await asyncio.to_thread(self._write, pending)
                    continue
                except OSError as error:
                    log.warning("the copies of the records in %s cannot be written: %s", self._root, error)
                    self._pending = pending | self._pending
            self._due.set()
            await asyncio.sleep(TRY_AGAIN_S)

    def _write(self, changes: Mapping[str, bytes | None]) -> None:
        for key, value in changes.items():
            if value is not None:
                with contextlib.suppress(FileNotFoundError):  # a container that went meanwhile, with its folder
                    write_copy(self._root, key, value)
            elif not key.startswith(CONTAINERS):
                path_of(self._root, key).unlink(missing_ok=True)
