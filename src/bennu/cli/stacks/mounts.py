"""The volumes of a service as the API's mounts."""

from collections.abc import Mapping
from typing import Any, Final

from bennu.cli.stacks.fields import size
from bennu.cli.stacks.objects import labelled, real_name

Dict = dict[str, Any]
KINDS: Final = ("volume", "bind", "tmpfs", "npipe", "cluster")
OPTIONS: Final = {"volume": "volume", "bind": "bind", "tmpfs": "tmpfs", "npipe": "bind", "cluster": "cluster"}


def mount(stack: str, volume: Dict, declared: Mapping[str, Dict]) -> Dict:
    """Raises: ValueError."""
    kind = volume.get("type") or "volume"
    if kind not in KINDS:
        raise ValueError("volume type must be volume, bind, tmpfs, npipe, or cluster")
    for option in dict.fromkeys(OPTIONS.values()):
        if volume.get(option) is not None and option != OPTIONS[kind]:
            raise ValueError(f"{option} options are incompatible with type {kind}")
    found: Dict = {"Type": kind, "Target": volume.get("target") or ""}
    if volume.get("source"):
        found["Source"] = volume["source"]
    if volume.get("read_only"):
        found["ReadOnly"] = True
    if kind == "volume":
        return _volume(stack, volume, declared, found)
    if kind == "tmpfs":
        if volume.get("source"):
            raise ValueError("invalid tmpfs source, source must be empty")
        if volume.get("tmpfs"):
            found["TmpfsOptions"] = {"SizeBytes": size(volume["tmpfs"].get("size") or 0)}
        return found
    if not volume.get("source"):
        raise ValueError(f"invalid {kind} source, source cannot be empty")
    if volume.get("bind"):
        found["BindOptions"] = {"Propagation": volume["bind"].get("propagation") or ""}
    return found


def _volume(stack: str, volume: Dict, declared: Mapping[str, Dict], found: Dict) -> Dict:
    source = volume.get("source")
    if not source:
        return found
    if source not in declared:
        raise ValueError(f'undefined volume "{source}"')
    item = declared[source]
    options: Dict = {"NoCopy": True} if (volume.get("volume") or {}).get("nocopy") else {}
    found["Source"] = real_name(stack, source, item)
    if not item.get("external"):
        options["Labels"] = labelled(stack, item.get("labels"))
        if item.get("driver") or item.get("driver_opts"):
            texts = {name: str(value) for name, value in (item.get("driver_opts") or {}).items()}
            options["DriverConfig"] = {"Name": item.get("driver") or "", "Options": texts}
    found["VolumeOptions"] = options
    return found
