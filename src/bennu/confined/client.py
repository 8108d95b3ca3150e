"""What bennud says to the helper: which tree, which task, and what comes back."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bennu.confined.jail import clone_mount
from bennu.confined.words import MAX_REQUEST
from bennu.errors import BennuError, InvalidParameter
from bennu.pace import in_thread

SOURCES: Final = Path(__file__).parents[2]
# Isolated and without site-packages: nothing but the standard library and these modules can be loaded.
PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from bennu.confined.server import main; main()"
LINE_LIMIT: Final = 1 << 17  # a name and the target of a link, as long as they may be, with every byte escaped
AHEAD: Final = 1 << 20  # of a stream, what is kept here until it is read
LONG_ANSWER: Final = 1 << 16  # from there on reading it would hold up the event loop
MAX_FOLDERS: Final = 240  # of one request: the kernel passes 253 descriptors with a message
QUICK_S: Final = 60.0  # far more than a task takes that looks at a few small files
OUR_FAULT: Final = ("died", "timeout", "bug")  # kinds of failures that what was to be done is not to blame for
log = logging.getLogger(__name__)
DIED: Final = "the helper ended without a word"


@dataclass(frozen=True, slots=True)
class Folder:
    """A tree of this host: a folder (or a single file) whose path is ours, not a container's.

    `at`: where in the task's root it is mounted, with what is mounted in itself; what is missing there is made.
    """

    path: Path
    writable: bool = False
    at: str = ""

    @property
    def kind(self) -> str:
        return "folder"

    def open(self) -> list[int]:
        return [clone_mount(os.fsencode(self.path), recursive=bool(self.at))]


@dataclass(frozen=True, slots=True)
class Process:
    """The root of a container as its process sees it. The pidfd stays the caller's."""

    pidfd: int
    writable: bool = False
    at: str = ""

    @property
    def kind(self) -> str:
        return "process"

    def open(self) -> list[int]:
        return [os.dup(self.pidfd)]


@dataclass(frozen=True, slots=True)
class Overlaid:
    """Folders of this host over each other, the topmost first; none at all is an empty folder.

    `into`: a folder with `diff`, which takes what is written, and an empty `work`; None: nothing can be written.
    """

    folders: tuple[Path, ...]
    into: Path | None = None
    at: str = ""

    @property
    def kind(self) -> str:
        return "overlay"

    @property
    def writable(self) -> bool:
        return self.into is not None

    def open(self) -> list[int]:
        """Open them, `into` last. Raises: OSError, Failure for more than a message can hold."""
        paths = [*self.folders, *([self.into] if self.into is not None else [])]
        if len(paths) > MAX_FOLDERS:
            raise Failure(f"{len(paths)} layers are too many", "invalid")
        opened: list[int] = []
        try:
            for path in paths:
                opened.append(clone_mount(os.fsencode(path)))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened


Tree = Folder | Process | Overlaid
Hear = Callable[[dict[str, Any]], None]


class Failure(BennuError):
    """The helper could not do it.

    `kind` is one of `words.describe`; "died": it ended without a word; "timeout": it was ended.
    """

    def __init__(self, message: str, kind: str = "died", errno: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = errno


@dataclass(slots=True)
class Session:
    """One task while it runs."""

    _answers: asyncio.StreamReader
    output: asyncio.StreamReader | None = None
    input: asyncio.StreamWriter | None = None

    async def feed(self, pieces: AsyncIterable[bytes], hear: Hear | None = None) -> Any:
        """Write all pieces to `input`, and wait for the end; answers as `result` does.

        A task that fails before it has read everything ends the feeding. Raises: Failure; what `pieces` raises.
        """
        assert self.input is not None
        feeding = asyncio.ensure_future(_write_all(self.input, pieces))
        ending = asyncio.ensure_future(self.result(hear))
        try:
            await asyncio.wait((feeding, ending), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not ending.done():
                feeding.result()
            return await ending
        finally:
            await cancel(feeding, ending)

    async def result(self, hear: Hear | None = None) -> Any:
        """Wait for the task's end and give its result; `hear` gets what it tells before. Raises: Failure."""
        last = b""
        while line := await self._answers.readline():  # to the end, so that the process is gone with its last word
            if last and hear is not None:
                hear(_read(last))
            last = line
        return _read_end(last)

    async def told(self) -> AsyncIterator[dict[str, Any]]:
        """Give what the task tells, line by line, without an end of its own. Raises: Failure."""
        while line := await self._answers.readline():
            yield _read(line)

    async def answer(self) -> Any:
        """Give the result, however long, of a task that tells nothing before its end. Raises: Failure."""
        line = await self._answers.read()
        return await asyncio.to_thread(_read_end, line) if len(line) > LONG_ANSWER else _read_end(line)


class Confined:
    """The helper of one bennud. Its server is started when it is first needed, and again if it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> None:
        """Have the server get ready before it is needed."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the server and what it has begun."""
        with self._lock:
            self._drop()

    def _start(self) -> socket.socket:
        """Have the server at hand; answers the way to it. Takes some milliseconds. The lock is held."""
        if self._server is not None and self._channel is not None and self._server.poll() is None:
            return self._channel
        self._drop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        with theirs:
            argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROGRAM, str(SOURCES), f"{theirs.fileno()}"]
            self._server = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"LC_ALL": "C"},
                start_new_session=True,
            )
        return ours

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    async def ask(
        self, task: str, *trees: Tree, enter: bool = True, limit_s: float | None = QUICK_S, **arguments: Any
    ) -> Any:
        """Have a task done that needs no stream; answers what it answers. Raises: Failure, OSError.

        What a tree is on may never answer (a dead NFS server, a FUSE program of the container): the task is ended after
        `limit_s`, or with whoever waits for it. `enter`, `trees`: see `begin`.
        """
        try:
            async with asyncio.timeout(limit_s) as limit, self.begin(task, *trees, enter=enter, **arguments) as session:
                return await session.answer()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Failure(f"the files did not answer within {limit_s:g} s", "timeout") from None

    @contextlib.asynccontextmanager
    async def begin(
        self,
        task: str,
        *trees: Tree,
        enter: bool = True,
        input: int | bool = False,
        output: bool = False,
        **arguments: Any,
    ) -> AsyncIterator[Session]:
        """Run a task that may read or write a stream. Leaving the block ends it, however far it is.

        `enter`: the first tree is the task's root, others with a place are mounted in it, and it stands in the second
        of those without; else they are its folders /0 and /1.
        `input`: a descriptor to read from, or True for `Session.input` to write to.
        Raises: Failure, OSError; InvalidParameter for arguments that are longer than any path.
        """
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.ExitStack() as theirs:
                told = await _stream(stack, theirs, LINE_LIMIT)
                waiting, held = _pipe(theirs)
                _keep(stack, held)
                session = Session(told.reader)
                passed = [told.descriptor, waiting]
                if input is True:
                    source = await _stream(stack, theirs, AHEAD)
                    session.input = source.writer
                    passed.append(source.descriptor)
                elif input is not False:
                    passed.append(input)
                if output:
                    sink = await _stream(stack, theirs, AHEAD)
                    session.output = sink.reader
                    passed.append(sink.descriptor)
                # What is mounted in the root is of a client's choice, and may be on a server that never answers.
                run = in_thread if any(tree.at for tree in trees) else asyncio.to_thread
                request = partial(_request, task, trees, arguments)
                request = partial(request, enter=enter, input=input is not False, output=output)
                await finish(run(partial(self._send, request, passed, trees)))
            yield session

    def _send(self, write: Callable[[Sequence[int]], bytes], passed: Sequence[int], trees: Sequence[Tree]) -> None:
        """Send a request; the trees' descriptors go after the first two, as the server expects them."""
        opened: list[int] = []
        counts: list[int] = []
        try:
            for tree in trees:
                opened += (descriptors := tree.open())
                counts.append(len(descriptors))
            request = write(counts)
            descriptors = [*passed[:2], *opened, *passed[2:]]
            with self._lock:
                try:
                    socket.send_fds(self._start(), [request], descriptors)
                except ConnectionError:  # the server died just now, and whoever asks is the first to see it
                    self._drop()
                    socket.send_fds(self._start(), [request], descriptors)
        finally:
            for descriptor in opened:
                os.close(descriptor)


