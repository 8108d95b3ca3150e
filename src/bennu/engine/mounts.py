"""The planning of mounts: from Binds, Mounts, Volumes and VolumesFrom to resolved mount points.

Parsing is pure and speaks dockerd's words; `resolve_mounts` then makes the volumes that are named or anonymous.
Later sources yield to earlier ones at the same target, as in dockerd: volumes-from, binds, mounts, image volumes.
"""

import posixpath
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.context import EngineContext
from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.model import ContainerConfig, HostConfig, Mount, MountPoint

PROPAGATIONS: Final = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
MODES: Final = frozenset({"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"}) | PROPAGATIONS
VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Planned:
    """A mount as asked for. `source` is a host path (bind), a volume name ("" = anonymous) or nothing (tmpfs)."""

    type: str
    source: str
    target: str
    mode: str = ""  # as typed in a bind specification
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    anonymous: bool = False
    subpath: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""  # whatever keeps a volume of that name, else the local one
    driver_options: Mapping[str, str] = field(default_factory=dict)


def parse_bind(spec: str) -> Planned:
    """Parse `[source:]target[:mode]`. Raises: BennuError (500, as dockerd) with its words."""
    parts = spec.split(":")
    if len(parts) > 3 or not all(parts):
        raise BennuError(f"invalid volume specification: '{spec}'")
    if len(parts) == 2 and _is_mode(parts[1]):
        source, target, mode = "", parts[0], parts[1]
    else:
        source, target, mode = [("", parts[0], ""), (*parts, ""), parts][len(parts) - 1]
    words = [word for word in mode.split(",") if word]
    if not set(words) <= MODES or {"ro", "rw"} <= set(words):
        raise BennuError(f"invalid mode: {mode}")
    kind = "bind" if source.startswith("/") else "volume"
    if not target.startswith("/"):
        raise BennuError(
            f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": "
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    if posixpath.normpath(target) == "/":
        raise BennuError(f"invalid volume specification: '{spec}': invalid specification: destination can't be '/'")
    if kind == "volume" and source and not VOLUME_NAME.match(source):
        raise InvalidParameter(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return Planned(
        kind,
        posixpath.normpath(source) if kind == "bind" else source,
        posixpath.normpath(target),
        mode=mode,
        read_only="ro" in words,
        propagation=next((word for word in words if word in PROPAGATIONS), ""),
        no_copy="nocopy" in words,
        anonymous=kind == "volume" and not source,
    )


def _is_mode(text: str) -> bool:
    return set(text.split(",")) <= MODES


def parse_mount(mount: Mount) -> Planned:
    """Parse an entry of `HostConfig.Mounts`. Raises: InvalidParameter with dockerd's words."""
    wrong = f'invalid mount config for type "{mount.type}": '
    if mount.type not in ("bind", "volume", "tmpfs"):
        raise InvalidParameter(wrong + "mount type unknown")
    if not mount.target:
        raise InvalidParameter(wrong + "field Target must not be empty")
    if not mount.target.startswith("/"):
        raise InvalidParameter(wrong + f"invalid mount path: '{mount.target}' mount path must be absolute")
    if posixpath.normpath(mount.target) == "/":
        raise InvalidParameter(wrong + "invalid specification: destination can't be '/'")
    if mount.type == "bind":
        if not mount.source:
            raise InvalidParameter(wrong + "field Source must not be empty")
        if not mount.source.startswith("/"):
            raise InvalidParameter(wrong + f"invalid mount path: '{mount.source}' mount path must be absolute")
        create = mount.bind_options is not None and mount.bind_options.create_mountpoint
        if not create and not Path(mount.source).exists():
            raise InvalidParameter(wrong + f"bind source path does not exist: {mount.source}")
    if mount.type == "tmpfs" and mount.source:
        raise InvalidParameter(wrong + "field Source must not be specified")
    options = mount.volume_options
    driver = options.driver_config if options else None
    return Planned(
        mount.type,
        posixpath.normpath(mount.source) if mount.type == "bind" else mount.source,
        posixpath.normpath(mount.target),
        read_only=mount.read_only,
        propagation=mount.bind_options.propagation if mount.bind_options else "",
        no_copy=bool(options and options.no_copy),
        anonymous=mount.type == "volume" and not mount.source,
        subpath=options.subpath if options else "",
        labels=dict((options.labels if options else None) or {}),
        driver=driver.name if driver else "",
        driver_options=dict((driver.options if driver else None) or {}),
    )


def volume_sources(services: EngineContext, points: Sequence[MountPoint]) -> list[MountPoint]:
    """Answer the mount points with the place where each plugin has mounted its volume now."""
    return [
        point
        if point.type != "volume" or point.driver == "local"
        else msgspec.structs.replace(point, source=services.volumes.find(point.name).mountpoint)
        for point in points
    ]


def plan_mounts(config: ContainerConfig, host: HostConfig, inherited: Sequence[Planned]) -> list[Planned]:
    """Plan all mounts, one per target. Raises: InvalidParameter for a target named twice by the client."""
    named = [parse_bind(spec) for spec in host.binds or []]
    mounts = host.mounts if isinstance(host.mounts, list) else []
    named += [parse_mount(mount) for mount in mounts]
    tmpfs = [posixpath.normpath(target) for target in (host.tmpfs if isinstance(host.tmpfs, dict) else None) or {}]
    _check_unique([planned.target for planned in named] + tmpfs)
    planned = {mount.target: mount for mount in inherited}
    planned |= {mount.target: _with_driver(mount, host.volume_driver) for mount in named}
    for target in config.volumes or {}:
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid volume specification: '{target}'")
        clean = posixpath.normpath(target)
        if clean not in planned and clean not in tmpfs:
            planned[clean] = Planned("volume", "", clean, anonymous=True, driver=host.volume_driver)
    return list(planned.values())


def _with_driver(mount: Planned, driver: str) -> Planned:
    """Let `--volume-driver` keep a volume that names no driver."""
    return replace(mount, driver=driver) if mount.type == "volume" and not mount.driver else mount


def _check_unique(targets: Iterable[str]) -> None:
    seen: set[str] = set()
    for target in targets:
        if target in seen:
            raise InvalidParameter(f"Duplicate mount point: {target}")
        seen.add(target)


def inherited_mounts(services: EngineContext, volumes_from: Sequence[str]) -> list[Planned]:
    """List the mounts of other containers (`--volumes-from X[:ro]`). Raises: InvalidParameter."""
    inherited: list[Planned] = []
    for spec in volumes_from:
        name, _, mode = spec.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidParameter(f"invalid mode: {mode}")
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
                read_only=mode == "ro" or not point.rw,
                propagation=point.propagation,
                no_copy=True,
                driver=point.driver,
            )
            for point in points
            if point.type != "tmpfs"
        ]
    return inherited


