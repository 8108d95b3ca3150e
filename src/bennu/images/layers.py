"""Keeps layers and blobs on disk; each is whole or not there.

    images/blobs/<hex>           a blob as it came: an image's configuration, or a layer's tar (compressed or not)
    images/layers/<hex>/diff     that layer unpacked, ready to be a lower folder; <hex> is its diff ID
    images/layers/<hex>/meta     a `Layer` as JSON
    images/tmp/                  work in progress; emptied when the daemon starts

A layer is written and unpacked under tmp and renamed when it is complete and on the disk. Layers that no image uses are
collected; who is bringing one in holds it meanwhile (`LayerHold`).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

import msgspec

from bennu.beneath import entry_of
from bennu.confined.client import HELPER, OUR_FAULT, Failure, Folder
from bennu.errors import BennuError, InvalidParameter, Unavailable
from bennu.files import set_aside, sync_folder, write_durably
from bennu.images.overlay import remove_tree
from bennu.kernel.libc import exchange, sync_filesystem

FLUSH_AT: Final = 1 << 20  # bytes gathered before a thread writes them
NO_SPACE: Final = (28, 122)  # ENOSPC, EDQUOT

log = logging.getLogger(__name__)
Progress = Callable[[int], None]


class Layer(msgspec.Struct, frozen=True):
    """An unpacked layer. `size`: the bytes of its files; `has_root`: whether it names owner and mode of `/`."""

    diff_id: str
    blob: str  # digest of the tar as it came
    blob_size: int
    tar_size: int  # of the plain tar
    size: int
    has_root: bool


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What the helper tells of a layer that it has unpacked."""

    blob: str
    diff_id: str
    tar_size: int
    size: int
    root: bool


@dataclass(frozen=True, slots=True)
class LayerDraft:
    """A blob that has arrived and belongs to nobody yet: a file under tmp; `digest` is "" where nobody knows it yet."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """A folder that holds a layer in `diff`, and its plain tar. `size`: the bytes of its files."""

    draft: LayerDraft
    folder: Path
    size: int

    @property
    def layer(self) -> Layer:
        draft = self.draft
        return Layer(draft.digest, draft.digest, draft.size, draft.size, self.size, has_root=True)


class LayerHold:
    """Keeps layers from being collected while an image is put together from them."""

    def __init__(self, held: Counter[str]) -> None:
        self._held = held
        self._mine: list[str] = []

    def add(self, diff_id: str) -> None:
        self._held[diff_id] += 1
        self._mine.append(diff_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for diff_id in self._mine:
            self._held[diff_id] -= 1
        self._mine.clear()


class SharedFlush:
    """Puts what was written on the disk: one flush of the file system serves all who wait when it begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when all that was written before this call is on the disk. Raises: OSError."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run_after(self._running))
        await asyncio.shield(self._next)

    async def _run_after(self, former: asyncio.Future[None] | None) -> None:
        if former is not None:
            await asyncio.wait([former])
        self._running, self._next = self._next, None
        await asyncio.to_thread(sync_filesystem, self._folder)


