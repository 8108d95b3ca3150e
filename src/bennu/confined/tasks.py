"""What bennud asks about single files and whole trees, and the folder it makes in a root."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bennu.confined.pack import name_of
from bennu.confined.tree import open_file, printable, resolve, walk
from bennu.confined.words import Refused

# Go's os.FileMode bits, which Docker's path stat speaks.
GO_KINDS: Final = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
GO_BITS: Final = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
MAX_ACCOUNTS_BYTES: Final = 4 << 20
MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2
# What is laid over or put into each root at its start is no change of the container's: dockerd has it in a layer below.
FURNITURE: Final = frozenset(
    (
        ".dockerenv",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "dev",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "proc",
        "sys",
    )
)


def go_mode(mode: int) -> int:
    """Translate st_mode to Go's os.FileMode."""
    bits = stat.S_IMODE(mode) & 0o777 | GO_KINDS.get(stat.S_IFMT(mode), 0)
    for ours, go in GO_BITS.items():
        bits |= go if mode & ours else 0
    return bits


def stat_path(path: str) -> dict[str, Any]:
    """Answer what `docker cp` asks about a path first. Raises: OSError."""
    found = os.lstat(path)
    target = ""
    if stat.S_ISLNK(found.st_mode):
        inside = resolve("/", path)
        target = os.path.join(os.path.dirname(path), os.readlink(path)) if inside is None else f"/{inside}"
    return {
        "name": printable(name_of(path)),
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime_ns": found.st_mtime_ns,
        "link_target": printable(target),
    }


def read_accounts() -> dict[str, str]:
    """Read the texts of /etc/passwd and /etc/group; "" for one that is missing or no regular file."""
    return {name: _read_text(f"/etc/{name}", MAX_ACCOUNTS_BYTES) for name in ("passwd", "group")}


def _read_text(path: str, limit: int) -> str:
    try:
        with open(open_file(path), "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def furnish(working_dir: str) -> dict[str, Any]:
    """Make the working directory (root:root, 0755) with those above it, as dockerd does.

    Answers `accounts` (see `read_accounts`) and `plain`: whether the directory was there, no link leads to it or to the
    two files, and these were read, or are not there. Raises: Refused in dockerd's words if something is in the way.
    """
    done, plain = "", True
    for part in [part for part in working_dir.split("/") if part not in ("", ".")]:
        done += f"/{part}"
        plain = not _make_folder(done) and plain
    plain = plain and all(os.path.realpath(path) == path for path in ("/etc/passwd", "/etc/group", done or "/"))
    accounts = read_accounts()
    plain = plain and all(text or not os.path.lexists(f"/etc/{name}") for name, text in accounts.items())
    return {"accounts": accounts, "plain": plain}


def _make_folder(path: str) -> bool:
    """Make a folder; answer False when it was there already. Raises: Refused."""
    try:
        os.mkdir(path, 0o755)
        return True
    except FileExistsError:
        if not os.path.isdir(path):
            raise Refused(f"Cannot mkdir: {path} is not a directory") from None
        return False
    except NotADirectoryError:
        raise Refused(f"Cannot mkdir: {path} is not a directory") from None
    except OSError as error:
        raise Refused(f"mkdir {path}: {(error.strerror or '').lower()}", "system") from None


def read_file(path: str, limit: int) -> dict[str, Any]:
    """Read the text of a regular file, and tell whether it is longer than `limit` bytes. Raises: OSError."""
    with open(open_file(path), "rb") as file:
        data = file.read(limit + 1)
    return {"text": data[:limit].decode("utf-8", "replace"), "longer": len(data) > limit}


def measure() -> int:
    """Count the bytes of the files of the tree, each inode once."""
    seen: dict[tuple[int, int], int] = {}
    for _, _, found in walk("/"):
        if not stat.S_ISDIR(found.st_mode):
            seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())


# --- what a container has changed -------------------------------------------------------------------------------------


def find_changes(lowers: Sequence[str]) -> list[tuple[str, int]]:
    """List for `docker diff` paths and kinds (0 modified, 1 added, 2 deleted) in order of the paths.

    The writable layer is /0, in which a character device 0/0 hides what is below; the image's layers are `lowers` below
    /1, topmost first.
    """
    found = _changes("/0", [f"/1/{lower}" for lower in lowers])
    return sorted((printable(path), kind) for path, kind in found)


def _changes(upper: str, lowers: Sequence[str]) -> Iterator[tuple[str, int]]:
    furnished: list[tuple[str, bool]] = []  # folders that only count if something in them does
    for path, _, found in walk(upper):
        while furnished and not path.startswith(f"{furnished[-1][0]}/"):
            furnished.pop()
        if _is_whiteout(found):
            kind = DELETED
        else:
            below = _find_below(path, lowers)
            kind = MODIFIED if below else ADDED
            if _is_furnished(path, found, below):
                if stat.S_ISDIR(found.st_mode):
                    furnished.append((path, below is not None))
                continue
        for folder, was_there in furnished:
            yield f"/{folder}", MODIFIED if was_there else ADDED
        furnished = []
        yield f"/{path}", kind


def _is_furnished(path: str, found: os.stat_result, below: os.stat_result | None) -> bool:
    """Tell whether the engine put it there, or copied the image's own folder up to put something into it."""
    if path in FURNITURE:
        return stat.S_ISDIR(found.st_mode) or found.st_size == 0
    holds = any(name.startswith(f"{path}/") for name in FURNITURE)
    return holds and (below is None or _owned(found) == _owned(below))


def _owned(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid


def _find_below(path: str, lowers: Sequence[str]) -> os.stat_result | None:
    """Look up what the image has there: the topmost layer that says anything of the path decides."""
    for lower in lowers:
        try:
            found = os.lstat(f"{lower}/{path}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                continue
            raise
        return None if _is_whiteout(found) else found
    return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
