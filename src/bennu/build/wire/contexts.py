"""Folders that clients have sent, kept so that the next build asks only for what has changed.

    ROOT/<key>/tree     the folder
    ROOT/<key>/told     what the client told of its entries, written last: without it the folder is worth nothing

A key stands for one folder of one client: BuildKit's shared key, and the name and the patterns it was asked for with. A
folder belongs to one build at a time; others of the same key get one of their own, which is thrown away.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.build.request import ContextTree
from bennu.build.wire.diffcopy import DIR, SYMLINK, TYPE_BITS, receive
from bennu.build.wire.http2_stream import Headers, StreamReset
from bennu.build.wire.messages import BytesMessage, Stat
from bennu.build.wire.protobuf import read_bytes
from bennu.build.wire.session import PULL_UPLOAD, ClientSession, SessionGone
from bennu.confined.arrivals import RECORD
from bennu.confined.client import HELPER, Folder, cancel
from bennu.confined.client import Session as Work
from bennu.files import replace_file
from bennu.images.layers import disk_error, unpacking
from bennu.images.overlay import remove_tree

KINDS: Final = {
    0: stat.S_IFREG,
    DIR: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    1 << 25: stat.S_IFIFO,
    1 << 26: stat.S_IFBLK,
    1 << 26 | 1 << 21: stat.S_IFCHR,
}
GO_BITS: Final = {1 << 23: stat.S_ISUID, 1 << 22: stat.S_ISGID, 1 << 20: stat.S_ISVTX}
MAX_KEPT: Final = 16  # folders; the one that was used longest ago goes
MAX_NS: Final = 2**62
AT_ONCE: Final = 256 << 10  # of records that are written together

Heard = Callable[[int], None]


def st_mode(go_mode: int) -> int | None:
    """Translate Go's os.FileMode; None: a kind that has no place in a context (a socket)."""
    kind = KINDS.get(go_mode & TYPE_BITS)
    if kind is None:
        return None
    return kind | go_mode & 0o777 | sum(bit for go, bit in GO_BITS.items() if go_mode & go)


@dataclass(frozen=True, slots=True)
class Told:
    """What a client told of an entry: its path, and all of it as it came."""

    path: str
    raw: bytes


def sort_key(path: str) -> str:
    """Answer what paths are ordered by: a folder's contents come right behind it."""
    return path.replace("/", "\0")


