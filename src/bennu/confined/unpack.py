"""What is in a tar, put into a tree: a layer, a build's context, an image archive, what `docker cp` brings along.

Nothing in a tar can touch anything outside of the tree: the tree is this process's root before the first header is
read, so absolute names, `..`, symbolic links and hard links can only ever mean places inside.

In a layer whiteouts become overlayfs's own: `.wh.x` a character device 0/0 named x, `.wh..wh..opq` the opaque mark on
its folder.
"""

import contextlib
import io
import os
import posixpath
import re
import stat
import tarfile
from typing import Any, Final, cast

from bennu.confined.tar import CHUNK, PlainTar, Reporting, Say, decompress, open_source, open_tar, read_members
from bennu.confined.tree import walk
from bennu.confined.words import Refused

OPAQUE: Final = "trusted.overlay.opaque"
WHITEOUT: Final = ".wh."
OPAQUE_MARK: Final = ".wh..wh..opq"
AUFS_MARK: Final = ".wh..wh."
XATTR: Final = "SCHILY.xattr."
PAX_TIME: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?\Z", re.ASCII)


def clean_name(name: str) -> str:
    """Clean a name to a path without a leading slash; "" is the root. Raises: Refused when it points outside."""
    clean = posixpath.normpath("./" + name.lstrip("/"))
    if clean == ".." or clean.startswith("../"):
        raise Refused(f'"{name}" is outside of the layer')
    return "" if clean == "." else clean


def mtime_ns(member: tarfile.TarInfo) -> int:
    """Read a member's time, exactly where the header is exact; what no file system can hold becomes the epoch."""
    match = PAX_TIME.match(member.pax_headers.get("mtime", ""))
    if match:
        ns = int(match[2]) * 10**9 + int((match[3] or "")[:9].ljust(9, "0"))
        ns = -ns if match[1] else ns
    else:
        ns = int(member.mtime) * 10**9
    return ns if -(2**62) < ns < 2**62 else 0


