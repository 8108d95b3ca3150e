"""What bennud asks about single files and whole trees, and the folder it makes in a root."""

import os
import stat
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
