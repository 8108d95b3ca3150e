"""The register of deaths: one durable certificate for each ending, written together with the change of state.

Kept are the last certificates of a container (100, unless the daemon was told otherwise), and those of removed
containers for seven days, at most 1,000.
"""

import asyncio
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.log_files import mark_end_of_run
from bennu.engine.log_records import Assembler
from bennu.engine.record import Record
from bennu.lifecycle.death import (
    Certificate,
    Decision,
    Ending,
    Oom,
    Probe,
    SentSignal,
    classify_death,
    find_escalation,
)
from bennu.lifecycle.exit_status import decode_exit_code
from bennu.runtime import Runtime
from bennu.store import Delete, Put, Store, Transaction

PREFIX: Final = "deaths/"
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
        """`keep_lives`: certificates kept of each container that exists."""
        self._store = store
        self._keep_lives = keep_lives

    def put(self, certificate: Certificate) -> Put:
        """The write that makes it durable; it goes into the transaction of the state's change."""
        return Put(f"{PREFIX}{certificate.container_id}/{certificate.finished_at_ns:020d}", _encode(certificate))

    async def of(self, container_id: str) -> list[Certificate]:
        """All that are kept of one container, oldest first."""
        return [_decode(entry.value) for entry in await self._store.read_prefix(f"{PREFIX}{container_id}/")]

    async def since(self, since_ns: int) -> list[Certificate]:
        """All endings at or after an instant, of living and removed containers, oldest first."""
        entries = await self._store.read_prefix(PREFIX)
        late = [_decode(entry.value) for entry in entries if _instant(entry.key) >= since_ns]
        return sorted(late, key=lambda certificate: certificate.finished_at_ns)

    async def keep_pruned(self, living: "Collection[str]") -> None:
        """Drop what is kept too long, again and again. `living` is looked at each time."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            await self.prune(living)

    async def prune(self, living: "Collection[str]") -> None:
        by_container: dict[str, list[str]] = {}
        for entry in await self._store.read_prefix(PREFIX):
            by_container.setdefault(entry.key.split("/")[1], []).append(entry.key)
        surplus = [key for id_, keys in by_container.items() if id_ in living for key in keys[: -self._keep_lives]]
        removed = sorted((key for id_, keys in by_container.items() if id_ not in living for key in keys), key=_instant)
        oldest_ns = time.time_ns() - KEEP_REMOVED_NS
        surplus += removed[:-KEEP_REMOVED]
        surplus += [key for key in removed[-KEEP_REMOVED:] if _instant(key) < oldest_ns]
        if surplus:
            await self._store.commit(Transaction([Delete(key) for key in surplus]))


def _instant(key: str) -> int:
    return int(key.rpartition("/")[2])


def read_oom(runtime: Runtime, container_id: str, exit_code: int | None) -> Oom | None:
    """What the control group says; to be asked before the runtime forgets the container. None: nothing was killed."""
    kills = runtime.oom_kills(container_id)
    if not kills:
        return None
    limit, peak = runtime.memory_marks(container_id)
    return Oom(kills, limit, peak, main_process=exit_code == 137)


def close_log(path: Path, record: Record, ended_ns: int) -> list[str]:
    """Mark the end of the run in the log and answer the last 20 lines of that run. Blocks; no log is no lines."""
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


async def certify(record: Record, ending: Ending, decision: Decision, log_path: Path) -> Certificate:
    """Put together what is known of an end. `record` is that of the life that ended."""
    cause, asked_by = classify_death(ending)
    signals: list[SentSignal] = list(ending.signals)
    tail = [] if ending.start_error else await asyncio.to_thread(close_log, log_path, record, ending.finished_at_ns)
    probes = record.health.log if record.health else []
    return Certificate(
        container_id=record.id,
        name=record.name,
        image=record.config.image,
        life=record.life,
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
        probes=[Probe(probe.end, probe.exit_code, probe.output) for probe in probes],
        decision=decision,
        restart_policy=record.host_config.restart_policy.name,
        command=[record.path, *record.args],
    )
