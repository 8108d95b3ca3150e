"""cp: files between a container and this machine."""

import base64
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from bennu.cli.client import Answer, Client, segment
from bennu.cli.command import command, switch
from bennu.cli.commands.transfer import TAR, read_chunks
from bennu.cli.context import END, stream_entry
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain
from bennu.cli.terminal import is_terminal

GO_DIRECTORY: Final = 1 << 31  # bits of Go's file modes
GO_SYMLINK: Final = 1 << 27


@command(
    "CONTAINER:SRC_PATH DEST_PATH|- or SRC_PATH|- CONTAINER:DEST_PATH",
    switch("-a, --archive", "Archive mode (copy all uid/gid information)"),
    switch("-L, --follow-link", "Always follow symbol link in SRC_PATH"),
    switch("-q, --quiet", "Suppress progress output during copy"),
    least=2,
    most=2,
)
def cp(client: Client, words: list[str], *, archive: bool, follow_link: bool, quiet: bool) -> None:
    (from_name, source), (to_name, target) = split_place(words[0]), split_place(words[1])
    if from_name and to_name:
        raise Failure("copying between containers is not supported")
    if not from_name and not to_name:
        raise Failure("must specify at least one container source")
    if not source or not target:
        raise Failure("destination path cannot be empty" if source else "source can not be empty")
    if from_name:
        shown = copy_out(client, from_name, source, target, keep_owner=archive, follow=follow_link)
    else:
        shown = copy_in(client, source, to_name, target, keep_owner=archive, follow=follow_link)
    if shown and not quiet and is_terminal(2):
        complain(f"Successfully copied to {shown}")


def split_place(word: str) -> tuple[str, str]:
    """(container or "", path). A word that starts with `.` or `/` is a path of this machine."""
    if word.startswith(("/", ".", "~")) or ":" not in word:
        return "", word
    name, _, path = word.partition(":")
    return name, path


def read_stat(answer: Answer) -> dict[str, Any]:
    encoded = answer.headers.get("x-docker-container-path-stat", "")
    facts: dict[str, Any] = json.loads(base64.b64decode(encoded))
    return facts


def stat_inside(client: Client, container: str, path: str) -> dict[str, Any] | None:
    """Facts about a path in the container, None when it is not there."""
    try:
        answer = client.call("HEAD", f"/containers/{segment(container)}/archive", query={"path": path})
    except ApiFailure as failure:
        if failure.status == 404 and "No such container" not in failure.message:
            return None
        raise
    answer.close()
    return read_stat(answer)


# --- out of a container ----------------------------------------------------------------------------------------


def copy_out(client: Client, container: str, source: str, target: str, *, keep_owner: bool, follow: bool) -> str:
    if follow:
        facts = stat_inside(client, container, source)
        if facts and facts["mode"] & GO_SYMLINK and facts["linkTarget"]:
            source = str(PurePosixPath(source).parent / facts["linkTarget"])
    if target == "-" and is_terminal(1):
        raise Failure("cowardly refusing to copy to a terminal: redirect the output")
    answer = client.call("GET", f"/containers/{segment(container)}/archive", query={"path": source})
    if target == "-":
        for data in answer.chunks():
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return ""
    is_folder = bool(read_stat(answer)["mode"] & GO_DIRECTORY)
    place = place_outside(source, target, is_folder)
    with tarfile.open(fileobj=ChunkFile(answer.chunks()), mode="r|") as archive:
        extract(archive, place, keep_owner=keep_owner)
    return target


def place_outside(source: str, target: str, is_folder: bool) -> Path:
    """Where the copied file or folder itself comes to lie."""
    path = Path(target)
    if path.is_dir():
        whole = source.endswith("/.") or source == "."
        return path if whole and is_folder else path / (PurePosixPath(source).name or "")
    if not path.parent.is_dir():
        raise Failure(f"invalid output path: directory {str(path.parent)!r} does not exist".replace("'", '"'))
    if target.endswith("/") and not is_folder:
        raise Failure(f'destination directory "{target}" must be a directory that exists: no such directory')
    if path.exists() and is_folder:
        raise Failure("cannot copy directory")
    return path


