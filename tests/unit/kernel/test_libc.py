import errno
import os
import subprocess
from pathlib import Path

import pytest

from bennu.kernel.libc import CGROUP_KINDS, PROC, copy_descriptor, kind_of_filesystem, mount, unmount


def test_the_kernel_tells_what_kind_of_file_system_a_path_lies_in(tmp_path: Path) -> None:
    assert kind_of_filesystem(Path("/proc/self")) == PROC
    assert kind_of_filesystem(tmp_path) not in {0, PROC, *CGROUP_KINDS}
    assert kind_of_filesystem(tmp_path / "missing") == 0


def test_a_failure_bears_the_errno_of_the_kernel_and_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing") as failed:
        mount("none", tmp_path / "missing", "tmpfs")
    assert failed.value.errno in (errno.ENOENT, errno.EPERM)
    with pytest.raises(OSError, match=str(tmp_path)) as failed:
        unmount(tmp_path)
    assert failed.value.errno in (errno.EINVAL, errno.EPERM)


def test_a_descriptor_of_another_process_is_copied() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    pidfd = os.pidfd_open(child.pid)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            copy_descriptor(pidfd, 1 << 20)
        copy = copy_descriptor(pidfd, 1)
        os.write(copy, b"through a copy")
        os.close(copy)
        child.stdin.close()
        assert child.stdout.read() == b"through a copy"
    finally:
        os.close(pidfd)
        child.stdin.close()
        child.stdout.close()
        child.wait()
