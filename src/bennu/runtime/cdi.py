"""Container Device Interface: devices that a vendor's files describe, put into a container's OCI configuration.

The files and what they change are those of the CDI specification (github.com/cncf-tags/container-device-interface,
`SPEC.md`). A device is asked for as `vendor.com/class=name`; where several folders have it, the last one is right.
"""

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.errors import BennuError
from bennu.model import DeviceRequest

DRIVER: Final = "cdi"
HOOKS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
log = logging.getLogger(__name__)


class CdiShape(msgspec.Struct, rename="camel"):
    """Base of what CDI files hold."""


class CdiNode(CdiShape):
    """A device node; what is left out is as on the host."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(CdiShape):
    host_path: str
    container_path: str
    options: list[str] | None = None
    type: str = ""


class CdiHook(CdiShape):
    """A program that the OCI runtime calls; `timeout` in seconds."""

    hook_name: str
    path: str
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: int | None = None


class CdiEdits(CdiShape):
    """What a device changes in a container."""

    env: list[str] | None = None
    device_nodes: list[CdiNode] | None = None
    mounts: list[CdiMount] | None = None
    hooks: list[CdiHook] | None = None
    additional_gids: list[int] | None = None
    intel_rdt: dict[str, Any] | None = None


class CdiDevice(CdiShape):
    name: str
    container_edits: CdiEdits = msgspec.field(default_factory=CdiEdits)


class CdiSpec(CdiShape):
    """One file: devices of one kind, and what all of them change."""

    kind: str
    devices: list[CdiDevice]
    container_edits: CdiEdits = msgspec.field(default_factory=CdiEdits)


class Found(msgspec.Struct, frozen=True):
    """A device, and the file that it is from."""

    path: Path
    spec: CdiSpec
    device: CdiDevice


def read_cdi_devices(folders: Sequence[str]) -> dict[str, Found]:
    """Read all devices that the folders' files describe, by name. Blocks. A broken file is logged and passed over."""
    found: dict[str, Found] = {}
    for folder in folders:
        here: dict[str, Found] = {}
        twice: set[str] = set()
        for path, spec in _read_folder(Path(folder)):
            for device in spec.devices:
                name = f"{spec.kind}={device.name}"
                if name in here:
                    twice.add(name)
                    log.warning(
                        "CDI device %s is both in %s and in %s: none of them is right", name, here[name].path, path
                    )
                here[name] = Found(path, spec, device)
        found |= here
        for name in twice:
            del found[name]
    return found


def _read_folder(folder: Path) -> Iterator[tuple[Path, CdiSpec]]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml"))
    except OSError:
        return
    for path in paths:
        try:
            yield path, _read_spec(path)
        except (OSError, BennuError, ValueError, msgspec.DecodeError, RecursionError) as error:
            log.warning("CDI file %s: %s", path, error)


def _read_spec(path: Path) -> CdiSpec:
    if not path.is_file():  # a pipe or device would be read without end
        raise BennuError("it is no regular file")
    text = path.read_bytes()
    if path.suffix == ".json":
        return msgspec.json.decode(text, type=CdiSpec)
    try:
        return msgspec.yaml.decode(text, type=CdiSpec)
    except ImportError:
        raise BennuError("it is YAML, which needs the Python package pyyaml (apt-get install python3-yaml)") from None


