"""The filters of both engines, read from the kernel and asked for every system call there is: the same answers."""

import errno
import platform
import re
from typing import Final

import pytest

from support.cli import Cli
from support.filters import ALLOW, X32, Program, call_name, read_filter, verdict

# Older ones have other profiles: each kernel's new calls are let through by the next version.
FIRST_VERSION: Final = 28
# Of the calls that are judged by their argument: flags of clone, families of sockets, personalities.
ARGUMENTS: Final = (
    *(0, 1, 2, 8, 16, 17, 31, 37, 38, 39, 40, 41, 45, 46, 0x11, 0x3D_0F00, 0x4_0000, 0x40_0000, 0x2_0000, 0x2_0008),
    *(0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0xFFFF_FFFF, 1 << 32 | 40),
)
BY_ARGUMENT: Final = ("clone", "personality", "socket")
NUMBERS: Final = range(600)
NAMESPACE: Final = {"x86_64": [("x86_64", 0), ("i386", 0), ("x86_64", X32)], "aarch64": [("aarch64", 0)]}


@pytest.fixture(scope="module")
def original(oracle: Cli) -> Cli:
    version = oracle("version", "-f", "{{.Server.Version}}").line
    if int(re.match(r"\d+", version)[0]) < FIRST_VERSION:  # type: ignore[index]
        pytest.skip(f"dockerd {version} is installed; the filter is that of {FIRST_VERSION}")
    if platform.machine() not in NAMESPACE:
        pytest.skip(f"no calls of {platform.machine()} are told here")
    return oracle


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="default"),
        pytest.param(["--cap-drop=ALL"], id="none"),
        pytest.param(["--cap-add=ALL"], id="all"),
        pytest.param(["--privileged"], id="privileged"),
        *(
            pytest.param([f"--cap-add={name}"], id=name)
            for name in (
                *("BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT"),
                *("SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM", "NET_ADMIN"),
            )
        ),
    ],
)
def test_every_system_call_is_answered_the_same(options: list[str], docker: Cli, busybox: str, original: Cli) -> None:
    ours, theirs = (filter_in(cli, options) for cli in (docker, original))
    assert bool(ours) == bool(theirs)
    different = [
        (architecture, call_name(base + number, architecture) or number, argument)
        for architecture, base in NAMESPACE[platform.machine()]
        for number in NUMBERS
        for argument in (ARGUMENTS if call_name(base + number, architecture) in BY_ARGUMENT else ARGUMENTS[:1])
        if theirs and not is_same(ours, theirs, base + number, argument, architecture)
    ]
    assert different == []


def filter_in(cli: Cli, options: list[str]) -> Program:
    container = cli("run", "-d", "--network=none", *options, "busybox", "sleep", "1000").line
    try:
        return read_filter(int(cli("inspect", "-f", "{{.State.Pid}}", container).line))
    finally:
        cli("rm", "-f", container)


def is_same(ours: Program, theirs: Program, number: int, argument: int, architecture: str) -> bool:
    """But for what we say otherwise on purpose; docs/differences.md."""
    mine, other = (verdict(program, number, argument, architecture=architecture) for program in (ours, theirs))
    name = call_name(number, architecture)
    if architecture == "i386" or number & X32:  # of which only half is looked at
        argument &= 0xFFFFFFFF
    if name == "socket" and argument == 38:
        return mine == errno.EPERM  # let through by theirs before 29.5
    if name == "socket" and argument > 45:
        return mine == errno.EAFNOSUPPORT  # which is what the kernel would answer, if it looked at all of it
    if mine == other or ALLOW in (mine, other):
        return mine == other
    # Theirs does not say of these that they do not exist, unless they are newer than all it knows.
    return mine == errno.ENOSYS and (not name or name == "personality")
