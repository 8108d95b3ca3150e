"""Runs the command of one RUN: in a container of a default one's confinement, in a world that dies with us.

What the command writes is the new layer. Nothing of the step outlives it but this: mounts, secrets and processes are of
its world (`world.py`), its control group is removed, and the folders that its mounts needed are taken out of the layer.
"""

import asyncio
import contextlib
import json
import marshal
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from bennu.beneath import clean
from bennu.build.graph import Exec, GraphNode, MountKind, StepMount
from bennu.build.place import BuildPlace
from bennu.build.steps.cache_mounts import CacheMounts
from bennu.build.steps.configuration import (
    AGENT,
    StepContainer,
    mount_of,
    tmpfs_of,
    write_configuration,
    write_hosts,
)
from bennu.build.steps.log_limit import LogLimit
from bennu.build.steps.trees import Folders, make_upper
from bennu.confined.client import HELPER, Failure, Folder, Overlaid
from bennu.errors import BennuError
from bennu.images.overlay import remove_tree
from bennu.model import HostConfig
from bennu.process import started
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.crun import OciRuntime
from bennu.runtime.failures import RuntimeFailure, start_reason
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.seccomp_cache import SeccompCache
from bennu.runtime.users import find_user

Log = Callable[[int, bytes], None]  # stream (1 or 2), and of what was written to it as much as BuildKit tells

# Isolated and without site-packages; as a module it need not be compiled each time.
WORLD: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from world import main; sys.exit(main())"
PIECE: Final = 1 << 16
LONGEST_ANSWER: Final = 1 << 20  # of a world
BEGUN: Final = b"begun "
# What crun says in the command's place when the kernel does not take the program.
NOT_EXECUTED: Final = re.compile(rb"\Aexec container process (?:\([^)\n]*\) )?`([^`\n]*)`: ([^\n]*)\n\Z")
FILES: Final = ("/etc/resolv.conf", "/etc/hosts")
OUT_OF_MEMORY: Final = "cannot allocate memory"


class Lender(Protocol):
    """What a client lends to the steps of its build."""

    async def secret(self, id: str) -> bytes | None:
        """Fetch a secret; None: the client has none of this name."""
        ...

    def ssh(self, id: str) -> AbstractAsyncContextManager[Path | None]:
        """Lend an agent as a socket for the block; None: the client has none of this name."""
        ...


