"""What this process may do: user, capabilities, limits, security modules; and whether there is room on the disk."""

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

from bennu.host.finding import Finding, fail, ok, warn
from bennu.host.kernel import nearest_existing

# By their bit, from the kernel's list.
NEEDED: Final = {
    0: "CAP_CHOWN",
    1: "CAP_DAC_OVERRIDE",
    3: "CAP_FOWNER",
    5: "CAP_KILL",
    6: "CAP_SETGID",
    7: "CAP_SETUID",
    12: "CAP_NET_ADMIN",
    18: "CAP_SYS_CHROOT",
    21: "CAP_SYS_ADMIN",
    27: "CAP_MKNOD",
}
SYS_RESOURCE: Final = 24
FILES_WANTED: Final = 65536
FILES_A_CONTAINER: Final = 2  # that bennud has open while it runs: to see its end, and trouble with its memory
FILES_OF_ITS_OWN: Final = 128  # with what it keeps in reserve
GIB: Final = 1 << 30
LOST: Final = ("containers", "layers", "blobs", "records")


def check_rights(status: str, euid: int) -> list[Finding]:
    """Judge the rights in the text of /proc/self/status. Pure."""
    if euid != 0:
        return [fail("user", f"uid {euid}: containers need root", "sudo bennud")]
    mask = int(_field(status, "CapEff") or "0", 16)
    findings = [ok("user", "root")]
    lost = [name for bit, name in NEEDED.items() if not mask >> bit & 1]
    if lost:
        findings.append(fail("capabilities", f"missing: {', '.join(lost)}", "run outside of an unprivileged container"))
    elif not mask >> SYS_RESOURCE & 1:
        text = "no CAP_SYS_RESOURCE: limits and OOM scores are clamped to what this process itself has"
        findings.append(warn("capabilities", text))
    else:
        findings.append(ok("capabilities", "all that are needed"))
    return findings


def check_seccomp(status: str) -> Finding:
    """Judge seccomp in the text of /proc/self/status. Pure."""
    if _field(status, "Seccomp") is None:
        return warn("seccomp", "not in this kernel: only privileged and unconfined containers can start")
    return ok("seccomp", "system calls are filtered by a profile of bennud's own")


def check_security_modules(sys: Path = Path("/sys")) -> Finding:
    enforcing = sys / "fs/selinux/enforce"
    if enforcing.exists() and enforcing.read_text().strip() == "1":
        return warn("security", "SELinux enforces; containers get no label and may be denied", "setenforce 0")
    enabled = sys / "module/apparmor/parameters/enabled"
    if enabled.exists() and enabled.read_text().strip() == "Y":
        return ok("security", "AppArmor is on; no profile unless --security-opt apparmor= names one")
    return ok("security", "neither AppArmor nor SELinux; neither is needed")


def read_file_limit(data_root: Path) -> int:
    """Read how many files the daemon of that root may open; if none runs, how many one started here may open."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((data_root / "lock").read_text())
        if b"bennud" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def check_limits(hard_files: int) -> Finding:
    """Check how many containers the limit of open files allows. Pure."""
    containers = max(0, hard_files - FILES_OF_ITS_OWN) // FILES_A_CONTAINER
    text = f"{hard_files} open files, enough for some {containers} containers that run"
    if hard_files < FILES_WANTED:
        return warn("limits", text, f"ulimit -n {FILES_WANTED} (or LimitNOFILE= in the service)")
    return ok("limits", text)


def check_disk(data_root: Path) -> Finding:
    where = nearest_existing(data_root)
    room = os.statvfs(where)
    free = room.f_bavail * room.f_frsize
    text = f"{free / GIB:.1f} GiB free in {where}"
    if room.f_files and room.f_favail < 10_000:
        return warn(
            "disk", f"only {room.f_favail} more files fit in {where}", "delete files, or choose another --data-root"
        )
    if (
        free < 2 * GIB
    ):  # never a failure: the containers there are must be taken care of, and it takes a daemon to prune
        return warn("disk", text, "bennu image prune; or choose another --data-root")
    return ok("disk", text)


def check_lost(data_root: Path) -> Finding:
    """Check whether something was put aside because no record tells of it."""
    lost = data_root / "lost"
    counts = {kind: len(list((lost / kind).iterdir())) for kind in LOST if os.access(lost / kind, os.R_OK)}
    text = ", ".join(f"{count} in {lost / kind}" for kind, count in counts.items() if count)
    if not text:
        return ok("lost", "nothing was put aside for being on no record")
    return warn("lost", f"on no record: {text}", "bennu doctor --repair, with bennud stopped; then delete what is left")


def _field(status: str, name: str) -> str | None:
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None
