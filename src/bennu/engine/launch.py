"""From a record to a running process, and back to nothing: the sandbox, the root filesystem, the runtime.

`launch` reuses what the container already holds (a restart keeps its sandbox) and takes back everything on failure.
`release` gives back what a container holds between its lives; it may be called again.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bennu.engine.attach import Attachment
from bennu.engine.events import Event, event
from bennu.engine.record import Record
from bennu.engine.services import Services
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound
from bennu.lifecycle.exit_status import classify_start_failure
from bennu.lifecycle.status import State
from bennu.network import EndpointRequest, Sandbox, parse_port_bindings, render_hosts, render_resolv_conf
from bennu.runtime import BundleRequest, RuntimeFailure, SpecRequest, build_spec


@dataclass(frozen=True, slots=True)
class Launched:
    pid: int
    conmon_pid: int
    sandbox: Sandbox | None
    started_at_ns: int
    events: list[Event]  # what the network and the volumes have to say


class StartFailure(BennuError):
    """A start that failed; `exit_code` is 126, 127 or 128 and goes into the container's state."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnstartableCommand(StartFailure, InvalidParameter):
    """The command itself cannot be run (126 or 127): Docker answers 400."""


async def launch(services: Services, record: Record, attachments: Sequence[Attachment]) -> Launched:
    """Start the container's process. Raises: BennuError; then nothing of the container is held any more."""
    try:
        sandbox, events = await _open_sandbox(services, record)
    except BennuError as error:
        await _release_quietly(services, record)
        raise _network_failure(error) from error
    held = _with_sandbox(record, sandbox)
    try:
        spec = await _make_spec(services, held)
        created = await services.runtime.create(record.id, _bundle(services, held, spec))
        for attachment in attachments:
            attachment.connect(await services.runtime.attach(record.id))
        started_at_ns = time.time_ns()
        await services.runtime.start(record.id)
    except BaseException as error:
        await asyncio.shield(_release_quietly(services, held))
        if isinstance(error, RuntimeFailure) and error.exit_code in (126, 127):
            raise UnstartableCommand(str(error), error.exit_code) from error
        raise
    return Launched(created.pid, created.conmon_pid, sandbox, started_at_ns, events)


async def release(services: Services, record: Record) -> list[Event]:
    """Give back process, sandbox and mounts; answers the network's events. Idempotent."""
    await services.runtime.delete(record.id)
    events: list[Event] = []
    if record.sandbox is not None:
        events = [_network_event("disconnect", record, endpoint) for endpoint in record.sandbox.endpoints]
        await services.networks.close_sandbox(record.id)
    await services.images.unmount(services.folder(record.id))
    return events


async def _release_quietly(services: Services, record: Record) -> None:
    try:
        await release(services, record)
    except BennuError:
        log.exception("what container %s held could not all be given back", record.id)


def start_failure_code(error: BennuError) -> int:
    """126, 127 or 128: what the state of a container whose start failed shows."""
    if isinstance(error, StartFailure | RuntimeFailure):
        return error.exit_code
    return 128
