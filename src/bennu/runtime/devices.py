"""Gives device nodes to a container, with the rules of its device control group (moby `oci/devices_linux.go`)."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.errors import BennuError
from bennu.model import Device
from bennu.runtime.failures import RuntimeFailure

_RULE: Final = re.compile(r"^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})\Z")
_NOT_A_DEVICE_DIR: Final = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device of this host, and where it goes. `type` is c or b; `access` is some of rwm."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


def read_devices(devices: Sequence[Device]) -> list[DeviceNode]:
    """Look up what `HostConfig.Devices` names; a directory means all devices below it. Blocking.

    Raises: RuntimeFailure (128) in dockerd's words.
    """
    return [node for device in devices for node in _read_device(device)]


def _read_device(device: Device) -> list[DeviceNode]:
    source, access = device.path_on_host, device.cgroup_permissions or "rwm"
    target = device.path_in_container or source
    what = f'error gathering device information while adding custom device "{source}": '
    try:
        if not source:  # would be the folder that bennud was started in, with all that is in it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        real = Path(source).resolve(strict=True)
        if real.is_dir():
            found = list(_below(real, target, access, everything=True))
        else:
            found = [node for node in (_node(real, target, access),) if node is not None]
    except OSError as error:
        raise RuntimeFailure(what + (error.strerror or "").lower(), 128) from error
    if not found:
        raise RuntimeFailure(what + "not a device node", 128)
    return found


def read_all_devices() -> list[DeviceNode]:
    """Read every device of this host, for privileged containers. Blocking."""
    return list(_below(Path("/dev"), "/dev", "rwm", everything=False))


def _below(folder: Path, target: str, access: str, *, everything: bool) -> Iterator[DeviceNode]:
    """List the devices below, without recursion: the folder may be a stranger's, and as deep as can be."""
    ahead = [(folder, target)]
    while ahead:
        folder, target = ahead.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            where = f"{target.rstrip('/')}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if everything or entry.name not in _NOT_A_DEVICE_DIR:
                    ahead.append((Path(entry.path), where))
            elif entry.name != "console" and not entry.is_symlink():
                node = _node(Path(entry.path), where, access)
                if node is not None:
                    yield node


def _node(path: Path, target: str, access: str) -> DeviceNode | None:
    found = path.lstat()
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    return DeviceNode(
        path=target,
        type="c" if stat.S_ISCHR(found.st_mode) else "b",
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        access=access,
    )


def device_entries(nodes: Iterable[DeviceNode]) -> list[dict[str, Any]]:
    """Write `linux.devices` of an OCI configuration. Pure."""
    return [
        {
            "path": node.path,
            "type": node.type,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node in nodes
    ]


def device_rules(nodes: Iterable[DeviceNode], rules: Iterable[str], *, privileged: bool) -> list[dict[str, Any]]:
    """Write `linux.resources.devices` of an OCI configuration. Pure. Raises: BennuError for a malformed rule."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    allowed: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    allowed += [_allow("c", None, None, "m"), _allow("b", None, None, "m")]
    allowed += [_allow("c", major, minor, "rwm") for major, minor in _DEFAULT_DEVICES]
    allowed += [_allow(node.type, node.major, node.minor, node.access) for node in nodes]
    return allowed + [parse_device_rule(rule) for rule in rules]


# null zero full random urandom tty console, all pts, ptmx. Making any other node is allowed, using it is not.
_DEFAULT_DEVICES: Final = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (136, None), (5, 2))


def _allow(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def parse_device_rule(text: str) -> dict[str, Any]:
    """Read `c 1:3 rwm`, with `*` for any number. Pure. Raises: BennuError.

    As moby `oci/oci.go`; pinned by `test_spec.py`.
    """
    match = _RULE.match(text)
    if match is None:
        raise BennuError(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    return _allow(kind, None if major == "*" else int(major), None if minor == "*" else int(minor), access)
