"""An image: its configuration as it came, and the names it has here."""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bennu.errors import InvalidParameter
from bennu.go.platform import ImagePlatform
from bennu.go.rfc3339 import ZERO_TIME_NS, parse_rfc3339
from bennu.model import ImageConfig


class ImageRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the store keeps of an image beside its configuration blob."""

    id: str
    parent: str = ""
    last_tag_ns: int = 0  # 0 = never tagged here
    removed: bool = False  # deleted by force while containers use it; goes with the last of them


@dataclass(slots=True, eq=False)
class Image:
    """Only `Images` writes the names, the last tag time and `removed`; the rest never changes."""

    id: str  # "sha256:…", the digest of the configuration blob
    raw: dict[str, Any]
    config: ImageConfig
    diff_ids: list[str]
    created_ns: int
    size: int  # bytes of the files of all layers
    parent: str = ""
    last_tag_ns: int = 0
    removed: bool = False
    repo_tags: list[str] = field(default_factory=list)  # familiar, sorted
    repo_digests: list[str] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        return str(self.raw.get("architecture") or "")

    @property
    def os(self) -> str:
        return str(self.raw.get("os") or "linux")

    @property
    def platform(self) -> ImagePlatform:
        return ImagePlatform(self.os, self.architecture, str(self.raw.get("variant") or ""))

    @property
    def labels(self) -> dict[str, str]:
        return self.config.labels or {}

    def record(self) -> ImageRecord:
        return ImageRecord(id=self.id, parent=self.parent, last_tag_ns=self.last_tag_ns, removed=self.removed)


def parse_config(blob: bytes) -> dict[str, Any]:
    """Read the configuration blob of an image and check what we rely on. Raises: InvalidParameter."""
    try:
        raw = msgspec.json.decode(blob, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid image configuration: {error}") from None
    rootfs = raw.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if rootfs is None or (isinstance(rootfs, dict) and diff_ids is None):
        raw["rootfs"] = {"type": "layers", "diff_ids": []}
        return raw
    if not isinstance(diff_ids, list) or not all(_is_digest(item) for item in diff_ids):
        raise InvalidParameter("invalid image configuration: rootfs.diff_ids must be a list of sha256 digests")
    return raw


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", value) is not None


def image_config(raw: dict[str, Any]) -> ImageConfig:
    """Read the `config` part; null is as good as absent. Raises: InvalidParameter."""
    part = raw.get("config") or {}
    given = {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
    for key in ("Entrypoint", "Cmd", "Shell", "OnBuild", "Env"):
        if isinstance(given.get(key), str):
            given[key] = [given[key]]
    for key in ("Volumes", "ExposedPorts"):
        if isinstance(given.get(key), dict):
            given[key] = {name: value or {} for name, value in given[key].items()}
    health = given.get("Healthcheck")
    if isinstance(health, dict):
        given["Healthcheck"] = {key: value for key, value in health.items() if value is not None}
    try:
        return msgspec.convert(given, ImageConfig)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid image configuration: {error}") from None


def parse_time(value: object) -> int:
    """Read a time of an image's configuration, in ns since the epoch; what is none is Go's zero time."""
    instant_ns = parse_rfc3339(value) if isinstance(value, str) else None
    return ZERO_TIME_NS if instant_ns is None else instant_ns
