"""The form of a container's record on disk: one flat object, the same in every version.

This bennud reads the records of earlier ones, and earlier ones read its records: a field is added with a default, and
none is renamed or given another meaning.
"""

import posixpath
from typing import Final

import msgspec

from bennu.engine.record import Health, Record
from bennu.lifecycle.death import SentSignal
from bennu.lifecycle.health import HealthState, HealthStatus
from bennu.lifecycle.life_model import LastEnd, Life, PendingOperation, Restarts, Run
from bennu.lifecycle.status import State
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, MountPoint
from bennu.network import Sandbox


class StoredRecord(msgspec.Struct, kw_only=True):
    """The fields of `Record`, and of the groups of its `Life`, under the names that they have on disk."""

    id: str
    name: str
    created_ns: int
    image_id: str
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    endpoints: dict[str, EndpointSettings]
    mounts: list[MountPoint]

    state: State = State.CREATED
    exit_code: int | None = 0
    error: str = ""
    oom_killed: bool = False
    oom_told: int = 0
    oom_told_at_ns: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    health: Health | None = None
    sandbox: Sandbox | None = None

    pid: int = 0
    boot_id: str = ""

    life: int = 0
    restart_count: int = 0
    restart_delay_ns: int = 0
    restart_due_ns: int = 0
    restart_cancelled: bool = False
    restarts_ns: tuple[int, ...] = ()
    crash_score: float = 0.0
    scored_at_ns: int = 0
    gave_up: bool = False
    revive: bool = False
    manually_stopped: bool = False
    started_before: bool = False
    signals: tuple[SentSignal, ...] = ()
    unsent: int = 0
    errand: PendingOperation | None = None
    pause_is_brief: bool = False
    links: dict[str, str] = {}


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(StoredRecord).decode


def encode_record(record: Record) -> bytes:
    """Encode a record in its form on disk."""
    return _encode(_stored(record))


def decode_record(value: bytes) -> Record:
    """Decode a record from its form on disk. Raises: msgspec.DecodeError, ValueError, if it is not a record."""
    stored = _decode(value)
    return Record(
        id=stored.id,
        name=stored.name,
        created_ns=stored.created_ns,
        image_id=stored.image_id,
        path=stored.path,
        args=stored.args,
        config=stored.config,
        host_config=stored.host_config,
        endpoints=stored.endpoints,
        mounts=_with_specs(stored),
        links=stored.links,
        sandbox=stored.sandbox,
        probes=stored.health.log if stored.health else [],
        life=Life(
            state=stored.state,
            ordinal=stored.life,
            run=_run(stored),
            last_end=LastEnd(
                exit_code=stored.exit_code,
                finished_at_ns=stored.finished_at_ns,
                error=stored.error,
                oom_killed=stored.oom_killed,
            ),
            restarts=_restarts(stored),
            pending=stored.errand,
        ),
    )


def _with_specs(stored: StoredRecord) -> list[MountPoint]:
    """Give the mounts of a record from before they kept the client's options those that `HostConfig.Mounts` has."""
    asked = {posixpath.normpath(mount.target): mount for mount in stored.host_config.mounts or ()}
    for point in stored.mounts:
        mount = asked.get(point.destination)
        if not point.spec and mount is not None and mount.bind_options is not None:
            point.spec = mount
    return stored.mounts


def _run(stored: StoredRecord) -> Run:
    health = stored.health
    return Run(
        pid=stored.pid,
        boot_id=stored.boot_id,
        started_at_ns=stored.started_at_ns,
        health=HealthState(HealthStatus(health.status), health.failing_streak) if health else None,
        signals=stored.signals,
        undelivered=stored.unsent,
        oom_told=stored.oom_told,
        oom_told_at_ns=stored.oom_told_at_ns,
        restart_unhealthy=stored.revive,
        pause_is_brief=stored.pause_is_brief,
    )


def _restarts(stored: StoredRecord) -> Restarts:
    return Restarts(
        count=stored.restart_count,
        delay_ns=stored.restart_delay_ns,
        due_ns=stored.restart_due_ns,
        cancelled=stored.restart_cancelled,
        stopped_by_user=stored.manually_stopped,
        instants_ns=stored.restarts_ns,
        score=stored.crash_score,
        scored_at_ns=stored.scored_at_ns,
        gave_up=stored.gave_up,
    )


def _stored(record: Record) -> StoredRecord:
    life = record.life
    run, last_end, restarts = life.run, life.last_end, life.restarts
    return StoredRecord(
        id=record.id,
        name=record.name,
        created_ns=record.created_ns,
        image_id=record.image_id,
        path=record.path,
        args=record.args,
        config=record.config,
        host_config=record.host_config,
        endpoints=record.endpoints,
        mounts=record.mounts,
        state=life.state,
        exit_code=last_end.exit_code,
        error=last_end.error,
        oom_killed=last_end.oom_killed,
        oom_told=run.oom_told,
        oom_told_at_ns=run.oom_told_at_ns,
        started_at_ns=run.started_at_ns,
        finished_at_ns=last_end.finished_at_ns,
        health=record.health,
        sandbox=record.sandbox,
        pid=run.pid,
        boot_id=run.boot_id,
        life=life.ordinal,
        restart_count=restarts.count,
        restart_delay_ns=restarts.delay_ns,
        restart_due_ns=restarts.due_ns,
        restart_cancelled=restarts.cancelled,
        restarts_ns=restarts.instants_ns,
        crash_score=restarts.score,
        scored_at_ns=restarts.scored_at_ns,
        gave_up=restarts.gave_up,
        revive=run.restart_unhealthy,
        manually_stopped=restarts.stopped_by_user,
        started_before=life.ordinal > 0,
        signals=run.signals,
        unsent=run.undelivered,
        errand=life.pending,
        pause_is_brief=run.pause_is_brief,
        links=record.links,
    )
