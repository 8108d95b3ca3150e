"""The recovery of the containers that a starting daemon finds: left by its predecessor, or ended by a reboot.

1. Running, and its monitor is the one on record: supervised again as it is.
2. Running on record, but ended meanwhile: the end is processed as if just seen, with its true exit code.
3. Of an earlier boot: lost with the host; how its process ended is unknown.
4. Half started (a process, but no record of a start): the start was never acknowledged and is undone.
5. Waiting for its restart: goes on waiting.
6. Half paused: paused or not, as the kernel has it.
7. Half stopped, restarted or removed: the request is gone on with.
`lifecycle.life.recover` lists the events that each of them is fed.
Then the containers with a policy that asks for it are started, each after the containers whose namespaces it joins.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.index import ContainerIndex
from bennu.engine.links import note_links
from bennu.engine.record import Record
from bennu.engine.remains import parse_remains
from bennu.engine.removal import auto_remove
from bennu.engine.start_failure import is_shortage
from bennu.engine.stored_record import decode_record
from bennu.engine.supervisor import TRY_AGAIN_MOST_S, TRY_AGAIN_S
from bennu.errors import BennuError, InvalidParameter, NotFound, Unavailable
from bennu.files import replace_file
from bennu.lifecycle.death import Requester
from bennu.lifecycle.life import Owed, Seen, decide_start, find_owed, recover
from bennu.lifecycle.life_events import HostRebooted
from bennu.lifecycle.restart import Start
from bennu.lifecycle.status import State
from bennu.runtime import NotAlive
from bennu.store import aside

PREFIX: Final = "containers/"
STARTS_AT_ONCE: Final = 8
ENGINE_ID: Final = "engine-id"  # a file in the data root, as dockerd has it: the name an engine keeps for life
log = logging.getLogger(__name__)


def read_boot_id() -> str:
    """Read the host's boot id, which changes with each boot and invalidates older process ids and namespaces."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_engine_id(data_root: Path) -> str:
    """Answer the id of the engine on this root, made at its first start. Blocks. Raises: BennuError."""
    path = data_root / ENGINE_ID
    try:
        if path.exists() and (known := path.read_text().strip()):
            return known
        made = str(uuid.uuid4())
        replace_file(path, made.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise BennuError(f"cannot use the engine's id in {path}: {error}") from None
    return made


async def read_records(services: EngineContext) -> list[Record]:
    """Read the readable records; the others are set aside."""
    return await aside.load(services.store, PREFIX, decode_record)


async def readopt(services: EngineContext, index: ContainerIndex[Container]) -> list[Container]:
    """Recover cases 1 to 6 above; answer the containers that their policy now wants started."""
    wanted: list[Container] = []
    for container in index.list()[::-1]:
        try:
            await _take_up(services, container)
            if wants_start(container):
                wanted.append(container)
        except Unavailable:
            raise
        except Exception as error:  # its record makes no sense: the others are taken up without it
            await _leave_aside(services, index, container, error)
    return [container for container in wanted if container.id in index.ids]


async def _take_up(services: EngineContext, container: Container) -> None:
    """Update the life to the present and resume supervision. Raises: Unavailable if its loss cannot be written."""
    _ = container.policy  # without one nothing can be decided of it
    seen = Seen(services.boot_id, await _is_frozen(services, container.record))
    async with container.lock:
        for happened in recover(container.record.life, seen):
            try:
                await container.advance(happened)
            except BennuError as error:
                if isinstance(happened, HostRebooted):
                    raise
                log.warning("container %s was not taken up in all respects: %s", container.id[:12], error)
    if container.record.pid:
        note_links(services, container.record)
    if container.record.pid or container.record.state is State.RESTARTING:
        container.supervisor.begin()


async def _is_frozen(services: EngineContext, record: Record) -> bool | None:
    """Tell whether its processes are frozen; None: it has no process, or the kernel's state cannot be read."""
    if not record.pid or record.life.run.boot_id != services.boot_id:
        return None
    try:
        return await services.runtime.freezer.is_frozen(record.id)
    except NotAlive:
        return None  # it ended meanwhile
    except BennuError as error:
        log.warning("whether container %s is paused cannot be told: %s", record.id[:12], error)
        return None


def wants_start(container: Container) -> bool:
    """Tell whether its policy starts it along with the daemon."""
    return isinstance(decide_start(container.record.life, container.policy), Start)


async def _leave_aside(
    services: EngineContext, index: ContainerIndex[Container], container: Container, error: Exception
) -> None:
    """Set the container's record aside together with its remains on this host; the next daemon tries again."""
    if entry := await services.store.read(PREFIX + container.id):
        await aside.set_aside(services.store, entry, error)
        index.leave_aside(container, parse_remains(entry.value, services.boot_id))


def finish_pending_operations(services: EngineContext, containers: list[Container]) -> list[Container]:
    """Continue the requested operations; answer the containers that `--rm` wants removed.

    Runs before any request is heard: a client of this daemon could begin an operation, or a container, of its own.
    """
    left = []
    for container in containers:
        life = container.record.life
        if life.pending is not None:
            name = f"finish pending operation {container.id[:12]}"
            services.tasks.create_task(_try(container.id, "dealt with", container.finish_pending()), name=name)
        elif find_owed(life, container.policy) is Owed.REMOVAL:
            left.append(container)
    return left


async def finish_start(services: EngineContext, left: list[Container], wanted: list[Container]) -> None:
    """Remove and start containers as `--rm` and policies ask, in the background of the first requests."""
    for container in left:
        await _try(container.id, "removed", auto_remove(services, container))
    await start_by_policy(services, wanted)


async def start_by_policy(services: EngineContext, wanted: list[Container]) -> None:
    """Start the containers, several at a time, each after those it joins namespaces of; failures are only logged."""
    places = asyncio.Semaphore(STARTS_AT_ONCE)

    async def bring_up(container: Container) -> None:
        async with places:
            await _try(container.id, "started", _start(services, container))

    left = list(wanted)
    while left:
        waiting = {container.id for container in left}
        wave = [container for container in left if not _joined(services, container.record) & waiting] or left
        await asyncio.gather(*(bring_up(container) for container in wave))
        left = [container for container in left if container not in wave]


async def _start(services: EngineContext, container: Container, pause_s: float = TRY_AGAIN_S) -> None:
    """Start it by its policy; retry, later in the background, if the host lacked a resource."""
    try:
        await container.start(Requester.daemon("daemon start"))
    except BennuError as error:
        if not is_shortage(error):
            raise
        log.warning("container %s was not started: %s; trying again", container.id[:12], error)
        again = _start_later(services, container, pause_s)
        services.tasks.create_task(_try(container.id, "started", again), name=f"start {container.id[:12]} again")


async def _start_later(services: EngineContext, container: Container, pause_s: float) -> None:
    await asyncio.sleep(pause_s)
    if not container.gone and wants_start(container):
        await _start(services, container, min(2 * pause_s, TRY_AGAIN_MOST_S))


def _joined(services: EngineContext, record: Record) -> set[str]:
    """Return the ids of the existing containers that must run before this one can."""
    host = record.host_config
    modes = (host.network_mode, host.ipc_mode, host.pid_mode)
    names = [mode.partition("container:")[2] for mode in modes if mode.startswith("container:")]
    found = set()
    for name in [*names, *record.links.values(), *(link.partition(":")[0] for link in host.links or ())]:
        with contextlib.suppress(NotFound, InvalidParameter):
            found.add(services.index.find(name).id)
    return found - {record.id}


async def _try(container_id: str, what: str, work: Awaitable[None]) -> None:
    """Await the work for one container and log its failure, so that the other containers are still taken up."""
    try:
        await work
    except BennuError as error:
        log.warning("container %s was not %s: %s", container_id[:12], what, error)
    except Exception:  # a bug, or a record that makes no sense; either way the others are still to be taken up
        log.exception("container %s was not %s", container_id[:12], what)
