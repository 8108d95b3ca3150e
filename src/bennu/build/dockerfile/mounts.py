"""`RUN --mount=…`: what it asks for, with its variables put in. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError, suggest
from bennu.build.graph import MountKind
from bennu.go.bool import parse_bool
from bennu.go.printing import quote
from bennu.go.units import parse_size

KEYS: Final = (
    *("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid"),
    *("src", "dst", "destination", "ro", "rw", "readwrite", "env"),
)
SWITCHES: Final = frozenset(("readonly", "ro", "readwrite", "rw", "required"))
SHARING: Final = ("shared", "private", "locked")
HAVE_OWNERS: Final = frozenset((MountKind.SECRET, MountKind.SSH, MountKind.CACHE))
CSV: Final = "failed to parse csv mounts: parse error"
MAX_ID: Final = 2**32
SPARE_KEYS: Final = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}


@dataclass(slots=True)
class MountRequest:
    """One `--mount` as it is written; `source` and `target` "" = not given, `env` None = not given."""

    kind: MountKind = MountKind.BIND
    base: str = ""  # --mount=from=
    source: str = ""
    target: str = ""
    read_only: bool | None = None
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


def check_mount(text: str) -> str:
    """Check what can be known before variables are put in; answer the stage or image that it is from.

    Raises: DockerfileError.
    """
    base = ""
    for one in split_csv(text):
        key, found, value = one.partition("=")
        if found and key.lower() == "from":
            if "$" in value[:-1]:
                raise DockerfileError(f"'{key.lower()}' doesn't support variable expansion, define alias stage instead")
            base = value
    return base


def parse_mount(text: str, expand: Callable[[str], str]) -> MountRequest:
    """Read a mount; `expand` puts variables into a value. Raises: DockerfileError."""
    mount = MountRequest()
    for one in split_csv(text):
        written, found, value = one.partition("=")
        key = written.lower()
        if not found and key not in SWITCHES:
            raise DockerfileError(f"invalid field '{one}' must be a key=value pair")
        if key not in KEYS:
            raise DockerfileError(f"unexpected key '{key}' in '{one}'{suggest(key, KEYS)}")
        _set(mount, key, expand(value) if found else "true")
    _check(mount)
    return mount


def _set(mount: MountRequest, key: str, value: str) -> None:
    match SPARE_KEYS.get(key, key):
        case "type":
            if value.lower() not in list(MountKind):
                raise DockerfileError(f"unsupported mount type {quote(value)}{suggest(value, list(MountKind))}")
            mount.kind = MountKind(value.lower())
        case "sharing":
            if value.lower() not in SHARING:
                raise DockerfileError(f"unsupported sharing value {quote(value)}{suggest(value, SHARING)}")
            mount.sharing = value.lower()
        case "from":
            mount.base = value
        case "source":
            mount.source = value
        case "target":
            mount.target = value
        case "id":
            mount.id = value
        case "env":
            mount.env = value
        case "readonly":
            mount.read_only = _read_switch(key, value)
        case "readwrite":
            mount.read_only = not _read_switch(key, value)
        case "required":
            _only_for(mount, key, MountKind.SECRET, MountKind.SSH)
            mount.required = _read_switch(key, value)
        case "size":
            _only_for(mount, key, MountKind.TMPFS)
            mount.size = _read_size(key, value)
        case "mode":
            mount.mode = _read_number(key, value, 8)
        case "uid":
            mount.uid = _read_number(key, value, 10)
        case "gid":
            mount.gid = _read_number(key, value, 10)


def _only_for(mount: MountRequest, key: str, *kinds: MountKind) -> None:
    if mount.kind not in kinds:
        raise DockerfileError(f"unexpected key '{key}' for mount type '{mount.kind}'")


def _read_switch(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise DockerfileError(f"invalid value for {key}: {value}") from None


def _read_size(key: str, value: str) -> int:
    try:
        return parse_size(value, 1024)
    except ValueError:
        raise DockerfileError(f"invalid value for {key}: {value}") from None


def _read_number(key: str, value: str, base: int) -> int:
    digits = value.isascii() and value.isdecimal() and len(value) <= 12
    number = int(value, base) if digits and (base == 10 or not set(value) & {"8", "9"}) else MAX_ID
    if number >= MAX_ID:
        raise DockerfileError(f"invalid value {value} for {key}")
    return number


def _check(mount: MountRequest) -> None:
    """Check what the keys say together. Raises: DockerfileError."""
    kind = mount.kind
    if kind not in HAVE_OWNERS:
        for key, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
            if value is not None:
                raise DockerfileError(f"{key} not allowed for {quote(kind)} type mounts")
    if mount.read_only is None:
        mount.read_only = kind not in (MountKind.CACHE, MountKind.TMPFS)
    if kind is MountKind.SECRET:
        _check_secret(mount)
    if mount.sharing and kind is not MountKind.CACHE:
        raise DockerfileError(f"invalid cache sharing set for {kind} mount")


def _check_secret(mount: MountRequest) -> None:
    if mount.base:
        raise DockerfileError("secret mount should not have a from")
    if mount.sharing:
        raise DockerfileError("secret mount should not define sharing")
    if not (mount.source or mount.target or mount.id):
        raise DockerfileError("invalid secret mount. one of source, target required")
    if mount.source and mount.id:
        raise DockerfileError("both source and id can't be set")


def split_csv(text: str) -> Sequence[str]:
    """Split a line of comma-separated values; a value in double quotes may hold commas, and `""` for a quote.

    Raises: DockerfileError.
    """
    fields: list[str] = []
    position = 0
    while position <= len(text):
        if not text.startswith('"', position):
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            if '"' in text[position:end]:
                at = text.find('"', position) + 1
                raise DockerfileError(f'{CSV} on line 1, column {at}: bare " in non-quoted-field')
            fields.append(text[position:end])
            position = end + 1
            continue
        end = text.find('"', position + 1)
        while text.startswith('""', end):
            end = text.find('"', end + 2)
        if end < 0 or (end + 1 < len(text) and text[end + 1] != ","):
            at = max(end, position) + 1
            raise DockerfileError(f'{CSV} on line 1, column {at}: extraneous or missing " in quoted-field')
        fields.append(text[position + 1 : end].replace('""', '"'))
        position = end + 2
    return fields