async def _write_all(sink: asyncio.StreamWriter, pieces: AsyncIterable[bytes]) -> None:
    with contextlib.suppress(ConnectionError):  # it has given up, and says why
        async for piece in pieces:
            sink.write(piece)
            await sink.drain()
    sink.close()


async def finish(work: Awaitable[None]) -> None:
    """Wait for work in a thread to its end, also if this is cancelled: it uses descriptors that are then closed.

    A number that is closed too early may be somebody else's file a moment later. Raises: what the work raises.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    task.result()


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """End what is not done, and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _request(
    task: str,
    trees: Sequence[Tree],
    arguments: dict[str, Any],
    counts: Sequence[int],
    *,
    enter: bool = True,
    input: bool = False,
    output: bool = False,
) -> bytes:
    request = {
        "task": task,
        "trees": [(tree.kind, tree.writable, tree.at, count) for tree, count in zip(trees, counts, strict=True)],
        "enter": enter,
        "input": input,
        "output": output,
        "arguments": arguments,
    }
    message = json.dumps(request).encode()
    if len(message) > MAX_REQUEST:
        raise InvalidParameter("file name too long")
    return message


def _read(line: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise Failure(message["error"], message["kind"], message["errno"])
    return message


def _read_end(line: bytes) -> Any:
    """Read the result in the last line; a line that is incomplete is of a task that was killed. Raises: Failure."""
    try:
        message = _read(line)
    except ValueError:
        raise Failure(DIED) from None
    if "done" not in message:
        raise Failure(DIED)
    return message["done"]


@dataclass(frozen=True, slots=True)
class Stream:
    """Our end of a socket, and the descriptor of the helper's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    descriptor: int


async def _stream(ours: contextlib.AsyncExitStack, theirs: contextlib.ExitStack, limit: int) -> Stream:
    with contextlib.ExitStack() as both:
        near, far = _pair(both)
        reader, writer = await asyncio.open_connection(sock=near, limit=limit)
        ours.callback(writer.close)
        both.pop_all()
        theirs.callback(far.close)
    return Stream(reader, writer, far.fileno())


def _pair(ends: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ends.callback(ours.close)
    ends.callback(theirs.close)
    return ours, theirs


def _pipe(ends: contextlib.ExitStack) -> tuple[int, int]:
    """Open a pipe whose second end the waiting side holds: when that is closed, the kernel ends the task."""
    waiting, held = os.pipe2(os.O_CLOEXEC)
    ends.callback(os.close, waiting)
    ends.callback(os.close, held)
    return waiting, held


def _keep(stack: contextlib.AsyncExitStack, held: int) -> None:
    stack.callback(os.close, os.dup(held))


HELPER: Final = Confined()


async def measure_tree(folder: Path) -> int:
    """Count the bytes of the files below, each inode once; 0: there is no such folder, -1: they cannot be counted."""
    try:
        size: int = await HELPER.ask("measure", Folder(folder), limit_s=None)
    except FileNotFoundError:
        return 0
    except (Failure, OSError) as error:  # one tree's trouble is no reason to tell nothing of the others
        log.warning("%s cannot be measured: %s", folder, error)
        return -1
    return size