class StepFailed(BennuError):
    """A RUN did not end well.

    The message is BuildKit's: `process "/bin/sh -c false" did not complete successfully: exit code: 1`. `exit_code` is
    None if it was not started.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """One RUN, with all that it needs at hand."""

    step: Exec
    base: Folders
    into: Path  # an empty folder; afterwards it holds `diff`, the new layer
    sources: Mapping[GraphNode, Folders] = field(default_factory=dict)  # what its mounts come from
    place: BuildPlace
    lender: Lender
    limits: HostConfig = field(default_factory=HostConfig)  # memory and processors of each step
    caches: CacheMounts


@dataclass(slots=True)
class _Means:
    """What the mounts of a step come to: for its world, and for its container."""

    shown: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)

    def show(self, what: dict[str, Any], target: str, options: Sequence[str]) -> None:
        self.mount(mount_of(f"/mounts/{len(self.shown)}", target, options))
        self.shown.append(what)

    def mount(self, mount: dict[str, Any]) -> None:
        self.mounts.append(mount)
        self.targets.append(mount["destination"])

    def write(self, path: str, text: bytes, *, uid: int = 0, gid: int = 0, mode: int = 0o644) -> None:
        self.files.append({"path": path, "text": text, "uid": uid, "gid": gid, "mode": mode})


class StepRunner:
    """Runs commands of builds on this host."""

    def __init__(self, oci: OciRuntime, cgroups: Cgroups, host: HostFacts, defaults: ContainerDefaults) -> None:
        self._oci = oci
        self._cgroups = cgroups
        self._host = host
        self._defaults = defaults
        self._filters = SeccompCache()

    async def run(self, request: StepRequest, log: Log) -> None:
        """Run it to its end. A cancellation ends it at once. Raises: StepFailed, BennuError.

        After either `into` is not fit for anything, and the caller's to remove.
        """
        step = request.step
        async with AsyncExitStack() as stack:
            means = await self._find_mounts(request, stack)
            try:
                prepared = await self._prepare(request, means)
                ended = await self._live(request, means, prepared, log)
            except (RuntimeFailure, Failure) as failure:
                raise StepFailed(f"{_process(step)}: {failure}") from failure
        if ended["kind"] == "refused":
            raise StepFailed(f"{_process(step)}: {ended['text']}")
        if ended["kind"] == "failed":
            log(2, f"runc run failed: {start_reason(ended['text'], ended['configuration'])}\n".encode())
            raise StepFailed(f"{_process(step)}: exit code: 1", 1)
        if code := _exit_code(int(ended["text"])):
            for stream, kept in enumerate(ended["kept"], 1):
                if kept:
                    log(stream, kept)
            killed = ended["oom_kills"] > 0
            raise StepFailed(f"{_process(step)}: {OUT_OF_MEMORY if killed else f'exit code: {code}'}", code)
        await HELPER.ask("clear_stubs", Folder(request.into / "diff", writable=True), stubs=prepared["stubs"])

    # --- what it mounts -------------------------------------------------------------------------------------------

    async def _find_mounts(self, request: StepRequest, stack: AsyncExitStack) -> _Means:
        means = _Means()
        agents = 0
        for place, mount in enumerate(request.step.mounts):
            match mount.kind:
                case MountKind.TMPFS:
                    means.mount(tmpfs_of(mount))
                case MountKind.BIND:
                    await self._show_bind(request, mount, place, means)
                case MountKind.CACHE:
                    folders = request.sources[mount.source] if mount.source is not None else ()
                    folder = await stack.enter_async_context(request.caches.lend(mount, folders))
                    shown = {"layers": [str(folder)], "into": "", "path": "/"}
                    means.show(shown, mount.target, ["ro"] if mount.read_only else ["rw"])
                case MountKind.SECRET:
                    await self._show_secret(request, mount, place, means)
                case MountKind.SSH:
                    target = mount.target or AGENT.format(agents)
                    agents += 1
                    await self._show_agent(request, mount, target, means, stack)
        return means

    async def _show_bind(self, request: StepRequest, mount: StepMount, place: int, means: _Means) -> None:
        """Show a stage, an image or the context; what is written to a writable one goes the way of `into`'s rest."""
        layers = [str(folder) for folder in (request.sources[mount.source] if mount.source is not None else ())]
        thrown_away = "" if mount.read_only else str(request.into / f"mount-{place}")
        if thrown_away:
            await asyncio.to_thread(make_upper, Path(thrown_away))
        shown = {"layers": layers, "into": thrown_away, "path": mount.source_path or "/"}
        means.show(shown, mount.target, ["ro"] if mount.read_only else ["rw"])

    async def _show_secret(self, request: StepRequest, mount: StepMount, place: int, means: _Means) -> None:
        secret = await request.lender.secret(mount.id)
        if secret is None:
            if mount.required:
                raise StepFailed(f"secret {mount.id}: not found")
            return
        if mount.env_name:
            means.secrets.append(f"{mount.env_name}={secret.decode('utf-8', 'surrogateescape')}")
        if mount.target:
            mode = (0o400 if mount.mode is None else mount.mode) & 0o777
            means.write(f"/secrets/{place}", secret, uid=mount.uid or 0, gid=mount.gid or 0, mode=mode)
            options = ("ro", "nosuid", "nodev", *(() if mode & 0o111 else ("noexec",)))
            means.mount(mount_of(f"/secrets/{place}", mount.target, options))

    async def _show_agent(
        self, request: StepRequest, mount: StepMount, target: str, means: _Means, stack: AsyncExitStack
    ) -> None:
        id = mount.id or "default"
        socket = await stack.enter_async_context(request.lender.ssh(id))
        if socket is None:
            if mount.required:
                raise StepFailed(f"unset ssh forward key {id}")
            return
        mode = (0o600 if mount.mode is None else mount.mode) & 0o777
        await asyncio.to_thread(_give_socket, socket, mount.uid or 0, mount.gid or 0, mode)
        means.show({"socket": str(socket)}, target, ["rw"])

    # --- how it runs ----------------------------------------------------------------------------------------------

    async def _prepare(self, request: StepRequest, means: _Means) -> dict[str, Any]:
        """Look its user up, and make its working directory if that is missing."""
        step = request.step
        await asyncio.to_thread(make_upper, request.into)
        base, targets = tuple(request.base), [*FILES, *means.targets]
        tmpfs = [mount.target for mount in step.mounts if mount.kind is MountKind.TMPFS]
        prepared: dict[str, Any] = await HELPER.ask(
            "prepare_run", Overlaid(base), working_dir=step.cwd or "/", targets=targets, tmpfs=tmpfs
        )
        accounts = prepared["accounts"]
        prepared["user"] = user = find_user(step.user, (), accounts["passwd"], accounts["group"])
        # crun would make the folders above a mount with a sticky bit.
        folders = [(path, 0, 0) for path in (*prepared["kernel"], *prepared["above"])]
        folders += [(prepared["working_dir"], user.uid, user.gid)] if prepared["working_dir"] else []
        if folders:
            await HELPER.ask("make_folders", Overlaid(base, request.into), folders=folders)
        for mount in means.mounts:
            if mount["destination"] in prepared["modes"]:
                mount["options"].append(f"mode={prepared['modes'][mount['destination']]:o}")
        return prepared

    async def _live(self, request: StepRequest, means: _Means, prepared: Mapping[str, Any], log: Log) -> dict[str, Any]:
        """Run the world to its end; answers what it said, with `oom_kills` and `configuration`."""
        step, place = request.step, request.place
        name = request.into.name
        group = _group(step, place, name)
        container = StepContainer(
            step=step,
            user=prepared["user"],
            secrets=means.secrets,
            mounts=means.mounts,
            group=group,
            network="own" if step.network == "none" or not place.connected else "given",
            cgroupns=place.cgroupns,
            limits=request.limits,
            host=self._host,
            defaults=self._defaults,
        )
        configuration = write_configuration(container)
        shortened = self._filters.shorten(configuration) if self._oci.is_crun else configuration
        means.write("/bundle/config.json", msgspec.json.encode(shortened))
        means.write("/bundle/hosts", write_hosts(step).encode())
        means.write("/bundle/resolv.conf", place.resolv_conf.encode())
        room = request.into / "world"
        await asyncio.to_thread(room.mkdir)
        world = {
            "network": "" if step.network == "host" else place.network,
            "room": str(room),
            "layers": [str(folder) for folder in request.base],
            "into": str(request.into),
            "shown": means.shown,
            "files": means.files,
            "options": [option for option in self._oci.options if not option.startswith("--root")],
            "id": name,
            "learns": self._oci.is_crun and self._filters.misses(configuration),
        }
        try:
            ended = await self._run_world(world, log)
            self._filters.keep(configuration, ended["filter"])
            return {**ended, "oom_kills": self._cgroups.oom_kills(group), "configuration": configuration}
        finally:
            await asyncio.shield(self._clear(request.into, group))

    async def _run_world(self, world: Mapping[str, Any], log: Log) -> dict[str, Any]:
        """Run `world.py`, telling what the command says as it comes. Raises: BennuError if it ended without a word."""
        async with AsyncExitStack() as stack:
            program = os.open(self._oci.command[0], os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, program)
            heard, said = os.pipe2(os.O_CLOEXEC)
            result = await _open_reader(stack, heard)
            try:
                argv: list[str | Path] = [
                    sys.executable,
                    "-I",
                    "-S",
                    "-X",
                    "utf8",
                    "-c",
                    WORLD,
                    str(Path(__file__).parent),
                ]
                argv += [str(said), str(program)]
                running = started(argv, stdin=asyncio.subprocess.PIPE, pass_fds=[said, program], env={"LC_ALL": "C"})
                process = await stack.enter_async_context(running)
            finally:
                os.close(said)
            return await _follow(process, result, world, log)

    async def _clear(self, into: Path, group: str) -> None:
        await self._cgroups.clear(group)
        await asyncio.to_thread(_clear_rest, into)


