"""What steps read and write: folders over each other, copied, digested and sent by the confined helper."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.build.graph import Copy, FileAction, Files, GraphNode, Mkdir, Mkfile, Remove
from bennu.confined.client import HELPER, Failure, Folder, Overlaid, Session, Tree
from bennu.errors import BennuError
from bennu.images.overlay import remove_tree

Folders = Sequence[Path]  # over each other, the topmost first; none is an empty root. A context is one folder


class FileStepFailed(BennuError):
    """Files could not be copied, made or read; the message is BuildKit's."""


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


def select(copy: Copy) -> tuple[Selection, ...]:
    """Answer what a COPY takes of its source, for `digest_tree`. Pure."""
    found = []
    for path in copy.paths:
        pivot, include = _split_parents(path) if copy.parents else (path, ())
        found.append(Selection(pivot, not copy.literal, not copy.literal, include, copy.exclude))
    return tuple(found)


def _split_parents(path: str) -> tuple[str, tuple[str, ...]]:
    """Split a path of --parents at its pivot `/./`, which is the root if it has none."""
    pivot, found, pattern = path.partition("/./")
    if not found:
        pivot, pattern = "/", path
    return pivot or "/", (pattern.lstrip("/"),)


@contextlib.contextmanager
def _files() -> Iterator[None]:
    """Raise the helper's failures as those of a step."""
    try:
        yield
    except Failure as failure:
        if failure.kind == "not-found":
            raise MissingSource(f"failed to calculate checksum of ref: {failure}") from failure
        raise FileStepFailed(str(failure)) from failure


async def digest_tree(layers: Folders, selections: Sequence[Selection]) -> str:
    """Digest what is selected: names, modes, owners, link targets, attributes, bytes; no times.

    Raises: MissingSource, FileStepFailed.
    """
    words = [(one.path, one.wildcards, one.follow, one.include, one.exclude) for one in selections]
    tree = Overlaid(tuple(layers))
    known = _hashes.pop(tree.folders, {})
    with _files():
        async with HELPER.begin("digest", tree, input=True, selections=words) as session:
            assert session.input is not None
            session.input.write(json.dumps(known).encode())
            session.input.close()
            digest, seen = await session.answer()
    _hashes[tree.folders] = {**known, **seen} if len(known) < HASHES_OF_A_TREE else seen
    while len(_hashes) > TREES_REMEMBERED:
        del _hashes[next(iter(_hashes))]
    return str(digest)


HASHES_OF_A_TREE: Final = 40_000
TREES_REMEMBERED: Final = 8
# What the helper has hashed of the trees that were looked at last; a file that was touched since then is another one.
_hashes: dict[tuple[Path, ...], dict[str, str]] = {}


async def apply_files(node: Files, base: Folders, into: Path, sources: Mapping[GraphNode, Folders]) -> None:
    """Do the actions of a node, in their order, on `base`; what they change is in `into`/diff afterwards.

    `into` is empty at first, and the caller's to remove after a failure or a cancellation. Raises: MissingSource,
    FileStepFailed.
    """
    await asyncio.to_thread(make_upper, into)
    root = Overlaid(tuple(base), into)
    for action in node.actions:
        with _files():
            await _apply(action, root, sources)
    await asyncio.to_thread(remove_tree, into / "work")


async def _apply(action: FileAction, root: Overlaid, sources: Mapping[GraphNode, Folders]) -> None:
    match action:
        case Copy():
            await HELPER.ask(
                "copy_files",
                root,
                Overlaid(tuple(sources[action.source])),
                limit_s=None,
                paths=[(selection.path, selection.include) for selection in select(action)],
                destination=action.destination,
                user=action.user,
                mode=action.mode,
                exclude=action.exclude,
                unpack=action.unpack,
                literal=action.literal,
            )
        case Mkdir():
            mode, user = action.mode, action.user
            await HELPER.ask("make_folder", root, path=action.path, mode=mode, user=user, created_ns=action.created_ns)
        case Mkfile():
            await _make_file(action, root)
        case Remove():
            await HELPER.ask(
                "remove_files",
                root,
                limit_s=None,
                path=action.path,
                allow_missing=action.allow_missing,
                wildcard=action.wildcard,
            )


