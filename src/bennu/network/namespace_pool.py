"""Makes network namespaces ahead of their use (`NamespacePool`) and deletes them afterwards (`NamespaceReaper`).

Making one takes the kernel 3 to 10 ms and deleting one 25 to 45, most of it waiting; neither belongs on the path of a
start or a stop.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from bennu.network.dns.sockets import Sockets, close_sockets, open_here
from bennu.network.namespaces import netlink, netns
from bennu.network.namespaces.netns import in_own_thread
from bennu.network.nat.sock_diag import destroy_syn_sent

READY: Final = 3  # namespaces kept ready for the next starts, of each kind
REFILL_AFTER_S: Final = 0.05  # the start that took one has the kernel's locks for itself meanwhile
REAP_AFTER_S: Final = 0.2  # collects namespaces that end together: the kernel deletes many as fast as one
RETRY_AFTER_S: Final = 1.0  # after the kernel refused a deletion
VANISH_S: Final = 0.5
log = logging.getLogger(__name__)


@dataclass(slots=True)
class PreparedNamespace:
    """A namespace with loopback up, and (unless `host_interface` is "") a veth pair that is down."""

    sandbox_id: str
    path: Path
    host_interface: str
    dns: Sockets | None = None  # of the embedded DNS, with their rules in the namespace


class InterfaceNamer:
    """Names interfaces and namespaces: a prefix by which `delete_leftovers` knows this daemon's, and random digits."""

    def __init__(self, tag: str, folder: Path) -> None:
        self.prefix = f"vb{tag[:5]}"
        self.folder = folder

    def interface(self) -> str:
        """Make a name for the host's end of a veth pair."""
        return self.prefix + secrets.token_hex(4)

    def sandbox(self, *, with_pair: bool) -> PreparedNamespace:
        """Make id, path and interface name of a new namespace; nothing is made in the kernel."""
        sandbox_id = secrets.token_hex(32)
        return PreparedNamespace(sandbox_id, self.folder / sandbox_id[:12], self.interface() if with_pair else "")


@dataclass(frozen=True, slots=True)
class PendingTeardown:
    """The remains of a sandbox in the kernel. `done` is called when that is deleted, so that `ips` can be released."""

    path: Path | None
    host_interfaces: tuple[str, ...]
    done: Callable[[], None]
    ips: tuple[str, ...] = ()


class NamespaceReaper:
    """Deletes namespaces and veth pairs in batches, in the background."""

    def __init__(self) -> None:
        self._waiting: list[PendingTeardown] = []
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()

    def schedule(self, teardown: PendingTeardown) -> None:
        """Delete this soon; returns at once."""
        self._waiting.append(teardown)
        self._arrived.set()

    async def run(self) -> None:
        """Delete what is scheduled, until cancelled. What the kernel refuses is tried again."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await asyncio.sleep(REAP_AFTER_S)
            if not await self.finish():
                await asyncio.sleep(RETRY_AFTER_S)
                self._arrived.set()

    async def finish(self) -> bool:
        """Delete all that is scheduled, now; False if the kernel refused, then it stays scheduled."""
        async with self._turn:
            batch, self._waiting = self._waiting, []
            if not batch:
                return True
            try:
                await in_own_thread(lambda: tear_down(batch))
            except BaseException as error:
                self._waiting = [*batch, *self._waiting]  # what is gone already does no harm
                if not isinstance(error, OSError | NetlinkError):
                    raise
                log.warning("cannot remove what is left of a sandbox, trying again later: %s", error)
                return False
            for teardown in batch:
                teardown.done()
            return True


class NamespacePool:
    """Namespaces made ahead: plain ones, and while `wants_names()` some with the sockets of the embedded DNS."""

    def __init__(self, namer: InterfaceNamer, reaper: NamespaceReaper, wants_names: Callable[[], bool]) -> None:
        self._namer = namer
        self._reaper = reaper
        self._wants_names = wants_names
        self._plain: list[PreparedNamespace] = []
        self._named: list[PreparedNamespace] = []
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._full = asyncio.Condition()

    async def take(self, *, named: bool = False) -> PreparedNamespace:
        """Take a ready namespace, or make one; the caller owns it. Raises: OSError, NetlinkError.

        `named`: with the sockets of the embedded DNS, if such a one is ready.
        """
        self._wanted.set()
        shelf = self._named if named and self._named else self._plain
        return shelf.pop() if shelf else await self.make(with_pair=True)

    async def make(self, *, with_pair: bool, named: bool = False) -> PreparedNamespace:
        """Make a namespace now; the caller owns it. Raises: OSError, NetlinkError; then nothing of it stays."""
        prepared = self._namer.sandbox(with_pair=with_pair)

        def work() -> None:
            netlink.make_namespace(prepared.path, prepared.host_interface)
            prepared.dns = open_here() if named else None

        try:
            await in_own_thread(work)
        except BaseException:
            self._discard(prepared)
            raise
        return prepared

    async def keep_full(self) -> None:
        """Refill the pool whenever one was taken, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while (lack := self._lack()) is not None:
                await asyncio.sleep(REFILL_AFTER_S)
                try:
                    lack.append(await self.make(with_pair=True, named=lack is self._named))
                except (OSError, NetlinkError) as error:
                    log.warning("cannot prepare a network namespace: %s", error)
                    await asyncio.sleep(1)
            async with self._full:
                self._full.notify_all()

    def _lack(self) -> list[PreparedNamespace] | None:
        """Return the list that has too few namespaces, None if both are full."""
        if len(self._plain) < READY:
            return self._plain
        return self._named if self._wants_names() and len(self._named) < READY else None

    def refresh(self) -> None:
        """Ask `wants_names` again, after the set of networks has changed."""
        self._wanted.set()
        if not self._wants_names():
            self._discard_all(self._named)

    async def wait_full(self) -> None:
        """Wait until the pool is full."""
        async with self._full:
            await self._full.wait_for(lambda: self._lack() is None)

    def drain(self) -> None:
        """Schedule all ready namespaces for deletion."""
        self._discard_all(self._plain)
        self._discard_all(self._named)

    def _discard_all(self, shelf: list[PreparedNamespace]) -> None:
        while shelf:
            self._discard(shelf.pop())

    def _discard(self, prepared: PreparedNamespace) -> None:
        close_sockets(prepared.dns)
        self._reaper.schedule(PendingTeardown(prepared.path, (prepared.host_interface,), lambda: None))

    @property
    def ready(self) -> Sequence[PreparedNamespace]:
        """Return the namespaces in the pool."""
        return [*self._plain, *self._named]


def tear_down(batch: Sequence[PendingTeardown]) -> None:
    """Delete namespaces, wait until their interfaces vanish, and end local clients that still connect to them.

    Blocks. Raises: OSError, NetlinkError.
    """
    for teardown in batch:
        if teardown.path is not None:
            netns.unpin(teardown.path)
    names = {name for teardown in batch for name in teardown.host_interfaces if name}
    deadline = time.monotonic() + VANISH_S
    while names and time.monotonic() < deadline:
        names = {name for name in names if netlink.find_index(name) is not None}
        if names:
            time.sleep(0.02)
    for name in names:  # a process keeps the namespace alive, but it shall leave our network
        with contextlib.suppress(FileNotFoundError):
            netlink.remove_link(name)
    if ips := {ip for teardown in batch for ip in teardown.ips}:
        destroy_syn_sent(ips)
