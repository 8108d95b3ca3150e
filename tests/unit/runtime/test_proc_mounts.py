"""What may be mounted in a container's /proc once it is made."""

import pytest

from bennu.runtime.proc_mounts import Mounted, find_misplaced

PROC = Mounted("0:99", "/", "/proc", "proc")
MASKED = ("/proc/keys", "/proc//acpi", "/proc/net/route", "/sys/firmware")


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param(Mounted("0:5", "/null", "/proc/keys", "tmpfs"), id="a-mask"),
        pytest.param(Mounted("0:7", "/", "/proc/acpi", "tmpfs"), id="a-mask-asked-for-by-another-spelling"),
        pytest.param(Mounted("0:5", "/null", "/proc/1/net/route", "tmpfs"), id="a-mask-behind-a-link-of-proc"),
        pytest.param(Mounted("0:99", "/sys", "/proc/sys", "proc"), id="read-only"),
        pytest.param(Mounted("0:99", "/1/net", "/proc/1/net", "proc"), id="read-only-behind-a-link-of-proc"),
        pytest.param(Mounted("8:1", "/own", "/proc/uptime", "ext4"), id="a-file-that-may-be"),
        pytest.param(Mounted("8:1", "/own", "/proc/4711/task/4711/net/dev", "ext4"), id="such-a-file-behind-links"),
    ],
)
def test_what_the_runtime_makes_and_what_others_put_there_may_stay(mount: Mounted) -> None:
    assert find_misplaced([PROC, mount], MASKED) is None


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param(Mounted("8:1", "/volume", "/proc", "ext4"), id="over-all-of-it"),
        pytest.param(Mounted("8:1", "/volume", "/proc/sys", "ext4"), id="over-what-is-read-only"),
        pytest.param(Mounted("0:9", "/sys", "/proc/sys", "proc"), id="another-proc-over-what-is-read-only"),
        pytest.param(Mounted("0:99", "/keys", "/proc/sys", "proc"), id="another-piece-of-the-same-proc"),
        pytest.param(Mounted("8:1", "/volume", "/proc/keys/below", "ext4"), id="below-a-mask"),
        pytest.param(Mounted("8:1", "/volume", "/proc/1/attr", "ext4"), id="where-labels-are-written"),
        pytest.param(Mounted("8:1", "/volume", "/proc/1/uptime", "ext4"), id="like-one-that-may-be"),
    ],
)
def test_whatever_else_lies_there_is_found(mount: Mounted) -> None:
    assert find_misplaced([PROC, mount], MASKED) == mount
    assert find_misplaced([mount, PROC], MASKED) == mount


def test_a_missing_proc_is_not_of_type_proc() -> None:
    found = find_misplaced([], MASKED)
    assert found is not None
    assert found.target == "/proc"