async def resolve_mounts(
    services: EngineContext, planned: Sequence[Planned], container_id: str, hold: Callable[[str], None]
) -> list[MountPoint]:
    """Make the volumes that do not exist yet and return all mount points. Raises: BennuError of the volumes.

    `hold` is given the name of each volume before it is looked for: see `Volumes.holding`.
    """
    return [await _resolve(services, mount, container_id, hold) for mount in planned]


async def _resolve(
    services: EngineContext, mount: Planned, container_id: str, hold: Callable[[str], None]
) -> MountPoint:
    if mount.subpath:
        raise InvalidParameter("volume subpath is not supported")
    if mount.type == "volume":
        labels = dict(mount.labels)
        if mount.anonymous:
            labels["com.docker.volume.anonymous"] = ""
        named = mount.source or secrets.token_hex(32)
        hold(named)
        volume = await services.volumes.create(
            named,
            mount.driver,
            dict(mount.driver_options),
            labels,
            born_with=container_id if mount.anonymous else "",
        )
        source, name, driver, propagation = volume.mountpoint, volume.name, volume.driver, ""
    else:
        source, name, driver = mount.source, "", ""
        propagation = (mount.propagation or "rprivate") if mount.type == "bind" else ""
    return MountPoint(
        type=mount.type,
        name=name,
        source=source,
        destination=mount.target,
        driver=driver,
        mode=mount.mode,
        rw=not mount.read_only,
        propagation=propagation,
    )
