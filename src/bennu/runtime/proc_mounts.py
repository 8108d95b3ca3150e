"""Nothing is mounted over a container's /proc or in it: masks and security labels are written there. runc's rule.

A target is what it is once its links are followed, as the container sees it: an image, or a volume that is mounted
before, can have a link there. Files that others are used to putting over those of the kernel may be.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bennu.confined.tree import MAX_LINKS
from bennu.runtime.failures import mount_failure
from bennu.runtime.filesystems import PROC, kind_of_filesystem

ALLOWED: Final = frozenset(
    {
        *("/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime"),
        *("/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid"),
        "/proc/sys/crypto/fips_enabled",
    }
)


def check_mounts(rootfs: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Look at the mounts of an OCI configuration, in their order. Raises: RuntimeFailure in runc's words."""
    mounted: dict[str, str] = {}
    for entry in entries:
        target = real_target(rootfs, entry["destination"], mounted)
        if entry["type"] == "bind":
            mounted[target] = entry["source"]
        if (target == "/proc" or target.startswith("/proc/")) and not _may_lie_there(target, entry):
            why = "it is not of type proc" if target == "/proc" else "it is inside /proc"
            reason = f'"{rootfs}{target}" cannot be mounted because {why}'
            raise mount_failure(entry["source"], entry["destination"], reason)


def _may_lie_there(target: str, entry: Mapping[str, Any]) -> bool:
    if target != "/proc":
        return target in ALLOWED
    return entry["type"] == "proc" or (entry["type"] == "bind" and kind_of_filesystem(Path(entry["source"])) == PROC)


def real_target(rootfs: Path, path: str, mounted: Mapping[str, str]) -> str:
    """Where a path leads inside the root once `mounted` (target → source) are in place. What is missing is no link."""
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
    """The place on the host of a path whose parents are no links."""
    for count in range(len(parts) - 1, 0, -1):
        if source := mounted.get("/" + "/".join(parts[:count])):
            return Path(source, *parts[count:])
    return rootfs.joinpath(*parts)


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
