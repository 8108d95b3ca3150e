"""Refuses binds that are to propagate mounts from where none propagate: the kernel takes them without a word."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from bennu.errors import BennuError

SHARED: Final = frozenset({"shared", "rshared"})
SLAVE: Final = frozenset({"slave", "rslave"})


class SourceMount(NamedTuple):
    target: str
    shared: bool
    slave: bool


def check_propagation(source: str, propagation: str) -> None:
    """Check that the mount in which `source` lies propagates as asked. Blocks. Raises: BennuError.

    A source that is not there is left to the runtime to complain of.
    """
    if propagation not in SHARED | SLAVE:
        return
    try:
        mounted = _mount_of(source)
    except FileNotFoundError:
        return
    if not mounted.shared and (propagation in SHARED or not mounted.slave):
        kind = "shared" if propagation in SHARED else "shared or slave"
        raise BennuError(f"path {source} is mounted on {mounted.target} but it is not a {kind} mount")


def _mount_of(path: str) -> SourceMount:
    """Answer the mount in which a path lies. Raises: OSError."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        facts = Path(f"/proc/self/fdinfo/{place}").read_text()
    finally:
        os.close(place)
    mount_id = next(line.split()[1] for line in facts.splitlines() if line.startswith("mnt_id:"))
    return find_mount(Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape"), mount_id)


def find_mount(mountinfo: str, mount_id: str) -> SourceMount:
    """Find a mount in the text of `mountinfo`; one that is not told propagates nothing. Pure."""
    for line in mountinfo.splitlines():
        number, _, _, _, target, _, *tags = line.partition(" - ")[0].split(" ")
        if number == mount_id:
            kinds = {tag.partition(":")[0] for tag in tags}
            return SourceMount(target, "shared" in kinds, "master" in kinds)
    return SourceMount("an unknown place", shared=False, slave=False)
