"""COPY, ADD and WORKDIR of a build. The root that is built is this process's root; it stands in the tree copied from.

The rules are BuildKit's, found by its source and by what dockerd 28.5 makes of Dockerfiles (`unit/confined/
test_copy_files.py`): a source folder stands for what is in it, links on the way to the destination are followed inside
the root, what is in the way of a file is replaced, a folder that was there keeps its looks if it is the destination
itself and takes the source's if it is below.
"""

import contextlib
import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bennu.confined.mode_words import parse_mode
from bennu.confined.patterns import go_match, split_wildcards
from bennu.confined.selection import Selected, find_source, find_sources, walk_selected
from bennu.confined.tar import PlainTar, open_source, open_tar, read_members
from bennu.confined.tasks import read_accounts
from bennu.confined.tree import open_file, place_of, printable
from bennu.confined.unpack import Unpacker, remove_tree, set_xattr
from bennu.confined.words import Refused

UMASK: Final = 0o022  # what BuildKit's folders above a destination are made with
CHUNK: Final = 1 << 20
NOT_BY_RANGE: Final = (errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.EIO, errno.EOPNOTSUPP, errno.EINVAL)


class Owner(NamedTuple):
    """Who is to own what is made."""

    uid: int
    gid: int


# --- users ------------------------------------------------------------------------------------------------------------


def find_owner(text: str) -> Owner | None:
    """Read `--chown`: names are looked up in the root; one that is not there is root, as with BuildKit. "": None.

    A user by number is in the group of that number, a user by name in his own. Raises: Refused.
    """
    if not text:
        return None
    user, _, group = text.partition(":")
    uid = gid = 0
    if user.isdecimal():
        uid = gid = _checked_id(user)
    elif user:
        for fields in _records("passwd", 4):
            if fields[0] == user:
                uid, gid = int(fields[2]), int(fields[3])
                break
    if group.isdecimal():
        gid = _checked_id(group)
    elif group:
        gid = next((int(fields[2]) for fields in _records("group", 3) if fields[0] == group), gid)
    return Owner(uid, gid)


def _checked_id(text: str) -> int:
    if len(text) > 10 or int(text) >= 2**32 - 1:
        raise Refused(f"invalid user index: {text}")
    return int(text)


def _records(name: str, numbers: int) -> list[list[str]]:
    lines = (line.strip().split(":") for line in read_accounts()[name].splitlines())
    return [one for one in lines if len(one) >= numbers and all(word.isdecimal() for word in one[2:numbers])]


# --- single files and folders -----------------------------------------------------------------------------------------


def make_folder(path: str, mode: int, user: str, created_ns: int | None) -> None:
    """Make a folder with those above it; one that is there stays as it is. Raises: Refused, OSError."""
    make_folders(place_of(path), mode & 0o777, find_owner(user), created_ns)


