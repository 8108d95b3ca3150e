"""Decides what is mounted in a container: default file systems, the client's mounts, the engine's files. Pure."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bennu.errors import BennuError
from bennu.model import BindOptions, HostConfig, Mount, MountPoint

INIT_PATH: Final = "/sbin/docker-init"
DEFAULT_SHM_BYTES: Final = 64 << 20
RECURSIVE_READ_ONLY: Final = (5, 12)  # the first Linux that has mount_setattr(2)
_SHARED: Final = frozenset({"shared", "rshared"})
_SLAVE: Final = frozenset({"slave", "rslave"})

Entry = dict[str, Any]


def default_mounts(*, privileged: bool, shm: Entry | None) -> list[Entry]:
    """List the file systems that every container has, in mounting order. `shm` None: no /dev/shm.

    A fresh mqueue shows the queues of the IPC namespace that it is mounted in, be that the host's or another's.
    """
    access = "rw" if privileged else "ro"
    secure = ["nosuid", "noexec", "nodev"]
    mounts = [
        _entry("/proc", "proc", "proc", secure),
        _entry("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _entry(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _entry("/sys", "sysfs", "sysfs", [*secure, access]),
        _entry("/sys/fs/cgroup", "cgroup", "cgroup", [access, *secure]),
        _entry("/dev/mqueue", "mqueue", "mqueue", secure),
    ]
    return [*mounts, shm] if shm is not None else mounts


def private_shm(size_bytes: int) -> Entry:
    """Describe a /dev/shm of the container's own."""
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={size_bytes or DEFAULT_SHM_BYTES}"]
    return _entry("/dev/shm", "tmpfs", "shm", options)


def joined_shm(source: str) -> Entry:
    """Describe the /dev/shm of the host or of another container."""
    return bind_entry(source, "/dev/shm", read_only=False)


def bind_entry(source: str, target: str, *, read_only: bool, propagation: str = "rprivate") -> Entry:
    return _entry(target, "bind", source, ["rbind", "ro" if read_only else "rw", propagation or "rprivate"])


def client_mounts(points: Sequence[MountPoint], host: HostConfig, kernel: tuple[int, int]) -> list[Entry]:
    """List the client's binds, volumes, images and tmpfs, parents before children. Raises: BennuError."""
    entries = [_point(point, kernel) for point in points if point.type != "tmpfs"]
    asked = [mount for mount in (host.mounts or ()) if mount.type == "tmpfs"]
    entries += [_typed_tmpfs(posixpath.normpath(mount.target), mount) for mount in asked]
    tmpfs = host.tmpfs if isinstance(host.tmpfs, dict) else {}
    entries += [tmpfs_entry(posixpath.normpath(target), options) for target, options in (tmpfs or {}).items()]
    return parents_first(entries)


def parents_first(entries: Sequence[Entry]) -> list[Entry]:
    """Order mounts so that one inside of another comes after it."""
    return sorted(entries, key=lambda entry: entry["destination"].rstrip("/").count("/"))


def _point(point: MountPoint, kernel: tuple[int, int]) -> Entry:
    entry = bind_entry(point.source, point.destination, read_only=not point.rw, propagation=point.propagation)
    bind = (point.spec.bind_options if point.spec else None) or BindOptions()
    _check_read_only(point, bind, kernel)
    if bind.non_recursive:
        # crun takes the "recursively" of any word for all of them; with nothing below, both words say the same.
        entry["options"] = ["bind", entry["options"][1], (point.propagation or "rprivate").removeprefix("r")]
    elif not point.rw and not bind.read_only_non_recursive and kernel >= RECURSIVE_READ_ONLY:
        entry["options"].append("rro")
    return entry


def _check_read_only(point: MountPoint, bind: BindOptions, kernel: tuple[int, int]) -> None:
    """Check options that say how far read-only goes. Raises: BennuError with dockerd's words."""
    conflict = "mount options conflict: "
    asked_writable = not point.spec.read_only if point.spec else False
    for name, value in (
        ("ReadOnlyNonRecursive", bind.read_only_non_recursive),
        ("ReadOnlyForceRecursive", bind.read_only_force_recursive),
    ):
        if value and asked_writable:
            raise BennuError(f"{conflict}!ReadOnly && BindOptions.{name}")
    if bind.read_only_non_recursive and bind.read_only_force_recursive:
        raise BennuError(f"{conflict}ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    if bind.read_only_force_recursive and kernel < RECURSIVE_READ_ONLY:
        raise BennuError("recursive read-only mounts need Linux 5.12 or later (mount_setattr)")


def _typed_tmpfs(target: str, mount: Mount) -> Entry:
    """Describe a `--mount type=tmpfs`."""
    words = ["ro"] if mount.read_only else []
    options = mount.tmpfs_options
    if options is not None:
        words += [f"size={options.size_bytes}"] if options.size_bytes else []
        words += [f"mode={options.mode:o}"] if options.mode else []
        words += ["=".join(option) for option in options.options or ()]
    return tmpfs_entry(target, ",".join(words))


# Pairs that undo each other; the later word wins.
_OPPOSITES: Final = {
    frozenset(pair)
    for pair in (
        *(("ro", "rw"), ("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec"), ("sync", "async")),
        *(("atime", "noatime"), ("diratime", "nodiratime"), ("relatime", "norelatime")),
        *(("strictatime", "nostrictatime"), ("mand", "nomand"), ("dirsync", "nodirsync")),
    )
}
_FLAGS: Final = frozenset().union(*_OPPOSITES) | {"defaults", "bind", "rbind", "nosymfollow"}
_VALUES: Final = frozenset({"mode", "uid", "gid", "size", "nr_blocks", "nr_inodes", "mpol", "huge"})


def tmpfs_entry(target: str, options: str) -> Entry:
    """Describe a tmpfs with Docker's cautious defaults under the client's options.

    Raises: BennuError with dockerd's words.
    """
    chosen: dict[Any, str] = {}
    for word in ["noexec", "nosuid", "nodev", *(word for word in options.split(",") if word)]:
        name, equals, value = word.partition("=")
        if not (name in _VALUES and value if equals else name in _FLAGS):
            raise BennuError(f'invalid tmpfs option "{name}"')
        key = name if equals else next((pair for pair in _OPPOSITES if name in pair), name)
        chosen.pop(key, None)
        chosen[key] = word
    return _entry(target, "tmpfs", "tmpfs", list(chosen.values()))


def merge_mounts(defaults: Iterable[Entry], clients: Sequence[Entry]) -> list[Entry]:
    """Let the client's mounts take the place of defaults; a client's /dev replaces everything below it."""
    targets = {entry["destination"] for entry in clients}
    kept = [
        entry
        for entry in defaults
        if entry["destination"] not in targets and not ("/dev" in targets and entry["destination"].startswith("/dev/"))
    ]
    return [*kept, *clients]


def root_propagation(entries: Iterable[Mapping[str, Any]]) -> str:
    """Answer what the container's root must be for its mounts to propagate; "" if none does."""
    words = {word for entry in entries for word in entry["options"]}
    if words & _SHARED:
        return "shared"
    return "rslave" if words & _SLAVE else ""


def _entry(target: str, kind: str, source: str, options: Sequence[str]) -> Entry:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}
