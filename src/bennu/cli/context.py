"""A build context as a tar stream, made while it is sent."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bennu.cli.failure import Failure
from bennu.cli.ignore import IgnoreRules, read_ignore_file

BLOCK: Final = 512
CHUNK: Final = 1 << 18
END: Final = b"\0" * (2 * BLOCK)


def stream_context(root: Path, dockerfile: str, extra: dict[str, bytes] | None = None) -> Iterator[bytes]:
    """The files below `root` that .dockerignore leaves, and `extra` files by name.

    Owners become root, so that the same files give the same layers whoever builds.
    """
    lines = read_ignore_file(root / (dockerfile + ".dockerignore")) or read_ignore_file(root / ".dockerignore")
    rules = IgnoreRules([*lines, f"!{dockerfile}", "!.dockerignore"] if lines else [])
    links: dict[tuple[int, int], str] = {}
    for path, name in walk(root, rules):
        yield from stream_entry(path, name, links)
    for name, content in (extra or {}).items():
        yield from stream_bytes(name, content)
    yield END


def walk(root: Path, rules: IgnoreRules) -> Iterator[tuple[Path, str]]:
    """(path, name in the archive), folders before what is in them, in order."""
    pending = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise Failure(f"error checking context: cannot read '{folder}': {(error.strerror or '').lower()}") from None
        below = []
        for entry in entries:
            name = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            excluded = rules.excludes(name)
            if not excluded:
                yield Path(entry.path), name
            if is_folder and (not excluded or rules.has_exceptions):
                below.append((name + "/", Path(entry.path)))
        pending += reversed(below)


def stream_entry(
    path: Path, name: str, links: dict[tuple[int, int], str], *, keep_owner: bool = False
) -> Iterator[bytes]:
    try:
        facts = path.lstat()
        if stat.S_ISSOCK(facts.st_mode):
            return
        info = describe(path, name, facts, links)
        if keep_owner:
            info.uid, info.gid = facts.st_uid, facts.st_gid
        if not info.isreg():
            yield info.tobuf(tarfile.PAX_FORMAT)
            return
        with path.open("rb") as file:
            yield info.tobuf(tarfile.PAX_FORMAT)
            left = info.size
            while left > 0 and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                yield data
            yield b"\0" * (left + -info.size % BLOCK)  # a file that shrank meanwhile is filled up
    except OSError as error:
        raise Failure(
            f"error checking context: can't stat or read '{path}': {(error.strerror or '').lower()}"
        ) from None


def describe(path: Path, name: str, facts: os.stat_result, links: dict[tuple[int, int], str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
    identity = facts.st_dev, facts.st_ino
    if stat.S_ISDIR(facts.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(facts.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif facts.st_nlink > 1 and identity in links:
        info.type, info.linkname = tarfile.LNKTYPE, links[identity]
    elif stat.S_ISREG(facts.st_mode):
        info.size = facts.st_size
        links[identity] = name
    elif stat.S_ISFIFO(facts.st_mode):
        info.type = tarfile.FIFOTYPE
    else:
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(facts.st_mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    return info


def stream_bytes(name: str, content: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    yield info.tobuf(tarfile.PAX_FORMAT) + content + b"\0" * (-len(content) % BLOCK)
