"""A tree for somebody who asks for its files one by one: first what is there, then the bytes of what he names."""

import os
import stat
from typing import Any, Final

from bennu.confined.tar import Say
from bennu.confined.tasks import go_mode
from bennu.confined.tree import open_file, walk

CHUNK: Final = 1 << 20
END: Final = (0).to_bytes(4, "big")
FOREIGN: Final = ("trusted.overlay.", "user.overlay.")
LINK_MODE: Final = 0o777


def send(*, input: int, output: int, say: Say) -> None:
    """Tell of each entry below the root, a folder before its contents, in order of the names; then {"told": count}.

    After that each line of `input` is the hex of a path of a regular file; its bytes are written to `output` in pieces,
    each behind its length in four bytes, an empty one last. Raises: OSError.
    """
    links: dict[tuple[int, int], str] = {}
    count = 0
    for name, place, seen in walk("/"):
        say(_describe(name, place, seen, links))
        count += 1
    say({"told": count})
    os.chdir("/")
    with open(input, "rb", closefd=False) as asked:
        for line in asked:
            _write_file("/" + os.fsdecode(bytes.fromhex(line.decode("ascii").strip())), output)


def _describe(name: str, place: str, seen: os.stat_result, links: dict[tuple[int, int], str]) -> dict[str, Any]:
    link, size = "", seen.st_size
    mode = go_mode(seen.st_mode)
    if stat.S_ISLNK(seen.st_mode):
        link, mode = os.readlink(place), mode | LINK_MODE
    elif stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
        first = links.setdefault((seen.st_dev, seen.st_ino), name)
        link, size = ("", size) if first == name else (first, 0)
    elif stat.S_ISDIR(seen.st_mode):
        size = 0
    attributes = [one for one in os.listxattr(place, follow_symlinks=False) if not one.startswith(FOREIGN)]
    return {
        "path": os.fsencode(name).hex(),
        "mode": mode,
        "uid": seen.st_uid,
        "gid": seen.st_gid,
        "size": size,
        "mtime_ns": seen.st_mtime_ns,
        "link": os.fsencode(link).hex(),
        "device": (os.major(seen.st_rdev), os.minor(seen.st_rdev)),
        "attributes": {one: os.getxattr(place, one, follow_symlinks=False).hex() for one in attributes},
    }


def _write_file(path: str, output: int) -> None:
    descriptor = open_file(path)
    try:
        while data := os.read(descriptor, CHUNK):
            _write(output, len(data).to_bytes(4, "big") + data)
    finally:
        os.close(descriptor)
    _write(output, END)


def _write(output: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(output, left) :]
