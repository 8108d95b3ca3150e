"""Mounts volumes that have options (`type`, `device`, `o`) while containers use them."""

import asyncio
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bennu.errors import BennuError, InvalidParameter
from bennu.process import run

OPTIONS: Final = frozenset({"type", "device", "o", "size"})
NEEDS: Final = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
TIMEOUT_S: Final = 60
RESOLVED_TYPES: Final = frozenset({"nfs", "nfs4", "cifs"})
ADDRESS: Final = re.compile(r"(?:^|(?<=,))addr=([^,]*)")


def check_options(volume_name: str, options: Mapping[str, str]) -> None:
    """Refuse options that the local driver does not have. Raises: InvalidParameter in dockerd's words."""
    wrong = f"create {volume_name}: "
    for option in sorted(options):
        if option not in OPTIONS:
            raise InvalidParameter(f'{wrong}invalid option: "{option}"')
    if "size" in options:
        raise InvalidParameter(f"{wrong}quota size requested but no quota support")
    for option, needed in NEEDS.items():
        for other in needed if option in options else ():
            if not options.get(other):
                raise InvalidParameter(f'{wrong}missing required option: "{other}"')


async def mount_options(mountpoint: str, options: Mapping[str, str]) -> None:
    """Mount what the options name, with mount(2): no helper program of a file system is needed.

    Raises: BennuError.
    """
    failed = f"error while mounting volume '{mountpoint}': failed to mount local volume: "
    kind, device = options["type"], options["device"]
    flags = await _resolve(kind, options.get("o", ""), failed)
    argv = ["mount", "-i", "-t", kind, *(["-o", flags] if flags else []), "--", device, mountpoint]
    done = await run(argv, timeout_s=TIMEOUT_S)
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace").strip().removeprefix("mount: ")
        raise BennuError(f"{failed}mount {device}:{mountpoint}: {said or 'no reason was given'}")


async def _resolve(kind: str, flags: str, failed: str) -> str:
    """Replace the host name of a network file system by its address, which the kernel wants."""
    named = ADDRESS.search(flags) if kind in RESOLVED_TYPES else None
    if named is None or not named[1]:
        return flags
    try:
        found = await asyncio.get_running_loop().getaddrinfo(named[1], None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BennuError(f"{failed}error resolving passed in network volume address: {error}") from error
    return flags[: named.start(1)] + str(found[0][4][0]) + flags[named.end(1) :]


async def unmount(mountpoint: str) -> None:
    """Unmount the volume. Raises: BennuError."""
    done = await run(["umount", "-i", "--", mountpoint], timeout_s=TIMEOUT_S)
    if done.exit_code != 0 and await asyncio.to_thread(is_mounted, mountpoint):
        said = done.stderr.decode(errors="replace").strip()
        raise BennuError(f"error while unmounting volume '{mountpoint}': {said}")


def is_mounted(mountpoint: str) -> bool:
    """Tell whether something is mounted exactly there, bind mounts of the same file system included."""
    wanted = mountpoint.encode()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        if _unescape(line.split(b" ", 5)[4]) == wanted:
            return True
    return False


def _unescape(path: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path)
