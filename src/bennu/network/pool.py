"""Network namespaces before and after their use: some made ahead of time, the used ones taken apart at leisure.

Making one takes the kernel 3 to 10 ms and deleting one 25 to 45, most of it waiting; neither belongs on the path of
a start or a stop.
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

from bennu.network import links, netns
from bennu.network.netns import in_own_thread

READY: Final = 3  # namespaces kept ready
REFILL_AFTER_S: Final = 0.05  # leaves the start that took one the kernel's locks for itself
BURY_AFTER_S: Final = 0.2  # collects what ends together: the kernel deletes many as fast as one
VANISH_S: Final = 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A namespace with loopback up, and (unless `host_interface` is "") a veth pair that is down."""

    sandbox_id: str
    path: Path
    host_interface: str


class Namer:
    """Names that tell our interfaces from everybody else's: a prefix of this daemon, and chance."""

    def __init__(self, tag: str, folder: Path) -> None:
        self.prefix = f"vb{tag[:5]}"
        self.folder = folder

    def interface(self) -> str:
        return self.prefix + secrets.token_hex(4)

    def sandbox(self, *, with_pair: bool) -> Prepared:
        sandbox_id = secrets.token_hex(32)
        return Prepared(sandbox_id, self.folder / sandbox_id[:12], self.interface() if with_pair else "")


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a sandbox; `done` is called when the kernel has nothing of it any more."""

    path: Path | None
    host_interfaces: tuple[str, ...]
    done: Callable[[], None]


class Graveyard:
    """Takes namespaces and pairs apart, several at a time."""

    def __init__(self) -> None:
        self._waiting: list[Remains] = []
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()

    def bury(self, remains: Remains) -> None:
        self._waiting.append(remains)
        self._arrived.set()

    async def keep_burying(self) -> None:
        """Run until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await asyncio.sleep(BURY_AFTER_S)
            await self.finish()

    async def finish(self) -> None:
        """Bury all that waits, now."""
        async with self._turn:
            batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                await in_own_thread(lambda: dismantle(batch))
            except (OSError, NetlinkError) as error:
                log.warning("cannot remove what is left of a sandbox: %s", error)
            finally:
                for remains in batch:
                    remains.done()


class Pool:
    """Namespaces made ahead."""

    def __init__(self, namer: Namer, graveyard: Graveyard, size: int = READY) -> None:
        self._namer = namer
        self._graveyard = graveyard
        self._size = size
        self._ready: list[Prepared] = []
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._full = asyncio.Condition()

    async def take(self) -> Prepared:
        """A namespace that nobody else has; from now on the caller's to give up. Raises: OSError, NetlinkError."""
        self._wanted.set()
        if self._ready:
            return self._ready.pop()
        return await self.make(with_pair=True)

    async def make(self, *, with_pair: bool) -> Prepared:
        """As `take`, made now."""
        prepared = self._namer.sandbox(with_pair=with_pair)
        try:
            await in_own_thread(lambda: links.make_namespace(prepared.path, prepared.host_interface))
        except asyncio.CancelledError:
            self._bury(prepared)
            raise
        return prepared

    async def keep_full(self) -> None:
        """Run until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._ready) < self._size:
                await asyncio.sleep(REFILL_AFTER_S)
                try:
                    self._ready.append(await self.make(with_pair=True))
                except (OSError, NetlinkError) as error:
                    log.warning("cannot prepare a network namespace: %s", error)
                    await asyncio.sleep(1)
            async with self._full:
                self._full.notify_all()

    async def wait_full(self) -> None:
        async with self._full:
            await self._full.wait_for(lambda: len(self._ready) >= self._size)

    def drain(self) -> None:
        """Give up what is ready: the graveyard takes it."""
        ready, self._ready = self._ready, []
        for prepared in ready:
            self._bury(prepared)

    def _bury(self, prepared: Prepared) -> None:
        self._graveyard.bury(Remains(prepared.path, (prepared.host_interface,), lambda: None))

    @property
    def ready(self) -> Sequence[Prepared]:
        return self._ready


def dismantle(batch: Sequence[Remains]) -> None:
    """Blocking. Raises: OSError, NetlinkError."""
    for remains in batch:
        if remains.path is not None:
            netns.unpin(remains.path)
    names = {name for remains in batch for name in remains.host_interfaces if name}
    deadline = time.monotonic() + VANISH_S
    while names and time.monotonic() < deadline:
        names &= links.list_links().keys()
        if names:
            time.sleep(0.02)
    for name in names:  # a process somewhere keeps the namespace alive, but it is no longer on our network
        with contextlib.suppress(FileNotFoundError):
            links.remove_link(name)
