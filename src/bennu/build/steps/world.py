"""The world that one command of a build runs in. A program of its own: `world RESULT RUNTIME`.

Law: what a Dockerfile talks a runtime into reaches no file and no process of this host but those it was given. The
runtime sees an empty root with the programs and libraries of this host to read, control groups, a few harmless devices,
the layers of the step and what it mounts. It lives in namespaces of its own and dies with whoever started it, and with
it all that it started and mounted: secrets lie in its memory alone.

Standard input is what `exec_step.py` writes, marshalled. RUNTIME is a descriptor of the OCI runtime. RESULT is one
that hears lines: `begun FILTER`, and then `exited STATUS`, with a status as wait(2) has it; or, instead of both,
`failed TEXT`: what the runtime said, or `refused TEXT`: what is wrong with the step. FILTER is the compiled filter of
system calls in hexadecimal, if it was asked for. Standard output and error are the
command's, but before `begun` also the runtime's.
"""

# It has to begin at once: what it does not need it does not import. json would take three times as long as all this.
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH110, PTH112, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

import ctypes
import marshal
import os
import select
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
HARMLESS = MS_NOSUID | MS_NODEV | MS_NOEXEC
GROUPS = "/sys/fs/cgroup"
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SIGKILL = 9
OPENAT2 = 437  # numbers of calls that are the same on every architecture
MOUNT_SETATTR = 442
MOUNT_ATTR_RDONLY = 1
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x2, 0x10
# Of the host: programs and their libraries.
READABLE = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"),
    "/etc/ld.so.cache",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
MERGING = "index=off,redirect_dir=off,metacopy=off"  # what a layer's difference could not be read from
ROOT, BUNDLE, STATE, LOG, PID = "/rootfs", "/bundle", "/state", "/log", "/pid"

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, data.encode() or None)
    checked(libc.mount(*words), target)


def enter(network: str) -> None:
    """Unshare the namespaces of this process; its PID namespace begins with the next child."""
    if network:
        file = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        checked(libc.setns(file, CLONE_NEWNET), network)
        os.close(file)
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


# --- what it sees -----------------------------------------------------------------------------------------------------


