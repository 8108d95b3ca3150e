"""What a build fetches from elsewhere: from the build's own network and not from the host's, in a world of its own.

A Dockerfile names the addresses, so what they lead to is as a step's: services on the host's loopback are out of reach,
and what a server answers meets no file of this host (`source_world.py`).
"""

import asyncio
import contextlib
import email.utils
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.build.graph import GitSource
from bennu.build.place import BuildPlace
from bennu.errors import BennuError
from bennu.process import started

WORLD: Final = Path(__file__).with_name("source_world.py")
FETCH_URL: Final = Path(__file__).with_name("fetch_url.py")
FETCH_GIT: Final = Path(__file__).with_name("fetch_git.py")
PIECE: Final = 1 << 18
SILENCE_S: Final = 300
GIT_MISSING: Final = "git is not installed, which a build fetches repositories with: apt-get install git"
PROXIES: Final = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)


class SourceFailed(BennuError):
    """What a Dockerfile or a client names could not be fetched."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """What a URL answered: a file, and what was told of it."""

    path: Path
    digest: str
    mtime_ns: int | None
    content_type: str


async def fetch_url(url: str, place: BuildPlace, work: Path) -> FetchedFile:
    """Fetch a URL into a file of the empty folder `work`. Raises: SourceFailed in Go's words."""
    asked = {"url": url, "headers": {"User-Agent": "bennu", "Accept-Encoding": "identity"}, "at_most": SILENCE_S}
    path, digest = work / "answer", hashlib.sha256()
    async with _world(FETCH_URL, asked, place, work) as process:
        assert process.stdout is not None
        told = await _read_told(process, f'Get "{url}"')
        if not 200 <= told["status"] < 300:
            raise SourceFailed(f"invalid response status {told['status']}")
        with await asyncio.to_thread(path.open, "xb") as file:
            while data := await process.stdout.read(PIECE):
                digest.update(data)
                await asyncio.to_thread(file.write, data)
        if await process.wait() != 0:
            raise SourceFailed(f'Get "{url}": unexpected EOF')
    headers: Mapping[str, str] = told["headers"]
    mtime_ns = _read_time(headers.get("last-modified", ""))
    return FetchedFile(path, f"sha256:{digest.hexdigest()}", mtime_ns, headers.get("content-type", ""))


async def find_commit(source: GitSource, place: BuildPlace, work: Path) -> str:
    """Ask which commit a git source means. Raises: SourceFailed."""
    commit: str = (await _ask_git(source, place, work, ""))["commit"]
    if source.checksum and not commit.startswith(source.checksum):
        raise SourceFailed(f"expected checksum to match {source.checksum}, got {commit}")
    return commit


async def check_out(source: GitSource, commit: str, place: BuildPlace, work: Path) -> None:
    """Put the files of a commit into `work/diff`. Raises: SourceFailed."""
    await _ask_git(source, place, work, commit)


async def _ask_git(source: GitSource, place: BuildPlace, work: Path, commit: str) -> dict[str, Any]:
    if shutil.which("git") is None:
        raise SourceFailed(GIT_MISSING)
    asked = {
        "url": source.url,
        "ref": source.ref,
        "commit": commit,
        "subdir": source.subdir,
        "keep_git_dir": source.keep_git_dir,
        "submodules": source.submodules,
        "into": str(work),
    }
    async with _world(FETCH_GIT, asked, place, work) as process:
        return await _read_told(process, f"failed to fetch remote {source.url}")


@contextlib.asynccontextmanager
async def _world(
    program: Path, asked: Mapping[str, Any], place: BuildPlace, work: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a world of its own, which has the build's network and may write to `work` alone."""
    files = {"root": None, "hosts": place.hosts, "resolv.conf": place.resolv_conf}
    room = work / "world"
    await asyncio.to_thread(_furnish, room, files)
    shown = [(work, work, True), (program, Path("/run/program.py"), False)]
    shown += [(room / name, Path("/etc") / name, False) for name in ("hosts", "resolv.conf")]
    interpreter = Path(sys.base_prefix)
    if not interpreter.is_relative_to("/usr"):
        shown.append((interpreter, interpreter, False))
    world = {
        "root": str(room / "root"),
        "network": place.network,
        "shown": [(str(source), str(target), writable) for source, target, writable in shown],
    }
    argv: list[str | Path] = [sys.executable, "-I", "-S", WORLD, json.dumps(world), "--"]
    argv += [Path(sys.executable).resolve(), "-I", "-S", "/run/program.py", json.dumps(asked)]
    env = {name: value for name, value in os.environ.items() if name in PROXIES}
    env |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    try:
        async with started(argv, env=env) as process:
            yield process
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, room, True))


def _furnish(room: Path, files: Mapping[str, str | None]) -> None:
    room.mkdir()
    for name, text in files.items():
        if text is None:
            (room / name).mkdir()
        else:
            (room / name).write_text(text)


async def _read_told(process: asyncio.subprocess.Process, what: str) -> dict[str, Any]:
    """Read the first line a program says. Raises: SourceFailed with its error."""
    assert process.stdout is not None and process.stderr is not None
    line = await process.stdout.readline()
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        words = (await process.stderr.read(4096)).decode(errors="replace").strip()
        raise SourceFailed(f"{what}: {words or 'the program that fetches ended without a word'}") from None
    if "error" in told:
        raise SourceFailed(f"{what}: {told['error']}")
    return told


def _read_time(text: str) -> int | None:
    """Read a time as HTTP has it, in ns since the epoch; None: it is none."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) * 10**9
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
