"""The images of one host: which there are, their names, and how one becomes a root filesystem."""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bennu.errors import BennuError, NotFound
from bennu.images.image import Image, ImageRecord, image_config, parse_config, parse_time
from bennu.images.layers import Layer, LayerHold, Layers
from bennu.images.overlay import mount_layers, mount_overlay, remove_tree, unmount
from bennu.images.reference import HEX64, SHA256, Reference, parse_reference
from bennu.images.registries import Registries
from bennu.images.remote_layers import RemoteLayers
from bennu.store import Delete, Put, Store, Transaction, aside

RECORDS: Final = "images/records/"
TAGS: Final = "images/tags/"
DIGESTS: Final = "images/digests/"
CONTAINER_MARK: Final = ".dockerenv"  # dockerd puts it into each root: programs know by it where they are
User = tuple[str, bool]  # a container's id, and whether it runs

log = logging.getLogger(__name__)


class ImageUsers(Protocol):
    """Who knows the containers."""

    def users_of_image(self, image_id: str) -> list[User]:
        """List the containers that were made from it."""
        ...


class Images:
    """All images; not thread-safe, lives in one event loop.

    What an image was told to be called and that it is here is on the disk before a call returns.
    """

    def __init__(
        self, root: Path, store: Store, users: ImageUsers | None = None, registries: Registries | None = None
    ) -> None:
        """Keep the images below `root`; `users` None: nobody uses any; `registries` None: as without options."""
        self.root = root
        self.registries = registries or Registries()
        self.layers = Layers(root)
        self.remote = RemoteLayers(store)
        self.store = store
        self._users = users
        self._images: dict[str, Image] = {}
        self._tags: dict[str, str] = {}  # familiar name:tag → id
        self._digests: dict[str, str] = {}  # familiar name@digest → id
        self._unread: dict[str, Sequence[str]] = {}  # images whose record is set aside, and their layers
        self._borrowed: Counter[str] = Counter()
        self._writing = asyncio.Lock()
        self._wanted_elsewhere: Callable[[], Set[str]] = frozenset

    def keep_also(self, wanted: Callable[[], Set[str]]) -> None:
        """Have layers kept, by their diff IDs, that somebody else needs: the build cache. To be told before `open`."""
        self._wanted_elsewhere = wanted

    def users(self, image_id: str) -> list[User]:
        """List the containers that were made from it."""
        return self._users.users_of_image(image_id) if self._users is not None else []

    async def open(self, *, whole: bool = True) -> None:
        """Load what is there; remove half-done work of a former daemon.

        What no image needs is deleted only where all images are known: the store is `whole` and each could be read.
        """
        await asyncio.to_thread(self.layers.open)
        records = await aside.load(self.store, RECORDS, msgspec.json.Decoder(ImageRecord).decode)
        for record in records:
            try:
                self._index(await asyncio.to_thread(self._read_image, record))
            except Exception as error:  # whatever is wrong with one image, the others are there
                log.error("image %s cannot be used: %s", record.id, error)
        for prefix, names in ((TAGS, self._tags), (DIGESTS, self._digests)):
            for entry in await self.store.read_prefix(prefix):
                image_id = entry.value.decode()
                if image_id in self._images:
                    names[entry.key.removeprefix(prefix)] = image_id
        self._name_all()
        await self.remote.open()
        for one in await aside.read_aside(self.store, RECORDS):
            image_id = one.key.removeprefix(RECORDS)
            self._unread[image_id] = await asyncio.to_thread(self._read_diff_ids, image_id)
        await self._clear_away({record.id for record in records}, whole=whole)

    async def _clear_away(self, ids: Set[str], *, whole: bool) -> None:
        """Remove what no image needs; put it aside where an image may be unknown. `ids`: of the images on record."""
        if whole and ids == self._images.keys() and all(self._unread.values()):
            await self.collect()
            await asyncio.to_thread(self.layers.sweep_blobs, ids | self._unread.keys())
            return
        known = [image.diff_ids for image in self._images.values()] + [*self._unread.values()]
        wanted = {diff_id for diff_ids in known for diff_id in diff_ids} | self._wanted_elsewhere()
        await asyncio.to_thread(self.layers.put_unused_aside, wanted, ids | self._unread.keys())

    def _read_diff_ids(self, image_id: str) -> Sequence[str]:
        """Read the layers of an image whose record cannot be read, as far as its configuration tells."""
        try:
            found: Sequence[str] = parse_config(self.layers.blob_path(image_id).read_bytes())["rootfs"]["diff_ids"]
            return found
        except Exception as error:
            log.error("the layers of image %s are not known: %s", image_id, error)
            return ()

    def _read_image(self, record: ImageRecord) -> Image:
        blob = self.layers.blob_path(record.id).read_bytes()
        return self._make_image(blob, record)

    def _make_image(self, blob: bytes, record: ImageRecord) -> Image:
        raw = parse_config(blob)
        diff_ids: list[str] = raw["rootfs"]["diff_ids"]
        layers = [self.layers.get(diff_id) for diff_id in diff_ids]
        if None in layers:
            raise BennuError(f"layer {diff_ids[layers.index(None)]} is missing")
        return Image(
            id=record.id,
            raw=raw,
            config=image_config(raw),
            diff_ids=diff_ids,
            created_ns=parse_time(raw.get("created")),
            size=sum(layer.size for layer in layers if layer),
            parent=record.parent,
            last_tag_ns=record.last_tag_ns,
            removed=record.removed,
        )

    def _index(self, image: Image) -> None:
        self._images[image.id] = image

    def _name_all(self) -> None:
        for image in self._images.values():
            image.repo_tags = sorted(name for name, image_id in self._tags.items() if image_id == image.id)
            image.repo_digests = sorted(name for name, image_id in self._digests.items() if image_id == image.id)

    # --- finding ------------------------------------------------------------------------------------------------

    def list(self) -> list[Image]:
        """List all images, newest first."""
        return sorted((image for image in self._images.values() if not image.removed), key=lambda i: -i.created_ns)

    def find(self, ref: str) -> Image:
        """Find an image by name, `name@digest`, id or the beginning of an id. Raises: NotFound, InvalidParameter."""
        if SHA256.match(ref) or HEX64.match(ref):
            found = self._images.get("sha256:" + ref.removeprefix("sha256:"))
            if found is None or found.removed:
                raise NotFound(f"No such image: sha256:{ref.removeprefix('sha256:')}")
            return found
        reference = parse_reference(ref)
        image_id = self.resolve(reference) or self._complete(ref)
        if image_id is None:
            raise NotFound(f"No such image: {reference.tagged()}")
        return self._images[image_id]

    def by_id(self, image_id: str) -> Image:
        """Find an image by id, also one that was removed by force while containers use it. Raises: NotFound."""
        if image_id not in self._images:
            raise NotFound(f"No such image: {image_id}")
        return self._images[image_id]

    def get(self, image_id: str) -> Image | None:
        image = self._images.get(image_id)
        return None if image is None or image.removed else image

    def resolve(self, reference: Reference) -> str | None:
        """Answer the id that a name stands for; None when the name is unknown here."""
        if reference.digest:
            return self._digests.get(f"{reference.familiar_name}@{reference.digest}")
        return self._tags.get(str(reference.tagged()))

    def _complete(self, ref: str) -> str | None:
        start = "sha256:" + ref.removeprefix("sha256:")
        matches = [key for key, image in self._images.items() if key.startswith(start) and not image.removed]
        return matches[0] if len(matches) == 1 else None

    def layer_size(self, diff_id: str) -> int:
        """Answer the bytes of a layer's files; 0 for one that is not here."""
        layer = self.layers.get(diff_id)
        return layer.size if layer else 0

    def children(self, image: Image) -> Sequence[Image]:
        """List the images that were built from this one."""
        return [other for other in self._images.values() if other.parent == image.id and not other.removed]

    # --- changing what there is -----------------------------------------------------------------------------------

    async def add(
        self, config: bytes, *, parent: str = "", tags: Iterable[Reference] = (), digests: Iterable[Reference] = ()
    ) -> Image:
        """Make an image of a configuration whose layers are here and held by the caller.

        Raises: InvalidParameter for a bad configuration; Unavailable when the disk is full.
        """
        raw_id = await asyncio.to_thread(self.layers.write_blob, config)
        async with self._writing:
            known = self._images.get(raw_id)
            record = ImageRecord(id=raw_id, parent=parent) if known is None else known.record()
            record.removed = False
            names = [reference.tagged() for reference in tags]
            if names:
                record.last_tag_ns = time.time_ns()
            image = known or self._make_image(config, record)
            pinned = [Put(f"{DIGESTS}{name}", raw_id.encode()) for name in map(_digest_name, digests)]
            named = [Put(f"{TAGS}{name}", raw_id.encode()) for name in names]
            await self.store.commit(Transaction([_put_record(record), *named, *pinned], adds=True))
            image.removed, image.last_tag_ns = False, record.last_tag_ns
            self._index(image)
            self._tags |= {str(name): raw_id for name in names}
            self._digests |= {_digest_name(name): raw_id for name in digests}
            self._name_all()
        return image

    async def tag(self, image: Image, name: Reference) -> None:
        """Give an image a name; the image that had it loses it."""
        async with self._writing:
            full = str(name.tagged())
            record = image.record()
            record.last_tag_ns = time.time_ns()
            writes = [Put(f"{TAGS}{full}", image.id.encode()), _put_record(record)]
            await self.store.commit(Transaction(writes, adds=True))
            image.last_tag_ns = record.last_tag_ns
            self._tags[full] = image.id
            self._name_all()

    async def pin(self, image: Image, name: Reference) -> None:
        """Note the digest by which a registry knows an image. Raises: Unavailable when the disk is full."""
        full = _digest_name(name)
        async with self._writing:
            if self._digests.get(full) == image.id or self._images.get(image.id) is not image:
                return
            await self.store.commit(Transaction([Put(f"{DIGESTS}{full}", image.id.encode())], adds=True))
            self._digests[full] = image.id
            self._name_all()

    async def untag(self, names: Sequence[str]) -> None:
        """Drop names (`name:tag` or `name@digest`, familiar). Idempotent."""
        async with self._writing:
            await self.store.commit(Transaction([Delete(_name_key(name)) for name in names]))
            for name in names:
                (self._digests if "@" in name else self._tags).pop(name, None)
            self._name_all()

    async def delete(self, image: Image) -> Sequence[Layer]:
        """Forget an image and its names; answer the layers that went with it, topmost first.

        While containers use it, its layers stay until the last of them is gone.
        """
        async with self._writing:
            names = [*image.repo_tags, *image.repo_digests]
            writes: list[Put | Delete] = [Delete(_name_key(name)) for name in names]
            used = self._is_used(image)
            record = image.record()
            record.removed = True
            writes.append(_put_record(record) if used else Delete(_record_key(image.id)))
            await self.store.commit(Transaction(writes))
            for name in names:
                (self._digests if "@" in name else self._tags).pop(name, None)
            if used:
                image.removed = True
            else:
                del self._images[image.id]
            self._name_all()
        return await self._collect_layers([] if used else [image])

    @contextlib.contextmanager
    def in_use(self, image: Image) -> Iterator[None]:
        """Keep an image's layers for the block, while a container is made that `users` does not know yet."""
        self._borrowed[image.id] += 1
        try:
            yield
        finally:
            self._borrowed[image.id] -= 1

    def _is_used(self, image: Image) -> bool:
        return self._borrowed[image.id] > 0 or bool(self.users(image.id))

    async def let_go(self, image_id: str) -> None:
        """Note that a container of the image is gone: a removed image goes with the last of its containers."""
        image = self._images.get(image_id)
        if image is not None and image.removed and not self._is_used(image):
            await self.collect()

    async def collect(self) -> None:
        """Remove images that wait for their last container to go, and layers that nobody needs."""
        async with self._writing:
            gone = [image for image in self._images.values() if image.removed and not self._is_used(image)]
            if gone:
                await self.store.commit(Transaction([Delete(_record_key(image.id)) for image in gone]))
            for image in gone:
                del self._images[image.id]
        await self._collect_layers(gone)

    async def _collect_layers(self, gone: Sequence[Image]) -> Sequence[Layer]:
        async with self._writing:
            wanted = {diff_id for image in self._images.values() for diff_id in image.diff_ids}
            wanted |= {diff_id for diff_ids in self._unread.values() for diff_id in diff_ids}
            wanted |= self._wanted_elsewhere()
            collected, trash = await self.layers.collect(wanted)
            for image in gone:
                if image.id not in self._images:
                    await asyncio.to_thread(self.layers.blob_path(image.id).unlink, True)
        await self.remote.forget(layer.diff_id for layer in collected)
        await self.layers.remove_trash(trash)
        found = {layer.diff_id: layer for layer in collected}
        order = dict.fromkeys(diff_id for image in gone for diff_id in reversed(image.diff_ids))
        return [found[diff_id] for diff_id in order if diff_id in found]

    def missing(self, diff_ids: Sequence[str], hold: LayerHold) -> Sequence[str]:
        """List which of these layers are not here; those that are here are held."""
        for diff_id in diff_ids:
            hold.add(diff_id)
        return [diff_id for diff_id in diff_ids if self.layers.get(diff_id) is None]

    # --- root filesystems -------------------------------------------------------------------------------------------

    async def mount(self, image: Image, upper_root: Path) -> Path:
        """Mount the image with a writable layer `upper_root/{diff,work}` at `upper_root/merged`. Idempotent.

        Raises: BennuError.
        """
        return await asyncio.to_thread(self._mount, image, upper_root)

    async def mount_read_only(self, image: Image, place: Path) -> None:
        """Mount the image's files alone at `place`, which is made. Raises: BennuError."""
        await asyncio.to_thread(self._mount_read_only, image, place)

    def _mount_read_only(self, image: Image, place: Path) -> None:
        place.mkdir(mode=0o700, parents=True)
        try:
            mount_layers(self.layers.root, [*self.lowers(image), self._empty_lower()], place)
        except FileNotFoundError as error:
            raise BennuError(f"a layer of {image.id} is missing: {error}") from None

    def lowers(self, image: Image) -> Sequence[str]:
        """List the folders of the image's layers below `layers.root`, topmost first."""
        return [self.layers.lower_of(diff_id) for diff_id in dict.fromkeys(reversed(image.diff_ids))]

    def _empty_lower(self) -> str:
        return os.path.relpath(self.layers.empty, self.layers.root)

    def _mount(self, image: Image, upper_root: Path) -> Path:
        merged = upper_root / "merged"
        if os.path.ismount(merged):
            return merged
        lowers = self.lowers(image)
        fresh = not (upper_root / "diff").exists()
        for name, mode in (("work", 0o700), ("merged", 0o700), ("diff", 0o755)):
            (upper_root / name).mkdir(mode=mode, parents=True, exist_ok=True)
        if fresh:
            self._dress_root(image, upper_root / "diff")
            (upper_root / "diff" / CONTAINER_MARK).touch(0o755)
        try:
            return mount_overlay(self.layers.root, lowers or [self._empty_lower()], upper_root)
        except FileNotFoundError as error:
            raise BennuError(f"a layer of {image.id} is missing: {error}") from None

    def _dress_root(self, image: Image, upper: Path) -> None:
        """Give `/` the owner and mode of the topmost layer that names it."""
        upper.chmod(0o755)
        for diff_id in reversed(image.diff_ids):
            layer = self.layers.get(diff_id)
            if layer is not None and layer.has_root:
                seen = (self.layers.root / self.layers.lower_of(diff_id)).stat()
                os.chown(upper, seen.st_uid, seen.st_gid)
                upper.chmod(seen.st_mode & 0o7777)
                return

    def is_mounted(self, upper_root: Path) -> bool:
        return os.path.ismount(upper_root / "merged")

    async def unmount(self, upper_root: Path) -> None:
        """Unmount what `mount` mounted. Idempotent. Raises: BennuError."""
        await asyncio.to_thread(unmount, upper_root / "merged")

    async def remove_upper(self, upper_root: Path) -> None:
        """Unmount and delete the writable layer; other files in the folder stay. Idempotent. Raises: BennuError."""
        await asyncio.to_thread(_remove_upper, upper_root)


def _remove_upper(upper_root: Path) -> None:
    unmount(upper_root / "merged")
    for name in ("merged", "work", "diff"):
        with contextlib.suppress(FileNotFoundError):
            if name == "merged":
                (upper_root / name).rmdir()  # never deletes through a mount
            else:
                remove_tree(upper_root / name)


def _digest_name(name: Reference) -> str:
    return f"{name.familiar_name}@{name.digest}"


def _name_key(name: str) -> str:
    return f"{DIGESTS if '@' in name else TAGS}{name}"


def _record_key(image_id: str) -> str:
    return f"{RECORDS}{image_id.removeprefix('sha256:')}"


def _put_record(record: ImageRecord) -> Put:
    return Put(_record_key(record.id), msgspec.json.encode(record))