class ChunkFile(io.RawIOBase):
    """Pieces of bytes as a file to read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.held = b""

    def read(self, size: int = -1) -> bytes:
        parts = [self.held]
        have = len(self.held)
        while size < 0 or have < size:
            data = next(self.chunks, b"")
            if not data:
                break
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        size = len(whole) if size < 0 else size
        self.held = whole[size:]
        return whole[:size]


def extract(archive: tarfile.TarFile, place: Path, *, keep_owner: bool) -> None:
    """Lay the archive's one root at `place`. Nothing is ever written outside of it."""
    for member in archive:
        _, _, rest = member.name.strip("/").partition("/")
        parts = [part for part in rest.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Failure(f"the archive holds an unsafe name: {member.name}")
        target = place.joinpath(*parts)
        check_path(place, target)
        extract_member(archive, member, target, place)
        if member.issym() or not target.exists():
            continue
        if keep_owner and os.geteuid() == 0:
            os.chown(target, member.uid, member.gid)
        target.chmod(member.mode & (0o7777 if keep_owner else 0o1777))


def check_path(place: Path, target: Path) -> None:
    """No folder on the way may be a link that leads elsewhere."""
    for parent in target.parents:
        if parent == place.parent:
            return
        if parent.is_symlink() and parent != place:
            raise Failure(f"the archive leads through a link: {parent}")


def extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, place: Path) -> None:
    if member.isdir():
        if target.exists() and not target.is_dir():
            raise Failure(f"cannot overwrite non-directory {target} with a directory")
        target.mkdir(exist_ok=True)
        return
    if target.is_dir() and not target.is_symlink():
        raise Failure(f"cannot overwrite directory {target} with a file")
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        _, _, rest = member.linkname.strip("/").partition("/")
        origin = place.joinpath(*[part for part in rest.split("/") if part not in ("", ".", "..")])
        check_path(place, origin)
        target.hardlink_to(origin)
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
        os.utime(target, (member.mtime, member.mtime))
    elif member.isfifo():
        os.mkfifo(target)
    # Devices are left out: a copy must not bring them to life here.


# --- into a container -------------------------------------------------------------------------------------------


def copy_in(client: Client, source: str, container: str, target: str, *, keep_owner: bool, follow: bool) -> str:
    query: dict[str, str] = {"noOverwriteDirNonDir": "true"}
    if keep_owner:
        query["copyUIDGID"] = "true"
    if source == "-":
        query["path"] = target
        body = read_chunks(sys.stdin.buffer)
    else:
        folder, name, origin = place_inside(client, source, container, target, follow=follow)
        query["path"] = folder
        body = stream_tree(origin, name)
    client.call("PUT", f"/containers/{segment(container)}/archive", query=query, body=body, headers=TAR).read()
    return f"{container}:{target}" if source != "-" else ""


def place_inside(client: Client, source: str, container: str, target: str, *, follow: bool) -> tuple[str, str, Path]:
    """(folder of the container that receives, name in it, what to send)."""
    origin = Path(source)
    if not os.path.lexists(origin):
        raise Failure(f"lstat {source}: no such file or directory")
    if follow:
        origin = origin.resolve()
    is_folder = origin.is_dir() and not (origin.is_symlink() and not source.endswith("/"))
    facts = stat_inside(client, container, target)
    for _ in range(40):  # a link at the end is followed, in the container's own tree
        if facts is None or not facts["mode"] & GO_SYMLINK:
            break
        target = str(PurePosixPath("/", target).parent / facts["linkTarget"])
        facts = stat_inside(client, container, target)
    if facts is not None and facts["mode"] & GO_DIRECTORY:
        whole = is_folder and (source.endswith("/.") or source == ".")
        return target, "." if whole else origin.absolute().name, origin
    if facts is not None and is_folder:
        raise Failure("cannot copy directory")
    if facts is None and target.endswith("/") and not is_folder:
        raise Failure(
            f'destination directory "{container}:{target}" must be a directory that exists: no such directory'
        )
    path = PurePosixPath("/", target)
    return str(path.parent), path.name, origin


def stream_tree(origin: Path, name: str) -> Iterator[bytes]:
    """The file or folder under its new name, with the owners it has."""
    links: dict[tuple[int, int], str] = {}
    pending = [(origin, name)]
    while pending:
        path, shown = pending.pop()
        yield from stream_entry(path, shown, links, keep_owner=True)
        if stat.S_ISDIR(path.lstat().st_mode):
            pending += [(child, f"{shown}/{child.name}") for child in sorted(path.iterdir(), reverse=True)]
    yield END
