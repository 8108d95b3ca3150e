"""Images as clients see them: list, inspect, history."""

from typing import Any, Final

from bennu.api.shapes.inspect import STORAGE_DRIVER
from bennu.go.rfc3339 import format_rfc3339
from bennu.images import Image, Images
from bennu.images.image import parse_time
from bennu.images.importing import EMPTY_CONFIG

Json = dict[str, Any]
NO_NAME: Final = "<none>:<none>"
# The order of Docker's container configuration; those that are not in EMPTY_CONFIG appear only when set.
CONFIG_KEYS: Final = (
    *("Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "ExposedPorts", "Tty"),
    *("OpenStdin", "StdinOnce", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Image", "Volumes", "WorkingDir"),
    *("Entrypoint", "OnBuild", "Labels", "StopSignal", "StopTimeout", "Shell"),
)
# What belongs to one container and not to an image of it.
NOT_OF_IMAGES: Final = frozenset(
    (
        *("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"),
        *("Image", "NetworkDisabled", "MacAddress", "StopTimeout"),
    )
)


def list_entry(image: Image, minor: int, *, containers: int = -1, shared_bytes: int = -1) -> Json:
    """Write one entry of `GET /images/json` for a client of API 1.`minor`; -1: not counted."""
    tags, digests = list(image.repo_tags), list(image.repo_digests)
    if minor < 43 and not tags and not digests:
        tags, digests = [NO_NAME], [NO_NAME.replace(":", "@")]
    entry: Json = {
        "Containers": containers,
        "Created": image.created_ns // 10**9,
        "Id": image.id,
        "Labels": image.config.labels,
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared_bytes,
        "Size": image.size,
    }
    return entry | ({"VirtualSize": image.size} if minor < 44 else {})


def inspect_json(images: Images, image: Image, minor: int, *, for_old_compose: bool = False) -> Json:
    """Write `GET /images/NAME/json` for API 1.`minor`; docker-compose 1 reads old keys whatever it speaks."""
    raw = image.raw
    document: Json = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": str(raw.get("comment") or _last_comment(raw)),
    }
    if raw.get("created") or minor < 44:
        document["Created"] = format_rfc3339(image.created_ns)
    if minor < 45 or for_old_compose:
        config = raw.get("container_config") or {}
        document |= {
            "Container": str(raw.get("container") or ""),
            "ContainerConfig": config_json({"config": config}, minor),
        }
    document |= {
        "DockerVersion": str(raw.get("docker_version") or ""),
        "Author": str(raw.get("author") or ""),
        "Config": config_json(raw, minor),
        "Architecture": image.architecture,
    }
    document |= {"Variant": raw["variant"]} if raw.get("variant") else {}
    document["Os"] = image.os
    document |= {"OsVersion": raw["os.version"]} if raw.get("os.version") else {}
    document["Size"] = image.size
    document |= {"VirtualSize": image.size} if minor < 44 else {}
    return document | {
        "GraphDriver": {"Data": _layer_folders(images, image), "Name": STORAGE_DRIVER},
        "RootFS": {"Type": "layers"} | ({"Layers": image.diff_ids} if image.diff_ids else {}),
        "Metadata": {"LastTagTime": format_rfc3339(image.last_tag_ns) if image.last_tag_ns else "0001-01-01T00:00:00Z"},
    }


def config_json(raw: Json, minor: int) -> Json:
    """Write the configuration; from API 1.50 on without what belongs to containers alone."""
    given = raw.get("config") or {}
    return {
        key: given[key] if given.get(key) is not None else EMPTY_CONFIG[key]
        for key in CONFIG_KEYS
        if (given.get(key) is not None or key in EMPTY_CONFIG) and (minor < 50 or key not in NOT_OF_IMAGES)
    }


def _last_comment(raw: Json) -> str:
    history = raw.get("history") or []
    return str(history[-1].get("comment") or "") if history and isinstance(history[-1], dict) else ""


def _layer_folders(images: Images, image: Image) -> Json:
    folders = [images.layers.root / images.layers.lower_of(diff_id) for diff_id in reversed(image.diff_ids)]
    if not folders:
        return {}
    lower = {"LowerDir": ":".join(map(str, folders[1:]))} if folders[1:] else {}
    top = folders[0].parent
    return lower | {"MergedDir": f"{top}/merged", "UpperDir": str(folders[0]), "WorkDir": f"{top}/work"}


def history_json(images: Images, image: Image) -> list[Json]:
    """Write the history, newest step first; layers without a recorded step get one without words."""
    steps = [step for step in image.raw.get("history") or [] if isinstance(step, dict)]
    sizes = [layer.size if (layer := images.layers.get(diff_id)) else 0 for diff_id in image.diff_ids]
    entries: list[Json] = []
    for step in steps:
        entries.append(
            {
                "Comment": str(step.get("comment") or ""),
                "Created": parse_time(step.get("created")) // 10**9,
                "CreatedBy": str(step.get("created_by") or ""),
                "Id": "<missing>",
                "Size": 0 if step.get("empty_layer") or not sizes else sizes.pop(0),
                "Tags": None,
            }
        )
    known: Image | None = image
    while known is not None:  # an ancestor made the first steps; its own is the last of those
        length = len(known.raw.get("history") or [])
        if 0 < length <= len(entries):
            entries[length - 1] |= {"Id": known.id, "Tags": known.repo_tags or None}
        known = images.get(known.parent) if known.parent else None
    return entries[::-1]
