"""The holdings on this host of a container whose record is set aside, as far as that record can be read.

Clients cannot ask for such a container, but it may run, and the next daemon may understand it. So its holdings are
neither lent to others nor taken away: its address and ports, its name, its images and its volumes.
"""

from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from bennu.engine.context import EngineContext
from bennu.model import MountPoint
from bennu.network import Sandbox
from bennu.store import aside

CONTAINERS: Final = "containers/"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remains:
    """The remains of one unreadable container; unknown fields are empty."""

    name: str = ""
    image_id: str = ""
    volumes: frozenset[str] = field(default=frozenset())
    sandbox: Sandbox | None = None
    mounted_images: frozenset[str] = field(default=frozenset())  # their ids


async def read_remains(services: EngineContext) -> dict[str, Remains]:
    """Read the remains of all records that are set aside, by id."""
    entries = await services.store.read_prefix(aside.PREFIX + CONTAINERS)
    return {entry.key.rpartition("/")[2]: parse_remains(entry.value, services.boot_id) for entry in entries}


def parse_remains(value: bytes, boot_id: str) -> Remains:
    """Parse the remains of a record. Pure. Each field is read by itself: a damaged one takes no other with it."""
    try:
        record = msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return Remains()
    points = _field(record, "mounts", list[MountPoint]) or []
    return Remains(
        name=_field(record, "name", str) or "",
        image_id=_field(record, "image_id", str) or "",
        volumes=frozenset(point.name for point in points if point.type == "volume"),
        sandbox=_field(record, "sandbox", Sandbox) if record.get("boot_id") == boot_id else None,
        mounted_images=frozenset(point.source for point in points if point.type == "image"),
    )


def _field(record: dict[str, Any], name: str, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(record.get(name), kind)
    except (msgspec.ValidationError, ValueError):
        return None
