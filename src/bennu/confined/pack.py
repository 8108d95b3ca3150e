"""Writing a tree as tar: `docker cp` out of a container, `docker export`, and the layer of `docker commit`.

Owners are numbers, times exact; entries come in order of their names.
"""

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Sequence
from typing import Any, Final, cast

from bennu.confined.changes import changes, is_whiteout
from bennu.confined.tree import open_file, walk

OPAQUE: Final = "trusted.overlay.opaque"
FOREIGN: Final = ("trusted.overlay.", "user.overlay.", "security.selinux")
FILE_CAPABILITIES: Final = "security.capability"
CHUNK: Final = 1 << 20


def pack_path(path: str, output: int) -> None:
    """Pack a file, or a folder with all that is in it, under the last part of `path` as typed.

    A slash at its end asks for the folder behind a symbolic link instead of the link. Raises: OSError.
    """
    with Packer(output) as packer:
        packer.add_tree(path, name_of(path))


def pack_root(output: int) -> None:
    """Pack all that is in the root; its entries stand at the top of the tar. Raises: OSError."""
    with Packer(output) as packer:
        packer.add_contents("/", "")


def pack_layer(output: int, lowers: Sequence[str]) -> None:
    """Pack what was changed in the writable layer of an overlay as an image's layer. Raises: OSError.

    Character devices 0/0 become `.wh.` files, opaque folders get a `.wh..wh..opq`; all extended attributes but
    overlayfs's own are kept. `lowers`: see `changes`.
    """
    with LayerPacker(output) as packer:
        packer.add_changes(lowers)


def pack_step(output: int) -> None:
    """Pack what a step of a build wrote: the root, a folder in overlayfs's form, as `pack_layer`. Raises: OSError.

    Nothing in it is the engine's: what a runtime has made for the step's mounts is no longer there.
    """
    with LayerPacker(output) as packer:
        packer.add_contents("/", "")


def name_of(path: str) -> str:
    """Answer the last part as typed: `/etc/` is `etc`, `/etc/.` stays `.` (the contents, not the folder)."""
    return path.rstrip("/").rpartition("/")[2] or "/"


class Packer:
    """What `docker cp` and `docker export` give: of extended attributes only a file's capabilities, as dockerd does."""

    def __init__(self, output: int) -> None:
        self._stream: Any = open(output, "wb", buffering=0)  # noqa: SIM115  a descriptor
        # The library's own pieces of 16 KiB make the copying of large files twice as slow.
        options: dict[str, Any] = {"bufsize": CHUNK, "copybufsize": CHUNK}
        self._tar = tarfile.open(  # noqa: SIM115
            fileobj=self._stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", **options
        )
        self._links: dict[tuple[int, int], str] = {}

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._tar.close()  # the end mark: without it the reader knows that something is missing

    def add_tree(self, path: str, name: str) -> None:
        seen = os.lstat(path)
        self._add(path, name, seen)
        if stat.S_ISDIR(seen.st_mode):
            self.add_contents(path, name)

    def add_contents(self, folder: str, name: str) -> None:
        for inside, entry, seen in walk(folder):
            try:
                self._add(entry, os.path.join(name, inside), seen)
            except FileNotFoundError:
                continue  # gone while we look: the container runs

    def _add(self, path: str, name: str, seen: os.stat_result) -> None:
        if stat.S_ISSOCK(seen.st_mode):
            return
        if stat.S_ISREG(seen.st_mode) and (seen.st_nlink == 1 or (seen.st_dev, seen.st_ino) not in self._links):
            self._add_file(path, name)
        else:
            self._tar.addfile(self._header(path, name, seen))

    def _add_file(self, path: str, name: str) -> None:
        with open(open_file(path), "rb", buffering=0) as file:
            seen = os.fstat(file.fileno())
            header = self._header(path, name, seen)
            self._links[seen.st_dev, seen.st_ino] = name
            self._tar.addfile(header, cast(Any, Exactly(file, seen.st_size)))

    def _header(self, path: str, name: str, seen: os.stat_result) -> tarfile.TarInfo:
        header = tarfile.TarInfo(name)
        header.mode = stat.S_IMODE(seen.st_mode)
        header.uid, header.gid = seen.st_uid, seen.st_gid
        header.mtime = seen.st_mtime_ns // 10**9
        seconds, nanos = divmod(abs(seen.st_mtime_ns), 10**9)
        sign = "-" if seen.st_mtime_ns < 0 else ""
        more = {"mtime": f"{sign}{seconds}.{nanos:09d}".rstrip("0")} if nanos else {}
        link = self._links.get((seen.st_dev, seen.st_ino))
        if stat.S_ISREG(seen.st_mode) and link is not None:
            header.type, header.linkname = tarfile.LNKTYPE, link
        elif stat.S_ISREG(seen.st_mode):
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
            if self._keeps(attribute):
                value = os.getxattr(path, attribute, follow_symlinks=False)
                more[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
        header.pax_headers = more
        return header

    def _keeps(self, attribute: str) -> bool:
        return attribute == FILE_CAPABILITIES


class LayerPacker(Packer):
    """What `docker commit` gives: every attribute, and overlayfs's marks as a layer has them."""

    def add_changes(self, lowers: Sequence[str]) -> None:
        for change in changes(lowers):
            with contextlib.suppress(FileNotFoundError):  # gone while we look: the container runs
                self._add(change.place, change.path, change.found)

    def _add(self, path: str, name: str, seen: os.stat_result) -> None:
        if is_whiteout(seen):
            folder, base = os.path.split(name)
            self._tar.addfile(tarfile.TarInfo(os.path.join(folder, f".wh.{base}")))
            return
        super()._add(path, name, seen)
        if stat.S_ISDIR(seen.st_mode) and OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y":
            self._tar.addfile(tarfile.TarInfo(os.path.join(name, ".wh..wh..opq")))

    def _keeps(self, attribute: str) -> bool:
        return not attribute.startswith(FOREIGN)


class Exactly:
    """A file of which exactly `size` bytes are read: its header says so, and it may change while it is read."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = b""
        while len(data) < wanted and (piece := self._file.read(wanted - len(data))):
            data = data + piece if data else piece
        self._left -= wanted
        return data.ljust(wanted, b"\0")
