"""Shutting a process in: mounts, capabilities, system calls. See `docs/security.md`.

The kernel's interfaces used here need Linux 5.12: open_tree, move_mount, mount_setattr, setns with a pidfd.
"""

import ctypes
import os
import re
import resource
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

# Numbers that are the same on every architecture.
OPEN_TREE: Final = 428
MOVE_MOUNT: Final = 429
MOUNT_SETATTR: Final = 442
FSOPEN: Final = 430
FSCONFIG: Final = 431
FSMOUNT: Final = 432
AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MS_RDONLY: Final = 0x1
MS_REMOUNT: Final = 0x20
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8
FSCONFIG_CMD_CREATE: Final = 6
FSMOUNT_CLOEXEC: Final = 1
# File systems whose files are the kernel's, and no disk's.
KERNEL_FILES: Final = frozenset(
    (
        *(b"proc", b"sysfs", b"cgroup", b"cgroup2", b"devpts", b"mqueue", b"debugfs", b"tracefs", b"securityfs"),
        *(b"bpf", b"configfs", b"efivarfs", b"pstore", b"fusectl", b"binfmt_misc", b"nsfs", b"selinuxfs"),
    )
)
OCTAL: Final = re.compile(rb"\\([0-7]{3})")  # how spaces and the like stand in mountinfo
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
CAPABILITY_VERSION_3: Final = 0x20080522
MAX_MEMORY_BYTES: Final = 1 << 30
PLACES: Final = 2  # empty folders of the jail's own root that trees are mounted on: /0, /1

CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_FOWNER: Final = 3
CAP_FSETID: Final = 4
CAP_SYS_ADMIN: Final = 21  # for extended attributes called trusted.*, which mark overlayfs's layers
CAP_MKNOD: Final = 27
CAP_SETFCAP: Final = 31

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def clone_mount(path: bytes, *, recursive: bool = False) -> int:
    """Copy the mount at `path`, detached; answer a descriptor of the copy, whose root is `path`. Raises: OSError."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_SYMLINK_NOFOLLOW | (AT_RECURSIVE if recursive else 0)
    return _checked(_libc.syscall(OPEN_TREE, AT_FDCWD, path, flags), "open_tree")


def leave_host() -> int:
    """Go into namespaces of this process's own, whose only mount is an empty read-only folder. Raises: OSError.

    Only what is forked after this is in the new process namespace. Answers a descriptor of the new mount namespace.
    """
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _checked(_libc.unshare(spaces), "unshare")
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    _mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    _mount(b"tmpfs", b"/proc", b"tmpfs", 0, b"size=64k,mode=0700")
    os.chdir("/proc")
    for place in range(PLACES):
        os.mkdir(f"{place}", 0o700)
    _mount(None, b"/proc", None, MS_REMOUNT | MS_RDONLY, None)
    _enter_here()
    return home


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _checked(_libc.mount(source, target, kind, flags, data), "mount")


def _enter_here() -> None:
    """Make the mount this process stands in its root, and let go of the former root."""
    _checked(_libc.pivot_root(b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def open_proc() -> int:
    """Open a procfs of this process's own namespace that is mounted nowhere. Raises: OSError."""
    context = _checked(_libc.syscall(FSOPEN, b"proc", 0), "fsopen")
    try:
        _checked(_libc.syscall(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig")
        return _checked(_libc.syscall(FSMOUNT, context, FSMOUNT_CLOEXEC, 0), "fsmount")
    finally:
        os.close(context)


def mounts_of(pidfd: int, home: int) -> int:
    """Copy, detached, all that the process of `pidfd` has mounted, from its root on; `home`: see `leave_host`.

    Raises: OSError; ProcessLookupError when the process is gone.
    """
    try:
        _checked(_libc.setns(pidfd, CLONE_NEWNS), "setns")
        return clone_mount(b"/", recursive=True)
    finally:
        _checked(_libc.setns(home, CLONE_NEWNS), "setns")


def lay_over(folders: Sequence[int], *, writable: bool, home: int) -> int:
    """Mount folders, given as detached mounts with the topmost first, over each other; answer the detached overlay.

    The last of a writable one holds `diff` and `work`. They are closed afterwards. Raises: OSError.
    """
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    try:
        _mount(b"tmpfs", b"/0", b"tmpfs", 0, b"size=1m,mode=0700")
        os.chdir("/0")
        for place, folder in enumerate(folders):
            os.mkdir(f"{place}")
            _move(folder, f"{place}")
            os.close(folder)
        os.mkdir("empty")  # the kernel wants two folders at least
        os.mkdir("all")
        lowers = len(folders) - 1 if writable else len(folders)
        options = "lowerdir=" + ":".join((*map(str, range(lowers)), "empty", *(() if lowers else ("all",))))
        if writable:
            options += f",upperdir={lowers}/diff,workdir={lowers}/work"
        _mount(b"overlay", b"all", b"overlay", 0, f"{options},index=off,redirect_dir=off,metacopy=off".encode())
        return clone_mount(b"all")
    finally:
        _checked(_libc.setns(home, CLONE_NEWNS), "setns")


class Tree(NamedTuple):
    """A detached mount and whether it may be written to; `path`: where in the root it is mounted, "" for a root."""

    descriptor: int
    writable: bool
    path: str = ""


def shut_in(trees: Sequence[Tree], *, enter: bool, proc: int) -> None:
    """Mount the trees that are roots on /0, /1, the others where they belong in the first.

    With `enter` the first becomes the root, and the process stands in the second, if there is one; above it lies
    nothing but an empty folder, which is not unmounted, for that waits some milliseconds for all processors. The
    kernel's own files are taken out of the trees: the links of a procfs lead to the mounts of processes themselves,
    which nothing has tamed, and none of them is a container's to be copied, as with dockerd. `proc`: see `open_proc`.
    Afterwards the descriptors are closed. Raises: OSError.
    """
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    roots, mounts = [tree for tree in trees if not tree.path], [tree for tree in trees if tree.path]
    for place, root in enumerate(roots):
        _tame(root.descriptor, writable=root.writable)
        _move(root.descriptor, f"/{place}")
    if enter:
        os.chdir("/1" if len(roots) > 1 else "/0")
        os.chroot("/0")
    _take_out_kernel_files(proc)
    if mounts:
        _mount_inside(roots[0], mounts, proc)
    for descriptor in (proc, *(tree.descriptor for tree in trees)):
        os.close(descriptor)


def _mount_inside(root: Tree, mounts: Sequence[Tree], proc: int) -> None:
    """Mount them in their order, parents first; a tree is made read-only after the places of mounts in it are made.

    Before the next place is looked up, the kernel's files are gone again: their links lead out of any root.
    """
    closed = [] if root.writable else [root.descriptor]
    for descriptor in closed:
        _set_attributes(descriptor, cleared=MOUNT_ATTR_RDONLY)
    for mount in mounts:
        _tame(mount.descriptor, writable=mount.writable)
        if not mount.writable:
            _set_attributes(mount.descriptor, cleared=MOUNT_ATTR_RDONLY)
        place = os.path.realpath(mount.path)
        _make_place(place, is_folder=stat.S_ISDIR(os.fstat(mount.descriptor).st_mode))
        _move(mount.descriptor, place)
        _take_out_kernel_files(proc)
        if not mount.writable and os.path.samestat(os.stat(place), os.fstat(mount.descriptor)):  # it is still there
            closed.append(mount.descriptor)
    for descriptor in closed:
        _set_attributes(descriptor, MOUNT_ATTR_RDONLY)


def _move(tree: int, path: str) -> None:
    moved = _libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)
    _checked(moved, f"mount at {path}")


def _make_place(path: str, *, is_folder: bool) -> None:
    """Make the folder or file to mount on where there is none, as a runtime does. Raises: OSError."""
    os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
    if not is_folder and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _take_out_kernel_files(proc: int) -> None:
    """Unmount whatever lies where one of these is, with all that is mounted in it, until none is left."""
    while (place := _find_kernel_files(proc)) is not None:
        _checked(_libc.umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW), "umount")


def _find_kernel_files(proc: int) -> bytes | None:
    """Find the first mount of a kernel file system in this namespace; the first of a tree has the others in it."""
    with open(os.open("self/mountinfo", os.O_RDONLY, dir_fd=proc), "rb") as file:
        for line in file:
            fields, _, kind = line.partition(b" - ")
            if kind.partition(b" ")[0] in KERNEL_FILES:
                return OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields.split()[4])
    return None


def _tame(tree: int, *, writable: bool) -> None:
    """Forbid programs, devices and set-user-id below it, and cut it off from mounts made where it was copied."""
    attributes = MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (0 if writable else MOUNT_ATTR_RDONLY)
    _set_attributes(tree, attributes, propagation=MS_PRIVATE, flags=AT_RECURSIVE)


def _set_attributes(tree: int, given: int = 0, *, cleared: int = 0, propagation: int = 0, flags: int = 0) -> None:
    wanted = struct.pack("=4Q", given, cleared, propagation, 0)
    done = _libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | flags, wanted, len(wanted))
    _checked(done, "mount_setattr")


def give_up(capabilities: Iterable[int], system_calls: bytes) -> None:
    """Keep these capabilities and system calls (a compiled filter), for good. Raises: OSError."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kept = sum(1 << number for number in capabilities)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")
    _checked(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    code = ctypes.create_string_buffer(system_calls, len(system_calls))
    program = struct.pack("HP", len(system_calls) // 8, ctypes.addressof(code))
    _checked(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def die_with_parent(signum: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
