"""Creation of a container: its record, its folder, its volumes. Nothing runs yet."""

import asyncio
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.copies import MAKING
from bennu.engine.defaults import fill_host_defaults, merge_image
from bennu.engine.links import bind_links
from bennu.engine.mount_parser import Planned
from bennu.engine.mount_sources import mount_sources, subpath_of
from bennu.engine.mounts import Holds, inherited_mounts, plan_mounts, resolve_mounts
from bennu.engine.policy import check_of
from bennu.engine.record import Record
from bennu.engine.sandbox import check_endpoints, name_networks
from bennu.engine.settings import EngineSettings
from bennu.engine.stored_record import encode_record
from bennu.engine.validate import validate_create
from bennu.errors import InvalidParameter, NotFound, Unavailable
from bennu.images import Image
from bennu.lifecycle.governor import parse_governor
from bennu.lifecycle.health import OnUnhealthy, on_unhealthy
from bennu.lifecycle.probe import HEALTH, READY, probe_from_labels
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, ImageConfig, MountPoint, NetworkingConfig
from bennu.pace import in_thread
from bennu.store import Put
from bennu.volumes.copyup import copy_up, needs_filling


def complete(
    config: ContainerConfig,
    host: HostConfig,
    image: ImageConfig,
    container_id: str,
    oci_runtime: str,
    settings: EngineSettings,
) -> list[str]:
    """Fill in the fields the client left out, from the image and from Docker's defaults; answer warnings.

    Raises: InvalidParameter or NotImplementedHere with Docker's words.
    """
    merge_image(config, image)
    host.log_config = settings.containers.log_config_of(host)  # before the check: options may need each other
    warnings = validate_create(config, host, oci_runtime=oci_runtime, added_runtimes=settings.added_runtimes)
    fill_host_defaults(host, runtime=oci_runtime, defaults=settings.containers)
    check_labels(config.labels or {})
    if on_unhealthy(config.labels or {}) is not OnUnhealthy.NONE and check_of(config) is None:
        warnings.append("bennu.on-unhealthy has no effect: the container has no health check")
    if not config.hostname and not host.network_mode.startswith("container:"):
        is_the_hosts = "host" in (host.network_mode, host.uts_mode)
        config.hostname = socket.gethostname() if is_the_hosts else container_id[:12]
    return warnings


def check_labels(labels: Mapping[str, str]) -> None:
    """Parse Bennu's own labels at creation; later it would be too late to refuse them. Raises: InvalidParameter."""
    probe_from_labels(HEALTH, labels)
    probe_from_labels(READY, labels)
    on_unhealthy(labels)
    parse_governor(labels)


def bind_joined(services: EngineContext, host: HostConfig) -> None:
    """Write the ids of the containers to share namespaces with in place of their names, which may change hands.

    A network to share is looked for again at the start. Raises: InvalidParameter where another kind does not exist.
    """
    for mode in ("network_mode", "ipc_mode", "pid_mode"):
        kind, _, target = getattr(host, mode).partition(":")
        if kind != "container":
            continue
        try:
            setattr(host, mode, f"container:{services.index.find(target).id}")
        except NotFound as error:
            if mode != "network_mode":
                raise InvalidParameter(str(error)) from None


