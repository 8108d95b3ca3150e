"""Writes one layer as a tar to standard output. Run as a program of its own, by path: `pack.py UPPER > layer`.

UPPER is the writable folder of an overlay: its character devices 0/0 become `.wh.` files, its opaque folders get a
`.wh..wh..opq`. Owners are numbers, times exact, extended attributes kept; entries come in order of their names. Uses
nothing but the standard library.
"""

# ruff: noqa: PTH115, PTH118, PTH123, PTH208

import contextlib
import ctypes
import os
import signal
import stat
import sys
import tarfile
from collections.abc import Iterator
from typing import Final

PR_SET_PDEATHSIG: Final = 1
OPAQUE: Final = "trusted.overlay.opaque"
FOREIGN: Final = ("trusted.overlay.", "user.overlay.")


class Packer:
    def __init__(self, upper: str, tar: tarfile.TarFile) -> None:
        self._upper = upper
        self._tar = tar
        self._links: dict[tuple[int, int], str] = {}

    def pack(self) -> None:
        for name in walk(self._upper):
            with contextlib.suppress(FileNotFoundError):  # gone while we look: a container that was not paused
                self._add(name)

    def _add(self, name: str) -> None:
        path = os.path.join(self._upper, name)
        seen = os.lstat(path)
        if stat.S_ISSOCK(seen.st_mode):
            return
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            folder, base = os.path.split(name)
            self._tar.addfile(bare(os.path.join(folder, f".wh.{base}")))
            return
        header = self._header(name, path, seen)
        if header.isreg():
            with open(path, "rb") as file:
                self._tar.addfile(header, file)
        else:
            self._tar.addfile(header)
        if header.isdir() and OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y":
            self._tar.addfile(bare(os.path.join(name, ".wh..wh..opq")))

    def _header(self, name: str, path: str, seen: os.stat_result) -> tarfile.TarInfo:
        header, more = bare(name), {}
        header.mode = stat.S_IMODE(seen.st_mode)
        header.uid, header.gid = seen.st_uid, seen.st_gid
        seconds, nanos = divmod(seen.st_mtime_ns, 10**9)
        header.mtime = seconds
        if nanos:
            more["mtime"] = f"{seconds}.{nanos:09d}".rstrip("0")
        key = (seen.st_dev, seen.st_ino)
        if stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1 and key in self._links:
            header.type, header.linkname = tarfile.LNKTYPE, self._links[key]
        elif stat.S_ISREG(seen.st_mode):
            self._links[key] = name
            header.size = seen.st_size
        elif stat.S_ISDIR(seen.st_mode):
            header.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(seen.st_mode):
            header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISFIFO(seen.st_mode):
            header.type = tarfile.FIFOTYPE
        else:
            header.type = tarfile.CHRTYPE if stat.S_ISCHR(seen.st_mode) else tarfile.BLKTYPE
            header.devmajor, header.devminor = os.major(seen.st_rdev), os.minor(seen.st_rdev)
        for attribute in os.listxattr(path, follow_symlinks=False):
            if not attribute.startswith(FOREIGN) and not attribute.startswith("security.selinux"):
                value = os.getxattr(path, attribute, follow_symlinks=False)
                more[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
        header.pax_headers = more
        return header


def bare(name: str) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mode = 0o644
    return header


def walk(upper: str) -> Iterator[str]:
    """Every name below `upper`, folders before what is in them; does not recurse on the stack."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        if folder:
            yield folder
        try:
            entries = sorted(os.listdir(os.path.join(upper, folder)))
        except FileNotFoundError:
            continue
        folders = []
        for entry in entries:
            name = os.path.join(folder, entry)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(os.path.join(upper, name)).st_mode):
                    folders.append(name)
                else:
                    yield name
        waiting += reversed(folders)


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    target = sys.stdout.buffer
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", bufsize=1 << 20) as tar:
        Packer(sys.argv[1], tar).pack()
    target.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
