"""What a process does with a signal: `/proc/PID/status` and `wchan` read by the kernel's rules. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from signal import SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH
from typing import Final

_NOT_FATAL: Final = frozenset({SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH})
_MASK: Final = re.compile(r"^Sig(Blk|Ign|Cgt):\s*([0-9a-f]+)$", re.MULTILINE)
_PIDS: Final = re.compile(r"^NSpid:\s*(.+)$", re.MULTILINE)
_TAKES_SIGNALS: Final = "do_sigtimedwait"  # the kernel's function behind sigwait(3) and its kin


class Disposition(StrEnum):
    """What becomes of a signal that a process is sent.

    FATAL: its default action ends the process at once. IGNORED: it has no effect on the life of the process. HANDLED:
    a handler runs, which may do anything. BLOCKED: it waits until the process asks for it (as the init of `--init`
    does, which passes it on) or lets it through.
    """

    FATAL = "fatal"
    IGNORED = "ignored"
    HANDLED = "handled"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SignalView:
    """The kernel's view of a process: `/proc/PID/status`, and in which of its functions the process sleeps."""

    status: str = ""
    wchan: str = ""


def disposition_of(process: SignalView, number: int) -> Disposition:
    """Read what a signal from the host does to a process.

    The first process of a namespace of process ids is spared every default action, but for those of SIGKILL and
    SIGSTOP from outside (signal(7), pid_namespaces(7)). SIGSTOP and its like end nobody. While a process waits in
    sigwait(3), the signals that it waits for do not show as blocked, though they are.
    """
    if number == SIGKILL:
        return Disposition.FATAL
    masks = {name: int(mask, 16) for name, mask in _MASK.findall(process.status)}
    pids = _PIDS.search(process.status)
    if len(masks) < 3 or pids is None:
        return Disposition.UNKNOWN
    bit = 1 << (number - 1)
    if masks["Cgt"] & bit:
        return Disposition.HANDLED
    if masks["Blk"] & bit or process.wchan.startswith(_TAKES_SIGNALS):
        return Disposition.BLOCKED
    ids = pids[1].split()
    is_init = len(ids) > 1 and ids[-1] == "1"
    if masks["Ign"] & bit or is_init or number in _NOT_FATAL:
        return Disposition.IGNORED
    return Disposition.FATAL