class Unpacker:
    """Applies headers to the folder `base` of what is this process's root.

    Args:
        whiteouts: it is a layer: `.wh.` names take away what is below.
        same_kind: a folder is not replaced by something else, nor the other way round, and the folder that is already
            there keeps its looks when the tar brings one of its name as "."; for `docker cp`.
        keeps_base: the latter alone; for ADD.
    """

    def __init__(
        self, base: str = "/", *, whiteouts: bool = False, same_kind: bool = False, keeps_base: bool = False
    ) -> None:
        self._base = base.rstrip("/") + "/"
        self._whiteouts = whiteouts
        self._same_kind = same_kind
        self._keeps_base = same_kind or keeps_base
        self.size = 0
        self.has_root = False
        self._folder_times: dict[str, int] = {}
        self._whited_out: set[str] = set()

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = clean_name(member.name)
        folder, base = posixpath.split(name)
        if not self._whiteouts or not base.startswith(WHITEOUT):
            self._make_folder(folder)
            self._create(archive, member, name)
        elif base == OPAQUE_MARK:
            self._make_folder(folder)
            os.setxattr(self._base + folder, OPAQUE, b"y")
        elif base.startswith(AUFS_MARK):
            return
        else:
            self._white_out(folder, base.removeprefix(WHITEOUT))

    def finish(self) -> None:
        """Set the folders' times, last: filling them changes them."""
        for path, ns in self._folder_times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(self._base + path, ns=(ns, ns), follow_symlinks=False)

    def _make_folder(self, folder: str) -> None:
        if os.path.isdir(self._base + folder):
            return
        path = self._base.rstrip("/")
        for part in folder.split("/"):
            path += f"/{part}"
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)

    def _white_out(self, folder: str, base: str) -> None:
        if base in ("", ".", ".."):
            raise Refused(f'"{WHITEOUT}{base}" is no name of a removed file')
        self._make_folder(folder)
        path = posixpath.join(self._base, folder, base)
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            self._whited_out.add(path)
        elif os.path.isdir(path) and not os.path.islink(path):
            os.setxattr(path, OPAQUE, b"y")  # removed below, and made anew in this same layer

    def _create(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        path = self._base + name
        if member.isdir():
            if self._keeps_base and not name:
                return
            self._create_folder(path, name)
            self.has_root = self.has_root or not name
        else:
            if not name:
                raise Refused("the root of a layer can only be a folder")
            self._make_room(path, name)
            self._create_file(archive, member, path)
        if not member.islnk():
            self._dress(member, path)
        if member.isdir():
            self._folder_times[name] = mtime_ns(member)

    def _create_folder(self, path: str, name: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            return
        replaces_whiteout = path in self._whited_out
        self._make_room(path, name, for_folder=True)
        os.mkdir(path, 0o755)
        if replaces_whiteout:
            os.setxattr(path, OPAQUE, b"y")

    def _make_room(self, path: str, name: str, *, for_folder: bool = False) -> None:
        """Remove what a later entry of the same name finds in its way."""
        self._whited_out.discard(path)
        if self._same_kind and for_folder and os.path.lexists(path):
            raise Refused(f'cannot overwrite non-directory "{path}" with directory "{name}"')
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            if self._same_kind:
                raise Refused(f'cannot overwrite directory "{path}" with non-directory "{name}"') from None
            remove_tree(path)

    def _create_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if member.isreg():
            self._write(archive, member, path)
        elif member.islnk():
            link(self._base + clean_name(member.linkname), path)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path, 0o600)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        else:
            raise Refused(f"unhandled tar header type {member.type[0]}")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = cast(Any, archive.fileobj)
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb", buffering=0) as target:
            source.seek(member.offset_data)
            if sparse is None:
                copy(source, target, member.size)
            else:
                for offset, length in sparse:
                    target.seek(offset)
                    copy(source, target, length)
                target.truncate(member.size)
        self.size += member.size

    def _dress(self, member: tarfile.TarInfo, path: str) -> None:
        """Set owner, mode, extended attributes, time, in this order, as a change of owner clears setuid bits."""
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR):
                set_xattr(path, key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
        if not member.isdir():
            ns = mtime_ns(member)
            os.utime(path, ns=(ns, ns), follow_symlinks=False)


def link(target: str, path: str) -> None:
    try:
        os.link(target, path, follow_symlinks=False)
    except PermissionError:
        if os.path.isdir(target) and not os.path.islink(target):
            raise Refused(f'"{path}" cannot be a hard link to the folder "{target}"') from None
        raise


def set_xattr(path: str, name: str, value: bytes) -> None:
    """Set an extended attribute, but never overlayfs's own from an image: they would reach into other layers."""
    if name.startswith(("trusted.overlay.", "user.overlay.")):
        return
    with contextlib.suppress(OSError):  # a file system without them: the file is still the file
        os.setxattr(path, name, value, follow_symlinks=False)


def copy(source: Any, target: Any, length: int) -> None:
    while length > 0:
        data = source.read(min(CHUNK, length))
        if not data:
            raise Refused("unexpected EOF")
        length -= len(data)
        write_all(target, data)


def write_all(target: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def remove_tree(path: str) -> None:
    for name, _, seen in reversed(list(walk(path))):
        remove = os.rmdir if stat.S_ISDIR(seen.st_mode) else os.unlink
        remove(posixpath.join(path, name))
    os.rmdir(path)


def unpack_layer(*, input: int, say: Say, digest: str) -> dict[str, Any]:
    """Unpack an image's layer. `size` counts the bytes of regular files; `digest` is the input's, if it is known.

    Answers the digests of the input (`blob`) and of the plain tar; each byte goes once through each digest that is not
    known. `root` is whether the tar says how the root folder itself looks. Raises: Refused, OSError.
    """
    unpacker = Unpacker(whiteouts=True)
    raw = Reporting(input, say, is_digested=not digest)
    source = io.BufferedReader(raw, CHUNK)
    plain = decompress(source)
    tar = PlainTar(plain, is_digested=plain is not source)
    _unpack(tar, unpacker)
    while source.read(CHUNK):  # what follows the end of what was compressed
        pass
    blob = digest or raw.digest
    told = {"blob": blob, "diff_id": tar.digest or blob, "tar_size": tar.count}
    return told | {"size": unpacker.size, "root": unpacker.has_root}


def unpack_tree(*, input: int, say: Say) -> None:
    """Unpack a build's context. Raises: Refused, OSError."""
    _unpack(open_tar(open_source(input, say)), Unpacker())


def unpack_into(*, path: str, same_kind: bool, input: int, say: Say) -> None:
    """Unpack a client's tar into a folder that exists; no byte at all is an empty tar. Raises: Refused, OSError."""
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise Refused("extraction point is not a directory", "not-a-folder")
    source = open_source(input, say)
    if source.peek(1):
        _unpack(open_tar(source), Unpacker(path, same_kind=same_kind))


def _unpack(tar: PlainTar, unpacker: Unpacker) -> None:
    read_members(tar, unpacker.add)
    unpacker.finish()


def take_apart(*, input: int, say: Say) -> None:
    """Unpack an image archive: each regular file becomes a file of the tree whose name is a number.

    Told in a line {"name", "file", "size"}; links are told as {"name", "link"}. Raises: Refused, OSError.
    """
    tar = open_tar(open_source(input, say))
    count = 0

    def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        nonlocal count
        name = clean_name(member.name)
        if member.isreg() and getattr(member, "sparse", None) is None:
            count += 1
            write_out(archive, member, count)
            say({"name": name, "file": str(count), "size": member.size})
        elif member.issym():
            say({"name": name, "link": clean_name(posixpath.join(posixpath.dirname(name), member.linkname))})
        elif member.islnk():
            say({"name": name, "link": clean_name(member.linkname)})

    read_members(tar, take)


def write_out(archive: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> None:
    source = cast(Any, archive.fileobj)
    source.seek(member.offset_data)
    with open(f"/{number}", "xb", buffering=0) as target:
        copy(source, target, member.size)


TELLING: Final = (unpack_layer, unpack_tree, unpack_into, take_apart)  # tasks that say more than their answer
