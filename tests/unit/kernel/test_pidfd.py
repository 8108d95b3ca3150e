import os
import subprocess

import pytest

from bennu.kernel.pidfd import open_pidfd


def test_a_process_that_is_gone_is_gone_though_its_session_lives_on() -> None:
    """Linux before 6.9 answers EINVAL to a number that only a session or a process group bears any more."""
    script = "sleep 60 & echo $!"
    leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    try:
        leader.wait()
        assert os.getsid(child) == leader.pid
        with pytest.raises(ProcessLookupError):
            open_pidfd(leader.pid)
    finally:
        os.kill(child, 9)
        leader.stdout.close()


def test_a_number_that_is_none_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        open_pidfd(-1)
