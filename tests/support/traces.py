"""What a daemon has in the kernel and among the processes, told apart from everybody else's by its roots and tag."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bennu import bpf
from bennu.network.socket_lb.socket_lb_bpf import HOOKS, ProgramMark, detach_marked, program_mark
from support.daemon import Daemon
from support.waiting import wait_for

CGROUPS = Path("/sys/fs/cgroup")


def tag_of(daemon: Daemon) -> str:
    """The mark that its bridge, interfaces and nftables table bear."""
    return hashlib.sha256(str(daemon.data_root.absolute()).encode()).hexdigest()[:8]


def mounts(daemon: Daemon) -> list[str]:
    """Mount points below its roots, in the order of mounting."""
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith((f"{daemon.root}/", f"{daemon.exec_root}/"))]


def processes(daemon: Daemon) -> dict[int, str]:
    """Helpers that work for it or for its containers: conmon, crun, skopeo …, by pid.

    The writer of its logs counts once the daemon is gone, for it stays as long as the daemon lives.
    """
    found = {}
    for pid, line in command_lines():
        if "bennu.logwriter.server" in line and daemon.is_alive:
            continue
        if pid != os.getpid() and (str(daemon.exec_root) in line or str(daemon.data_root) in line):
            found[pid] = line
    if daemon.process is not None:
        found.pop(daemon.process.pid, None)
    return found


def command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue


def links(daemon: Daemon) -> list[str]:
    """Its interfaces in the host's network namespace: bridges, and the host's ends of veth pairs."""
    tag = tag_of(daemon)
    return [name for name in names_in(Path("/sys/class/net")) if tag in name or name.startswith(f"vb{tag[:5]}")]


def tables(daemon: Daemon) -> list[str]:
    """Its nftables tables, as `family name`."""
    done = subprocess.run(["nft", "--json", "list", "tables"], capture_output=True, check=True)
    items = [item["table"] for item in json.loads(done.stdout)["nftables"] if "table" in item]
    return [f"{table['family']} {table['name']}" for table in items if table["name"].endswith(tag_of(daemon))]


def rules(daemon: Daemon) -> dict[str, list[str]]:
    """The lines of each of its tables."""
    found = {}
    for table in tables(daemon):
        done = subprocess.run(["nft", "list", "table", *table.split(" ")], capture_output=True, text=True, check=True)
        found[table] = done.stdout.splitlines()
    return found


def programs_of(data_root: Path) -> int:
    """How many programs of the daemon there hang at the root of the control groups."""
    mark = mark_by_root(data_root)
    return sum(mark.is_ours(name) for hook in HOOKS for name in attached_programs(hook))


def mark_by_root(data_root: Path) -> ProgramMark:
    """Whatever network the daemon is in."""
    return replace(program_mark("", data_root), table_digest="")


def attached_programs(hook: int) -> list[str]:
    """The names of all, of whomever; none where the kernel does not tell."""
    with open_cgroup_root() as root, contextlib.suppress(OSError):
        found = bpf.attached(root, hook) if root is not None else {}
        for program in found:
            os.close(program)
        return list(found.values())
    return []


@contextlib.contextmanager
def open_cgroup_root() -> Iterator[int | None]:
    try:
        root = bpf.open_cgroup_root()
    except OSError:
        yield None
        return
    try:
        yield root
    finally:
        os.close(root)


def control_groups(ids: set[str]) -> list[str]:
    """Control groups of these containers, whatever hierarchy they are in; groups may vanish while we look."""
    folders = (Path(place, name) for place, names, _ in os.walk(CGROUPS) for name in names) if ids else ()
    return [str(folder) for folder in folders if any(one in folder.name for one in ids)]


def open_files(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def left_behind(daemon: Daemon, ids: set[str] = frozenset()) -> dict[str, object]:  # type: ignore[assignment]
    """What is there although no container is. Network namespaces kept ready for the next container do not count."""
    findings: dict[str, object] = {
        "mounts": [place for place in mounts(daemon) if not place.startswith(f"{daemon.exec_root}/netns/")],
        "processes": processes(daemon),
        "container folders": names_in(daemon.data_root / "containers"),
        "bundles": names_in(daemon.exec_root / "c"),
        "control groups": control_groups(ids),
    }
    return {name: finding for name, finding in findings.items() if finding}


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def assert_nothing_left(daemon: Daemon, ids: set[str] = frozenset(), timeout_s: float = 10.0) -> None:  # type: ignore[assignment]
    """Wait for what may take its time in the background, then insist."""
    wait_for(
        lambda: not left_behind(daemon, ids),
        timeout_s=timeout_s,
        what="every trace of the removed containers to vanish",
        describe=lambda: "\n".join(f"{name}: {finding}" for name, finding in left_behind(daemon, ids).items()),
    )


def discard(daemon: Daemon) -> None:
    """End the daemon and whatever it left, in whatever state it is; afterwards the machine is as before."""
    if daemon.is_alive:
        with contextlib.suppress(AssertionError):
            remove_networks(daemon)
        daemon.stop()
    thaw(daemon)
    for pid in processes(daemon):
        for one in (*children_of(pid), pid):
            send_kill(one)
    wait_for(lambda: not processes(daemon), what="the daemon's helpers to die")
    remove_control_groups(set(names_in(daemon.data_root / "containers")))
    for place in reversed(mounts(daemon)):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
    with open_cgroup_root() as root, contextlib.suppress(OSError):
        if root is not None and daemon.data_root.exists():
            detach_marked(root, mark_by_root(daemon.data_root))
    for table in tables(daemon):
        subprocess.run(["nft", "delete", "table", *table.split(" ")], capture_output=True, check=False)
    for name in links(daemon):
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    shutil.rmtree(daemon.root, ignore_errors=True)
    shutil.rmtree(daemon.exec_root, ignore_errors=True)


def thaw(daemon: Daemon) -> None:
    """What is paused cannot even be killed, with control groups of version 1."""
    for group in control_groups(set(names_in(daemon.data_root / "containers"))):
        for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (path := Path(group, file)).exists():
                path.write_text(word)


def remove_control_groups(ids: set[str]) -> None:
    for group in control_groups(ids):
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # gone, or its last process is still ending
                Path(folder).rmdir()


def remove_networks(daemon: Daemon) -> None:
    """Bridges of networks that tests made bear no tag of the daemon, so it has to remove them itself."""
    if ids := daemon.docker("ps", "-aq").lines:
        daemon.docker("rm", "-fv", *ids)
    if names := daemon.docker("network", "ls", "-q", "--filter", "type=custom").lines:
        daemon.docker("network", "rm", *names)


def children_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def send_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
