"""The register of deaths: one durable certificate for each ending, written together with the change of state.

The register keeps the last certificates of a container (100, unless the daemon was told otherwise), and those of
removed containers for seven days, at most 1,000. Certificates are stored under their container's id; an index in the
order of time holds only names, so that looking back and pruning read no certificate that is not asked for.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.logs.files import mark_end_of_run
from bennu.engine.logs.records import Assembler
from bennu.engine.policy import check_of
from bennu.engine.record import Record
from bennu.lifecycle.death import (
    Certificate,
    Oom,
    Probe,
    SentSignal,
    classify_death,
    find_escalation,
)
from bennu.lifecycle.exit_status import decode_exit_code
from bennu.lifecycle.life_events import DeathFacts, Exited
from bennu.runtime import Runtime
from bennu.store import Delete, Entry, Put, Store, Transaction, aside

PREFIX: Final = "deaths/"  # …CONTAINER/INSTANT → certificate
INDEX: Final = "death-times/"  # …INSTANT/CONTAINER → the container's name at that time
PAGE: Final = 512
KEEP_LIVES: Final = 100
KEEP_REMOVED: Final = 1_000
KEEP_REMOVED_NS: Final = 7 * 24 * 3600 * 10**9
TAIL_LINES: Final = 20
TAIL_BYTES: Final = 64 * 1024
PRUNE_EVERY_S: Final = 600

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Certificate).decode


class Deaths:
    """All certificates of one host."""

    def __init__(self, store: Store, keep_lives: int = KEEP_LIVES) -> None:
        """Open the register on a store; `keep_lives`: certificates kept of each container that exists."""
        self._store = store
        self._keep_lives = keep_lives

    def puts(self, certificate: Certificate) -> list[Put]:
        """Make the writes of a certificate; they belong in the transaction of the state's change."""
        id_, instant = certificate.container_id, f"{certificate.finished_at_ns:020d}"
        return [
            Put(f"{PREFIX}{id_}/{instant}", _encode(certificate)),
            Put(f"{INDEX}{instant}/{id_}", certificate.name.encode()),
        ]

    async def of(self, container_id: str) -> list[Certificate]:
        """Load all kept certificates of one container, oldest first."""
        return await aside.load(self._store, f"{PREFIX}{container_id}/", _decode)

    async def since(self, since_ns: int) -> AsyncIterator[Certificate]:
        """Iterate over all endings at or after an instant, of living and removed containers, oldest first."""
        after = f"{INDEX}{since_ns:020d}"
        while page := await self._store.read_prefix(INDEX, after=after, limit=PAGE):
            after = page[-1].key
            for instant, id_ in map(_parse, page):
                # It may be pruned between two reads.
                if entry := await self._store.read(f"{PREFIX}{id_}/{instant}"):
                    for certificate in await aside.take_in(self._store, [entry], lambda entry: _decode(entry.value)):
                        yield certificate

    async def find_removed(self, ref: str) -> str | None:
        """Find the id of a removed container by its id or name, else by the beginning of its id.

        Of several matches the last to die is chosen.
        """
        entries = [(_parse(entry)[1], entry.value.decode()) for entry in await self._store.read_prefix(INDEX)][::-1]
        exact = [id_ for id_, name in entries if ref.removeprefix("/") in (id_, name)]
        return next(iter(exact or [id_ for id_, _ in entries if id_.startswith(ref)]), None)

    async def keep_pruned(self, living: "Collection[str]") -> None:
        """Prune the register periodically, until cancelled. `living` is read again each time."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            await self.prune(living)

    async def prune(self, living: "Collection[str]") -> None:
        """Delete the certificates that exceed the limits. Reads the index only."""
        of_living: dict[str, list[str]] = {}
        removed: list[tuple[str, str]] = []
        for instant, id_ in map(_parse, await self._store.read_prefix(INDEX)):
            if id_ in living:
                of_living.setdefault(id_, []).append(instant)
            else:
                removed.append((instant, id_))
        surplus = [(instant, id_) for id_, instants in of_living.items() for instant in instants[: -self._keep_lives]]
        oldest_ns = time.time_ns() - KEEP_REMOVED_NS
        surplus += removed[:-KEEP_REMOVED]
        oldest = f"{oldest_ns:020d}"
        surplus += [(instant, id_) for instant, id_ in removed[-KEEP_REMOVED:] if instant < oldest]
        for first in range(0, len(surplus), PAGE):
            keys = [
                key
                for instant, id_ in surplus[first : first + PAGE]
                for key in (f"{PREFIX}{id_}/{instant}", f"{INDEX}{instant}/{id_}")
            ]
            await self._store.commit(Transaction([Delete(key) for key in keys]))


def _parse(entry: Entry) -> tuple[str, str]:
    """Parse an index key into instant and container id."""
    instant, _, id_ = entry.key.removeprefix(INDEX).partition("/")
    return instant, id_


def look_at_end(runtime: Runtime, record: Record, *, daemon_ends: bool) -> Exited:
    """Collect the visible facts of a process's end, before the runtime forgets it."""
    ended = runtime.observer.read_exit(record.id)
    exit_code = ended.exit_code if ended else None
    return Exited(
        exit_code=exit_code,
        # The exit file's time has the kernel's coarse clock: it can seem to lie before the start.
        finished_at_ns=max(ended.finished_at_ns, record.started_at_ns) if ended else None,
        oom=read_oom(runtime, record, exit_code, ended.finished_at_ns if ended else time.time_ns()),
        daemon_ends=daemon_ends,
    )


