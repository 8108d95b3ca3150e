"""Refuses mounts over a container's /proc or in it: masks and security labels are written there. runc's rule.

A target is what it is once its links are followed, as the container sees it: an image, or a volume that is mounted
before, can have a link there. Files that others are used to putting over those of the kernel may be.

Who shares a volume can change a link at any time. So `check_mounts` looks before anything is made, which gives the
words that tell what was asked for, and `check_mounted` at what came of it, before the program begins.
"""

import functools
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bennu.confined.tree import MAX_LINKS
from bennu.kernel.libc import PROC, kind_of_filesystem
from bennu.runtime.failures import RuntimeFailure, mount_failure

ALLOWED: Final = frozenset(
    {
        *("/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime"),
        *("/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid"),
        "/proc/sys/crypto/fips_enabled",
    }
)


def check_mounts(rootfs: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Check the mounts of an OCI configuration, in their order. Raises: RuntimeFailure in runc's words."""
    mounted: dict[str, str] = {}
    for entry in entries:
        target = real_target(rootfs, entry["destination"], mounted)
        if entry["type"] == "bind":
            mounted[target] = entry["source"]
        if (target == "/proc" or target.startswith("/proc/")) and not _may_lie_there(target, entry):
            raise _refusal(entry["source"], entry["destination"], f"{rootfs}{target}", target)


class Mounted(NamedTuple):
    """A mount of `mountinfo`: `root` is what of its file system lies at `target`."""

    device: str
    root: str
    target: str
    kind: str


def check_mounted(pid: int, spec: Mapping[str, Any]) -> None:
    """Check what a created process has in /proc. Raises: RuntimeFailure in runc's words; OSError if it is gone."""
    mount = find_misplaced(mounted_in_proc(pid), spec["linux"]["maskedPaths"])
    if mount is not None:
        raise _refusal(mount.root, mount.target, f"{spec['root']['path']}{mount.target}", mount.target)


def find_misplaced(found: Iterable[Mounted], masked: Iterable[str]) -> Mounted | None:
    """Find a mount that must not be there, or what stands for a missing /proc; None: all is well."""
    bases = [mount for mount in found if mount.target == "/proc"]
    if wrong := [mount for mount in bases if mount.kind != "proc"]:
        return wrong[0]
    if not bases:
        return Mounted("", "proc", "/proc", "")
    allowed = {_without_links(posixpath.normpath(path)) for path in (*ALLOWED, *masked)}
    strange = [mount for mount in found if mount not in bases and not _may_stay(mount, bases[-1], allowed)]
    hosts = mounted_in_proc("self") if strange else ()  # who is given the host's /proc gets what lies in it
    return next((mount for mount in strange if mount not in hosts), None)


def mounted_in_proc(pid: int | str) -> list[Mounted]:
    """List the mounts at and below a process's /proc, in their order. Raises: OSError if it is gone."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_bytes().decode(errors="surrogateescape").split("\n"):
        place, _, system = line.partition(" - ")
        if " /proc" in place:
            _, _, device, root, target, *_ = place.split(" ")
            if target == "/proc" or target.startswith("/proc/"):
                found.append(Mounted(device, root, target, system.partition(" ")[0]))
    return found


def _may_stay(mount: Mounted, base: Mounted, allowed: Collection[str]) -> bool:
    """Allow a piece of /proc over itself (read-only paths), a mask, and files that others put there."""
    over_itself = mount.device == base.device and mount.target == f"/proc{mount.root}"
    return over_itself or _without_links(mount.target) in allowed


@functools.lru_cache(256)  # nearly all are those of every container
def _without_links(path: str) -> str:
    """Follow the kernel's own links in /proc, so that there is one name: `self` for each process, `net` in it."""
    path = re.sub(r"^/proc/(thread-self|\d+(/task/\d+)?)(?=/|$)", "/proc/self", path)
    return re.sub(r"^/proc/(net|mounts)(?=/|$)", r"/proc/self/\1", path)


def _refusal(source: str, destination: str, place: str, target: str) -> RuntimeFailure:
    why = "it is not of type proc" if target == "/proc" else "it is inside /proc"
    return mount_failure(source, destination, f'"{place}" cannot be mounted because {why}')


def _may_lie_there(target: str, entry: Mapping[str, Any]) -> bool:
    if target != "/proc":
        return target in ALLOWED
    return entry["type"] == "proc" or (entry["type"] == "bind" and kind_of_filesystem(Path(entry["source"])) == PROC)


def real_target(rootfs: Path, path: str, mounted: Mapping[str, str]) -> str:
    """Follow a path inside the root once `mounted` (target → source) are in place. What is missing is no link."""
    done: list[str] = []
    pending = path.split("/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        link = _read_link(_on_host(rootfs, [*done, part], mounted))
        links += link != ""
        if not link or links > MAX_LINKS:
            done.append(part)
            continue
        if link.startswith("/"):
            done = []
        pending += link.split("/")[::-1]
    return "/" + "/".join(done)


def _on_host(rootfs: Path, parts: list[str], mounted: Mapping[str, str]) -> Path:
    """Answer where on the host a path lies whose parents are no links."""
    for count in range(len(parts) - 1, 0, -1):
        if source := mounted.get("/" + "/".join(parts[:count])):
            return Path(source, *parts[count:])
    return rootfs.joinpath(*parts)


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
