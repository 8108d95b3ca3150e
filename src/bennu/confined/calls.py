"""The system calls that are left to the helper, compiled by libseccomp, which knows their numbers on every machine."""

import ctypes
import errno
import os
from typing import Final

# What Python needs to go on, and what file work is made of. Everything else does not exist for the helper: above all
# no way to start a program, to make or enter a namespace, to mount, to trace, to signal, or to open a socket.
ALLOWED: Final = (
    *("brk", "madvise", "mremap", "munmap", "futex", "futex_time64", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn"),
    *("exit", "exit_group", "getpid", "gettid", "getrandom", "clock_gettime", "clock_gettime64", "gettimeofday"),
    *("sched_yield", "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "rseq", "restart_syscall", "membarrier"),
    *("read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "pwritev", "lseek", "_llseek", "close"),
    *("ftruncate", "ftruncate64", "fallocate", "fsync", "fdatasync", "syncfs", "copy_file_range", "fcntl", "fcntl64"),
    *("open", "openat", "openat2", "creat", "dup", "getdents", "getdents64", "fchdir", "chdir", "getcwd", "umask"),
    *(
        "stat",
        "stat64",
        "fstat",
        "fstat64",
        "lstat",
        "lstat64",
        "newfstatat",
        "fstatat64",
        "statx",
        "statfs",
        "fstatfs",
    ),
    *("access", "faccessat", "faccessat2", "readlink", "readlinkat", "poll", "ppoll"),
    *("mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("chown32", "fchown32", "lchown32", "utimensat", "utimensat_time64"),
    *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
)
# Memory, but never memory to run code from.
WITHOUT_EXECUTION: Final = ("mmap", "mmap2", "mprotect")
PROTECTION_ARGUMENT: Final = 2
PROT_EXEC: Final = 4
SCMP_ACT_ALLOW: Final = 0x7FFF0000
SCMP_ACT_ERRNO: Final = 0x00050000
SCMP_CMP_MASKED_EQ: Final = 7
UNKNOWN_CALL: Final = -1
LIBRARY: Final = "libseccomp.so.2"


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def compile_filter() -> bytes:
    """Compile the filter for the kernel. A call that is not in it fails with ENOSYS. Raises: OSError."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    rules = library.seccomp_init(SCMP_ACT_ERRNO | errno.ENOSYS)
    if not rules:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        for name in ALLOWED:
            _allow(library, rules, name)
        unless = Comparison(PROTECTION_ARGUMENT, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)
        for name in WITHOUT_EXECUTION:
            _allow(library, rules, name, unless)
        return _export(library, rules)
    finally:
        library.seccomp_release(rules)


def _allow(library: ctypes.CDLL, rules: int, name: str, only_if: Comparison | None = None) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == UNKNOWN_CALL:
        return  # younger than this libseccomp
    compared = ctypes.byref(only_if) if only_if is not None else None
    failed = library.seccomp_rule_add_array(rules, SCMP_ACT_ALLOW, number, 1 if only_if is not None else 0, compared)
    if failed not in (0, -errno.EDOM):  # EDOM: not a call of this machine
        raise OSError(-failed, f"seccomp: {name}: {os.strerror(-failed)}")


def _export(library: ctypes.CDLL, rules: int) -> bytes:
    file = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        failed = library.seccomp_export_bpf(rules, file)
        if failed:
            raise OSError(-failed, f"seccomp: {os.strerror(-failed)}")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)
