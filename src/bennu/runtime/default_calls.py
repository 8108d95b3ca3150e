"""Lists the system calls that a container may make by default, as moby `profiles/seccomp/default_linux.go` does. Pure.

A container shares the kernel with everybody, so it gets the calls that programs live on, and of the rest those alone
that its capabilities stand for: who may not administer the system has no use for `mount`, and a hole in it is none
in reach of him. Names are those of libseccomp, which is why some exist twice (`stat` and `stat64`): 32-bit programs
have calls of their own. `runtime/seccomp.py` makes a filter of this page.
"""

from collections.abc import Mapping
from typing import Final

# --- for everybody ------------------------------------------------------------------------------------------------

ALWAYS: Final[Mapping[str, str]] = {
    "reading and writing": """
        read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead
        sendfile sendfile64 splice tee vmsplice copy_file_range
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64""",
    "files, opened and closed": """
        open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64 flock ioctl
        name_to_handle_at memfd_create memfd_secret""",
    "files, looked at": """
        stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx access faccessat faccessat2 readlink
        readlinkat getdents getdents64 statfs statfs64 fstatfs fstatfs64 statmount listmount cachestat
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark""",
    "files, changed": """
        chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchown fchown32 fchownat
        link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat
        truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64
        utime utimes futimesat utimensat utimensat_time64 umask
        sync syncfs fsync fdatasync sync_file_range""",
    "extended attributes": """
        getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
        listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat""",
    "folders of a process": "chdir fchdir getcwd",
    "memory": """
        brk mmap mmap2 munmap mremap remap_file_pages mprotect madvise mincore membarrier mseal map_shadow_stack
        mlock mlock2 mlockall munlock munlockall msync pkey_alloc pkey_free pkey_mprotect""",
    "waiting for many": """
        select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
        eventfd eventfd2 signalfd signalfd4 timerfd_create
        timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64""",
    "locks between threads": """
        futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue get_robust_list set_robust_list rseq""",
    "processes": """
        fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid
        getpgid getpgrp setpgid getsid setsid set_tid_address get_thread_area set_thread_area
        pidfd_open pidfd_send_signal process_mrelease prctl uretprobe riscv_hwprobe""",
    "signals": """
        kill tkill tgkill pause restart_syscall sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending
        rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_tgsigqueueinfo""",
    "users, groups and their rights": """
        getuid getuid32 geteuid geteuid32 getresuid getresuid32 getgid getgid32 getegid getegid32 getresgid getresgid32
        getgroups getgroups32 setuid setuid32 setreuid setreuid32 setresuid setresuid32 setfsuid setfsuid32
        setgid setgid32 setregid setregid32 setresgid setresgid32 setfsgid setfsgid32 setgroups setgroups32
        capget capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self""",
    "shares of the machine": """
        getrlimit setrlimit ugetrlimit prlimit64 getrusage times getpriority setpriority ioprio_get ioprio_set getcpu
        sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
        sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval sched_rr_get_interval_time64""",
    "time": """
        time gettimeofday adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
        clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 nanosleep alarm getitimer setitimer
        timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64""",
    "sockets": """
        socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
        send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64""",
    "talk between processes": """
        ipc semget semctl semop semtimedop semtimedop_time64 shmget shmat shmctl shmdt msgget msgctl msgsnd msgrcv
        mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64
        mq_timedreceive mq_timedreceive_time64""",
    "the machine": "uname sysinfo getrandom",
}

# Before 4.8 one could leave the filter by ptrace: it was asked before the tracer changed the call, not after.
SINCE: Final[Mapping[tuple[int, int], str]] = {(4, 8): "ptrace process_vm_readv process_vm_writev"}

# By the host's architecture, named as rules name it.
ONLY_ON: Final[Mapping[str, str]] = {
    "amd64": "arch_prctl modify_ldt",
    "x86": "modify_ldt",
    "arm": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "arm64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "ppc64le": "sync_file_range2 swapcontext",
    "riscv64": "riscv_flush_icache",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

# --- for who has the capability -----------------------------------------------------------------------------------

OPENED_BY: Final[Mapping[str, str]] = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": """
        clone clone3 setns unshare mount mount_setattr move_mount open_tree umount umount2 fsopen fsconfig fsmount
        fspick sethostname setdomainname quotactl quotactl_fd fanotify_init bpf perf_event_open syslog lookup_dcookie
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}

# --- for nobody ---------------------------------------------------------------------------------------------------

NEVER: Final[Mapping[str, str]] = {
    "the keyrings of the kernel, which know no containers": "add_key request_key keyctl",
    "large pieces of kernel that were broken out of before": """
        io_uring_setup io_uring_enter io_uring_register userfaultfd""",
    "other kernels, swap and the root of the file system": """
        kexec_load kexec_file_load swapon swapoff pivot_root nfsservctl""",
    "memory of other nodes": "move_pages migrate_pages",
    "what new programs have not called for decades": """
        _sysctl bdflush create_module ftime get_kernel_syms idle nice oldfstat oldlstat oldolduname oldstat olduname
        query_module readdir sgetmask ssetmask sigaction signal sigpending sigsuspend sysfs uselib ustat
        vm86 vm86old""",
    "machines of their own kind": """
        get_tls usr26 usr32 multiplexer pciconfig_iobase pciconfig_read pciconfig_write rtas
        s390_guarded_storage s390_sthyi spu_create spu_run subpage_prot switch_endian sys_debug_setcontext""",
    "numbers that no kernel serves": """
        afs_syscall break getpmsg gtty lock mpx prof profil putpmsg security stty timerfd tuxcall ulimit vserver""",
}

# --- by what is asked ---------------------------------------------------------------------------------------------

# Sockets to the hypervisor know no containers, and those of the kernel's cryptography are code that nobody needs.
AF_ALG: Final = 38
AF_VSOCK: Final = 40
AF_LAST: Final = 45  # families above are none the kernel has

# As which system a program wants to be treated: Linux, with 32-bit addresses shown, or another version's name; or a
# question that changes nothing.
PERSONALITIES: Final = (0, 0x8, 0x20000, 0x20008, 0xFFFF_FFFF)
REFUSED_PERSONALITIES: Final = tuple(1 << bit for bit in range(18, 28))  # one flag each: no address randomization…

# A namespace each of clone's flags: mount, cgroup, uts, ipc, user, pid, net.
NAMESPACE_FLAGS: Final = (0x20000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)

# --- the calls of other word sizes that a host's kernel serves as well ----------------------------------------------

ARCHITECTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "x86": ("SCMP_ARCH_X86",),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "arm": ("SCMP_ARCH_ARM",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
}
