"""Whether this machine forwards packets, and whether it does so because of us.

Containers need forwarding, so a daemon that finds it off switches it on; and a machine that nobody made a router
would be one. So this is written down before it is done: for the network namespace it is done in, below /run, which
ends when the machine does, as the knobs themselves do. As long as it stands there, forwarding is ours, whichever
daemon did it, and rules of ours let pass only what has to do with containers. Whoever takes the file away says that
this machine is a router now.

Callers hold the lock of the machine's daemons while they change anything.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bennu import bpf
from bennu.host import sysctl

FOLDER: Final = Path("/run/bennu-forwarding")
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
TABLE: Final = "bennu_forwarding"  # of the rules, all daemons' together
SWITCHES: Final = {"ipv4": "ipv4/ip_forward", "ipv6": "ipv6/conf/all/forwarding"}
REDIRECTS: Final = "ipv4/conf/all/accept_redirects"  # follows the switch


class Switched(msgspec.Struct, frozen=True):
    """A family that forwards because of us."""

    routers: tuple[str, ...]  # interfaces from which it was forwarded all the same
    before: dict[str, str]  # other knobs that are touched with it, as they were


class ForwardingMark(msgspec.Struct, frozen=True):
    """What is written down. `boot`: a folder that outlives the machine's run must not speak of an earlier one."""

    boot: str
    families: dict[str, Switched] = {}


def is_on(family: str) -> bool:
    """Tell whether packets of `ipv4` or `ipv6` are forwarded. True where there is no such family to be switched on."""
    return sysctl.read(SWITCHES[family]) != "0"


def mark_path() -> Path:
    """Answer the path of the mark of this thread's network namespace."""
    try:
        number = bpf.netns_cookie()
    except OSError:  # before Linux 5.14
        number = Path("/proc/thread-self/ns/net").stat().st_ino
    return FOLDER / str(number)


def read_mark() -> ForwardingMark:
    """Read the mark; it is empty when forwarding was not switched on by us."""
    boot = BOOT_ID.read_text().strip()
    try:
        mark = msgspec.json.decode(mark_path().read_bytes(), type=ForwardingMark)
    except (OSError, msgspec.DecodeError):
        return ForwardingMark(boot)
    return mark if mark.boot == boot else ForwardingMark(boot)


def claim(families: Iterable[str]) -> list[str]:
    """Write down those that are off as ours to switch on; which these are. Raises: OSError."""
    off = [family for family in families if not is_on(family)]
    if off:
        mark = read_mark()
        # One that was ours, and that somebody switched off, comes back as it was noted first.
        noted = {family: mark.families.get(family) or _look(family) for family in off}
        _write(ForwardingMark(mark.boot, {**mark.families, **noted}))
    return off


def switch_on(family: str) -> bool:
    """Switch forwarding on; to be called after `claim`. Raises: OSError.

    False where the kernel does not let us; then the claim is withdrawn.
    """
    if family == "ipv6":
        # A host that forwards ignores router advertisements unless told otherwise: keep those it listened to.
        for name in _interfaces(family):
            if sysctl.read(f"ipv6/conf/{name}/accept_ra") == "1":
                sysctl.write(f"ipv6/conf/{name}/accept_ra", "2")
    if sysctl.write(SWITCHES[family], "1"):
        return True
    mark = read_mark()
    _write(ForwardingMark(mark.boot, {name: one for name, one in mark.families.items() if name != family}))
    return False


def switch_off() -> None:
    """Switch off what is ours, and set the knobs that were touched with it back as they were. Idempotent."""
    for family, switched in read_mark().families.items():
        sysctl.write(SWITCHES[family], "0")
        for knob, value in switched.before.items():
            if not knob.endswith("/accept_ra") or sysctl.read(knob) == "2":  # else somebody set it meanwhile
                sysctl.write(knob, value)
    mark_path().unlink(missing_ok=True)


def _look(family: str) -> Switched:
    conf = f"{family}/conf"
    routers = [name for name in _interfaces(family) if sysctl.read(f"{conf}/{name}/forwarding") == "1"]
    before = {f"{conf}/{name}/forwarding": "1" for name in routers}
    if family == "ipv4":
        before[REDIRECTS] = sysctl.read(REDIRECTS) or "1"
    else:
        listening = (f"{conf}/{name}/accept_ra" for name in _interfaces(family))
        before |= {knob: "1" for knob in listening if sysctl.read(knob) == "1"}
    return Switched(tuple(name for name in routers if name != "default"), before)


def _interfaces(family: str) -> list[str]:
    """List the interfaces, and `default`, which is for those to come."""
    folder = Path("/proc/sys/net", family, "conf")
    return sorted(path.name for path in folder.iterdir() if path.name != "all") if folder.exists() else []


def _write(mark: ForwardingMark) -> None:
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    path = mark_path()
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(mark))
    fresh.replace(path)