class Layers:
    """The content of all images of this host. For one event loop; disk work is done in threads and helper programs."""

    def __init__(self, root: Path) -> None:
        self.root = root / "layers"
        self.tmp = root / "tmp"
        self.blobs = root / "blobs"
        self._lost = root.parent / "lost"
        self.empty = root / "empty"  # the lower folder of an image without layers
        self._known: dict[str, Layer] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by diff ID, or blob if unknown
        self._arrivals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._flush = SharedFlush(self.tmp)
        self._shelf = asyncio.Lock()  # who puts layers in place or takes them away
        self._held: Counter[str] = Counter()

    def open(self) -> None:
        """Read what is there and remove what is half-done. Blocking."""
        for folder in (self.root, self.tmp, self.blobs, self.empty):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.empty.chmod(0o755)
        for leftover in self.tmp.iterdir():
            _remove(leftover)
        for folder in self.root.iterdir():
            if folder.is_symlink():  # of a move that was cut off: see `adopt`
                folder.unlink()
                continue
            try:
                layer = msgspec.json.decode((folder / "meta").read_bytes(), type=Layer)
            except (OSError, msgspec.DecodeError) as error:
                place = set_aside(folder, self._lost / "layers")
                log.warning("layer %s cannot be read and lies in %s now: %s", folder.name, place, error)
            else:
                self._known[layer.diff_id] = layer

    def get(self, diff_id: str) -> Layer | None:
        return self._known.get(diff_id)

    def hold(self) -> LayerHold:
        return LayerHold(self._held)

    def lower_of(self, diff_id: str) -> str:
        """Answer the unpacked layer's folder, relative to `root`."""
        return f"{_hex(diff_id)}/diff"

    def blob_path(self, digest: str) -> Path:
        return entry_of(self.blobs, _hex(digest))

    def new_path(self) -> Path:
        """Answer a name under tmp that nobody has."""
        return self.tmp / secrets.token_hex(8)

    @contextlib.asynccontextmanager
    async def coming(self, diff_id: str) -> AsyncIterator[None]:
        """Keep others from transferring the same layer during the block."""
        lock = self._arrivals.get(diff_id)
        if lock is None:
            lock = self._arrivals[diff_id] = asyncio.Lock()
        async with lock:
            yield

    async def receive(self, data: AsyncIterable[bytes], on_progress: Progress | None = None) -> LayerDraft:
        """Write a stream to a file under tmp. Raises: Unavailable when the disk is full; whatever `data` raises."""
        path = self.new_path()
        digest = hashlib.sha256()
        size = 0
        try:
            with await asyncio.to_thread(path.open, "wb") as target:
                buffer = bytearray()

                def flush(data: bytes) -> None:
                    digest.update(data)
                    target.write(data)

                async for part in data:
                    buffer += part
                    size += len(part)
                    if len(buffer) >= FLUSH_AT:
                        await asyncio.to_thread(flush, bytes(buffer))
                        buffer.clear()
                        if on_progress:
                            on_progress(size)
                await asyncio.to_thread(flush, bytes(buffer))
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                raise disk_error(error) from error
            raise
        return LayerDraft(path, f"sha256:{digest.hexdigest()}", size)

    async def add(
        self, draft: LayerDraft, hold: LayerHold, *, diff_id: str = "", on_progress: Progress | None = None
    ) -> Layer:
        """Unpack a draft and keep it as a layer, held by `hold`. The draft is consumed, whatever happens.

        A layer that is there already is not unpacked again. With `diff_id` the content must have it.
        Raises: InvalidParameter for a damaged or dangerous tar; Unavailable when the disk is full.
        """
        name = diff_id or draft.digest
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        try:
            async with lock:
                if diff_id:
                    hold.add(diff_id)
                if (known := self.get(diff_id)) is not None:
                    return known
                return await self._unpack(draft, hold, diff_id, on_progress)
        finally:
            draft.path.unlink(missing_ok=True)

    async def _unpack(self, draft: LayerDraft, hold: LayerHold, diff_id: str, on_progress: Progress | None) -> Layer:
        work = self.new_path()
        try:
            await asyncio.to_thread(_make_work, work)
            told = await self._run_unpacker(draft.path, draft.digest, work / "diff", on_progress)
            if diff_id and told.diff_id != diff_id:
                raise InvalidParameter(f"invalid diffID for layer: expected {diff_id!r}, got {told.diff_id!r}")
            hold.add(told.diff_id)
            layer = Layer(told.diff_id, told.blob, draft.size, told.tar_size, told.size, told.root)
            await self._flush.wait()
            async with self._shelf:
                if (known := self.get(told.diff_id)) is None:
                    await asyncio.to_thread(self._keep, work, draft, layer)
                    self._known[layer.diff_id] = layer
            return known or layer
        except OSError as error:
            raise disk_error(error) from error
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, work))

    async def adopt(self, given: Sequence[Adoption], hold: LayerHold) -> list[Layer]:
        """Keep folders that are layers already, held by `hold`; all reach the disk at once.

        A folder moves and a link stays in its place, at once; where the layer is here already, it stays as it is.
        The drafts are consumed. Raises: Unavailable when the disk is full.
        """
        layers = [one.layer for one in given]
        for layer in layers:
            hold.add(layer.diff_id)
        try:
            async with self._shelf:
                fresh = {one.layer.diff_id: one for one in reversed(given) if self.get(one.layer.diff_id) is None}
                if fresh:
                    await asyncio.to_thread(self._keep_adopted, list(fresh.values()))
                self._known |= {diff_id: one.layer for diff_id, one in fresh.items()}
            return [self._known[layer.diff_id] for layer in layers]
        except OSError as error:
            raise disk_error(error) from error
        finally:
            for one in given:
                one.draft.path.unlink(missing_ok=True)

    def _keep_adopted(self, fresh: Sequence[Adoption]) -> None:
        """Keep the blobs first, then the layers: a layer that is there has its blob."""
        places = [entry_of(self.root, _hex(one.layer.diff_id)) for one in fresh]
        for one, place in zip(fresh, places, strict=True):
            (one.folder / "meta").write_bytes(msgspec.json.encode(one.layer))
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(place, one.folder.parent))
        sync_filesystem(self.root)
        for one in fresh:
            one.draft.path.rename(self.blob_path(one.layer.blob))
        sync_folder(self.blobs)
        for one, place in zip(fresh, places, strict=True):
            exchange(one.folder, place)
        for folder in {self.root, *(one.folder.parent for one in fresh)}:
            sync_folder(folder)

    async def _run_unpacker(self, tar: Path, digest: str, dest: Path, on_progress: Progress | None) -> Unpacked:
        with await asyncio.to_thread(tar.open, "rb") as source, unpacking():
            tree = Folder(dest, writable=True)
            async with HELPER.begin("unpack_layer", tree, input=source.fileno(), digest=digest) as session:
                return Unpacked(**await session.result(lambda told: on_progress(told["read"]) if on_progress else None))

    def _keep(self, work: Path, draft: LayerDraft, layer: Layer) -> None:
        """Keep the blob first, then the layer: a layer that is there has its blob."""
        self._keep_blob(draft.path, layer.blob)
        write_durably(work / "meta", msgspec.json.encode(layer))
        work.rename(entry_of(self.root, _hex(layer.diff_id)))
        sync_folder(self.root)

    def _keep_blob(self, path: Path, digest: str) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(self.blob_path(digest))
        sync_folder(self.blobs)

    def write_blob(self, data: bytes) -> str:
        """Keep a small blob (an image's configuration) durably; answer its digest. Blocking."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        path = self.new_path()
        try:
            write_durably(path, data)
            path.rename(self.blob_path(digest))
            sync_folder(self.blobs)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error) from error
        return digest

    async def collect(self, wanted: Collection[str]) -> tuple[list[Layer], list[Path]]:
        """Take layers that are neither wanted (diff IDs) nor held out of the store.

        Answers them, and folders under tmp that the caller is to remove with `remove_trash`.
        """
        async with self._shelf:
            unused = [layer for key, layer in self._known.items() if key not in wanted and self._held[key] <= 0]
            for layer in unused:
                del self._known[layer.diff_id]
            return unused, await asyncio.to_thread(self._put_away, unused)

    def _put_away(self, layers: Collection[Layer]) -> list[Path]:
        """Move layers out of sight as a whole, so that half a layer is never met; answer what is to be deleted."""
        trash = []
        for layer in layers:
            trash.append(self.new_path())
            entry_of(self.root, _hex(layer.diff_id)).rename(trash[-1])
            self.blob_path(layer.blob).unlink(missing_ok=True)
        return trash

    async def remove_trash(self, trash: Collection[Path]) -> None:
        for folder in trash:
            await asyncio.to_thread(remove_tree, folder)

    def sweep_blobs(self, config_digests: Collection[str]) -> None:
        """Remove blobs that belong to no layer and no image. Blocking; at start only."""
        for path in self._unused_blobs(config_digests):
            path.unlink()

    def put_unused_aside(self, wanted: Collection[str], config_digests: Collection[str]) -> None:
        """Put aside what `collect` and `sweep_blobs` would remove, for an unknown image may need it.

        Blocking; at start.
        """
        for layer in [layer for key, layer in self._known.items() if key not in wanted]:
            del self._known[layer.diff_id]
            place = set_aside(self.root / _hex(layer.diff_id), self._lost / "layers")
            log.warning("layer %s belongs to no image on record and lies in %s now", layer.diff_id, place)
        for path in self._unused_blobs(config_digests):
            set_aside(path, self._lost / "blobs")

    def _unused_blobs(self, config_digests: Collection[str]) -> list[Path]:
        wanted = {_hex(layer.blob) for layer in self._known.values()} | {_hex(digest) for digest in config_digests}
        return [path for path in self.blobs.iterdir() if path.name not in wanted]


@contextlib.contextmanager
def unpacking() -> Iterator[None]:
    """Translate failures of the helper in the block. Raises: InvalidParameter for a bad tar; Unavailable; Failure."""
    try:
        yield
    except Failure as failure:
        if failure.errno in NO_SPACE:
            raise Unavailable(f"failed to register layer: {failure}") from failure
        if failure.kind in OUR_FAULT:
            raise
        raise InvalidParameter(str(failure)) from failure


def disk_error(error: OSError) -> BennuError:
    if error.errno in NO_SPACE:
        return Unavailable(f"failed to register layer: {(error.strerror or str(error)).lower()}")
    return BennuError(f"failed to register layer: {error}")


def _make_work(work: Path) -> None:
    work.mkdir(mode=0o700)
    (work / "diff").mkdir(mode=0o755)
    (work / "diff").chmod(0o755)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
