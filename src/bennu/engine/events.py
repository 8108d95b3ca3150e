"""The journal of events: durable, ordered, and never lost on a slow reader.

An event is written in the same transaction as the change it announces (`Journal.commit`). Readers are cursors:
recent events come from memory, older ones from the store, so one that falls behind reads on from disk instead of
losing anything. The journal keeps the last 100,000 events or seven days, whichever is less. Events that are worthless
tomorrow and would crowd out the rest (`publish_transient`: three events a probe) are shown in their order, but never
reach the disk.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bennu.errors import Unavailable
from bennu.model import Shape
from bennu.store import Delete, Put, Store, Transaction, aside

PREFIX: Final = "events/"
KEEP_EVENTS: Final = 100_000
KEEP_NS: Final = 7 * 24 * 3600 * 10**9
RECENT: Final = 4096  # events held in memory for readers that keep up
PAGE: Final = 512
PRUNE_EVERY: Final = 1_000  # commits


class Actor(Shape):
    id: str = msgspec.field(name="ID")
    attributes: dict[str, str]


class Event(Shape):
    """One message of `GET /events`, without the legacy fields (`status`, `id`, `from`) the API adds."""

    type: str
    action: str
    actor: Actor
    scope: str = msgspec.field(name="scope", default="local")
    time: int = msgspec.field(name="time", default=0)  # seconds
    time_nano: int = msgspec.field(name="timeNano", default=0)  # unique and increasing within this journal


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def event(kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> Event:
    """Make an event that is not yet stamped; `Journal.commit` gives it its time."""
    return Event(type=kind, action=action, actor=Actor(id=actor_id, attributes=dict(attributes)))


@dataclass(slots=True, eq=False)
class _Batch:
    """The events of one commit; `settled` once they are on disk, or there is nothing to announce."""

    events: Sequence[Event]
    settled: bool = False


class Journal:
    """The writer of changes with their events, and the source for any number of following readers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._last_ns = 0
        self._floor_ns = 0  # everything after this instant is in `_recent`
        self._arrived = asyncio.Event()
        self._shown_ns = 0
        self._unshown: deque[_Batch] = deque()  # in the order of their stamps
        self._pruned_ns = 0  # the newest event that was dropped by this daemon
        self._count = 0
        self._until_prune = PRUNE_EVERY
        self.followers = 0

    async def open(self) -> None:
        """Continue after the newest event of the former daemon, even if the clock was set back since."""
        newest = 0
        after = f"{PREFIX}{time.time_ns() - 60 * 10**9:020d}"
        while page := await self._store.read_prefix(PREFIX, after=after, limit=PAGE):
            newest = instant_of(page[-1].key)
            after = page[-1].key
        self._last_ns = self._floor_ns = self._shown_ns = max(newest, time.time_ns())
        self._count = await self._store.count_prefix(PREFIX)

    async def commit(self, writes: Sequence[Put | Delete], events: Sequence[Event], *, adds: bool = False) -> int:
        """Write a change and the events that announce it as one transaction; then wake the readers.

        `adds`: see `Transaction`. Answers the store's revision of it. Raises: Unavailable when the disk refuses: then
        nothing is written or announced.
        """
        puts = [Put(f"{PREFIX}{item.time_nano:020d}", _encode(item)) for item in self._stamped(events)]
        batch = _Batch(events)
        self._unshown.append(batch)
        try:
            revision = await self._store.commit(Transaction([*writes, *puts], adds=adds))
        except Exception:
            batch.events = ()
            raise
        finally:  # after a cancellation it is written all the same
            batch.settled = True
            self._show_settled()
        if events:
            self._count += len(events)
            self._until_prune -= len(events)
            if self._until_prune <= 0:
                self._until_prune = PRUNE_EVERY
                with contextlib.suppress(Unavailable):  # the change itself is written
                    await self._prune()
        return revision

    def publish_transient(self, events: Sequence[Event]) -> None:
        """Announce events without writing: readers see these while they are recent; a new daemon does not know them."""
        self._unshown.append(_Batch(self._stamped(events), settled=True))
        self._show_settled()

    def _stamped(self, events: Sequence[Event]) -> Sequence[Event]:
        for item in events:
            self._last_ns = max(time.time_ns(), self._last_ns + 1)
            item.time_nano, item.time = self._last_ns, self._last_ns // 10**9
        return events

    async def publish(
        self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str], scope: str = "local"
    ) -> None:
        """Write and announce an event without a change of our own state (exec, resize, image pull, …)."""
        told = event(kind, action, actor_id, attributes)
        told.scope = scope
        await self.commit((), (told,))

    async def follow(self, since_ns: int | None, until_ns: int | None) -> AsyncGenerator[Event, None]:
        """Iterate over the events from `since_ns` to `until_ns`.

        `since_ns` None: from now, or with `until_ns` alone from the oldest event kept; `until_ns` None: for ever.
        Ends at `until_ns`, also when nothing happens; order is that of the journal. Raises: Unavailable to a reader so
        slow that the next event for it is not kept any more.
        """
        from_start = since_ns is not None or until_ns is not None
        cursor = (since_ns or 1) - 1 if from_start else self._shown_ns
        first = from_start  # which may lie before all that is kept
        self.followers += 1
        try:
            while True:
                if cursor < self._pruned_ns and not first:
                    raise Unavailable("this reader is so far behind that events it has not read are not kept any more")
                arrived, first = self._arrived, False
                page = await self._after(cursor)
                for item in page:
                    if until_ns is not None and item.time_nano > until_ns:
                        return
                    yield item
                    cursor = item.time_nano
                if page:
                    continue
                cursor = max(cursor, self._pruned_ns)
                if not await _wait(arrived, until_ns):
                    return
        finally:
            self.followers -= 1

    async def _after(self, cursor_ns: int) -> list[Event]:
        if cursor_ns < self._floor_ns:
            # Only as far as memory does not reach, for what was never written is there alone.
            floor, after = f"{PREFIX}{self._floor_ns:020d}", f"{PREFIX}{cursor_ns:020d}"
            while page := await self._store.read_prefix(PREFIX, after=after, limit=PAGE):
                entries, after = [entry for entry in page if entry.key <= floor], page[-1].key
                if old := await aside.take_in(self._store, entries, lambda entry: _decode(entry.value)):
                    return old
                if len(entries) < len(page):
                    break
        newer = itertools.takewhile(lambda item: item.time_nano > cursor_ns, reversed(self._recent))
        return list(newer)[::-1]

    def _show_settled(self) -> None:
        """Show the settled events that are next in order, so that none is shown before one with an earlier stamp."""
        shown = self._shown_ns
        while self._unshown and self._unshown[0].settled:
            for item in self._unshown.popleft().events:
                if len(self._recent) == RECENT:
                    self._floor_ns = self._recent[0].time_nano
                self._recent.append(item)
                self._shown_ns = item.time_nano
        if self._shown_ns != shown:
            self._arrived.set()
            self._arrived = asyncio.Event()

    async def _prune(self) -> None:
        """Delete events older than seven days or beyond the newest 100,000, a bounded number at a time."""
        oldest_ns = time.time_ns() - KEEP_NS
        entries = await self._store.read_prefix(PREFIX, limit=2 * PRUNE_EVERY)
        surplus = self._count - KEEP_EVENTS
        stale = [
            Delete(entry.key)
            for number, entry in enumerate(entries)
            if number < surplus or instant_of(entry.key) < oldest_ns
        ]
        if stale:
            await self._store.commit(Transaction(stale))
            self._count -= len(stale)
            self._pruned_ns = instant_of(stale[-1].key)


def instant_of(key: str) -> int:
    """Read the instant in an event's key; a foreign key counts as the oldest and is pruned first."""
    digits = key.removeprefix(PREFIX)
    return int(digits) if digits.isdecimal() else 0


async def _wait(arrived: asyncio.Event, until_ns: int | None) -> bool:
    """Wait for the next event; False when `until_ns` came first."""
    if until_ns is None:
        await arrived.wait()
        return True
    try:
        async with asyncio.timeout(max(0, until_ns - time.time_ns()) / 1e9):
            await arrived.wait()
    except TimeoutError:
        return False
    return True
