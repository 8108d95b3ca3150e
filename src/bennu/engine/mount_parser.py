"""The parsing of what clients ask to be mounted: entries of Binds, Mounts and VolumesFrom, in dockerd's words.

Pure, but for one look: the source of a `--mount type=bind` has to exist.
"""

import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bennu.errors import BennuError, InvalidParameter
from bennu.model import BindOptions, Mount, TmpfsOptions
from bennu.volumes.volume import check_name

PROPAGATIONS: Final = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
WRITING: Final = frozenset({"ro", "rw"})
LABELS: Final = frozenset({"z", "Z"})
CONSISTENCIES: Final = frozenset({"consistent", "cached", "delegated"})
# Of each kind a mode may name one word.
KINDS: Final = (WRITING, LABELS, PROPAGATIONS, frozenset({"nocopy"}), CONSISTENCIES)
LOCAL_LABEL: Final = "z"  # the mode of a local volume whose client named none
TMPFS_OPTIONS: Final = frozenset({"exec", "noexec"})


@dataclass(frozen=True, slots=True)
class Planned:
    """A mount as asked for.

    `source` is a host path (bind), a volume's name ("" = anonymous), an image's name or id, or nothing (tmpfs).
    """

    type: str
    source: str
    target: str
    mode: str = ""  # as typed in a bind specification
    local_mode: str = ""  # what a local volume has instead of none
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    anonymous: bool = False
    spec: Mount | None = None  # the client's options that the other fields do not tell
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""  # whatever keeps a volume of that name, else the local one
    driver_options: Mapping[str, str] = field(default_factory=dict)


def parse_bind(text: str) -> Planned:
    """Parse `[source:]target[:mode]`. Raises: BennuError (500, as dockerd) with its words; InvalidParameter."""
    wrong = f"invalid volume specification: '{text}'"
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and is_mode(parts[1])):
        raise BennuError(wrong)
    source, target, mode = [("", parts[0], ""), (*parts, ""), parts][len(parts) - 1]
    if not is_mode(mode):
        raise BennuError(f"invalid mode: {mode}")
    words = mode.split(",")
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    kind = "bind" if source.startswith("/") else "volume"
    try:
        _check_target(target)
        if kind == "bind" and "nocopy" in words:
            raise _extra("VolumeOptions")
        if kind == "volume" and propagation:
            raise _extra("BindOptions")
    except InvalidParameter as error:
        raise BennuError(f'{wrong}: invalid mount config for type "{kind}": {error}') from None
    if kind == "volume" and source:
        check_name(source)
    return Planned(
        kind,
        posixpath.normpath(source) if kind == "bind" else source,
        posixpath.normpath(target),
        mode=mode,
        local_mode=LOCAL_LABEL if kind == "volume" else "",
        read_only="ro" in words,
        propagation=propagation,
        no_copy="nocopy" in words,
        anonymous=kind == "volume" and not source,
    )


def is_mode(mode: str) -> bool:
    """Tell whether it is a list of modes, at most one of each kind."""
    if not mode:
        return True
    kinds = Counter(next((kind for kind in KINDS if word in kind), None) for word in mode.split(","))
    return None not in kinds and max(kinds.values()) == 1


def parse_volumes_from(text: str) -> tuple[str, bool, str]:
    """Parse `container[:mode]`; answer the container, whether it is read-only, and the mode. Raises: InvalidParameter.

    Propagation and copying are the other container's own.
    """
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    name, _, mode = text.partition(":")
    words = set(mode.split(","))
    if not is_mode(mode) or words & PROPAGATIONS or "nocopy" in words:
        raise InvalidParameter(f"invalid mode: {mode}")
    return name, "ro" in words, mode


