"""What steps of builds have written: a folder for each, which becomes a layer when an image is made of it.

    DATA_ROOT/build/snapshots/<id>/diff   an upper folder, in overlayfs's form
    DATA_ROOT/build/snapshots/<id>/layer  the diff ID it has as a layer, where images have one that is equal
    DATA_ROOT/build/work/                 work in progress; emptied when the daemon starts

When an image is made of it, the folder moves to the layers of images, and a link is left in its place: whoever knows it
by its old path goes on using that, also in the moment of the move.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.beneath import entry_of
from bennu.files import sync_folder, write_durably
from bennu.images.layers import Layers
from bennu.images.overlay import remove_tree
from bennu.kernel.libc import sync_filesystem

IMAGE_LAYER: Final = "sha256:"  # what begins so is a layer of images; everything else is an id of ours


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """A root filesystem as layers, lowest first: diff IDs of images' layers, and ids of what steps have written."""

    layers: tuple[str, ...] = ()

    def over(self, *layers: str) -> "StepSnapshot":
        """Give the snapshot with more layers on top."""
        return StepSnapshot((*self.layers, *layers))


NOTHING: Final = StepSnapshot()


class Snapshots:
    """The folders of the builds of this host. Knows no records: which of them are wanted is the cache's to say."""

    def __init__(self, root: Path, layers: Layers) -> None:
        self._root = root / "snapshots"
        self._work = root / "work"
        self._layers = layers

    def open(self) -> list[str]:
        """Make the folders, remove what is half-done, and list the ids that are there whole. Blocking."""
        for folder in (self._root, self._work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._work.iterdir():
            remove_tree(leftover)
        return [path.name for path in self._root.iterdir() if (path / "diff").is_dir()]

    def names(self) -> list[str]:
        """List all that is there, whole or not. Blocking."""
        return [path.name for path in self._root.iterdir()]

    def path(self, layer: str) -> Path:
        """Answer where an own layer's folder is, or the link to it."""
        return entry_of(self._root, layer)

    def folders(self, snapshot: StepSnapshot) -> Sequence[Path]:
        """List the folders of a snapshot's layers, topmost first; each once, where it counts."""
        return [self.folder(layer) for layer in dict.fromkeys(reversed(snapshot.layers))]

    def folder(self, layer: str) -> Path:
        if layer.startswith(IMAGE_LAYER):
            return self._layers.root / self._layers.lower_of(layer)
        return self.path(layer) / "diff"

    def diff_id(self, layer: str) -> str:
        """Answer the diff ID of a layer; "": it was never made a layer of an image. Blocking, but short."""
        if layer.startswith(IMAGE_LAYER):
            return layer
        path = self.path(layer)
        with contextlib.suppress(OSError):
            return f"{IMAGE_LAYER}{path.readlink().name}"
        with contextlib.suppress(OSError):
            return (path / "layer").read_text()
        return ""

    def is_moved(self, layer: str) -> bool:
        """Tell whether an own layer lies among the layers of images."""
        return self.path(layer).is_symlink()

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Path]:
        """Give an empty folder for the block; what is in it afterwards is removed."""
        folder = self._work / secrets.token_hex(8)
        await asyncio.to_thread(folder.mkdir, 0o700)
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(remove_tree, folder))

    async def keep(self, work: Path) -> str:
        """Keep the layer in `work/diff`; answer its id. It is on the disk when `sync` has ended."""
        return await asyncio.to_thread(self._keep, work)

    def _keep(self, work: Path) -> str:
        layer = secrets.token_hex(13)[:25]
        place = self._work / f"{layer}.whole"
        place.mkdir(mode=0o700)
        (work / "diff").rename(place / "diff")
        place.rename(self._root / layer)
        return layer

    async def sync(self) -> None:
        """Have everything that was kept on the disk."""
        await asyncio.to_thread(sync_filesystem, self._root)

    def note_diff_id(self, layer: str, diff_id: str) -> None:
        """Remember the diff ID of a layer that does not move, because images have an equal one. Blocking."""
        write_durably(self.path(layer) / "layer", diff_id.encode())
        sync_folder(self.path(layer))

    async def remove(self, layers: Iterable[str]) -> None:
        """Remove own layers; those that images have stay with them."""
        await asyncio.to_thread(self._remove, list(layers))

    def _remove(self, layers: Sequence[str]) -> None:
        for layer in layers:
            path = self.path(layer)
            if path.is_symlink():
                path.unlink()
                continue
            doomed = self._work / f"{layer}.{secrets.token_hex(4)}"
            with contextlib.suppress(FileNotFoundError):
                path.rename(doomed)
                remove_tree(doomed)
