"""Finds images by what is on disk, where no record tells of them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bennu.errors import InvalidParameter
from bennu.images.image import ImageRecord, parse_config
from bennu.images.images import RECORDS
from bennu.store import Put

MOST_BYTES = 8 << 20  # of a configuration: what is larger is a layer


def put_back(root: Path, lost: Path) -> int:
    """Move back what was put aside; answer how many layers and blobs. `root` is the folder of all images."""
    count = 0
    for kind in ("layers", "blobs"):
        for path in sorted((lost / kind).iterdir()) if (lost / kind).exists() else ():
            home = root / kind / path.name
            if not home.exists() and (kind == "blobs" or (path / "meta").exists()):
                path.rename(home)
                count += 1
    return count


def find_images(root: Path) -> Iterator[Put]:
    """Yield a record, without a name, for each image whose configuration and layers are all here."""
    layers = {f"sha256:{path.name}" for path in (root / "layers").glob("*") if (path / "meta").exists()}
    for path in (root / "blobs").glob("*"):
        if path.stat().st_size <= MOST_BYTES and is_image(path.read_bytes(), layers):
            record = ImageRecord(id=f"sha256:{path.name}")
            yield Put(f"{RECORDS}{path.name}", msgspec.json.encode(record))


def is_image(blob: bytes, layers: set[str]) -> bool:
    """Tell whether a blob is the configuration of an image whose layers are here."""
    try:
        raw = parse_config(blob)
    except InvalidParameter:
        return False
    return "config" in raw and layers.issuperset(raw["rootfs"]["diff_ids"])
