"""Carries out `ways`: programs of ours at the connects of this host, and the maps they read.

The programs hang on the root of the control groups and outlive the daemon, as the rules do. The rules are the law: a
way that changes is taken back before they change and given after, so that at no time it says anything else than they.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu import bpf
from bennu.host.forsaken import HOOKS, LOCAL_ADDRESS_KEY_SIZE, LOCAL_ADDRESS_VALUE_SIZE, detach_forsaken
from bennu.network.socket_lb.programs import (
    BACKENDS_SIZE,
    KEY_SIZE,
    ORIGINAL_SIZE,
    ORIGINAL_SLOTS,
    SocketAddress,
    connect_program,
    encode_address,
    encode_backends,
    getpeername_program,
)

MAX_FRONTENDS: Final = 65536  # memory is taken for those that are there
MAX_LOCAL_ADDRESSES: Final = 4096  # addresses of this host
LOCAL_ADDRESS_TTL_S: Final = 10.0  # an address is taken for the host's so long after it was last seen to be
SIOCGIFCONF: Final = 0x8912
IFREQ: Final = struct.Struct("=16sH2x4s16x")  # name, family, IPv4 address
NONLOCAL_BIND: Final = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
HEARTBEAT_KEY: Final = b"\xff\xff\xff\xff"  # nobody's address: its entry tells only that a daemon lives
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProgramMark:
    """How a daemon knows its programs and its predecessor's: the same table in the same network, or the same data root
    from another network. What else is on this machine differs in both."""

    table_digest: str
    root_digest: str

    @property
    def name(self) -> str:
        return f"bennu{self.table_digest}{self.root_digest}"

    def is_ours(self, name: str) -> bool:
        return name.startswith("bennu") and (name[5:10] == self.table_digest or name[10:] == self.root_digest)


def program_mark(table: str, data_root: Path) -> ProgramMark:
    """In the network namespace of this thread. Raises: OSError."""
    where = data_root.stat()
    parts = (f"{table} {bpf.netns_cookie()}", f"{where.st_dev} {where.st_ino}")
    return ProgramMark(*(hashlib.sha256(part.encode()).hexdigest()[:5] for part in parts))


class BpfSocketLb:
    """Does nothing where the kernel refuses it, and says so once in the log: then the rules do all."""

    def __init__(self, table: str, data_root: Path) -> None:
        """Both are the daemon's; its data root exists when this is opened."""
        self._table = table
        self._data_root = data_root
        self._is_tried = False
        self._cgroup = -1
        self._maps: dict[str, int] = {}
        self._programs: dict[int, int] = {}  # by hook
        self._published: dict[SocketAddress, tuple[SocketAddress, ...]] = {}
        self._local_addresses: set[bytes] = set()

    @property
    def is_open(self) -> bool:
        return bool(self._programs)

    async def open(self) -> None:
        """Programs and empty maps; those of the last daemon are gone. Idempotent."""
        if not self._is_tried:
            try:
                await asyncio.to_thread(self._open)
            except OSError as error:
                log.info("connections of this host to published ports are translated packet by packet: %s", error)
                self._detach()
                self.close()

    def _open(self) -> None:
        self._is_tried = True
        mark = program_mark(self._table, self._data_root)
        self._cgroup = bpf.open_cgroup_root()
        try:
            detach_marked(self._cgroup, mark)
        except OSError as error:
            self._is_tried = False  # they would lead to what is no more
            raise OSError(f"the programs of the former daemon cannot be detached: {error}") from error
        with contextlib.suppress(OSError):  # kernels that do not tell of maps
            if count := detach_forsaken(self._cgroup):
                log.info("detached %d programs of daemons that are gone", count)
        new = bpf.create_map
        backends = self._maps["backends"] = new(
            bpf.HASH, mark.name, key=KEY_SIZE, value=BACKENDS_SIZE, entries=MAX_FRONTENDS, flags=bpf.NO_PREALLOC
        )
        local_addresses = self._maps["local_addresses"] = new(
            bpf.HASH,
            mark.name,
            key=LOCAL_ADDRESS_KEY_SIZE,
            value=LOCAL_ADDRESS_VALUE_SIZE,
            entries=MAX_LOCAL_ADDRESSES,
            flags=bpf.NO_PREALLOC,
        )
        original = self._maps["original_destination"] = new(
            bpf.ARRAY, mark.name, key=4, value=ORIGINAL_SIZE, entries=ORIGINAL_SLOTS
        )
        codes = (
            connect_program(bpf.netns_cookie(), backends, local_addresses, original),
            getpeername_program(original),
        )
        for hook, code in zip(HOOKS, codes, strict=True):
            self._programs[hook] = bpf.load(code, mark.name, hook)
            bpf.attach(self._cgroup, self._programs[hook], hook)

    def published(self) -> list[SocketAddress]:
        """The ways that are given."""
        return list(self._published)

    def withdraw(
        self, places: Iterable[SocketAddress], wanted: Mapping[SocketAddress, tuple[SocketAddress, ...]]
    ) -> None:
        """Of these ways, those that are not as wanted are the rules' from now on."""
        for place in [
            place for place in places if place in self._published and wanted.get(place) != self._published[place]
        ]:
            with contextlib.suppress(FileNotFoundError):
                bpf.delete(self._maps["backends"], encode_address(place))
            del self._published[place]

    def publish(self, wanted: Mapping[SocketAddress, tuple[SocketAddress, ...]]) -> None:
        """Connections go these ways from now on, but for those that lead nowhere; taken back is what differs."""
        for place, targets in wanted.items() if self.is_open else ():
            if not targets or place in self._published:
                continue
            try:
                bpf.update(self._maps["backends"], encode_address(place), encode_backends(targets))
            except OSError as error:  # no memory, or no room
                log.warning("connections of this host to %s:%d are translated packet by packet: %s", *place, error)
                continue
            self._published[place] = targets

    async def refresh_local_addresses(self) -> None:
        """The addresses that this host has now are its own for some seconds more, others no longer."""
        if not self.is_open:
            return
        try:
            now = await asyncio.to_thread(read_local_addresses)
        except OSError as error:  # they are believed a little longer, then the rules are for them
            log.warning("cannot read the addresses of this host: %s", error)
            return
        until = struct.pack("=Q", time.monotonic_ns() + int(LOCAL_ADDRESS_TTL_S * 1e9))
        for address in self._local_addresses - now - {HEARTBEAT_KEY}:
            with contextlib.suppress(FileNotFoundError):
                bpf.delete(self._maps["local_addresses"], address)
        self._local_addresses &= {HEARTBEAT_KEY, *now}
        for address in (HEARTBEAT_KEY, *now) if self.is_open else ():
            with contextlib.suppress(OSError):  # more than we count: the rules are for them
                bpf.update(self._maps["local_addresses"], address, until)
                self._local_addresses.add(address)

    async def remove(self) -> None:
        """Nothing of it is left in the kernel, nor of a predecessor."""
        await asyncio.to_thread(self._remove)
        self.close()

    def _remove(self) -> None:
        self._detach()
        with contextlib.suppress(OSError):  # where this fails there was never a program
            if self._cgroup < 0:
                self._cgroup = bpf.open_cgroup_root()
            detach_marked(self._cgroup, program_mark(self._table, self._data_root))

    def _detach(self) -> None:
        for hook, program in self._programs.items():
            with contextlib.suppress(OSError):  # somebody else did
                bpf.detach(self._cgroup, program, hook)

    def close(self) -> None:
        """Hold no descriptors any more; the programs stay where they are."""
        for fd in (*self._maps.values(), *self._programs.values(), *([self._cgroup] if self._cgroup >= 0 else [])):
            os.close(fd)
        self._maps, self._programs, self._published, self._local_addresses, self._cgroup = {}, {}, {}, set(), -1


def detach_marked(cgroup: int, mark: ProgramMark) -> None:
    """Programs of this mark. Raises: OSError; then as many as could be are gone."""
    problem: OSError | None = None
    for hook in HOOKS:
        for program, name in bpf.attached(cgroup, hook).items():
            try:
                if mark.is_ours(name):
                    bpf.detach(cgroup, program, hook)
            except OSError as error:
                problem = error
            finally:
                os.close(program)
    if problem is not None:
        raise problem


def read_local_addresses() -> set[bytes]:
    """All of IPv4, as bytes, in the network namespace of this thread. Raises: OSError.

    None where programs may bind to any address: that an address is the host's could not be seen to at the connect.
    """
    if NONLOCAL_BIND.read_text().strip() != "0":
        return set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        size = 64 * IFREQ.size
        while True:
            room = ctypes.create_string_buffer(size)
            asked = bytearray(struct.pack("iP", size, ctypes.addressof(room)))
            fcntl.ioctl(sock, SIOCGIFCONF, asked)
            used: int = struct.unpack_from("i", asked)[0]
            if used < size:
                return {address for _, _, address in IFREQ.iter_unpack(room.raw[:used])}
            size *= 2