async def create_container(
    services: EngineContext,
    container_id: str,
    name: str,
    image: Image,
    config: ContainerConfig,
    host: HostConfig,
    networking: NetworkingConfig | None,
    *,
    recursive_read_only: bool = True,
) -> Container:
    """Make a durable container; a failure removes everything made so far. Raises: BennuError.

    `recursive_read_only`: see `plan_mounts`.
    """
    argv = [*(config.entrypoint or ()), *(config.cmd or ())]
    links = bind_links(services, host)
    bind_joined(services, host)
    inherited = inherited_mounts(services, host.volumes_from or [])
    plan = partial(plan_mounts, config, host, inherited, services.data_root, recursive_read_only=recursive_read_only)
    planned = await in_thread(plan) if host.mounts else plan()  # a source may be on a server that never answers
    folder = services.folder(container_id)
    with services.volumes.holding(container_id) as hold, ExitStack() as held_images:
        try:
            await asyncio.to_thread(_make_folder, folder)
            mounts = await resolve_mounts(services, planned, container_id, Holds(hold, held_images))
            record = Record(
                id=container_id,
                name=name,
                created_ns=time.time_ns(),
                image_id=image.id,
                path=argv[0],
                args=argv[1:],
                config=config,
                host_config=host,
                endpoints=name_networks(services, requested_endpoints(host, networking)),
                mounts=mounts,
                links=links,
            )
            check_endpoints(services, record)
            await _fill_volumes(services, container_id, image, planned, mounts)
            container = Container(services, record)
            container.is_new = True
            put = Put(f"containers/{container_id}", encode_record(record))
            await services.journal.commit([put], [container.event("create")], adds=True)
            (folder / MAKING).unlink()
        except BaseException:
            await asyncio.shield(_take_back(services, folder, container_id))
            raise
    return container


def _make_folder(folder: Path) -> None:
    """Make the folder with the mark that lets a later daemon take it away. Raises: Unavailable."""
    try:
        folder.mkdir(mode=0o710, parents=True)
        (folder / MAKING).touch()
    except OSError as error:
        raise Unavailable(f"cannot make {folder}: {error.strerror}") from error


async def _fill_volumes(
    services: EngineContext,
    container_id: str,
    image: Image,
    planned: Sequence[Planned],
    mounts: Sequence[MountPoint],
) -> None:
    """Copy the image's files at a new volume's target into the volume, or into the folder of it that is asked for."""
    volumes = [
        point for plan, point in zip(planned, mounts, strict=True) if point.type == "volume" and not plan.no_copy
    ]
    if not volumes:
        return
    wanted = await in_thread(  # where a plugin has its volume is known when it is mounted
        lambda: [
            point
            for point in volumes
            if point.driver != "local" or subpath_of(point) or needs_filling(Path(point.source))
        ]
    )
    if not wanted:
        return
    folder = services.folder(container_id)
    rootfs = await services.images.mount(image, folder)
    try:
        for point in wanted:
            await services.volumes.mount(point.name, container_id)
            async with services.volumes.filling(point.name):
                await _fill_volume(services, container_id, rootfs, point)
    finally:
        await services.images.unmount(folder)
        for point in wanted:
            await services.volumes.unmount_unused(point.name, container_id)


async def _fill_volume(services: EngineContext, container_id: str, rootfs: Path, point: MountPoint) -> None:
    try:
        async with mount_sources(services, container_id, [point]) as [source]:
            if source.is_dir() and await in_thread(partial(needs_filling, source)):
                await copy_up(rootfs, point.destination, source)
    except (NotFound, InvalidParameter):
        if not subpath_of(point):
            raise
        # The folder is not there yet, or a link leads out: whoever starts the container is told.


async def _take_back(services: EngineContext, folder: Path, container_id: str) -> None:
    """Remove the folder and the anonymous volumes of a failed creation.

    Named volumes stay, as with dockerd: another client may use them already.
    """
    for volume in services.volumes.list():
        if volume.born_with == container_id:
            await services.volumes.remove(volume.name, force=True, by_container=container_id)
    await asyncio.to_thread(shutil.rmtree, folder, True)


def requested_endpoints(host: HostConfig, networking: NetworkingConfig | None) -> dict[str, EndpointSettings]:
    """List the networks asked for, that of NetworkMode first; none for `container:X`.

    Whoever lists networks is on these alone, as with dockerd: NetworkMode adds none to them.
    """
    mode = "bridge" if host.network_mode in ("", "default") else host.network_mode
    if mode.startswith("container:"):
        return {}
    asked = {
        "bridge" if name == "default" else name: entry or EndpointSettings()
        for name, entry in ((networking.endpoints_config if networking else None) or {}).items()
    }
    if not asked:
        return {mode: EndpointSettings()}
    return {name: asked[name] for name in sorted(asked, key=lambda name: name != mode)}
