"""Mounts layers over each other with the kernel's overlayfs. Blocking calls: callers use threads."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.kernel.libc import mount
from bennu.kernel.libc import unmount as kernel_unmount

MAX_OPTIONS: Final = 4000  # mount(2) takes one page
# What the host may have set otherwise, and what a layer's difference could then not be read from.
PARAMETERS: Final = (("index", "index=off"), ("redirect_dir", "redirect_dir=off"), ("metacopy", "metacopy=off"))

OPAQUE: Final = "trusted.overlay.opaque"  # on a folder that hides those below it
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mount_overlay(layers_root: Path, lowers: Sequence[str], upper_root: Path) -> Path:
    """Mount `upper_root/diff` over `lowers` (paths relative to `layers_root`, topmost first). Raises: BennuError."""
    merged = upper_root / "merged"
    upper = [f"upperdir={_escape(upper_root / 'diff')}", f"workdir={_escape(upper_root / 'work')}"]
    _mount_layers(layers_root, lowers, merged, upper)
    return merged


def mount_layers(layers_root: Path, lowers: Sequence[str], target: Path) -> None:
    """Mount layers over each other at `target`, read-only; they are two at least. Raises: BennuError."""
    _mount_layers(layers_root, lowers, target, [])


def _mount_layers(layers_root: Path, lowers: Sequence[str], target: Path, upper: Sequence[str]) -> None:
    fixed = [*upper, *_parameters()]
    plain = ":".join(_escape(layers_root / lower, colon=True) for lower in lowers)
    if len(plain) + sum(len(word) + 1 for word in fixed) < MAX_OPTIONS:
        _mount(target, [f"lowerdir={plain}", *fixed])
        return
    # Deep images: name each layer through an open descriptor, which is far shorter.
    with contextlib.ExitStack() as stack:
        numbers = []
        for lower in lowers:
            numbers.append(os.open(layers_root / lower, os.O_PATH | os.O_DIRECTORY))
            stack.callback(os.close, numbers[-1])
        short = ":".join(f"/proc/self/fd/{number}" for number in numbers)
        _mount(target, [f"lowerdir={short}", *fixed])


def _parameters() -> list[str]:
    known = Path("/sys/module/overlay/parameters")
    return [option for name, option in PARAMETERS if (known / name).exists()]


def _escape(path: Path, *, colon: bool = False) -> str:
    text = str(path).replace("\\", "\\\\").replace(",", "\\,")
    return text.replace(":", "\\:") if colon else text


def _mount(target: Path, options: Sequence[str]) -> None:
    data = ",".join(options)
    if len(data.encode()) >= MAX_OPTIONS + 90:
        raise BennuError("the image has too many layers to be mounted")
    try:
        mount("overlay", target, "overlay", options=data)
    except OSError as error:
        raise BennuError(f"cannot mount the image's layers at {target}: {error.strerror}") from error


def unmount(target: Path) -> None:
    """Unmount at once; whoever uses the mount keeps it until he lets go. Idempotent. Raises: BennuError."""
    try:
        kernel_unmount(target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise BennuError(f"cannot unmount {target}: {error.strerror}") from error


def is_left_alone(upper: Path, path: str) -> bool:
    """Tell whether the writable layer does not have `path`, or has it only as a folder.

    Then it is what the layers below say, as long as no link leads there. No file is opened and no link is followed.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        return False
    place = os.open(upper, FOLDER)
    try:
        for part in parts:
            if _is_opaque(place):
                return False
            below = os.open(part, FOLDER, dir_fd=place)
            os.close(place)
            place = below
        return not _is_opaque(place)
    except FileNotFoundError:
        return True
    except OSError:  # a file, a link, the mark of what was deleted; or a name too long to be anything
        return False
    finally:
        os.close(place)


def _is_opaque(folder: int) -> bool:
    try:
        return bool(os.getxattr(folder, OPAQUE))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return False


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it, whatever a container made of it. Idempotent. Raises: BennuError."""
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError) as error:
        if not path.exists():
            return
        # Trees deeper than this interpreter can follow, or changing under us: rm can.
        done = subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], capture_output=True, check=False)
        if done.returncode != 0:
            raise BennuError(f"cannot remove {path}: {done.stderr.decode(errors='replace').strip()}") from error
