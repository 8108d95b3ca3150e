"""The planning of mounts: from Binds, Mounts, Volumes and VolumesFrom to resolved mount points.

Later sources yield to earlier ones at the same target, as in dockerd: volumes-from, binds, mounts, image volumes.
`resolve_mounts` then makes the volumes that are named or anonymous, and finds the images.
"""

import posixpath
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from msgspec import UNSET

from bennu.beneath import clean
from bennu.engine.context import EngineContext
from bennu.engine.mount_parser import Planned, parse_bind, parse_mount, parse_volumes_from, shows
from bennu.errors import InvalidParameter, NotFound
from bennu.model import BindOptions, ContainerConfig, HostConfig, Mount, MountPoint


def plan_mounts(
    config: ContainerConfig,
    host: HostConfig,
    inherited: Sequence[Planned],
    data_root: Path,
    *,
    recursive_read_only: bool = True,
) -> list[Planned]:
    """Plan all mounts, one per target. Blocks for the sources of `Mounts`.

    `recursive_read_only` False: the read-only bind mounts of a client that knows no others leave what is mounted in
    them writable. Raises: InvalidParameter for a target named twice by the client; BennuError.
    """
    binds = [parse_bind(spec) for spec in host.binds or []]
    mounts = host.mounts if isinstance(host.mounts, list) else []
    tmpfs = [posixpath.normpath(target) for target in (host.tmpfs if isinstance(host.tmpfs, dict) else None) or {}]
    named = [_keep_root_free(planned, data_root) for planned in [*binds, *map(parse_mount, mounts)]]
    if not recursive_read_only:
        named = [_without_recursion(planned) for planned in named]
    targets = [(planned.target, planned.target) for planned in binds]
    targets += [(posixpath.normpath(mount.target), mount.target) for mount in mounts]
    _check_unique([*targets, *zip(tmpfs, tmpfs, strict=True)])
    planned = {mount.target: mount for mount in inherited}
    planned |= {mount.target: _with_driver(mount, host.volume_driver) for mount in named}
    for target in config.volumes or {}:
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid volume specification: '{target}'")
        place = clean(target)
        if place == "/":
            raise InvalidParameter("invalid specification: destination can't be '/'")
        if place not in planned and place not in tmpfs:
            planned[place] = Planned("volume", "", place, anonymous=True, driver=host.volume_driver)
    return list(planned.values())


def _with_driver(mount: Planned, driver: str) -> Planned:
    """Let `--volume-driver` keep a volume that names no driver."""
    return replace(mount, driver=driver) if mount.type == "volume" and not mount.driver else mount


def _check_unique(targets: Iterable[tuple[str, str]]) -> None:
    """Refuse a target that comes twice; each is given with the word for it."""
    seen: set[str] = set()
    for target, word in targets:
        if target in seen:
            raise InvalidParameter(f"Duplicate mount point: {word}")
        seen.add(target)


def _keep_root_free(planned: Planned, data_root: Path) -> Planned:
    """Have a bind mount that shows the data root follow what is unmounted there. Raises: InvalidParameter.

    A private one would hold on to the root filesystems of other containers, which then could not be removed.
    """
    if planned.type != "bind" or not shows(planned.source, data_root):
        return planned
    if planned.propagation not in ("", "rslave", "rshared"):
        raise InvalidParameter(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{data_root}", bind mount source: "{planned.source}", '
            f'propagation: "{planned.propagation}"'
        )
    return replace(planned, propagation=planned.propagation or "rslave")


def _without_recursion(planned: Planned) -> Planned:
    if planned.type != "bind" or not planned.read_only:
        return planned
    spec = planned.spec or Mount(type="bind", source=planned.source, target=planned.target, read_only=True)
    options = msgspec.structs.replace(spec.bind_options or BindOptions(), read_only_non_recursive=True)
    return replace(planned, spec=msgspec.structs.replace(spec, bind_options=options))


def inherited_mounts(services: EngineContext, volumes_from: Sequence[str]) -> list[Planned]:
    """List the mounts of other containers (`--volumes-from X[:ro]`). Raises: InvalidParameter."""
    inherited: list[Planned] = []
    for text in volumes_from:
        name, read_only, mode = parse_volumes_from(text)
        try:
            points = services.index.find(name).record.mounts
        except NotFound as error:
            # Not a 404: `docker run` would take that for a missing image and try to pull it.
            raise InvalidParameter(str(error)) from None
        inherited += [
            Planned(
                point.type,
                point.name if point.type == "volume" else point.source,
                point.destination,
                mode=mode or point.mode,
                read_only=read_only or not point.rw,
                propagation=point.propagation,
                no_copy=True,
                spec=point.spec or None,
                driver=point.driver,
            )
            for point in points
            if point.type != "tmpfs"
        ]
    return inherited


@dataclass(frozen=True, slots=True)
class Holds:
    """What is kept from being removed while a container is made that is on no record yet."""

    volume: Callable[[str], None]  # given the name before the volume is looked for: see `Volumes.holding`
    images: ExitStack = field(default_factory=ExitStack)


async def resolve_mounts(
    services: EngineContext, planned: Sequence[Planned], container_id: str, holds: Holds
) -> list[MountPoint]:
    """Make the volumes that do not exist yet, find the images, and return all mount points. Raises: BennuError."""
    return [await _resolve(services, mount, container_id, holds) for mount in planned]


async def _resolve(services: EngineContext, mount: Planned, container_id: str, holds: Holds) -> MountPoint:
    point = MountPoint(
        type=mount.type,
        source=mount.source,
        destination=mount.target,
        mode=mount.mode,
        rw=not mount.read_only,
        spec=mount.spec or UNSET,
    )
    if mount.type == "volume":
        await _resolve_volume(services, mount, point, container_id, holds)
    elif mount.type != "tmpfs":
        point.propagation = mount.propagation or "rprivate"
    if mount.type == "image":
        image = services.images.find(mount.source)
        holds.images.enter_context(services.images.in_use(image))
        point.name, point.source = mount.source, image.id
    return point


async def _resolve_volume(
    services: EngineContext, mount: Planned, point: MountPoint, container_id: str, holds: Holds
) -> None:
    labels = dict(mount.labels)
    if mount.anonymous:
        labels["com.docker.volume.anonymous"] = ""
    named = mount.source or secrets.token_hex(32)
    holds.volume(named)
    volume = await services.volumes.create(
        named,
        # Nobody has one of a name just drawn; of a name without a driver every plugin would be asked.
        mount.driver or ("" if mount.source else "local"),
        dict(mount.driver_options),
        labels,
        born_with=container_id if mount.anonymous else "",
    )
    point.source, point.name, point.driver = volume.mountpoint, volume.name, volume.driver
    point.mode = mount.mode or (mount.local_mode if volume.is_local else "")