async def _open_reader(stack: AsyncExitStack, descriptor: int) -> asyncio.StreamReader:
    """Read a pipe that is closed with the block."""
    reader = asyncio.StreamReader(limit=LONGEST_ANSWER)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    stack.callback(transport.close)
    return reader


async def _follow(
    process: asyncio.subprocess.Process, result: asyncio.StreamReader, world: Mapping[str, Any], log: Log
) -> dict[str, Any]:
    """Give the world its request, and tell what the command says as it comes; answers how it ended.

    Before it has begun it is the runtime that speaks. `kept`: the last of what was left out, by stream; `filter`: what
    the runtime compiled. Raises: BennuError if the world ended without a word.
    """
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(marshal.dumps(dict(world)))
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    process.stdin.close()
    kept: list[bytes] = []
    answer = await result.readline()
    compiled = b""
    if answer.startswith(BEGUN):
        compiled = bytes.fromhex(answer.removeprefix(BEGUN).decode("ascii").strip())
        begun_ns = time.monotonic_ns()
        limits = LogLimit(begun_ns), LogLimit(begun_ns)
        async with asyncio.TaskGroup() as group:
            for stream, (source, limit) in enumerate(zip((process.stdout, process.stderr), limits, strict=True), 1):
                group.create_task(_read_on(source, stream, limit, log))
        answer = await result.read()
        kept = [limit.kept() for limit in limits]
    else:
        answer += await result.read()
    await process.wait()
    kind, _, text = answer.decode(errors="replace").partition(" ")
    if not kind:
        raise BennuError("the world of a step ended without a word")
    return {"kind": kind, "text": text, "kept": kept, "filter": compiled}


async def _read_on(source: asyncio.StreamReader, stream: int, limit: LogLimit, log: Log) -> None:
    while data := await source.read(PIECE):
        if NOT_EXECUTED.match(data):
            data = NOT_EXECUTED.sub(lambda said: b"exec %s: %s\n" % (said[1], said[2].lower()), data)
        if told := limit.pass_on(data, time.monotonic_ns()):
            log(stream, told)


def _group(step: Exec, place: BuildPlace, name: str) -> str:
    """Answer the control group of a step: below that of the build, or where the client wants it."""
    if not step.cgroup_parent:
        return f"{place.group}/{name}"
    return clean(f"{step.cgroup_parent}/{place.group.rpartition('/')[2]}-{name}")


def _process(step: Exec) -> str:
    return f"process {json.dumps(step.command, ensure_ascii=False)} did not complete successfully"


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _give_socket(socket: Path, uid: int, gid: int, mode: int) -> None:
    """Give an agent's socket, which lies in a folder of ours, to the step's user."""
    if stat.S_ISSOCK(os.lstat(socket).st_mode):
        os.chown(socket, uid, gid)
        socket.chmod(mode)


def _clear_rest(into: Path) -> None:
    """Remove from a snapshot's folder all but the layer."""
    for entry in into.iterdir():
        if entry.name != "diff":
            remove_tree(entry)
