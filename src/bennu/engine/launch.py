"""The way from a record to a running process and back to nothing: the sandbox, the root filesystem, the runtime.

`launch` reuses the resources the container already holds (a restart keeps its sandbox) and releases everything on
failure. `release` gives back the resources that a container holds between its lives; it may be called again.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bennu.confined.client import HELPER, Folder
from bennu.engine.attach import Attachment
from bennu.engine.context import EngineContext
from bennu.engine.events import Event, event
from bennu.engine.links import check_links_run, link_variables
from bennu.engine.log_attributes import read_attributes
from bennu.engine.logs.options import parse_log_options
from bennu.engine.mount_parser import no_source, shows
from bennu.engine.mount_sources import mount_sources
from bennu.engine.record import Record
from bennu.engine.sandbox import make_files, namespaces_of, network_event, open_sandbox
from bennu.errors import BennuError, InvalidParameter
from bennu.images.overlay import is_left_alone
from bennu.lifecycle.status import State
from bennu.logwriter.words import Job
from bennu.model import MountPoint
from bennu.network import Sandbox
from bennu.pace import in_thread
from bennu.runtime import BundleRequest, find_user
from bennu.runtime.cdi import inject_devices
from bennu.runtime.devices import read_all_devices, read_devices
from bennu.runtime.proc_mounts import check_mounts
from bennu.runtime.propagation import check_propagation
from bennu.runtime.spec import SpecRequest, build_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    pid: int
    sandbox: Sandbox | None
    started_at_ns: int
    events: list[Event]  # what the network and the volumes have to say


async def launch(
    services: EngineContext, record: Record, attachments: Sequence[Attachment], *, is_new: bool = False
) -> Launched:
    """Start the container's process. Raises: the error that prevented it; then nothing of it is held any more."""
    held = record
    try:
        sandbox, events = await open_sandbox(services, record)
        held = msgspec.structs.replace(record, sandbox=sandbox)
        for point in _volumes(record):
            await services.volumes.mount(point.name, record.id)
        async with mount_sources(services, record.id, record.mounts) as sources:
            bundle = await _make_bundle(services, held, sources, is_new=is_new)
            created = await services.runtime.create(record.id, bundle)
        for attachment in attachments:
            attachment.connect(await services.runtime.streams.attach(record.id))
        started_at_ns = time.time_ns()
        await services.runtime.start(record.id)
    except BaseException:
        await asyncio.shield(release_quietly(services, held))
        raise
    if record.state is not State.RESTARTING:  # a restart by policy finds them mounted
        events += [_volume_event("mount", record, point) for point in _volumes(record)]
    return Launched(created.pid, sandbox, started_at_ns, events)


def _volumes(record: Record) -> list[MountPoint]:
    return [point for point in record.mounts if point.type == "volume"]


def _volume_event(action: str, record: Record, point: MountPoint) -> Event:
    attributes = {"container": record.id, "driver": point.driver}
    if action == "mount":
        writable = "true" if point.rw else "false"
        attributes |= {"destination": point.destination, "propagation": point.propagation, "read/write": writable}
    return event("volume", action, point.name, attributes)


async def _make_bundle(
    services: EngineContext, record: Record, sources: Sequence[Path], *, is_new: bool
) -> BundleRequest:
    """Mount the root filesystem, write the network's files, and make the request to the runtime."""
    rootfs = await services.images.mount(services.images.by_id(record.image_id), services.folder(record.id))
    accounts = await _furnish(services, record, rootfs, is_new=is_new)
    # The source of a mount may never answer. A thread of its own costs a millisecond.
    run = in_thread if record.mounts else asyncio.to_thread
    spec = await run(lambda: _make_spec(services, record, sources, rootfs, accounts))
    return BundleRequest(
        spec=spec,
        log=await _plan_log(record, str(services.log_path(record.id))),
        open_stdin=record.config.open_stdin,
        stdin_once=record.config.stdin_once,
    )


async def _plan_log(record: Record, path: str) -> Job | None:
    """Plan how the log is written; None: there is none. Raises: BennuError."""
    config = record.host_config.log_config
    settings = parse_log_options(config.type, config.config or {})
    if settings is None:
        return None
    return Job(
        id=record.id,
        log=path,
        json=settings.is_json,
        attrs=await read_attributes(record, path) if settings.is_json else "",
        max_bytes=settings.max_bytes,
        max_files=settings.max_files,
        compress=settings.compress,
        ring=settings.ring_bytes,
    )


async def _furnish(services: EngineContext, record: Record, rootfs: Path, *, is_new: bool) -> Mapping[str, str]:
    """Have the working directory made; answer the texts of `passwd` and `group`. Raises: BennuError.

    While a container has left the directory and both files unchanged, its image's texts apply. These texts are learned
    only from new containers that no process has been able to write to (`is_new`), so that one container's writes never
    reach another.
    """
    working_dir, upper = record.config.working_dir, services.folder(record.id) / "diff"
    known = services.accounts.get(record.image_id, working_dir)
    if known is not None and all(is_left_alone(upper, path) for path in ("/etc/passwd", "/etc/group", working_dir)):
        return known
    found = await HELPER.ask("furnish", Folder(rootfs, writable=True), working_dir=working_dir)
    accounts: dict[str, str] = found["accounts"]
    if is_new and found["plain"]:
        services.accounts.put(record.image_id, working_dir, accounts)
    return accounts


