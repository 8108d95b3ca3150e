"""What /proc tells of processes, whatever they call themselves."""

import os
import subprocess
import sys
from collections.abc import Iterator
from signal import SIGHUP

import pytest

from bennu.kernel.procfs import is_alive, parent_of, signal_view
from bennu.lifecycle.disposition import Disposition, disposition_of

NAME = b"\xff)\rNSpid:\t9 1"  # no UTF-8, and a line as if it were the first process of a container
RENAMED = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {NAME!r}); print('renamed', flush=True); sys.stdin.read()"


@pytest.fixture
def renamed() -> Iterator[int]:
    argv = [sys.executable, "-I", "-c", RENAMED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"renamed\n"
        yield process.pid


def test_a_process_writes_no_lines_into_its_status(renamed: int) -> None:
    assert disposition_of(signal_view(renamed), SIGHUP) is Disposition.FATAL


def test_a_process_is_known_by_whatever_name(renamed: int) -> None:
    assert is_alive(renamed)
    assert parent_of(renamed) == os.getpid()
