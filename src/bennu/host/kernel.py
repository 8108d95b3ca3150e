"""What the kernel can do, found by doing it in namespaces that vanish with the probe.

Reading module lists would be quicker and wrong: features may be built in, not loaded yet, or forbidden here.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bennu import bpf
from bennu.confined.client import HELPER
from bennu.confined.client import Folder as Tree
from bennu.errors import BennuError
from bennu.host.finding import Finding, fail, ok, warn
from bennu.process import run

PROBE_TIMEOUT_S: Final = 20
NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
# The parts of nftables that published ports need, in a table that no packet ever meets.
RULES: Final = """
table ip bennu_probe {
    map ports { type inet_service : ipv4_addr . inet_service; }
    chain pre { type nat hook prerouting priority -100; dnat ip to tcp dport map @ports; }
    chain post { type nat hook postrouting priority 100; fib saddr type local masquerade; }
    chain balance { numgen inc mod 2 vmap { 0 : accept, 1 : drop }; ct state established accept; }
}
"""


async def check_kernel(data_root: Path) -> list[Finding]:
    """Run every probe, all at once. Needs root."""
    plain = [check_pidfd(), check_namespaces(), check_connects()]
    probes = await asyncio.gather(
        check_overlay(data_root),
        check_link("veth", "probe0", "type", "veth", "peer", "name", "probe1"),
        check_link("bridge", "probe0", "type", "bridge"),
        check_nftables(),
        check_helper(data_root),
    )
    return [*plain, *probes]


def check_pidfd() -> Finding:
    release = os.uname().release
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return fail("kernel", f"{release}: pidfd_open fails ({error.strerror})", "boot Linux 5.3 or later")
    return ok("kernel", release)


async def check_helper(folder: Path) -> Finding:
    """Check whether the helper that touches containers' files can shut itself in here. `folder` is not changed."""
    where = nearest_existing(folder)
    try:
        await HELPER.ask("stat", Tree(where), path="/")
    except (BennuError, OSError) as error:
        cure = "boot Linux 5.12 or later; apt-get install libseccomp2"
        return fail("helper", f"files of containers cannot be touched safely: {error}", cure)
    return ok("helper", "touches the files of containers shut in with them")


def check_namespaces(proc: Path = Path("/proc/self/ns")) -> Finding:
    absent = [name for name in NAMESPACES if not (proc / name).exists()]
    if absent:
        return fail("namespaces", f"the kernel lacks: {', '.join(absent)}", "boot a kernel that has them")
    if not (proc / "user").exists():
        return warn("namespaces", "no user namespaces; builds run without them", "boot a kernel with CONFIG_USER_NS")
    return ok("namespaces", ", ".join((*NAMESPACES, "user")))


def check_connects() -> Finding:
    """Check whether a program may look at the connects of this host. It is not attached."""
    program = bpf.Program()
    program.set(0, 1)
    program.end()
    try:
        bpf.netns_cookie()
        os.close(bpf.open_cgroup_root())
        os.close(bpf.load(program.assemble(), "bennu_probe", bpf.INET4_CONNECT))
    except OSError as error:
        slower = "local clients of published ports are translated packet by packet, a little slower"
        return ok("local connects", f"{slower} ({error.strerror or error})")
    return ok("local connects", "go straight to containers")


async def check_overlay(data_root: Path) -> Finding:
    """Mount an overlay where images will live: an overlay or a network disk cannot hold another's upper layer."""
    where = nearest_existing(data_root)
    try:
        probe = Path(tempfile.mkdtemp(prefix=".probe-", dir=where))
    except OSError as error:
        return fail("overlayfs", f"cannot write in {where}: {error.strerror}", "choose another --data-root")
    try:
        for name in ("lower", "upper", "work", "merged"):
            (probe / name).mkdir()
        options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        words = ("mount", "-t", "overlay", "overlay", "-o", options, str(probe / "merged"))
        problem = await in_new_namespace("--mount", words)
    finally:
        await asyncio.to_thread(shutil.rmtree, probe, ignore_errors=True)
    if problem:
        cure = "modprobe overlay; or choose a --data-root on ext4, xfs or btrfs"
        return fail("overlayfs", f"cannot be mounted in {where}: {problem}", cure)
    return ok("overlayfs", f"works in {where}")


async def check_link(kind: str, *words: str) -> Finding:
    problem = await in_new_namespace("--net", ("ip", "link", "add", *words))
    if problem:
        return fail(kind, f"cannot be made: {problem}", f"modprobe {kind}")
    return ok(kind, "works")


async def check_nftables() -> Finding:
    problem = await in_new_namespace("--net", ("nft", "--file", "-"), stdin=RULES.encode())
    if problem:
        return fail(
            "nftables", f"refuses the rules of published ports: {problem}", "modprobe nf_tables nft_numgen nf_nat"
        )
    return ok("nftables", "nat, maps and numgen work")


async def in_new_namespace(kind: str, words: Sequence[str], *, stdin: bytes | None = None) -> str:
    """Run a command in a namespace of its own; what went wrong in one line, or ""."""
    try:
        done = await run(["unshare", kind, *words], timeout_s=PROBE_TIMEOUT_S, stdin=stdin)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except BennuError as error:
        return str(error)
    if done.exit_code == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0].strip() if lines else f"exit code {done.exit_code}"


def nearest_existing(path: Path) -> Path:
    """Answer `path`, or the first of its parents that exists."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())
