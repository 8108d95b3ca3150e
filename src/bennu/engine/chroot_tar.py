"""A short-lived helper process that reads or writes files inside a container's root, as tar.

    python -m bennu.engine.chroot_tar ROOT stat PATH   → JSON on stdout
    python -m bennu.engine.chroot_tar ROOT get PATH    → tar on stdout
    python -m bennu.engine.chroot_tar ROOT export /    → tar of everything on stdout
    python -m bennu.engine.chroot_tar ROOT put PATH    ← tar on stdin

It enters ROOT before it looks at anything, so no symbolic link of the container leads out of it. Exit codes:
2 no such file, 3 not a directory, 4 anything else; the reason is on stderr.
"""

import json
import os
import pwd  # noqa: F401  imported before the root changes: tarfile would load it later from the container
import stat
import sys
import tarfile
from pathlib import Path
from typing import Final

NOT_FOUND: Final = 2
NOT_A_DIRECTORY: Final = 3
FAILED: Final = 4

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


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    bits = stat.S_IMODE(mode) & 0o777 | GO_KINDS.get(stat.S_IFMT(mode), 0)
    for ours, go in GO_BITS.items():
        bits |= go if mode & ours else 0
    return bits


def name_of(path: str) -> str:
    """The last part as typed: `/etc/` is `etc`, `/etc/.` stays `.` (the contents, not the folder)."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def print_stat(path: str) -> None:
    found = os.lstat(path)
    target = os.path.realpath(path) if stat.S_ISLNK(found.st_mode) else ""
    facts = {
        "name": name_of(path),
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime_ns": found.st_mtime_ns,
        "linkTarget": target,
    }
    sys.stdout.write(json.dumps(facts))


def write_tar(path: str) -> None:
    name = name_of(path)
    inside = path.rstrip("/") or "/"
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(inside, arcname=name)


def write_everything(path: str) -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(Path(path).iterdir()):
            archive.add(entry, arcname=entry.name)


def read_tar(path: str) -> None:
    if not Path(path).is_dir():
        raise NotADirectoryError("extraction point is not a directory")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive:
        # The root has been changed: whatever a member's name or link says, it stays inside the container.
        archive.extraction_filter = lambda member, _path: member
        archive.extractall(path, numeric_owner=True)


VERBS: Final = {"stat": print_stat, "get": write_tar, "export": write_everything, "put": read_tar}


def main() -> int:
    root, verb, path = sys.argv[1:]
    "".encode("idna")  # loads the codecs tarfile may need while they can still be found
    os.chroot(root)
    os.chdir("/")
    try:
        VERBS[verb](path)
        sys.stdout.flush()
    except (FileNotFoundError, NotADirectoryError) as error:
        sys.stderr.write(error.strerror or str(error))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_A_DIRECTORY
    except (OSError, tarfile.TarError, EOFError) as error:
        sys.stderr.write(str(error))
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