def build_root(world: "dict[str, Any]") -> None:
    """Make the new root in `world["room"]`, an empty folder, and step into it."""
    root = world["room"]
    mount("world", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")
    for folder in ("proc", "sys", "dev", "tmp", "old", "empty", "mounts", "sources", ROOT, BUNDLE, STATE):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for path in READABLE:
        if os.path.islink(path):
            os.symlink(os.readlink(path), f"{root}{path}")
        elif os.path.exists(path):
            show(path, root + path)
            read_only(root + path)
    for path in DEVICES:
        show(path, root + path)
    mount("/sys", f"{root}/sys", flags=MS_BIND | MS_REC)
    show_groups(root)
    mount("proc", f"{root}/proc", "proc", HARMLESS)
    lay_over(root, ROOT, world["layers"], world["into"])
    for place, shown in enumerate(world["shown"]):
        show_source(root, place, shown)
    for file in world["files"]:
        write_file(root + file["path"], file)
    os.chdir(root)
    checked(libc.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/")
    checked(libc.umount2(b"/old", MNT_DETACH), "umount /old")
    os.rmdir("/old")


def show_groups(root: str) -> None:
    """Show the hierarchies of version 1 in a folder of the world's own: crun makes what it misses beside them."""
    if os.path.exists(f"{GROUPS}/cgroup.controllers"):
        return
    mount("groups", root + GROUPS, "tmpfs", HARMLESS, "mode=755")
    for name in os.listdir(GROUPS):
        path = f"{GROUPS}/{name}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.ismount(path):
            os.mkdir(root + path)
            mount(path, root + path, flags=MS_BIND | MS_REC)


def show(source: str, place: str) -> None:
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, place, flags=MS_BIND | MS_REC)


def read_only(place: str) -> None:
    """Forbid to write there, whatever is mounted below."""
    wanted = struct.pack("=4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = os.fsencode(place)
    checked(libc.syscall(MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE, wanted, len(wanted)), place)


def lay_over(root: str, place: str, layers: list[str], into: str) -> None:
    """Mount folders over each other, the topmost first; what is written goes to `into`/diff, "": nothing can be.

    They are named by descriptors: short, so that many fit into the one page of options, and without any special sign.
    """
    opened = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
    names = [f"/proc/self/fd/{number}" for number in opened]
    if into:
        opened.append(os.open(into, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        names = names or [f"{root}/empty"]
        above = f",upperdir=/proc/self/fd/{opened[-1]}/diff,workdir=/proc/self/fd/{opened[-1]}/work"
    else:
        names = [*names, f"{root}/empty", *([] if names else [f"{root}/tmp"])]  # the kernel wants two
        above = ""
    mount("overlay", root + place, "overlay", data=f"lowerdir={':'.join(names)}{above},{MERGING}")
    for number in opened:
        os.close(number)


def show_source(root: str, place: int, shown: "dict[str, Any]") -> None:
    """Mount at /mounts/N what a mount of the step comes from; its path is looked up with its tree as root."""
    tree, target = f"{root}/sources/{place}", f"{root}/mounts/{place}"
    if "socket" in shown:
        show(shown["socket"], target)
        return
    os.mkdir(tree)
    if shown["into"] or len(shown["layers"]) != 1:
        lay_over(root, f"/sources/{place}", shown["layers"], shown["into"])
    else:
        mount(shown["layers"][0], tree, flags=MS_BIND)
    found = open_inside(tree, shown["path"])
    try:
        show(f"/proc/self/fd/{found}", target)
    finally:
        os.close(found)


def open_inside(tree: str, path: str) -> int:
    folder = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    try:
        return checked(libc.syscall(OPENAT2, folder, os.fsencode(path), how, len(how)), path)
    except OSError as error:
        raise StepRefused(f"open {path}: {(error.strerror or '').lower()}") from None
    finally:
        os.close(folder)


def write_file(place: str, file: "dict[str, Any]") -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as target:
        target.write(file["text"])
    os.chown(place, file["uid"], file["gid"])
    os.chmod(place, file["mode"])


# --- what it does -----------------------------------------------------------------------------------------------------


class StepRefused(Exception):
    """The step cannot be run; the message is for its author."""


def live(world: "dict[str, Any]", outside: int, result: int, runtime: int) -> str:
    """Run as the first process of the world: the runtime makes the container, and we wait for its first process."""
    checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl")
    if select.select([outside], [], [], 0)[0]:
        os._exit(1)  # the other end closed: our parent died before we could say that we want to die with it
    build_root(world)
    program = [f"/proc/self/fd/{runtime}", *world["options"], f"--root={STATE}", f"--log={LOG}"]
    silent, nobody = os.pipe()
    os.close(nobody)
    if call([*program, "run", "--detach", f"--bundle={BUNDLE}", f"--pid-file={PID}", world["id"]], silent):
        return f"failed {said()}"
    compiled = read(f"{STATE}/{world['id']}/seccomp.bpf") if world["learns"] else b""
    os.write(result, f"begun {compiled.hex()}\n".encode())
    with open(PID) as file:
        first = int(file.read())
    while True:
        pid, status = os.wait()
        if pid == first:
            return f"exited {status}"


def call(argv: list[str], standard_input: int) -> int:
    given = [(os.POSIX_SPAWN_DUP2, standard_input, 0)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    pid = os.posix_spawn(argv[0], ["crun", *argv[1:]], environment, file_actions=given)
    return os.waitpid(pid, 0)[1]


def said() -> str:
    return read(LOG).decode(errors="replace")


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def main() -> int:
    checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl")
    result, runtime = int(sys.argv[1]), int(sys.argv[2])
    world = marshal.load(sys.stdin.buffer)
    enter(world["network"])
    outside, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.set_inheritable(result, False)
        try:
            ended = live(world, outside, result, runtime)
        except StepRefused as error:
            ended = f"refused {error}"
        except OSError as error:
            ended = f"failed {error.filename}: {error.strerror}"
        os.write(result, ended.encode("utf-8", "replace"))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