def read_oom(runtime: Runtime, record: Record, exit_code: int | None, ended_at_ns: int) -> Oom | None:
    """Read memory kills from the control group, before the runtime forgets the container. None: nothing was killed."""
    kills = runtime.observer.oom_kills(record.id)
    if not kills:
        return None
    limit, peak = runtime.observer.memory_marks(record.id)
    return Oom(kills, limit, peak, record.life.was_killed_for_memory(kills, exit_code, ended_at_ns))


def close_log(path: Path, record: Record, ended_ns: int) -> list[str]:
    """Mark the end of the run in the log and answer its last 20 lines. Blocks; without a log there are none."""
    try:
        mark_end_of_run(path, ended_ns)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            records = list(Assembler().feed(file.read()))
    except OSError:
        return []
    said = b"".join(item.data for item in records if item.at_ns >= record.started_at_ns)
    return said.decode(errors="replace").splitlines()[-TAIL_LINES:]


async def certify(record: Record, death: DeathFacts, log_path: Path) -> Certificate:
    """Make the certificate from the known facts of an end. `record` is that of the life that ended."""
    ending = death.ending
    cause, asked_by = classify_death(ending)
    signals: list[SentSignal] = list(ending.signals)
    tail = [] if ending.start_error else await asyncio.to_thread(close_log, log_path, record, ending.finished_at_ns)
    check = check_of(record.config)
    return Certificate(
        container_id=record.id,
        name=record.name,
        image=record.config.image,
        life=record.life.ordinal,
        started_at_ns=0 if ending.start_error else record.started_at_ns,
        finished_at_ns=ending.finished_at_ns,
        cause=cause,
        exit_code=ending.exit_code,
        meaning=decode_exit_code(ending.exit_code),
        error=ending.start_error,
        asked_by=asked_by,
        signals=signals,
        escalated=find_escalation(signals) is not None,
        oom=ending.oom,
        log_tail=tail,
        health_check=str(check.probe) if check else "",
        probes=[Probe(probe.end, probe.exit_code, probe.output) for probe in (record.probes if record.health else ())],
        decision=death.decision,
        restart_policy=record.host_config.restart_policy.name,
        command=[record.path, *record.args],
    )
