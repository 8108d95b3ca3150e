"""A folder that a client sends entry by entry, brought to what it should be: made, changed, filled, removed.

The tree is this process's root, so no name and no link leads out of it. What is to be done comes as records: a letter,
a number, a length, and as many bytes.

    E   an entry: [path, st_mode, uid, gid, mtime in ns, target of a link, device major, minor, {xattr: text}, same]
        in JSON. `same`: a folder that is there already
    D   contents of the entry with this number, in order; none at all is their end
    R   the path of what is to go, with all that is below
    F   the end: nothing more comes
"""

import io
import json
import os
import stat
import struct
from typing import BinaryIO, Final

from bennu.confined.unpack import link, remove_tree, set_xattr, write_all
from bennu.confined.words import Refused

RECORD: Final = struct.Struct(">cII")
MAX_RECORD: Final = 32 << 20
MAX_OPEN: Final = 64  # files whose contents come mixed
AHEAD: Final = 1 << 20


class Arrivals:
    """Applies records to this process's root."""

    def __init__(self) -> None:
        self._paths: dict[int, tuple[str, int]] = {}  # of entries whose contents may come: path, time
        self._open: dict[int, io.FileIO] = {}
        self._folder_times: dict[str, int] = {}

    def enter(self, number: int, data: bytes) -> None:
        path, mode, uid, gid, ns, target, major, minor, xattrs, same = json.loads(data)
        place = f"/{path}"
        is_folder = stat.S_ISDIR(mode)
        if is_folder:
            self._folder_times[place] = ns
        if not same:
            _make_room(place)
            self._make(place, mode, target, major, minor)
        if stat.S_ISREG(mode) and target:
            return  # one file with another name: it looks as that does
        os.chown(place, uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(place, stat.S_IMODE(mode))
        for name, value in xattrs.items():
            set_xattr(place, name, value.encode("latin-1"))
        if stat.S_ISREG(mode):
            self._paths[number] = (place, ns)
        if not is_folder:
            os.utime(place, ns=(ns, ns), follow_symlinks=False)

    def _make(self, place: str, mode: int, target: str, major: int, minor: int) -> None:
        if stat.S_ISDIR(mode):
            os.mkdir(place, 0o755)
        elif stat.S_ISLNK(mode):
            os.symlink(target, place)
        elif stat.S_ISREG(mode) and target:
            link(f"/{target}", place)
        elif stat.S_ISREG(mode):
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        else:
            os.mknod(place, stat.S_IFMT(mode) | 0o600, os.makedev(major, minor))

    def fill(self, number: int, data: bytes) -> None:
        place, ns = self._paths[number]
        file = self._open.get(number)
        if file is None and data:
            if len(self._open) >= MAX_OPEN:
                raise Refused("the contents of too many files at once")
            file = self._open[number] = io.FileIO(os.open(place, os.O_WRONLY | os.O_NOFOLLOW), "wb")
        if data:
            write_all(file, data)
            return
        if file is not None:
            file.close()
            del self._open[number]
        del self._paths[number]
        os.utime(place, ns=(ns, ns), follow_symlinks=False)

    def finish(self) -> None:
        """Set the folders' times, last: filling them changes them."""
        if self._open:
            raise Refused("the contents of a file have no end")
        for path, ns in self._folder_times.items():
            os.utime(path, ns=(ns, ns))


def _make_room(place: str) -> None:
    try:
        os.unlink(place)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        remove_tree(place)


def receive_tree(*, input: int) -> None:
    """Apply what comes until the end is told. Raises: Refused, OSError."""
    arrivals = Arrivals()
    with open(input, "rb", buffering=AHEAD, closefd=False) as source:
        while True:
            kind, number, length = RECORD.unpack(_read(source, RECORD.size))
            if length > MAX_RECORD:
                raise Refused("a record is too long")
            data = _read(source, length)
            match kind:
                case b"E":
                    arrivals.enter(number, data)
                case b"D":
                    arrivals.fill(number, data)
                case b"R":
                    _make_room("/" + data.decode("utf-8", "surrogateescape"))
                case b"F":
                    arrivals.finish()
                    return
                case _:
                    raise Refused("a record of an unknown kind")


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise Refused("unexpected EOF")
    return data
