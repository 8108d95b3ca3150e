"""A context that is not the client's own: a repository, an archive or a single Dockerfile, fetched by the build.

What is an archive is told from its first bytes, as BuildKit tells it; everything else is a Dockerfile.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.build.graph import Copy, Files, GitSource, GraphNode, HttpSource, Scratch
from bennu.build.job import NodeRun
from bennu.build.plan.remotes import WEB, parse_repository
from bennu.build.solver import Solver
from bennu.build.vertices import Progress
from bennu.confined.client import HELPER, OUR_FAULT, Failure, Folder
from bennu.errors import InvalidParameter

FILE: Final = "context"
MAX_FILE: Final = 4 << 20
MAGIC: Final = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
TAR_MAGIC: Final = (257, b"ustar")


@dataclass(frozen=True, slots=True)
class RemoteContext:
    """A context that was fetched; `dockerfile` is the name of its only file where it is a Dockerfile alone."""

    node: GraphNode
    folder: Path
    dockerfile: str = ""

    async def read_files(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read files of it; links lead nowhere outside. Those that are not there are left out."""
        found: dict[str, bytes] = {}
        for name in names:
            try:
                read = await HELPER.ask("read", Folder(self.folder), path=f"/{name}", limit=MAX_FILE)
            except Failure as failure:
                if failure.kind in OUR_FAULT:
                    raise
                continue
            if read["longer"]:
                raise InvalidParameter(f"the file {name} is too large")
            found[name] = read["text"].encode()
        return found


async def fetch_context(job: NodeRun, solver: Solver, progress: Progress) -> RemoteContext | None:
    """Fetch the context that a request names by a URL; None: it names none. Raises: NodeFailed, InvalidParameter."""
    url = job.request.context_url
    if not url:
        return None
    if (repository := parse_repository(url)) is not None:
        node: GraphNode = GitSource(
            name=f"[internal] load git source {url}",
            url=repository.url,
            ref=repository.ref,
            subdir=repository.subdir,
            checksum=repository.checksum,
            keep_git_dir=bool(repository.keep_git_dir),
            submodules=repository.submodules,
        )
        return RemoteContext(node, await _run(job, solver, progress, node))
    if not url.startswith(WEB):
        raise InvalidParameter(f"unable to prepare context: {url!r} is no address of a context")
    source = HttpSource(name=f"[internal] load remote build context {url}", url=url, filename=FILE, mode=0o644)
    folder = await _run(job, solver, progress, source)
    if not await asyncio.to_thread(_is_archive, folder / FILE):
        return RemoteContext(source, folder, FILE)
    copy = Copy(source=source, paths=(f"/{FILE}",), destination="/", unpack=True, literal=True)
    unpacked = Files(name="[internal] unpack remote build context", base=Scratch(), actions=(copy,))
    return RemoteContext(unpacked, await _run(job, solver, progress, unpacked))


async def _run(job: NodeRun, solver: Solver, progress: Progress, node: GraphNode) -> Path:
    result = await solver.solve(node, job, progress)
    return job.tools.cache.snapshots.folder(result.snapshot.layers[-1])


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    offset, magic = TAR_MAGIC
    return head.startswith(MAGIC) or head[offset : offset + len(magic)] == magic