def make_folders(path: str, mode: int, owner: Owner | None, created_ns: int | None = None) -> bool:
    """Make what is missing of a path without links; tell whether anything was. Raises: Refused in BuildKit's words."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return False
        raise Refused(f"mkdir {printable(path)}: not a directory")
    except FileNotFoundError:
        make_folders_above(path, mode, owner, created_ns)
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, *owner)
    os.chmod(path, mode)
    if created_ns is not None:
        os.utime(path, ns=(created_ns, created_ns))
    return True


def make_folders_above(path: str, mode: int, owner: Owner | None, created_ns: int | None) -> None:
    above = posixpath.dirname(path)
    missing = []
    while above != "/" and not os.path.lexists(above):
        missing.append(above)
        above = posixpath.dirname(above)
    if not stat.S_ISDIR(os.stat(above).st_mode):
        raise Refused(f"mkdir {printable(above)}: not a directory")
    for folder in reversed(missing):
        make_folders(folder, mode, owner, created_ns)


def make_file(path: str, mode: int, user: str, created_ns: int | None, *, input: int) -> None:
    """Make a file of what comes from `input`; what is there is overwritten. Raises: Refused, OSError."""
    owner = find_owner(user)
    place = place_of(path)
    made = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    with open(made, "wb") as file:
        while data := os.read(input, CHUNK):
            file.write(data)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), mode & 0o777)
    if created_ns is not None:
        os.utime(place, ns=(created_ns, created_ns), follow_symlinks=False)


def remove_files(path: str, allow_missing: bool, wildcard: bool) -> None:
    """Remove a file or folder, or all that a pattern fits. Raises: Refused, OSError."""
    above, name = posixpath.split(posixpath.normpath(f"/{path}"))
    fixed, pattern = split_wildcards(f"{above}/{name}") if wildcard else (path, "")
    if pattern:
        start = place_of(fixed)
        names = [entry for entry in sorted(os.listdir(start)) if go_match(pattern, entry)] if "/" not in pattern else []
        places = [posixpath.join(start, entry) for entry in names]
    elif not name:
        raise Refused("rmPath: invalid empty path")
    else:
        places = [posixpath.join(place_of(above), name)]
    for place in places:
        try:
            remove(place)
        except FileNotFoundError:
            if not allow_missing:
                raise


def remove(place: str) -> None:
    if stat.S_ISDIR(os.lstat(place).st_mode):
        remove_tree(place)
    else:
        os.unlink(place)


# --- copies -----------------------------------------------------------------------------------------------------------


def copy_files(
    paths: Sequence[tuple[str, Sequence[str]]],
    destination: str,
    user: str,
    mode: str,
    exclude: Sequence[str],
    unpack: bool,
    literal: bool,
) -> None:
    """Copy sources to a destination: see `bennu.build.graph.Copy`.

    `paths`: each with patterns: of what is below it these alone, with the folders above; none is all. Raises: Refused
    ("not-found" for a source that is not there), OSError.
    """
    owner = find_owner(user)
    # Octal is of the folders above as well; words are of what is copied alone.
    folder_mode = int(mode, 8) & 0o777 & ~UMASK if mode[:1].isdigit() else 0o755
    for path, include in paths:
        for source in find_sources(path, wildcards=not literal):
            copier = FileCopier(owner, mode, folder_mode, contents=not literal)
            if unpack and unpack_archive(source, destination, owner):
                continue
            copier.copy(source, destination, include, exclude)


class FileCopier:
    """Copies one source. `contents`: a folder stands for what is in it."""

    def __init__(self, owner: Owner | None, mode: str, folder_mode: int, *, contents: bool) -> None:
        self._owner = owner
        self._change = parse_mode(mode) if mode else None
        self._folder_mode = folder_mode
        self._contents = contents
        self._linked: dict[tuple[int, int], str] = {}

    def copy(self, source: str, destination: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        above, name = posixpath.split(destination)
        needed = destination if name in ("", ".") else above
        make_folders(place_of(needed), self._folder_mode, self._owner)
        place, seen = find_source(source, follow=self._contents)
        target = self._choose_target(place_of(destination), seen, posixpath.basename(source.rstrip("/")))
        self._copy_selected(place, seen, target, include, exclude)

    def _choose_target(self, target: str, seen: os.stat_result, name: str) -> str:
        """Decide where the source itself goes, and make the folders above."""
        is_folder = stat.S_ISDIR(seen.st_mode)
        try:
            there: os.stat_result | None = os.stat(target)
        except FileNotFoundError:
            there = None
        into = there is not None and (not self._contents if is_folder else stat.S_ISDIR(there.st_mode))
        if into:
            target = posixpath.join(target, name)
        made = target if self._contents and is_folder and there is None else posixpath.dirname(target)
        make_folders(made, self._folder_mode, self._owner)
        return target

    def _copy_selected(
        self, place: str, seen: os.stat_result, target: str, include: Sequence[str], exclude: Sequence[str]
    ) -> None:
        open_folders: list[tuple[str, Selected, bool]] = []  # whose looks are given when they are filled
        for entry in walk_selected(place, seen, include, exclude):
            while open_folders and not _is_below(entry.name, open_folders[-1][1].name):
                self._close(*open_folders.pop())
            copy = f"{target.rstrip('/')}/{entry.name}" if entry.name else target
            if stat.S_ISDIR(entry.seen.st_mode):
                made = self._copy_folder(entry, copy)
                if entry.implied:
                    if made:
                        self._dress(entry, copy)
                else:
                    open_folders.append((copy, entry, made or bool(entry.name)))
            else:
                self._copy_file(entry, copy)
        while open_folders:
            self._close(*open_folders.pop())

    def _close(self, copy: str, entry: Selected, dressed: bool) -> None:
        """Give a folder its looks; the destination itself, if it was there before, only the times."""
        if dressed:
            self._dress(entry, copy)
        else:
            _set_times(copy, entry.seen)

    def _copy_folder(self, entry: Selected, copy: str) -> bool:
        try:
            there = os.lstat(copy)
        except FileNotFoundError:
            os.mkdir(copy, 0o700)
            return True
        if not stat.S_ISDIR(there.st_mode):
            raise Refused(f"cannot copy to non-directory: {printable(copy)}")
        if entry.name:
            os.chmod(copy, stat.S_IMODE(entry.seen.st_mode))
        return False

    def _copy_file(self, entry: Selected, copy: str) -> None:
        kind = entry.seen.st_mode
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(copy).st_mode):
                raise Refused(f"cannot replace to directory {printable(copy)} with file")
            os.unlink(copy)
        twin = self._twin(entry, copy)
        if twin is not None:
            os.link(twin, copy, follow_symlinks=False)
        elif stat.S_ISREG(kind):
            copy_content(entry.place, copy)
        elif stat.S_ISLNK(kind):
            os.symlink(os.readlink(entry.place), copy)
        elif stat.S_ISSOCK(kind):
            os.mknod(copy, stat.S_IFREG | 0o600)  # a stub, as with BuildKit
        else:
            os.mknod(copy, stat.S_IFMT(kind) | 0o600, entry.seen.st_rdev)
        self._dress(entry, copy)

    def _twin(self, entry: Selected, copy: str) -> str | None:
        """Answer the copy of the same file under another of its names, if there is one."""
        if not stat.S_ISREG(entry.seen.st_mode) or entry.seen.st_nlink < 2:
            return None
        known = self._linked.setdefault((entry.seen.st_dev, entry.seen.st_ino), copy)
        return None if known == copy else known

    def _dress(self, entry: Selected, copy: str) -> None:
        """Set owner, mode, times and attributes; a change of owner takes set-user-id bits and capabilities away."""
        seen = entry.seen
        owner = self._owner or Owner(seen.st_uid, seen.st_gid)
        os.chown(copy, *owner, follow_symlinks=False)
        if not stat.S_ISLNK(seen.st_mode):
            mode = stat.S_IMODE(seen.st_mode)
            os.chmod(copy, self._change(mode, stat.S_ISDIR(seen.st_mode)) if self._change is not None else mode)
        with contextlib.suppress(OSError):
            for attribute in os.listxattr(entry.place, follow_symlinks=False):
                set_xattr(copy, attribute, os.getxattr(entry.place, attribute, follow_symlinks=False))
        _set_times(copy, seen)


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _set_times(path: str, seen: os.stat_result) -> None:
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns), follow_symlinks=False)


def copy_content(source: str, copy: str) -> None:
    """Copy a regular file to a name where nothing is; holes stay holes. Raises: OSError."""
    made = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        given = open_file(source)
        try:
            _copy_pieces(given, made, os.fstat(given).st_size)
        finally:
            os.close(given)
    finally:
        os.close(made)


def _copy_pieces(given: int, made: int, size: int) -> None:
    start = 0
    while start < size:
        try:
            start = os.lseek(given, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # else there is a hole up to the end
                raise
            break
        end = os.lseek(given, start, os.SEEK_HOLE)
        _copy_range(given, made, start, end)
        start = end
    os.ftruncate(made, size)


def _copy_range(given: int, made: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(given, made, end - start, start, start)
        except OSError as error:
            if error.errno not in NOT_BY_RANGE:
                raise
            count = os.pwrite(made, os.pread(given, min(CHUNK, end - start), start), start)
        if not count:  # it has become shorter
            return
        start += count


# --- archives ---------------------------------------------------------------------------------------------------------


def unpack_archive(source: str, destination: str, owner: Owner | None) -> bool:
    """Unpack a source of ADD if it is a tar, however it was compressed; answer False if it is none.

    Raises: Refused for one that is damaged further on, OSError.
    """
    try:
        place, seen = find_source(source, follow=True)
    except Refused:
        return False  # the copy says so
    if not stat.S_ISREG(seen.st_mode) or not starts_as_tar(place):
        return False
    folder = place_of(destination)
    make_folders(folder, 0o755, owner)
    unpacker = Unpacker(folder, keeps_base=True)

    def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if owner is not None:
            member.uid, member.gid = owner
        unpacker.add(archive, member)

    with _opened_tar(place) as tar:
        read_members(tar, take)
        unpacker.finish()
    return True


class _FirstSeen(Exception):
    """The first header was read."""


def starts_as_tar(place: str) -> bool:
    def take(_archive: tarfile.TarFile, _member: tarfile.TarInfo) -> None:
        raise _FirstSeen

    try:
        with _opened_tar(place) as tar:
            read_members(tar, take)
    except _FirstSeen:
        return True
    except (Refused, OSError, EOFError):
        return False
    return False


@contextlib.contextmanager
def _opened_tar(place: str) -> Any:
    descriptor = open_file(place)
    try:
        yield _tar_of(descriptor)
    finally:
        os.close(descriptor)


def _tar_of(descriptor: int) -> PlainTar:
    return open_tar(open_source(descriptor, lambda _told: None))
