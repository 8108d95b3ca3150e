"""The socket load balancers: `BpfSocketLb` loads BPF programs and maps, `DisabledSocketLb` loads nothing.

Programs are attached to the root of the control groups (version 2) and outlive the daemon, as the rules do; the next
daemon finds them by name and replaces them (`test_the_programs_outlive_the_daemon_and_the_next_one_replaces_them`). So
the form of these names, "bennu" and ten hexadecimal digits, must stay.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu import bpf
from bennu.host.forsaken import HOOKS, LOCAL_ADDRESS_KEY_SIZE, LOCAL_ADDRESS_VALUE_SIZE, detach_forsaken
from bennu.network.frontends import Frontend
from bennu.network.model import PortForward
from bennu.network.socket_lb.backend_table import BackendTable, SocketAddress
from bennu.network.socket_lb.programs import (
    BACKENDS_SIZE,
    KEY_SIZE,
    ORIGINAL_SIZE,
    ORIGINAL_SLOTS,
    connect_program,
    encode_address,
    encode_backends,
    getpeername_program,
)

MAX_FRONTENDS: Final = 65536  # socket addresses; the map takes memory for those that are in it
MAX_LOCAL_ADDRESSES: Final = 4096  # addresses of this host
LOCAL_ADDRESS_TTL_S: Final = 10.0  # how long an address is trusted to be the host's after it was last seen
SIOCGIFCONF: Final = 0x8912
IFREQ: Final = struct.Struct("=16sH2x4s16x")  # name, family, IPv4 address
NONLOCAL_BIND: Final = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
HEARTBEAT_KEY: Final = b"\xff\xff\xff\xff"  # broadcast, no host's address: its entry only shows that the daemon lives
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProgramMark:
    """Identifies the programs and maps of one daemon by their name in the kernel.

    A program is ours, or our predecessor's, if one digest matches: of the nftables table and network namespace, or of
    the data root's device and inode. Other daemons on this machine differ in both.
    """

    table_digest: str
    root_digest: str

    @property
    def name(self) -> str:
        """Return the name in the kernel, 15 bytes (BPF_OBJ_NAME_LEN)."""
        return f"bennu{self.table_digest}{self.root_digest}"

    def is_ours(self, name: str) -> bool:
        """Check the name of a program."""
        return name.startswith("bennu") and (name[5:10] == self.table_digest or name[10:] == self.root_digest)


def program_mark(table: str, data_root: Path) -> ProgramMark:
    """Compute the mark of a daemon in the network namespace of this thread. Raises: OSError."""
    where = data_root.stat()
    parts = (f"{table} {bpf.netns_cookie()}", f"{where.st_dev} {where.st_ino}")
    return ProgramMark(*(hashlib.sha256(part.encode()).hexdigest()[:5] for part in parts))


class BpfSocketLb:
    """Redirects at connect(). Where the kernel refuses the programs it logs that once, and the rules serve alone."""

    def __init__(self, table: str, data_root: Path) -> None:
        """Open nothing yet. `table`: the daemon's nftables table. `data_root` must exist when this is opened."""
        self._table = table
        self._data_root = data_root
        self._is_tried = False
        self._cgroup = -1
        self._maps: dict[str, int] = {}
        self._programs: dict[int, int] = {}  # by hook
        self._published: dict[SocketAddress, tuple[SocketAddress, ...]] = {}
        self._local_addresses: set[bytes] = set()
        self._table_of_backends = BackendTable()
        self._pending: Mapping[SocketAddress, tuple[SocketAddress, ...]] = {}  # prepared, not complete

    @property
    def is_open(self) -> bool:
        """Check that the programs are attached."""
        return bool(self._programs)

    async def begin_rewrite(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        self._table_of_backends = BackendTable()
        changes = [(None, frontend) for frontend in frontends]
        self._pending = self._table_of_backends.apply((), list(forwards), changes)
        await self.open()
        self.withdraw(self.published(), self._pending)

    def begin_change(
        self,
        gone: Collection[PortForward],
        came: Collection[PortForward],
        frontends: Iterable[tuple[Frontend | None, Frontend | None]],
    ) -> None:
        self._pending = self._table_of_backends.apply(gone, came, frontends)
        self.withdraw(self._pending, self._pending)

    def complete(self) -> None:
        self.publish(self._pending)

    async def open(self) -> None:
        """Attach the programs with empty maps, in place of an earlier daemon's. Idempotent."""
        if not self._is_tried:
            try:
                await asyncio.to_thread(self._open)
            except OSError as error:
                level = logging.WARNING if error.errno == errno.E2BIG else logging.INFO
                why = "the control groups' root has no place left for programs" if error.errno == errno.E2BIG else error
                log.log(level, "connections of this host to published ports are translated packet by packet: %s", why)
                self._detach()
                self.close()

    def _open(self) -> None:
        self._is_tried = True
        mark = program_mark(self._table, self._data_root)
        self._cgroup = bpf.open_cgroup_root()
        try:
            detach_marked(self._cgroup, mark)
        except OSError as error:
            self._is_tried = False  # they would lead to containers that are gone: try again
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
        """List the socket addresses that are redirected."""
        return list(self._published)

    def withdraw(
        self, addresses: Iterable[SocketAddress], wanted: Mapping[SocketAddress, tuple[SocketAddress, ...]]
    ) -> None:
        """Leave those of these addresses to the rules whose backends are not the wanted ones."""
        for address in list(addresses):
            if address in self._published and wanted.get(address) != self._published[address]:
                with contextlib.suppress(FileNotFoundError):
                    bpf.delete(self._maps["backends"], encode_address(address))
                del self._published[address]

    def publish(self, wanted: Mapping[SocketAddress, tuple[SocketAddress, ...]]) -> None:
        """Redirect connections to these addresses; those without backends stay with the rules.

        What differs from an earlier call must have been withdrawn.
        """
        for address, backends in wanted.items() if self.is_open else ():
            if not backends or address in self._published:
                continue
            try:
                bpf.update(self._maps["backends"], encode_address(address), encode_backends(backends))
            except OSError as error:  # no memory, or the map is full
                log.warning("connections of this host to %s:%d are translated packet by packet: %s", *address, error)
                continue
            self._published[address] = backends

    async def refresh_local_addresses(self) -> None:
        """Trust the addresses that this host has now for some seconds more, and no others."""
        if not self.is_open:
            return
        try:
            now = await asyncio.to_thread(read_local_addresses)
        except OSError as error:  # they are trusted a little longer, then their clients go by the rules
            log.warning("cannot read the addresses of this host: %s", error)
            return
        until = struct.pack("=Q", time.monotonic_ns() + int(LOCAL_ADDRESS_TTL_S * 1e9))
        for address in self._local_addresses - now - {HEARTBEAT_KEY}:
            with contextlib.suppress(FileNotFoundError):
                bpf.delete(self._maps["local_addresses"], address)
        self._local_addresses &= {HEARTBEAT_KEY, *now}
        for address in (HEARTBEAT_KEY, *now) if self.is_open else ():
            with contextlib.suppress(OSError):  # the map is full: its clients go by the rules
                bpf.update(self._maps["local_addresses"], address, until)
                self._local_addresses.add(address)

    async def remove(self) -> None:
        """Detach our programs and an earlier daemon's."""
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
        """Close all descriptors; attached programs work on. Idempotent."""
        for fd in (*self._maps.values(), *self._programs.values(), *([self._cgroup] if self._cgroup >= 0 else [])):
            os.close(fd)
        self._maps, self._programs, self._published, self._local_addresses, self._cgroup = {}, {}, {}, set(), -1


class DisabledSocketLb:
    """Loads nothing: every client goes by the rules. It detaches the programs of a daemon that had the shortcut on."""

    def __init__(self, table: str, data_root: Path) -> None:
        self._table = table
        self._data_root = data_root
        self._is_clean = False

    async def begin_rewrite(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        await self.remove()

    def begin_change(
        self,
        gone: Collection[PortForward],
        came: Collection[PortForward],
        frontends: Iterable[tuple[Frontend | None, Frontend | None]],
    ) -> None:
        """Do nothing: there is no program to prepare for."""

    def complete(self) -> None:
        """Do nothing: there is nothing to publish."""

    async def refresh_local_addresses(self) -> None:
        """Do nothing: no address is looked at."""

    async def remove(self) -> None:
        """Detach an earlier daemon's programs, which would lead to containers that are gone. Tried until it works."""
        if self._is_clean:
            return
        try:
            await asyncio.to_thread(self._detach)
        except OSError as error:
            log.warning("the programs of the former daemon cannot be detached: %s", error)
            return
        self._is_clean = True

    def _detach(self) -> None:
        try:
            cgroup = bpf.open_cgroup_root()
        except OSError:  # no control groups of version 2: no program was ever attached
            return
        try:
            detach_marked(cgroup, program_mark(self._table, self._data_root))
        finally:
            os.close(cgroup)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def detach_marked(cgroup: int, mark: ProgramMark) -> None:
    """Detach all programs of this mark. Raises: OSError; then as many as possible are detached."""
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
    """Read the IPv4 addresses of this thread's network namespace, 4 bytes each (SIOCGIFCONF). Raises: OSError.

    Empty with net.ipv4.ip_nonlocal_bind: a program may then bind to any address, so the bind at connect() would not
    prove that the address is still the host's.
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