def parse_mount(mount: Mount) -> Planned:
    """Parse an entry of `HostConfig.Mounts`. Blocks for its source. Raises: InvalidParameter with dockerd's words."""
    try:
        if not mount.target:
            raise InvalidParameter("field Target must not be empty")
        _check_target(mount.target)
        check = {"bind": _check_bind, "volume": _check_volume, "tmpfs": _check_tmpfs, "image": _check_image}
        if mount.type not in check:
            raise InvalidParameter("mount type unknown")
        check[mount.type](mount)
    except InvalidParameter as error:
        raise InvalidParameter(f'invalid mount config for type "{mount.type}": {error}') from None
    options = mount.volume_options
    driver = options.driver_config if options else None
    return Planned(
        mount.type,
        posixpath.normpath(mount.source) if mount.type == "bind" else mount.source,
        posixpath.normpath(mount.target),
        local_mode=LOCAL_LABEL if mount.type == "volume" else "",
        read_only=mount.read_only or mount.type == "image",
        propagation=mount.bind_options.propagation if mount.bind_options else "",
        no_copy=bool(options and options.no_copy),
        anonymous=mount.type == "volume" and not mount.source,
        spec=mount if mount.bind_options or mount.volume_options or mount.image_options else None,
        labels=dict((options.labels if options else None) or {}),
        driver=driver.name if driver else "",
        driver_options=dict((driver.options if driver else None) or {}),
    )


def _check_target(target: str) -> None:
    """Refuse what cannot be mounted at. dockerd takes a backslash for a slash here, as Windows does."""
    if not target:
        raise InvalidParameter("field Target must not be empty")
    if posixpath.normpath(target.replace("\\", "/")) in ("/", "//"):
        raise InvalidParameter("invalid specification: destination can't be '/'")
    _check_absolute(target)


def _check_absolute(path: str) -> None:
    if not path.replace("\\", "/").startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")


def _extra(name: str) -> InvalidParameter:
    return InvalidParameter(f"field {name} must not be specified")


def _check_bind(mount: Mount) -> None:
    if not mount.source:
        raise InvalidParameter("field Source must not be empty")
    options = mount.bind_options or BindOptions()
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise InvalidParameter(f"invalid propagation mode: {options.propagation}")
    _refuse(VolumeOptions=mount.volume_options, ImageOptions=mount.image_options)
    _check_absolute(mount.source)
    if not options.create_mountpoint and not Path(mount.source).exists():
        raise InvalidParameter(no_source(mount.source))


def no_source(source: str) -> str:
    """Word that the source of a bind mount is not there, as dockerd does."""
    return f"bind source path does not exist: {source}"


def _check_volume(mount: Mount) -> None:
    _refuse(BindOptions=mount.bind_options, ImageOptions=mount.image_options)
    subpath = mount.volume_options.subpath if mount.volume_options else ""
    if subpath and not mount.source:
        raise InvalidParameter("must not set Subpath when using anonymous volumes")
    _check_subpath(subpath)
    if mount.read_only and not mount.source:
        raise InvalidParameter("must not set ReadOnly mode when using anonymous volumes")


def _check_tmpfs(mount: Mount) -> None:
    _refuse(BindOptions=mount.bind_options, ImageOptions=mount.image_options, Source=mount.source)
    for option in (mount.tmpfs_options or TmpfsOptions()).options or ():
        if len(option) not in (1, 2):
            raise InvalidParameter("invalid option array length")
        if option[0] not in TMPFS_OPTIONS:
            raise InvalidParameter(f"invalid option: {option[0]}")


def _check_image(mount: Mount) -> None:
    _refuse(BindOptions=mount.bind_options, VolumeOptions=mount.volume_options)
    if not mount.source:
        raise InvalidParameter("field Source must not be empty")
    _check_subpath(mount.image_options.subpath if mount.image_options else "")


def _refuse(**fields: object) -> None:
    for name, value in fields.items():
        if value:
            raise _extra(name)


def _check_subpath(subpath: str) -> None:
    """Refuse a path that leads out by its own words (Go's `filepath.IsLocal`); links are for whoever opens it."""
    if subpath and (subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == ".."):
        raise InvalidParameter("subpath must be a relative path within the volume")


def shows(source: str, folder: Path) -> bool:
    """Tell whether a mount of `source` shows something of `folder`: lies in it, or contains it."""
    path = Path(source)
    return path.is_relative_to(folder) or folder.is_relative_to(path)
