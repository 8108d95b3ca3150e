"""What Go's types know of a field and JSON does not say: what null is, and which fields may be absent."""

from collections.abc import Mapping
from typing import Any, Final


class NoList(list[Any]):
    """A list that is null in the object: shown as Go shows an empty one, null in JSON."""


class NoMap(dict[str, Any]):
    """A map that is null in the object."""


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LISTS: Final = names(
    "Aliases Binds CapAdd CapDrop Cmd DNSNames Devices Dns DnsOptions DnsSearch Entrypoint Env ExecIDs ExtraHosts "
    "GroupAdd Links MaskedPaths Mounts OnBuild ReadonlyPaths RepoDigests RepoTags SecurityOpt Shell Ulimits VolumesFrom"
)
MAPS: Final = names(
    "Annotations DriverOpts ExposedPorts Labels Options PortBindings Ports StorageOpt Sysctls Tmpfs Volumes"
)
POINTERS: Final = names("Health Healthcheck Init StopTimeout")
ABSENT: Final = POINTERS | names("Annotations ExposedPorts Mounts OnBuild Shell StopSignal StorageOpt Sysctls Tmpfs")


def null_of(name: str) -> Any:
    """The value of a null field."""
    return NoList() if name in LISTS else NoMap() if name in MAPS else None


def absent_field(name: str, otherwise: Any) -> Any:
    """The value of a field that is not there; `otherwise` when it should be."""
    if name not in ABSENT:
        return otherwise
    return "" if name == "StopSignal" else null_of(name)


def read_field(value: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    if name not in value:
        return absent_field(name, otherwise)
    found = value[name]
    return null_of(name) if found is None else found
