"""`-v`, `--mount`, `--tmpfs` and `--device` turned into what the API takes."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.values import parse_size

BIND_KEYS: Final = {"bind-propagation": "Propagation"}
VOLUME_LIST_KEYS: Final = {"volume-label", "volume-opt"}


def split_volumes(entries: Iterable[str]) -> tuple[list[str], list[str]]:
    """`-v` entries as (binds, anonymous volumes). A relative host path becomes absolute."""
    binds, anonymous = [], []
    for entry in entries:
        source, colon, rest = entry.partition(":")
        if not colon:
            anonymous.append(entry)
            continue
        if source.startswith((".", "~")):
            source = str(Path(source).expanduser().absolute() if source != "." else Path.cwd())
            source = str(Path(source).resolve(strict=False)) if ".." in Path(source).parts else source
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def parse_tmpfs(entries: Iterable[str]) -> dict[str, str]:
    return {path: options for path, _, options in (entry.partition(":") for entry in entries)}


def parse_device(text: str) -> dict[str, str]:
    parts = text.split(":")
    inside, permissions = parts[0], "rwm"
    if len(parts) == 3:
        inside, permissions = parts[1], parts[2]
    elif len(parts) == 2:
        if is_permissions(parts[1]):
            permissions = parts[1]
        else:
            inside = parts[1]
    elif len(parts) > 3:
        raise Failure(f"bad format for path: {text}")
    if not parts[0].startswith("/"):
        raise Failure(f"{parts[0]} is not an absolute path")
    return {"PathOnHost": parts[0], "PathInContainer": inside or parts[0], "CgroupPermissions": permissions}


def is_permissions(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def parse_mount(text: str) -> dict[str, Any]:
    """One `--mount type=…,source=…,target=…` entry."""
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise ValueError("EOF") from None
    mount: dict[str, Any] = {"Type": "volume"}
    for entry in fields:
        name, equals, value = entry.partition("=")
        name = name.strip().lower()
        if not equals and name not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
            raise ValueError(f"invalid field '{entry}' must be a key=value pair")
        set_mount_field(mount, name, value if equals else "true", entry)
    check_mount(mount)
    return mount


def set_mount_field(mount: dict[str, Any], name: str, value: str, entry: str) -> None:
    if name == "type":
        mount["Type"] = value.lower()
    elif name in ("source", "src"):
        relative = value.startswith((".", "~"))
        mount["Source"] = str(Path(value).expanduser().resolve(strict=False)) if relative else value
    elif name in ("target", "dst", "destination"):
        mount["Target"] = value
    elif name in ("readonly", "ro"):
        mount["ReadOnly"] = parse_bool(name, value)
    elif name == "consistency":
        mount["Consistency"] = value.lower()
    elif name.startswith("bind-"):
        set_bind_field(mount.setdefault("BindOptions", {}), name, value, entry)
    elif name.startswith("volume-"):
        set_volume_field(mount.setdefault("VolumeOptions", {}), name, value, entry)
    elif name.startswith("tmpfs-"):
        set_tmpfs_field(mount.setdefault("TmpfsOptions", {}), name, value, entry)
    else:
        raise ValueError(f"unexpected key '{name}' in '{entry}'")


def set_bind_field(options: dict[str, Any], name: str, value: str, entry: str) -> None:
    if name == "bind-propagation":
        options["Propagation"] = value.lower()
    elif name == "bind-nonrecursive":
        options["NonRecursive"] = parse_bool(name, value)
    elif name == "bind-recursive":
        if value == "disabled":
            options["NonRecursive"] = True
        elif value == "writable":
            options["ReadOnlyNonRecursive"] = True
        elif value == "readonly":
            options["ReadOnlyForceRecursive"] = True
        elif value != "enabled":
            raise ValueError(f'invalid value for {name}: {value} (must be "enabled", "disabled", "writable", …)')
    elif name == "bind-create-src":
        options["CreateMountpoint"] = parse_bool(name, value)
    else:
        raise ValueError(f"unexpected key '{name}' in '{entry}'")


def set_volume_field(options: dict[str, Any], name: str, value: str, entry: str) -> None:
    if name == "volume-nocopy":
        options["NoCopy"] = parse_bool(name, value)
    elif name == "volume-subpath":
        options["Subpath"] = value
    elif name == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif name in VOLUME_LIST_KEYS:
        key, _, text = value.partition("=")
        if name == "volume-label":
            options.setdefault("Labels", {})[key] = text
        else:
            options.setdefault("DriverConfig", {}).setdefault("Options", {})[key] = text
    else:
        raise ValueError(f"unexpected key '{name}' in '{entry}'")


def set_tmpfs_field(options: dict[str, Any], name: str, value: str, entry: str) -> None:
    try:
        if name == "tmpfs-size":
            options["SizeBytes"] = parse_size(value)
        elif name == "tmpfs-mode":
            options["Mode"] = int(value, 8)
        else:
            raise ValueError(f"unexpected key '{name}' in '{entry}'")
    except ValueError as error:
        if str(error).startswith("unexpected"):
            raise
        raise ValueError(f"invalid value for {name}: {value}") from None


def parse_bool(name: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true", ""):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise ValueError(f"invalid value for {name}: {value}")


def check_mount(mount: dict[str, Any]) -> None:
    kind = mount["Type"]
    if not kind:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, owner in (("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")):
        if options in mount and kind != owner:
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