async def _make_file(action: Mkfile, root: Overlaid) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield action.data

    given: dict[str, Any] = {"path": action.path, "mode": action.mode, "user": action.user}
    async with HELPER.begin("make_file", root, input=True, created_ns=action.created_ns, **given) as session:
        await session.feed(pieces())


async def copy_tree(layers: Folders, path: str, into: Path) -> None:
    """Copy what is in a folder of a tree into `into`/diff; see `apply_files`. Raises: MissingSource, FileStepFailed."""
    root, source = Overlaid((), into), Overlaid(tuple(layers))
    with _files():
        await HELPER.ask(
            "copy_files",
            root,
            source,
            limit_s=None,
            paths=[(path, ())],
            destination="/",
            user="",
            mode="",
            exclude=(),
            unpack=False,
            literal=False,
        )


def make_upper(into: Path) -> None:
    """Make the folders of an overlay's upper layer. Idempotent."""
    for name in ("diff", "work"):
        (into / name).mkdir(parents=True, exist_ok=True)
        (into / name).chmod(0o755)


# --- sending ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentEntry:
    """One entry of a tree that is sent; what fsutil calls a Stat."""

    path: bytes  # without a leading slash
    mode: int  # Go's os.FileMode
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes  # the target of a symbolic link, or the path of the entry that this is a hard link of
    device: tuple[int, int]
    attributes: Mapping[str, bytes]


class SentTree:
    """A tree while it is sent: all its entries first, then the bytes of those that are asked for, one at a time."""

    def __init__(self, session: Session, told: AsyncIterator[dict[str, Any]]) -> None:
        self._session = session
        self._told = told

    async def entries(self) -> AsyncIterator[SentEntry]:
        """Give the entries, folders before what is in them, in order of their names. To be read to the end, once."""
        async for told in self._told:
            if "told" in told:
                return
            yield SentEntry(
                path=bytes.fromhex(told["path"]),
                mode=told["mode"],
                uid=told["uid"],
                gid=told["gid"],
                size=told["size"],
                mtime_ns=told["mtime_ns"],
                link=bytes.fromhex(told["link"]),
                device=(told["device"][0], told["device"][1]),
                attributes={name: bytes.fromhex(value) for name, value in told["attributes"].items()},
            )

    async def read(self, path: bytes) -> AsyncIterator[bytes]:
        """Give the bytes of a regular file, in pieces of a megabyte at most. To be read to the end."""
        assert self._session.input is not None and self._session.output is not None
        self._session.input.write(path.hex().encode() + b"\n")
        await self._session.input.drain()
        while size := int.from_bytes(await self._session.output.readexactly(4), "big"):
            yield await self._session.output.readexactly(size)


@contextlib.asynccontextmanager
async def send_tree(layers: Folders) -> AsyncIterator[SentTree]:
    """Open a tree to be sent: `--output type=local`. Raises: FileStepFailed."""
    with _files():
        async with HELPER.begin("send", Overlaid(tuple(layers)), input=True, output=True) as session:
            yield SentTree(session, session.told())


async def tar_tree(layers: Folders) -> AsyncIterator[bytes]:
    """Give a tree as a tar: `--output type=tar`. Raises: FileStepFailed."""
    async with contextlib.aclosing(_packed("pack_root", Overlaid(tuple(layers)))) as pieces:
        async for piece in pieces:
            yield piece


async def pack_step(layer: Path) -> AsyncIterator[bytes]:
    """Give what a step wrote, all of it, as the tar of a layer. Raises: FileStepFailed."""
    async with contextlib.aclosing(_packed("pack_step", Folder(layer))) as pieces:
        async for piece in pieces:
            yield piece


async def _packed(task: str, tree: Tree) -> AsyncGenerator[bytes, None]:
    with _files():
        async with HELPER.begin(task, tree, output=True) as session:
            assert session.output is not None
            while data := await session.output.read(1 << 20):
                yield data
            await session.result()
