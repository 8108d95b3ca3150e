"""A host of the test's own, with two neighbours on wires of their own: what a daemon in it changes is seen."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from network_helpers import inside, pinned_namespace

from bennu.host import forwarding
from support.daemon import BENNUD

WIRES = {"left": ("198.18.81", "fd00:81:"), "right": ("198.18.82", "fd00:82:")}
VOLATILE = ("stable_secret", "ipv4/route/", "ipv6/route/", "neigh/", "netfilter/", "bridge/")


@dataclass(frozen=True)
class World:
    """Namespaces by path. The host is `.1` (`:1`) on each wire, the neighbour `.2` (`:2`)."""

    host: str
    left: str
    right: str

    @property
    def program(self) -> tuple[str | Path, ...]:
        """What starts a daemon in the host."""
        return ("nsenter", f"--net={self.host}", BENNUD)

    def at(self, *words: str) -> str:
        """What a command in the host prints. Raises: CalledProcessError."""
        return run_at(self.host, *words)

    def sysctls(self) -> dict[str, str]:
        """All knobs of the host's network that stand still by themselves."""
        return inside(self.host, read_sysctls)

    def forwards(self) -> tuple[str, str]:
        """IPv4 and IPv6."""
        knobs = self.sysctls()
        return knobs["ipv4/ip_forward"], knobs["ipv6/conf/all/forwarding"]


@contextlib.contextmanager
def open_world(folder: Path) -> Iterator[World]:
    with contextlib.ExitStack() as pinned:
        host, left, right = (pinned.enter_context(pinned_namespace(folder / name)) for name in ("h", "l", "r"))
        world = World(host, left, right)
        for name in (host, left, right):
            run_at(name, "ip", "link", "set", "lo", "up")
        for knob in ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv4.conf.all.rp_filter"):
            run_at(host, "sysctl", "-qw", f"net.{knob}=0")  # a new network may take them from the machine's
        for side, path in (("left", left), ("right", right)):
            lay_wire(host, path, side)
        try:
            yield world
        finally:
            inside(host, lambda: forwarding.mark_path().unlink(missing_ok=True))


def lay_wire(host: str, neighbour: str, name: str) -> None:
    v4, v6 = WIRES[name]
    run_at(host, "ip", "link", "add", name, "type", "veth", "peer", "name", "wire", "netns", neighbour)
    for path, interface, number in ((host, name, 1), (neighbour, "wire", 2)):
        run_at(path, "ip", "addr", "add", f"{v4}.{number}/24", "dev", interface)
        run_at(path, "ip", "addr", "add", f"{v6}:{number}/64", "dev", interface, "nodad")
        run_at(path, "ip", "link", "set", interface, "up")
    run_at(neighbour, "ip", "route", "add", "default", "via", f"{v4}.1")
    run_at(neighbour, "ip", "route", "add", "default", "via", f"{v6}:1")


def run_at(path: str, *words: str) -> str:
    done = subprocess.run(["nsenter", f"--net={path}", *words], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def read_sysctls() -> dict[str, str]:
    root = Path("/proc/sys/net")
    found = {}
    for path in (one for family in ("ipv4", "ipv6") for one in (root / family).rglob("*") if one.is_file()):
        name = str(path.relative_to(root))
        if not any(word in name for word in VOLATILE):
            with contextlib.suppress(OSError):  # some are to be written only, or of interfaces that went
                found[name] = path.read_text().strip()
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str], *, but_of: Callable[[str], bool]) -> dict[str, str]:
    """Knobs that stand otherwise, or are new, but for those of some interfaces."""
    different = {name: value for name, value in after.items() if before.get(name) != value}
    return {name: value for name, value in different.items() if not (_is_of(name) and but_of(_is_of(name)))}


def _is_of(knob: str) -> str:
    parts = knob.split("/")
    return parts[2] if parts[1] == "conf" else ""
