"""What steps of builds have written: a folder for each, which becomes a layer when an image is made of it.

    DATA_ROOT/build/snapshots/<id>/diff   an upper folder, in overlayfs's form
    DATA_ROOT/build/work/                 work in progress; emptied when the daemon starts

A snapshot's layers are named by where they lie: `layer:<diff id>` in the store of images, `own:<id>` here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A root filesystem as layers, lowest first: each `layer:sha256:…` or `own:<id>`."""

    layers: tuple[str, ...] = ()

    def over(self, layer: str) -> "Snapshot":
        """Give the snapshot with one more layer on top."""
        return Snapshot((*self.layers, layer))
