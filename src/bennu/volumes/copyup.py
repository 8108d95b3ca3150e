"""Fills a new volume with what the image has at its place."""

from pathlib import Path
from typing import Final

from bennu.confined.client import HELPER, Failure, Folder

FILLING: Final = ".filling"  # beside the volume's data: it is being filled, and not yet all there


def needs_filling(volume: Path) -> bool:
    """Tell whether nothing is in a volume yet, or not all that was to be copied."""
    return not any(volume.iterdir()) or volume.with_name(FILLING).exists()


async def copy_up(rootfs: Path, target: str, volume: Path) -> None:
    """Copy the folder `target` of `rootfs` into `volume`, if that is empty, with owners, modes, times, links, xattrs.

    The volume stays the folder it is, for containers may use it already. A mark beside it says until the end that it
    is not all there; the next copy then adds what is missing. Raises: Failure, OSError; then the volume is as
    it was.
    """
    mark = volume.with_name(FILLING)
    again = mark.exists()
    mark.touch()
    try:
        trees = Folder(rootfs), Folder(volume, writable=True)
        await HELPER.ask("fill", *trees, enter=False, limit_s=None, target=target, again=again)
    except Failure as failure:
        if failure.kind != "died":
            mark.unlink()
        raise
    mark.unlink()
