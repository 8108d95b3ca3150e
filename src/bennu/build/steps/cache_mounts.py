"""The folders of `RUN --mount=type=cache`: one for each cache, kept from build to build.

    ROOT/<hash of what it is>-<number>/diff       what steps see
    ROOT/<hash of what it is>-<number>/cache.json what it is; its modification time is when it was last used

Several numbers of one hash are of private caches that were in use at the same time. A folder is made under a name that
begins with a dot, and renamed when it is whole.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.beneath import entry_of
from bennu.build.graph import StepMount
from bennu.build.steps.trees import Folders, Selection, copy_tree, digest_tree, make_upper
from bennu.confined.client import measure_tree
from bennu.errors import Conflict
from bennu.images.overlay import remove_tree

RECORD: Final = "cache.json"
DATA: Final = "diff"
LOCKED: Final = "locked"
SHARED: Final = "shared"


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """One cache folder, for `docker buildx du`."""

    name: str
    id: str
    target: str
    size: int  # bytes
    created_ns: int
    used_ns: int
    in_use: bool


class CacheMounts:
    """All of one daemon. What is half-made of a former one is removed by `open`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._users: dict[str, int] = {}  # by name
        self._shared: dict[str, str] = {}  # by hash, the folder that shared users are in
        self._changed = asyncio.Condition()

    def open(self) -> None:
        """Make the root, and remove what was half-made. Blocking."""
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for entry in self._root.iterdir():
            if entry.name.startswith("."):
                remove_tree(entry)

    @contextlib.asynccontextmanager
    async def lend(self, mount: StepMount, source: Folders) -> AsyncIterator[Path]:
        """Give a step its folder for the block, made first if need be; a locked one is waited for.

        `source`: of what it shows at first, if the mount names that. Raises: BennuError.
        """
        key = await self._key(mount, source)
        async with self._changed:
            name = await self._choose(key, mount, source)
            self._users[name] = self._users.get(name, 0) + 1
            if mount.sharing == SHARED:
                self._shared[key] = name
        try:
            folder = self._root / name
            await asyncio.to_thread(os.utime, folder / RECORD)
            yield folder / DATA
        finally:
            async with self._changed:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name]
                    if self._shared.get(key) == name:
                        del self._shared[key]
                self._changed.notify_all()

    async def _key(self, mount: StepMount, source: Folders) -> str:
        """Hash what makes a cache another one: its id, how it looks at first, what it holds at first."""
        words = [mount.id or mount.target, *(str(one) for one in (mount.mode, mount.uid, mount.gid))]
        if mount.source is not None and source:
            words.append(await digest_tree(source, [Selection(mount.source_path)]))
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]

    async def _choose(self, key: str, mount: StepMount, source: Folders) -> str:
        """Choose a folder that may be used now. The condition is held, but not while a locked one is waited for."""
        while True:
            if mount.sharing == SHARED and key in self._shared:
                return self._shared[key]
            there = sorted(path.name for path in self._root.glob(f"{key}-*"))
            free = [name for name in there if name not in self._users]
            if free:
                return free[0]
            if there and mount.sharing == LOCKED:
                await self._changed.wait()
                continue
            return await self._make(f"{key}-{len(there)}", mount, source)

    async def _make(self, name: str, mount: StepMount, source: Folders) -> str:
        draft = self._root / f".{secrets.token_hex(8)}"
        record = {"id": mount.id or mount.target, "target": mount.target, "created_ns": time.time_ns()}
        try:
            await asyncio.to_thread(_make_folder, draft, record, mount)
            if mount.source is not None and source:
                await copy_tree(source, mount.source_path, draft)
            await asyncio.to_thread(remove_tree, draft / "work")
            await asyncio.to_thread(draft.rename, self._root / name)
        except BaseException:
            await asyncio.to_thread(remove_tree, draft)
            raise
        return name

    async def usage(self) -> list[CacheUsage]:
        """List all of them."""
        found = []
        for path in await asyncio.to_thread(lambda: sorted(self._root.glob("[!.]*"))):
            with contextlib.suppress(FileNotFoundError, ValueError):
                record, used_ns = await asyncio.to_thread(_read_record, path)
                size = await measure_tree(path / DATA)
                usage = CacheUsage(
                    name=path.name,
                    id=record["id"],
                    target=record["target"],
                    size=size,
                    created_ns=record["created_ns"],
                    used_ns=used_ns,
                    in_use=path.name in self._users,
                )
                found.append(usage)
        return found

    async def remove(self, name: str) -> None:
        """Remove one. Idempotent. Raises: Conflict while a step uses it."""
        async with self._changed:
            if name in self._users:
                raise Conflict(f"the cache {name} is in use")
            away = self._root / f".{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(entry_of(self._root, name).rename, away)
        await asyncio.to_thread(remove_tree, away)


def _make_folder(draft: Path, record: dict[str, object], mount: StepMount) -> None:
    make_upper(draft)
    data = draft / DATA
    os.chown(data, mount.uid or 0, mount.gid or 0)
    data.chmod(0o755 if mount.mode is None else mount.mode & 0o7777)
    (draft / RECORD).write_text(json.dumps(record))


def _read_record(path: Path) -> tuple[dict[str, Any], int]:
    record = path / RECORD
    return json.loads(record.read_bytes()), record.stat().st_mtime_ns
