"""The forms that compose allows for one field, each brought into one shape.

All raise `ValueError` with what is wrong; the caller says where.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any, Final

from bennu.cli.ports import parse_range
from bennu.cli.values import parse_duration, parse_size

WINDOWS_DRIVE: Final = re.compile(r"[a-zA-Z]:[\\/]")
BIND_MODES: Final = frozenset({"shared", "slave", "private", "rshared", "rslave", "rprivate"})


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def number(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise ValueError("must be an integer")
    return int(value)


def ratio(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError("must be a number") from None


def truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("must be a boolean")


def duration(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return parse_duration(value)


def size(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_size(text(value))


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")
    return value


def entries(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("must be a list")
    return value


def texts(value: Any) -> list[str]:
    """A text or a list of them."""
    return [value] if isinstance(value, str) else [text(part) for part in entries(value)]


def shell_words(value: Any) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else [text(part) for part in entries(value)]


def pairs(value: Any) -> dict[str, str]:
    """A mapping, or a list of `name=value`."""
    if isinstance(value, dict):
        return {name: text(part) for name, part in value.items()}
    return dict(text(entry).partition("=")[::2] for entry in entries(value))


def environment(value: Any) -> dict[str, str | None]:
    """As `pairs`; None: the value is that of the client's environment."""
    if isinstance(value, dict):
        return {name: None if part is None else text(part) for name, part in value.items()}
    found: dict[str, str | None] = {}
    for entry in map(text, entries(value)):
        name, equals, part = entry.partition("=")
        found[name] = part if equals else None
    return found


def hosts(value: Any) -> list[str]:
    """`name:address` each."""
    if isinstance(value, dict):
        return sorted(f"{name}:{text(part)}" for name, part in value.items() if part is not None)
    return [text(entry) for entry in entries(value)]


def check_test(value: Any) -> list[str]:
    return ["CMD-SHELL", value] if isinstance(value, str) else [text(part) for part in entries(value)]


def ulimits(value: Any) -> dict[str, Any]:
    found = {}
    for name, part in mapping(value).items():
        soft, hard = (part.get("soft"), part.get("hard")) if isinstance(part, dict) else (part, part)
        found[name] = {"Name": name, "Soft": number(soft), "Hard": number(hard)}
    return found


def networks(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {text(name): {} for name in value}
    return {name: part or {} for name, part in mapping(value).items()}


def reference(value: Any) -> dict[str, Any]:
    """A secret or config that a service uses."""
    return {"source": value} if isinstance(value, str) else dict(mapping(value))


def references(value: Any) -> list[dict[str, Any]]:
    return [reference(entry) for entry in entries(value)]


def ports(value: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in entries(value):
        found += [long_port(entry)] if isinstance(entry, dict) else short_ports(text(entry))
    return found


def long_port(entry: dict[str, Any]) -> dict[str, Any]:
    if "target" not in entry:
        raise ValueError("missing mandatory field 'target'")
    return {
        "Protocol": text(entry.get("protocol")) or "tcp",
        "TargetPort": number(entry["target"]),
        "PublishedPort": number(entry.get("published") or 0),
        "PublishMode": text(entry.get("mode")) or "ingress",
    }


def short_ports(entry: str) -> list[dict[str, Any]]:
    """`[[address:]published:]target[/protocol]`, each of them a number or a range."""
    words, _, protocol = entry.partition("/")
    *before, target = words.split(":")
    if len(before) > 1:
        raise ValueError("hostip is not supported")
    first, last = parse_range(target, "container")
    count = last - first + 1
    published = [0] * count
    if before and before[0]:
        begin, end = parse_range(before[0], "host")
        if end - begin + 1 != count:
            raise ValueError(f"invalid ranges specified for container and host Ports: {target} and {before[0]}")
        published = list(range(begin, end + 1))
    return [
        {
            "Protocol": protocol or "tcp",
            "TargetPort": first + n,
            "PublishedPort": published[n],
            "PublishMode": "ingress",
        }
        for n in range(count)
    ]


def volumes(value: Any, folder: Path) -> list[dict[str, Any]]:
    """Long forms; the sources of binds are absolute, seen from the file's folder."""
    found = []
    for entry in entries(value):
        volume = dict(entry) if isinstance(entry, dict) else short_volume(text(entry))
        if volume.get("type") == "bind":
            if not volume.get("source"):
                raise ValueError('invalid mount config for type "bind": field Source must not be empty')
            volume["source"] = os.path.normpath(folder / Path(text(volume["source"])).expanduser())
        found.append(volume)
    return found


def short_volume(entry: str) -> dict[str, Any]:
    """`[source:]target[:options]`."""
    if not entry:
        raise ValueError("invalid empty volume spec")
    parts = entry.split(":")
    if any(not part for part in parts) or len(parts) > 3:
        raise ValueError(
            f"invalid spec: {entry}: " + ("empty section between colons" if "" in parts else "too many colons")
        )
    if len(parts) == 1:
        return {"type": "volume", "target": entry}
    source, target = parts[:2]
    is_path = source.startswith((".", "/", "~")) or WINDOWS_DRIVE.match(source) is not None
    volume: dict[str, Any] = {"type": "bind" if is_path else "volume", "source": source, "target": target}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option in ("ro", "rw"):
            volume["read_only"] = option == "ro"
        elif option == "nocopy":
            volume["volume"] = {"nocopy": True}
        elif option in BIND_MODES:
            volume["bind"] = {"propagation": option}
        # Anything else (z, Z, cached, …) means nothing to a service; docker passes over it as well.
    return volume