def inject_devices(spec: dict[str, Any], requests: Sequence[DeviceRequest], folders: Sequence[str]) -> None:
    """Put what was requested into an OCI configuration. Blocks. Raises: BennuError in dockerd's words."""
    for request in requests:
        if request.driver != DRIVER:
            wanted = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ())
            raise BennuError(f'could not select device driver "{request.driver}" with capabilities: [{wanted}]')
        if request.count:
            raise BennuError("unexpected count in CDI device request")
        if request.options:
            raise BennuError("unexpected options in CDI device request")
        names = request.device_ids or []
        if names and not folders:
            raise BennuError("CDI device injection failed: no CDI specification directories specified")
        known = read_cdi_devices(folders) if names else {}
        if missing := [name for name in names if name not in known]:
            raise BennuError(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
        apply_devices(spec, [known[name] for name in names])


def apply_devices(spec: dict[str, Any], devices: Sequence[Found]) -> None:
    """Change an OCI configuration for these devices; what a file says for all of its own is done once."""
    done: set[Path] = set()
    for one in devices:
        if one.path not in done:
            done.add(one.path)
            _apply(spec, one.spec.container_edits)
        _apply(spec, one.device.container_edits)


def _apply(spec: dict[str, Any], edits: CdiEdits) -> None:
    process = spec["process"]
    for entry in edits.env or ():
        name = entry.partition("=")[0]
        process["env"] = [known for known in process["env"] if known.partition("=")[0] != name] + [entry]
    for node in edits.device_nodes or ():
        _add_node(spec, node)
    for mount in edits.mounts or ():
        _add_mount(spec, mount)
    for hook in edits.hooks or ():
        _add_hook(spec, hook)
    if edits.additional_gids:
        known_gids = process["user"].setdefault("additionalGids", [])
        known_gids += [gid for gid in dict.fromkeys(edits.additional_gids) if gid and gid not in known_gids]
    if edits.intel_rdt:
        spec["linux"]["intelRdt"] = edits.intel_rdt


def _add_node(spec: dict[str, Any], node: CdiNode) -> None:
    kind, major, minor, mode = node.type, node.major, node.minor, node.file_mode
    if not kind or (not major and kind != "p"):
        kind, major, minor, mode = _look_at(node.host_path or node.path, kind, mode)
    entry: dict[str, Any] = {"path": node.path, "type": kind, "major": major, "minor": minor}
    user = spec["process"]["user"]
    for name, own in (("uid", node.uid), ("gid", node.gid)):
        if own is not None or user.get(name):
            entry[name] = user[name] if own is None else own
    if mode is not None:
        entry["fileMode"] = mode
    linux = spec["linux"]
    linux["devices"] = [known for known in linux.get("devices", []) if known["path"] != node.path] + [entry]
    if kind in ("b", "c"):
        rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": node.permissions or "rwm"}
        linux["resources"].setdefault("devices", []).append(rule)


def _look_at(path: str, kind: str, mode: int | None) -> tuple[str, int, int, int | None]:
    """Look a node up on the host. Raises: BennuError where it is none, or of another type than the file says."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a link leads to the device
    except OSError as error:
        raise BennuError(f"CDI device injection failed: failed to stat CDI host device {path}: {error}") from None
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
    is_kind = kinds.get(stat.S_IFMT(found.st_mode), "")
    if not is_kind or kind not in ("", "u" if is_kind == "c" else is_kind, is_kind):
        raise BennuError(f'CDI device injection failed: CDI device {path} is not a device of type "{kind or "c"}"')
    own = stat.S_IMODE(found.st_mode) if mode is None else mode
    return is_kind, os.major(found.st_rdev), os.minor(found.st_rdev), own


def _add_mount(spec: dict[str, Any], mount: CdiMount) -> None:
    entry = {
        "destination": mount.container_path,
        "type": mount.type or "bind",
        "source": mount.host_path,
        "options": list(mount.options or ["rbind"]),
    }
    others = [known for known in spec["mounts"] if known["destination"] != mount.container_path]
    spec["mounts"] = sorted([*others, entry], key=lambda known: known["destination"].rstrip("/").count("/"))


def _add_hook(spec: dict[str, Any], hook: CdiHook) -> None:
    if hook.hook_name not in HOOKS:
        raise BennuError(f'CDI device injection failed: unknown hook name "{hook.hook_name}"')
    entry: dict[str, Any] = {"path": hook.path}
    for name, value in (("args", hook.args), ("env", hook.env), ("timeout", hook.timeout)):
        if value is not None:
            entry[name] = value
    spec.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(entry)
