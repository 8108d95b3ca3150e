"""What becomes of a signal, by the masks of the process that gets it."""

import os
import signal
from signal import SIGCHLD, SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTSTP, SIGUSR1, SIGWINCH

import pytest

from bennu.kernel.procfs import signal_view
from bennu.lifecycle.disposition import Disposition, SignalView, disposition_of
from support.waiting import wait_for

RTMIN = 34
FATAL, IGNORED, HANDLED, BLOCKED, UNKNOWN = Disposition


def status(pids: str = "812\t1", *, blocked: int = 0, ignored: int = 0, caught: int = 0) -> str:
    def mask(number: int) -> str:
        return f"{1 << (number - 1) if number else 0:016x}"

    return (
        f"Name:\tsh\nState:\tS (sleeping)\nNSpid:\t{pids}\nThreads:\t1\nSigQ:\t0/31\nSigPnd:\t{mask(0)}\n"
        f"ShdPnd:\t{mask(0)}\nSigBlk:\t{mask(blocked)}\nSigIgn:\t{mask(ignored)}\nSigCgt:\t{mask(caught)}\n"
    )


ORDINARY = "812"  # --pid host
SECOND = "812\t7"  # --pid container:other


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        pytest.param(status(), SIGTERM, IGNORED, id="an init is spared the default action"),
        pytest.param(status(), RTMIN, IGNORED, id="an init is spared that of a real-time signal"),
        pytest.param(status(ORDINARY), SIGTERM, FATAL, id="with the host's process ids it is not"),
        pytest.param(status(ORDINARY), RTMIN, FATAL, id="nor is it that of a real-time signal"),
        pytest.param(status(SECOND), SIGHUP, FATAL, id="nor with another container's"),
        pytest.param(status("812\t31\t1"), SIGHUP, IGNORED, id="an init of a nested namespace"),
        pytest.param(status(caught=SIGHUP), SIGHUP, HANDLED, id="a handler"),
        pytest.param(status(ORDINARY, caught=SIGHUP), SIGTERM, FATAL, id="a handler for another signal"),
        pytest.param(status(ignored=SIGHUP), SIGHUP, IGNORED, id="ignored on purpose"),
        pytest.param(status(ORDINARY, ignored=SIGHUP), SIGHUP, IGNORED, id="as under nohup"),
        pytest.param(status(blocked=SIGTERM), SIGTERM, BLOCKED, id="an init that waits for signals"),
        pytest.param(status(blocked=SIGTERM, ignored=SIGTERM), SIGTERM, BLOCKED, id="blocked comes before ignored"),
        pytest.param(status(blocked=SIGTERM, caught=SIGTERM), SIGTERM, HANDLED, id="another thread may take it"),
        pytest.param(status(ORDINARY), SIGCHLD, IGNORED, id="ignored by default"),
        pytest.param(status(ORDINARY), SIGWINCH, IGNORED, id="ignored by default, too"),
        pytest.param(status(ORDINARY), SIGCONT, IGNORED, id="ends nobody"),
        pytest.param(status(ORDINARY), SIGSTOP, IGNORED, id="stops, and ends nobody"),
        pytest.param(status(ORDINARY), SIGTSTP, IGNORED, id="stops, and ends nobody, either"),
        pytest.param(status(), SIGKILL, FATAL, id="SIGKILL from the host spares nobody"),
        pytest.param("", SIGKILL, FATAL, id="whatever can be read"),
        pytest.param("", SIGUSR1, UNKNOWN, id="no process"),
        pytest.param("Name:\tsh\nState:\tZ (zombie)\n", SIGUSR1, UNKNOWN, id="nothing of signals"),
    ],
)
def test_dispositions(text: str, number: int, expected: Disposition) -> None:
    assert disposition_of(SignalView(text, "do_wait"), number) is expected


def test_what_waits_for_signals_has_them_blocked_though_the_kernel_does_not_show_it() -> None:
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_BLOCK, {SIGUSR1})
        os._exit(signal.sigwait({SIGUSR1}))
    try:
        wait_for(lambda: "sigtimedwait" in signal_view(child).wchan, what="the child to wait")
        assert disposition_of(signal_view(child), SIGUSR1) is BLOCKED
    finally:
        os.kill(child, SIGUSR1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == SIGUSR1


def test_the_kernel_writes_what_is_read_here() -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    process = signal_view(os.getpid())
    signal.signal(signal.SIGUSR2, before)
    assert disposition_of(process, signal.SIGUSR2) is HANDLED
    assert disposition_of(process, 13) is IGNORED, "Python ignores SIGPIPE"
