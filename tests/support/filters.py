"""The system call filter that is in force on a process, read from the kernel and asked as the kernel asks it."""

import contextlib
import ctypes
import functools
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
PTRACE_DETACH: Final = 17
PTRACE_SECCOMP_GET_FILTER: Final = 0x420C
WALL: Final = 0x40000000  # waits for a task of any kind

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
X32: Final = 0x40000000  # in the number of a call of that kind
ALLOW: Final = "allow"
ACTIONS: Final = {0x7FFF: ALLOW, 0x7FFC: "log", 0x7FF0: "trace", 0x0003: "trap", 0x0000: "kill", 0x8000: "kill"}
ERRNO: Final = 0x0005

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of classic BPF: `struct sock_filter`."""

    code: int
    if_true: int
    if_false: int
    value: int


Program = Sequence[Instruction]


def read_filter(pid: int) -> Program:
    """The one filter of a process; nothing if it has none. Needs CAP_SYS_ADMIN and no filter of one's own."""
    with _stopped(pid):
        length = _libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0, None)
        if length <= 0:
            return []
        room = (ctypes.c_uint64 * length)()
        _ask(PTRACE_SECCOMP_GET_FILTER, pid, 0, ctypes.addressof(room))
        assert _libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 1, None) < 0, "more than one filter"
    return [Instruction(*fields) for fields in struct.iter_unpack("HBBI", bytes(room))]


def verdict(program: Program, number: int, *arguments: int, architecture: str = "x86_64") -> str | int:
    """What becomes of a system call: `allow`, or the error number it is answered with, or another action's name."""
    words = [number, AUDIT_ARCH[architecture], 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        upper = 0 if architecture == "i386" else argument >> 32  # programs of 32 bits have no more
        words += [argument & 0xFFFFFFFF, upper & 0xFFFFFFFF]
    answer = _run(program, words)
    action = answer >> 16
    return answer & 0xFFFF if action == ERRNO else ACTIONS[action]


def _run(program: Program, words: Sequence[int]) -> int:
    """The subset of BPF that libseccomp writes; all jumps are forward, so it ends."""
    accumulator = at = 0
    while True:
        step = program[at]
        at += 1
        match step.code:
            case 0x20:  # load a word
                accumulator = words[step.value // 4]
            case 0x54:  # and
                accumulator &= step.value
            case 0x05:  # jump
                at += step.value
            case 0x15:
                at += step.if_true if accumulator == step.value else step.if_false
            case 0x45:
                at += step.if_true if accumulator & step.value else step.if_false
            case 0x25:
                at += step.if_true if accumulator > step.value else step.if_false
            case 0x35:
                at += step.if_true if accumulator >= step.value else step.if_false
            case 0x06:  # return
                return step.value
            case other:
                raise AssertionError(f"unknown instruction {other:#x}")


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    _ask(PTRACE_SEIZE, pid, 0, 0)
    try:
        _ask(PTRACE_INTERRUPT, pid, 0, 0)
        os.waitpid(pid, WALL)
        yield
    finally:
        _libc.ptrace(PTRACE_DETACH, pid, 0, None)


def _ask(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def call_name(number: int, architecture: str = "x86_64") -> str:
    """As libseccomp knows it; "" if it does not."""
    token = 0x4000003E if number & X32 else AUDIT_ARCH[architecture]
    named: bytes | None = _names().seccomp_syscall_resolve_num_arch(token, number)
    return named.decode() if named else ""


@functools.cache
def _names() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    return library
