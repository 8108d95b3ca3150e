"""Removal of a container: `docker rm`, and auto-removal.

The record's deletion is the one durable step and comes after everything that can fail; the folder, marked as being
removed, is taken away after it. A crash before it leaves a container that can be removed again (the next daemon does,
if it was killed for that), a crash after it a marked folder that the next daemon clears away.
"""

import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

from bennu.descriptors import reserve
from bennu.engine.container_base import ContainerBase
from bennu.engine.context import EngineContext
from bennu.engine.copies import REMOVING
from bennu.engine.launch import release
from bennu.engine.termination import wait_killed
from bennu.engine.wait_conditions import WaitResult
from bennu.errors import BennuError, Conflict, NotFound, Unavailable
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.life_events import SignalAsked
from bennu.lifecycle.life_model import PendingOperation
from bennu.lifecycle.status import State
from bennu.store import Delete, Put


async def remove_container(
    services: EngineContext, container: ContainerBase, by: Requester, *, force: bool = False, volumes: bool = False
) -> None:
    """Remove the container; `force` kills it first, `volumes` takes its anonymous volumes along.

    Raises: Conflict while it runs (without force) or while another removal is under way; NotFound if that one won.
    """
    if container.removing:
        raise Conflict(f"removal of container {container.record.name} is already in progress")
    container.removing = True
    try:
        if force:
            await _kill(container, PendingOperation(verb=Verb.REMOVE, by=by, volumes=volumes))
        async with container.lock:
            _check_stopped(container)
            with reserve():
                await _take_apart(services, container, volumes)
    except BaseException:
        container.removing = False
        raise


async def auto_remove(services: EngineContext, container: ContainerBase) -> None:
    """Remove a container that was run with `--rm`, with its anonymous volumes. Raises: BennuError."""
    await remove_container(services, container, Requester.daemon("auto-remove"), force=True, volumes=True)


async def _kill(container: ContainerBase, removal: PendingOperation) -> None:
    asked = SignalAsked(number=signal.SIGKILL, by=removal.by, verb=removal.verb, operation=removal)
    while container.record.running:
        try:
            await container.send(asked)
        except Conflict:
            return
        await wait_killed(container)


def _check_stopped(container: ContainerBase) -> None:
    name = container.record.name
    match container.record.state:
        case State.RUNNING | State.RESTARTING as state:
            raise Conflict(
                f'cannot remove container "/{name}": container is {state}: '
                "stop the container before removing or force remove"
            )
        case State.PAUSED:
            raise Conflict(f'cannot remove container "/{name}": container is paused and must be unpaused first')


async def _take_apart(services: EngineContext, container: ContainerBase, volumes: bool) -> None:
    record = container.record
    folder = services.folder(record.id)
    try:
        await release(services, record)
        if volumes:
            await _remove_anonymous_volumes(services, container)
        await _forget(services, container)
    except BaseException as error:
        container.waits.removed(WaitResult(container.exit_code, str(error)))
        raise
    container.gone = True
    services.index.forget(container.id)
    services.execs.forget_container(container.id)
    container.end_attachments()
    container.waits.removed(WaitResult(container.exit_code, ""))
    await _remove_files(services, folder)
    for image_id in record.image_ids:
        await services.images.let_go(image_id)


async def _forget(services: EngineContext, container: ContainerBase) -> None:
    """Delete the record. Raises: Unavailable; then it is there as before, but on a full disk its files are gone."""
    record, folder = container.record, services.folder(container.id)
    freed = services.volumes.set_free(point.name for point in record.mounts if point.type == "volume")
    writes: list[Put | Delete] = [Delete(f"containers/{record.id}"), *freed]
    events = [container.event("destroy")]
    with contextlib.suppress(OSError):
        (folder / REMOVING).touch()
    try:
        try:
            await services.journal.commit(writes, events)
        except Unavailable:  # the very files that are to go may be what fills the disk
            await _remove_files(services, folder)
            await services.journal.commit(writes, events)
    except BennuError:
        (folder / REMOVING).unlink(missing_ok=True)
        raise


async def _remove_files(services: EngineContext, folder: Path) -> None:
    await services.images.remove_upper(folder)
    await asyncio.to_thread(shutil.rmtree, folder, True)


async def _remove_anonymous_volumes(services: EngineContext, container: ContainerBase) -> None:
    for point in container.record.mounts:
        if point.type != "volume":
            continue
        try:
            volume = services.volumes.find(point.name)
            if volume.anonymous:
                await services.volumes.remove(point.name, by_container=container.id)
        except (NotFound, Conflict):
            continue  # gone, or another container uses it as well
        except BennuError:
            raise