def _make_spec(
    services: EngineContext, record: Record, sources: Sequence[Path], rootfs: Path, accounts: Mapping[str, str]
) -> dict[str, Any]:
    """Build the OCI configuration. Blocks; for ever on a bind mount's dead source. Raises: BennuError."""
    config, host = record.config, record.host_config
    spaces = namespaces_of(services, record)
    check_links_run(services, record)
    files = make_files(services, record)
    make_bind_sources(record)
    mounts = [
        replace(settle_propagation(point, services.data_root), source=str(source))
        for point, source in zip(record.mounts, sources, strict=True)
    ]
    spec = build_spec(
        SpecRequest(
            container_id=record.id,
            config=config,
            host_config=host,
            host=services.host_facts,
            args=[record.path, *record.args],
            rootfs=str(rootfs),
            mounts=mounts,
            user=find_user(config.user, host.group_add or (), accounts["passwd"], accounts["group"]),
            devices=read_all_devices() if host.privileged else read_devices(host.devices or ()),
            netns=spaces.network,
            pid_ns=spaces.pid,
            ipc_ns=spaces.ipc,
            uts_ns=spaces.uts,
            shm_path=spaces.shm,
            extra_env=link_variables(services, record),
            hostname=config.hostname,
            hostname_path=str(files["hostname"]),
            hosts_path=str(files["hosts"]),
            resolv_path=str(files["resolv.conf"]),
            defaults=services.settings.containers,
        )
    )
    inject_devices(spec, host.device_requests or (), services.settings.cdi_folders)
    check_mounts(rootfs, spec["mounts"])
    _spare_files(spec)
    return spec


def _spare_files(spec: dict[str, Any]) -> None:
    """Drop the recursive read-only option of single files.

    A file has no mounts below it, and crun refuses to make one read-only recursively.
    """
    for entry in spec["mounts"]:
        if "rro" in entry["options"] and not Path(entry["source"]).is_dir():
            entry["options"].remove("rro")


def make_bind_sources(record: Record) -> None:
    """Make missing host folders of binds, not of `--mount` without `CreateMountpoint`: those must be there. Blocks.

    Raises: InvalidParameter in dockerd's words; OSError.
    """
    given = given_sources(record)
    check_given_sources(given)
    for point in record.mounts:
        if point.type == "bind" and point.source not in given:
            with contextlib.suppress(FileExistsError):
                Path(point.source).mkdir(parents=True)


def given_sources(record: Record) -> list[str]:
    """List the sources of binds that must be there: those of `--mount` without `CreateMountpoint`. Pure."""
    kept = {
        os.path.normpath(mount.target)
        for mount in record.host_config.mounts or ()
        if mount.type == "bind" and not (mount.bind_options and mount.bind_options.create_mountpoint)
    }
    return [point.source for point in record.mounts if point.type == "bind" and point.destination in kept]


def check_given_sources(sources: Sequence[str]) -> None:
    """Check that they are there. Blocks. Raises: InvalidParameter in dockerd's words."""
    for source in sources:
        if not os.path.lexists(source):
            raise InvalidParameter(f'invalid mount config for type "bind": {no_source(source)}')


def settle_propagation(point: MountPoint, data_root: Path) -> MountPoint:
    """Check that a bind mount's source propagates as asked. Blocks. Raises: BennuError with dockerd's words.

    One that was made a slave because it shows the data root is private where that is private itself.
    """
    try:
        check_propagation(point.source, point.propagation)
    except BennuError:
        asked = point.spec.bind_options.propagation if point.spec and point.spec.bind_options else ""
        if asked or point.propagation in point.mode.split(",") or not shows(point.source, data_root):
            raise
        return replace(point, propagation="rprivate")
    return point


def teardown_events(services: EngineContext, record: Record) -> list[Event]:
    """Make the events of networks and volumes for a sandbox that is given up."""
    endpoints = record.sandbox.endpoints if record.sandbox else []
    left = [network_event(services, "disconnect", record, endpoint) for endpoint in endpoints]
    return left + [_volume_event("unmount", record, point) for point in _volumes(record)]


async def release(services: EngineContext, record: Record) -> None:
    """Give back process, sandbox and mounts. Idempotent. Raises: BennuError."""
    await services.runtime.delete(record.id)
    await services.networks.close_sandbox(record.id)
    await services.images.unmount(services.folder(record.id))
    for point in _volumes(record):
        await services.volumes.unmount_unused(point.name, record.id)


async def release_quietly(services: EngineContext, record: Record) -> None:
    """Release as `release` does; log a failure and leave the rest to the next start or removal."""
    try:
        await release(services, record)
    except Exception:
        log.exception("what container %s held could not all be given back", record.id)
