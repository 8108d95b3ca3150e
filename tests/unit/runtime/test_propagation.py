"""The mount that a path lies in, and whether it propagates."""

from pathlib import Path

import pytest

from bennu.errors import BennuError
from bennu.runtime.propagation import check_propagation, find_mount

INFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 8:1 /a\\040b /slave ro,relatime master:7 propagate_from:2 - ext4 /dev/sda1 rw
25 22 8:1 / /both rw shared:3 master:7 - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("22", ("/", True, False)),
        ("23", ("/proc", False, False)),
        ("24", ("/slave", False, True)),
        ("25", ("/both", True, True)),
        ("2", ("an unknown place", False, False)),
    ],
)
def test_mountinfo_says_how_a_mount_propagates(number: str, expected: tuple[str, bool, bool]) -> None:
    assert find_mount(INFO, number) == expected


def test_who_asks_for_no_propagation_needs_none(tmp_path: Path) -> None:
    for propagation in ("", "private", "rprivate"):
        check_propagation("/proc/self", propagation)
    check_propagation(f"{tmp_path}/none", "rshared")  # the runtime complains of that


def test_a_private_mount_cannot_be_shared() -> None:
    # /proc/self/ns: the links there lead to mounts of the kernel's own, which are in no namespace.
    with pytest.raises(BennuError, match=r"^path /proc/self/ns/mnt is mounted on .* but it is not a shared mount$"):
        check_propagation("/proc/self/ns/mnt", "shared")
    with pytest.raises(BennuError, match=r"but it is not a shared or slave mount$"):
        check_propagation("/proc/self/ns/mnt", "rslave")
