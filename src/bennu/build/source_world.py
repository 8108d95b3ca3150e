"""The world that fetches a build's sources. Run as a program of its own, by path: `source_world.py WORLD -- COMMAND…`.

Law: what a server talks the program that asks it into reaches no file, no process and no address of this host but those
the world was given. WORLD is JSON: {"root": an empty folder, "network": a namespace's file or "" for this
one's, "shown": [[source, target, whether it may be written], …]}. The command sees an empty root with those
places in it, the programs and libraries of this host to read, processes of its own, and a few harmless devices.

It dies with whoever started it, and with it everything it started: its namespace of processes ends, and the mounts
in its namespace of mounts with it. Uses nothing but the standard library.
"""

# It has to begin at once: what it does not need it does not import.
# ruff: noqa: PTH103, PTH106, PTH110, PTH112, PTH114, PTH115, PTH120, PTH123, PTH211

import ctypes
import json
import os
import re
import select
import signal
import sys
from typing import Any, Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH: Final = 2
PR_SET_PDEATHSIG: Final = 1
# Of the host: programs and their libraries, whom to trust, and what time it is.
READABLE: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime"),
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/ca-certificates", "/etc/pki/tls/certs"),
    "/etc/pki/ca-trust/extracted",
)
OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how the kernel writes blanks in names
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, data.encode() or None)
    check(libc.mount(*words), f"mount {target}")


def enter(network: str) -> None:
    """Unshare the namespaces of this process; its PID namespace begins with the next child."""
    if network:
        file = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        check(libc.setns(file, CLONE_NEWNET), network)
        os.close(file)
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def build_root(root: str, shown: list[tuple[str, str, bool]]) -> None:
    """Make the new root at `root`, and step into it."""
    mount("world", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in ("proc", "sys", "dev", "run", "tmp", "var/tmp", "root", "etc"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for path in READABLE:
        if os.path.islink(path):
            os.symlink(os.readlink(path), below(root, path))
        elif os.path.exists(path):
            show(path, below(root, path), writable=False)
    for path in DEVICES:
        show(path, below(root, path), writable=True)
    mount("/sys", f"{root}/sys", flags=MS_BIND | MS_REC)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for source, target, writable in shown:
        show(source, below(root, target), writable=writable)
    os.makedirs(f"{root}/old")
    check(libc.pivot_root(os.fsencode(root), os.fsencode(f"{root}/old")), "pivot_root")
    os.chdir("/")
    check(libc.umount2(b"/old", MNT_DETACH), "umount /old")
    os.rmdir("/old")


def below(root: str, path: str) -> str:
    """Answer where `path` is to be in the new root; the folders above it are made."""
    place = root + path
    os.makedirs(os.path.dirname(place), exist_ok=True)
    return place


def show(source: str, place: str, *, writable: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, place, flags=MS_BIND | MS_REC)
    if not writable:
        for path in mounts_at(place):
            mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def mounts_at(place: str) -> list[str]:
    """List the mount points at and below `place`: each has to be made read-only for itself."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [OCTAL.sub(lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in file]
    return [point for point in points if point == place or point.startswith(f"{place}/")]


def live(world: dict[str, Any], command: list[str], outside: int) -> None:
    """Run as the first process of the world, then start the command and answer its exit code."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if select.select([outside], [], [], 0)[0]:
        os._exit(1)  # the other end closed: our parent died before we could say that we want to die with it
    build_root(world["root"], world["shown"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execvp(command[0], command)


def main() -> int:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    world = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # is for the command, which gets it as well
    enter(world["network"])
    outside, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            live(world, sys.argv[3:], outside)
        except OSError as error:
            print(f"Error: {error.strerror}: {error.filename}", file=sys.stderr)
        os._exit(125)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