class Arriving:
    """Compares what a client tells with what is here, and has the helper make up the difference. A `Receiver`."""

    def __init__(self, former: list[Told], work: Work, heard: Heard) -> None:
        self.told: list[Told] = []
        self.changed = False
        self._former = former
        self._at = 0
        self._work = work
        self._heard = heard
        self._pieces: list[bytes] = []  # records that the helper has not been given yet
        self._size = 0

    async def entry(self, number: int, stat: Stat, raw: bytes) -> bool:
        mode = st_mode(stat.mode)
        if mode is None:
            return False
        self._heard(len(raw))
        self.told.append(Told(stat.path, raw))
        before = await self._before(sort_key(stat.path))
        self.changed |= before is None or before.raw != raw
        is_folder = stat.mode & TYPE_BITS == DIR
        if before is not None and before.raw == raw and not is_folder:
            return False
        same = is_folder and before is not None and Stat.decode(before.raw).mode & TYPE_BITS == DIR
        await self._write(b"E", number, entry_record(stat, mode, same=same))
        return not stat.mode & TYPE_BITS and not stat.linkname

    async def _before(self, key: str) -> Told | None:
        """Remove what was before this entry and is no more; answer what was in its place."""
        while self._at < len(self._former):
            former = self._former[self._at]
            theirs = sort_key(former.path)
            if theirs > key:
                return None
            self._at += 1
            if theirs == key:
                return former
            self.changed = True
            await self._write(b"R", 0, former.path.encode())
        return None

    async def data(self, number: int, data: bytes) -> None:
        self._heard(len(data))
        await self._write(b"D", number, data)

    async def _write(self, kind: bytes, number: int, data: bytes) -> None:
        self._pieces += (RECORD.pack(kind, number, len(data)), data)
        self._size += len(data)
        if self._size >= AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        if self._pieces:
            assert self._work.input is not None
            self._work.input.write(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0
            await self._work.input.drain()

    async def finish(self) -> None:
        for former in self._former[self._at :]:
            self.changed = True
            await self._write(b"R", 0, former.path.encode())
        await self._write(b"F", 0, b"")
        await self.flush()


def entry_record(entry: Stat, mode: int, *, same: bool) -> bytes:
    ns = entry.mod_time if -MAX_NS < entry.mod_time < MAX_NS else 0
    xattrs = {name: value.decode("latin-1") for name, value in entry.xattrs.items()}
    owner = entry.uid & 0xFFFFFFFF, entry.gid & 0xFFFFFFFF
    device = entry.devmajor & 0xFFFFF, entry.devminor & 0xFFFFF
    return json.dumps([entry.path, mode, *owner, ns, entry.linkname, *device, xattrs, same]).encode()


@dataclass(frozen=True, slots=True)
class KeptContext:
    """A folder that is kept: its key, where it is, when it was used last, and whether a build uses it now."""

    key: str
    folder: Path
    used_ns: int
    busy: bool


class Contexts:
    """The folders of one host. `root` is ours alone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._used: dict[str, int] = {}  # when each was used last, in ns; the latest at the end
        self._busy: set[str] = set()
        self._states: dict[str, str] = {}  # by key; of those that are kept
        self._count = 0

    def open(self) -> None:
        """Remove what a former daemon did not finish, or has not kept. Blocking."""
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        boot = _boot()
        found: list[tuple[int, str]] = []
        for folder in self._root.iterdir():
            try:
                with (folder / "told").open("rb") as file:
                    whole = file.readline().decode().strip() == boot
                    used = os.fstat(file.fileno()).st_mtime_ns
            except OSError:
                whole, used = False, 0
            if whole:
                found.append((used, folder.name))
            else:
                remove_tree(folder)
        self._used = {name: used for used, name in sorted(found)}

    @contextlib.asynccontextmanager
    async def lend(self, session: ClientSession, name: str, what: Headers, heard: Heard) -> AsyncIterator[ContextTree]:
        """Bring a folder of the client's here; it is the caller's to read during the block.

        `what`: see `diffcopy.options`. `heard` gets the number of bytes that came. Raises: BennuError.
        """
        key = hashlib.sha256(repr((session.shared_key, name, list(what))).encode()).hexdigest()[:32]
        kept = bool(session.shared_key) and key not in self._busy
        if not kept:
            self._count += 1
            key = f"{key}-{self._count}"
        self._busy.add(key)
        folder = self._root / key
        try:
            try:
                await self._receive(folder, session, what, heard, kept=kept)
            except BaseException:
                kept = False
                raise
            yield ContextTree(folder / "tree", self._states[key] if kept else "")
        finally:
            if kept:
                self._used.pop(key, None)
                self._used[key] = time.time_ns()
            await asyncio.shield(self._leave(key, kept=kept))

    async def _leave(self, key: str, *, kept: bool) -> None:
        gone = [] if kept else [key]
        if not kept:
            self._used.pop(key, None)
        idle = [other for other in self._used if other not in self._busy or other == key]
        gone += idle[: max(0, len(self._used) - MAX_KEPT)]
        for other in gone:
            self._used.pop(other, None)
            self._states.pop(other, None)
            await asyncio.to_thread(remove_tree, self._root / other)
        self._busy.discard(key)

    async def _receive(self, folder: Path, session: ClientSession, what: Headers, heard: Heard, *, kept: bool) -> None:
        try:
            former = await asyncio.to_thread(_take_up, folder)
            with unpacking():
                tree = Folder(folder / "tree", writable=True)
                async with HELPER.begin("receive_tree", tree, input=True) as work:
                    arriving = Arriving(former, work, heard)
                    await _both(work, _feed(session, what, arriving))
            if kept:
                if arriving.changed or folder.name not in self._states:
                    self._states[folder.name] = secrets.token_hex(16)
                await asyncio.to_thread(_remember, folder, arriving.told)
        except OSError as error:
            raise disk_error(error) from error

    def kept(self) -> list[KeptContext]:
        """List the folders that are kept, the one used last at the end."""
        return [KeptContext(key, self._root / key, used, key in self._busy) for key, used in self._used.items()]

    async def drop(self, key: str) -> bool:
        """Remove a folder; answer False for one that a build uses. Raises: KeyError for what is not here."""
        if key in self._busy:
            return False
        del self._used[key]
        self._states.pop(key, None)
        await asyncio.to_thread(remove_tree, self._root / key)
        return True


async def unpack_upload(session: ClientSession, path: str, work: Path) -> None:
    """Unpack a tar that the client has as `path` into `work/context`. Raises: BennuError; SessionGone."""
    tree, unfinished = work / "context", work / "upload"
    await asyncio.to_thread(unfinished.mkdir)
    call = session.begin(PULL_UPLOAD, [("urlpath", path), ("urlhost", "buildkit-session")])

    async def pieces() -> AsyncIterator[bytes]:
        with contextlib.suppress(StreamReset):  # it has sent all already, and waits for nothing from us
            await call.end()
        while (message := await call.receive()) is not None:
            yield BytesMessage.decode(message).data
        await call.check()

    try:
        with unpacking():
            async with HELPER.begin("unpack_tree", Folder(unfinished, writable=True), input=True) as work_session:
                await work_session.feed(pieces())
        unfinished.rename(tree)
    except StreamReset as error:
        raise SessionGone(f"the client broke off sending its context: {error}") from None
    except OSError as error:
        raise disk_error(error) from error
    finally:
        call.cancel()


async def _feed(session: ClientSession, what: Headers, arriving: Arriving) -> None:
    await receive(session, what, arriving)
    await arriving.finish()


async def _both(work: Work, feeding: Coroutine[None, None, None]) -> None:
    """Feed the helper and wait for its end; a failure of the helper's ends the feeding. Raises: what either raises."""
    feed = asyncio.ensure_future(feeding)
    ending = asyncio.ensure_future(work.result())
    try:
        await asyncio.wait((feed, ending), return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            ending.result()
        await feed
        await ending
    finally:
        await cancel(feed, ending)


def _take_up(folder: Path) -> list[Told]:
    """Prepare a folder for what comes; answer what is in it. Until it is remembered again it is worth nothing."""
    former: list[Told] = []
    with contextlib.suppress(OSError):
        former = list(_read(folder / "told"))
        (folder / "told").unlink()
    if not former:
        remove_tree(folder)
    (folder / "tree").mkdir(0o755, parents=True, exist_ok=True)
    return former


def _remember(folder: Path, told: list[Told]) -> None:
    pieces = [_boot().encode(), b"\n"]
    for one in told:
        pieces += [len(one.raw).to_bytes(4), one.raw]
    replace_file(folder / "told", b"".join(pieces))


def _read(file: Path) -> Iterator[Told]:
    data = file.read_bytes()
    at = data.index(b"\n") + 1
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4])
        raw = data[at + 4 : end]
        yield Told(path_of(raw), raw)
        at = end


def path_of(raw: bytes) -> str:
    """Read the path of an entry alone: it comes first, unless somebody writes fields in another order."""
    return read_bytes(raw, 1)[0].decode() if raw[:1] == b"\x0a" else Stat.decode(raw).path


def _boot() -> str:
    """Answer which start of the kernel this is: after another the contents may not have reached the disk."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
