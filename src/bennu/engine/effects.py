"""The performer of `lifecycle.life`'s effects: how each is performed, and which event it leads to.

Each effect may be performed again: a daemon that dies between two effects loses nothing, and the next daemon performs
the rest. All are called with the container's lock held; waiting for an end goes on in the background.
"""

import asyncio
import contextlib
import logging
from signal import SIGKILL
from typing import assert_never

from bennu.engine.container_base import ContainerBase
from bennu.engine.launch import launch, release_quietly
from bennu.engine.links import note_links
from bennu.engine.sandbox import renew_linked_hosts
from bennu.engine.start_failure import ends_task, is_shortage, start_failure, start_failure_code
from bennu.errors import Conflict, NotModified
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.disposition import disposition_of
from bennu.lifecycle.health import OnUnhealthy
from bennu.lifecycle.life_events import (
    ActOnUnhealthy,
    ClearLeftovers,
    Effect,
    ForgetProcess,
    Freeze,
    Launch,
    LifeEvent,
    Paused,
    ReleaseAll,
    RunStarted,
    SendSignal,
    SignalAsked,
    SignalMissed,
    SignalSent,
    StartFailed,
    TellWaiters,
    Thaw,
    Thawed,
    UnwatchRun,
    WatchRun,
)
from bennu.runtime import NotAlive

log = logging.getLogger(__name__)


async def perform(container: ContainerBase, effect: Effect) -> LifeEvent | None:
    """Perform an effect; answer the event it leads to, to be fed to the machine at once. Raises: BennuError."""
    match effect:
        case Launch():
            await begin_run(container)
        case SendSignal():
            return await _send(container, effect)
        case Freeze():
            await container.services.runtime.freezer.pause(container.id)
            return Paused()
        case Thaw():
            await container.services.runtime.freezer.resume(container.id)
            return Thawed()
        case WatchRun():
            container.monitors.watch()
        case UnwatchRun():
            container.monitors.stop()
        case ForgetProcess():
            await _forget_process(container)
        case ReleaseAll():
            await release_quietly(container.services, container.record)
        case ClearLeftovers():
            await _clear_leftovers(container)
        case TellWaiters():
            container.exited.set()
            container.waits.process_ended(container.wait_result())
        case ActOnUnhealthy():
            name = f"unhealthy {container.id[:12]}"
            container.services.tasks.create_task(_act_on_unhealthy(container, effect), name=name)
        case _:
            assert_never(effect)
    return None


async def begin_run(container: ContainerBase) -> None:
    """Start a process for the container and, on any failure, write the failure down.

    Raises: BennuError for every kind of failure, after it is written down; exceptions that end the task itself.
    """
    try:
        await _make_run(container)
    except BaseException as error:
        failure = start_failure(error)
        code, shortage = start_failure_code(failure), is_shortage(error)
        await container.advance(StartFailed(exit_code=code, error=str(failure), shortage=shortage))
        if failure is error:
            raise
        raise failure from error
    container.exited.clear()
    try:
        note_links(container.services, container.record)
        renew_linked_hosts(container.services, container.record)
    except BaseException as error:  # it runs all the same, and has to be supervised
        if ends_task(error):
            raise
        log.exception("not everybody could be told that container %s runs", container.id)


async def _make_run(container: ContainerBase) -> None:
    services = container.services
    is_new, container.is_new = container.is_new, False
    launched = await launch(services, container.record, container.attachments, is_new=is_new)
    container.attachments = []
    started = RunStarted(pid=launched.pid, boot_id=services.boot_id, at_ns=launched.started_at_ns)
    try:
        await container.advance(started, told=launched.events, sandbox=launched.sandbox)
    except BaseException as error:
        if not container.record.pid:  # not on disk, so it never happened
            await asyncio.shield(release_quietly(services, container.record))
            raise
        if ends_task(error):
            raise
        log.exception("container %s runs, and is not watched in all respects", container.id)


async def _send(container: ContainerBase, effect: SendSignal) -> LifeEvent:
    runtime = container.services.runtime
    try:
        process = await runtime.kill(container.id, effect.number)
    except NotAlive:
        return SignalMissed(effect.again)
    if effect.thaw:
        await runtime.freezer.resume(container.id)
    return SignalSent(disposition_of(process, effect.number))


async def _forget_process(container: ContainerBase) -> None:
    """Delete the runtime's process state; after a failure the next start or removal clears the rest."""
    try:
        await container.services.runtime.delete(container.id)
    except Exception:
        log.exception("what is left of the process of container %s could not be cleared away", container.id)


async def _clear_leftovers(container: ContainerBase) -> None:
    services, record = container.services, container.record
    if services.images.is_mounted(services.folder(record.id)):
        await release_quietly(services, record)
    else:
        await _forget_process(container)


async def _act_on_unhealthy(container: ContainerBase, asked: ActOnUnhealthy) -> None:
    """Perform the action of the label `bennu.on-unhealthy`; Docker does nothing."""
    by = Requester("health", command=asked.reason)
    with contextlib.suppress(Conflict, NotModified):  # it ended meanwhile
        match asked.action:
            case OnUnhealthy.KILL:
                await container.send(SignalAsked(number=SIGKILL, by=by, verb=Verb.KILL, for_good=False))
            case OnUnhealthy.RESTART:
                await container.restart_unhealthy(by)
            case OnUnhealthy.STOP:
                await container.stop(by)
