"""Decides which Linux capabilities a container's processes have. Pure.

The rule is that of moby `oci/caps/utils.go`, pinned by `test_spec.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from bennu.errors import InvalidParameter

# By bit number, as in <linux/capability.h>.
ALL: Final = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
        *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
        *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
        "CHECKPOINT_RESTORE",
    )
)

DEFAULT: Final = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
        *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)


def parse_capabilities(field: str, names: Iterable[str], available: Collection[str]) -> list[str]:
    """Turn names as clients write them into canonical ones, `ALL` among them. `field` is CapAdd or CapDrop.

    Raises: InvalidParameter for an unknown one, or one that this host cannot give.
    """
    parsed = []
    for name in names:
        canonical = name.upper()
        if canonical != "ALL" and not canonical.startswith("CAP_"):
            canonical = f"CAP_{canonical}"
        if canonical == "CAP_ALL":
            canonical = "ALL"
        if canonical != "ALL" and canonical not in ALL:
            raise InvalidParameter(f'invalid {field}: unknown capability: "{canonical}"')
        if field == "CapAdd" and canonical != "ALL" and canonical not in available:
            raise InvalidParameter(
                f"invalid {field}: capability not supported by your kernel or not available in the current "
                f'environment: "{canonical}"'
            )
        parsed.append(canonical)
    return parsed


def decide_capabilities(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, available: Collection[str]
) -> list[str]:
    """Decide the bounding set, ordered by number. Names are canonical.

    1. privileged: everything this host has.  2. `ALL` added: everything minus the dropped.
    3. `ALL` dropped: only the added.  4. else the default, minus the dropped, plus the added.
    """
    if privileged:
        chosen = set(ALL)
    elif "ALL" in add:
        chosen = set(ALL) - set(drop)
    elif "ALL" in drop:
        chosen = set(add)
    else:
        chosen = (set(DEFAULT) - set(drop)) | set(add)
    return [name for name in ALL if name in chosen and name in available]


def names_of_mask(mask: int) -> frozenset[str]:
    """Name the capabilities whose bits are set."""
    return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)
