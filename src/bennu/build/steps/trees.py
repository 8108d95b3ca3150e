"""What steps read and write: layers of folders, digested, copied and sent by the confined helper."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bennu.errors import BennuError

Folders = Sequence[Path]  # over each other, the topmost first; none is an empty root. A context is one folder


class FileStepFailed(BennuError):
    """A COPY, ADD or WORKDIR could not be done; the message is BuildKit's."""


class MissingSource(FileStepFailed):
    """What is to be copied is not there: `failed to calculate checksum of ref …: "/x": not found`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a COPY or a mount takes of a tree."""

    path: str = "/"
    wildcards: bool = False  # `*`, `?` and `[…]` in `path` mean what they mean to Go's filepath.Match
    follow: bool = True  # a link at the end of `path` stands for what it leads to
    include: tuple[str, ...] = ()  # patterns as in .dockerignore, below `path`; of COPY --parents
    exclude: tuple[str, ...] = ()  # of COPY --exclude


async def digest_tree(layers: Folders, selections: Sequence[Selection], known: Mapping[str, str] | None = None) -> str:
    """Digest what is selected: names, modes, owners, link targets, attributes, bytes; no times.

    `known`: digests (`sha256:…` of the bytes) of regular files by their path from the root, of whoever received them.
    Raises: MissingSource, FileStepFailed.
    """
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SentEntry:
    """One entry of a tree that is sent; what fsutil calls a Stat."""

    path: str  # without a leading slash
    mode: int  # Go's os.FileMode
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str  # the target of a symbolic link, or the path of the entry that this is a hard link of
    device: tuple[int, int]
    attributes: Mapping[str, bytes]


class SentTree:
    """A tree while it is sent: entries in order, and their bytes when they are asked for."""

    def entries(self) -> AsyncIterator[SentEntry]:
        """Give the entries, folders before what is in them, as fsutil orders them."""
        raise NotImplementedError

    def read(self, path: str) -> AsyncIterator[bytes]:
        """Give the bytes of a regular file."""
        raise NotImplementedError


def tar_tree(layers: Folders) -> AsyncIterator[bytes]:
    """Give a tree as a tar: `--output type=tar`. Raises: FileStepFailed."""
    raise NotImplementedError


async def copy_tree(layers: Folders, path: str, target: Path) -> None:
    raise NotImplementedError
