"""The messages of BuildKit's services, with the fields that are used here.

Sources: `api/services/control/control.proto`, `frontend/gateway/pb/gateway.proto`, `solver/pb/ops.proto`, `session/*`
of BuildKit; `types/*.proto` of fsutil; `google/rpc/status.proto`. Names are those of the files, in Python's case.
"""

from dataclasses import dataclass
from typing import Self

from bennu.build.wire.protobuf import (
    Message,
    flag,
    many,
    map_of,
    number,
    one,
    raw,
    raw_map,
    raws,
    text,
    text_map,
    texts,
)


@dataclass(slots=True)
class Timestamp(Message):
    seconds: int = number(1)
    nanos: int = number(2)

    @classmethod
    def of(cls, ns: int) -> Self:
        return cls(ns // 10**9, ns % 10**9)


@dataclass(slots=True)
class AnyValue(Message):
    type_url: str = text(1)
    value: bytes = raw(2)


@dataclass(slots=True)
class RpcStatus(Message):
    code: int = number(1)
    message: str = text(2)
    details: list[AnyValue] = many(3, lambda: AnyValue)


@dataclass(slots=True)
class Empty(Message):
    pass


@dataclass(slots=True)
class BytesMessage(Message):
    data: bytes = raw(1)


# --- solver/pb ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class PlatformRecord(Message):
    architecture: str = text(1)
    os: str = text(2)
    variant: str = text(3)


@dataclass(slots=True)
class Input(Message):
    digest: str = text(1)
    index: int = number(2)


@dataclass(slots=True)
class SourceOp(Message):
    identifier: str = text(1)
    attrs: dict[str, str] = text_map(2)


@dataclass(slots=True)
class Op(Message):
    inputs: list[Input] = many(1, lambda: Input)
    source: SourceOp | None = one(3, lambda: SourceOp)


@dataclass(slots=True)
class Definition(Message):
    """A graph: each op as bytes. `metadata` is by the digests of the ops; without it clients take it for none."""

    ops: list[bytes] = raws(1)
    metadata: dict[str, Empty] = map_of(2, lambda: Empty)


@dataclass(slots=True)
class Position(Message):
    line: int = number(1)
    character: int = number(2)


@dataclass(slots=True)
class Range(Message):
    start: Position | None = one(1, lambda: Position)
    end: Position | None = one(2, lambda: Position)


@dataclass(slots=True)
class SourceInfo(Message):
    filename: str = text(1)
    data: bytes = raw(2)
    definition: Definition | None = one(3, lambda: Definition)
    language: str = text(4)


# --- api/types ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class BuildkitVersion(Message):
    package: str = text(1)
    version: str = text(2)
    revision: str = text(3)


@dataclass(slots=True)
class WorkerRecord(Message):
    id: str = text(1)
    labels: dict[str, str] = text_map(2)
    platforms: list[PlatformRecord] = many(3, lambda: PlatformRecord)
    buildkit_version: BuildkitVersion | None = one(5, lambda: BuildkitVersion)


# --- Control ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CacheRecordMessage(Message):
    id: str = text(1)
    mutable: bool = flag(2)
    in_use: bool = flag(3)
    size: int = number(4)
    created_at: Timestamp | None = one(6, lambda: Timestamp)
    last_used_at: Timestamp | None = one(7, lambda: Timestamp)
    usage_count: int = number(8)
    description: str = text(9)
    record_type: str = text(10)
    shared: bool = flag(11)
    parents: list[str] = texts(12)


@dataclass(slots=True)
class DiskUsageRequest(Message):
    filter: list[str] = texts(1)


@dataclass(slots=True)
class DiskUsageResponse(Message):
    record: list[CacheRecordMessage] = many(1, lambda: CacheRecordMessage)


@dataclass(slots=True)
class PruneMessage(Message):
    filter: list[str] = texts(1)
    all: bool = flag(2)
    keep_duration: int = number(3)
    reserved_space: int = number(4)
    max_used_space: int = number(5)
    min_free_space: int = number(6)


@dataclass(slots=True)
class ExporterMessage(Message):
    type: str = text(1)
    attrs: dict[str, str] = text_map(2)


@dataclass(slots=True)
class CacheEntry(Message):
    type: str = text(1)
    attrs: dict[str, str] = text_map(2)


@dataclass(slots=True)
class CacheOptions(Message):
    imports_deprecated: list[str] = texts(2)
    exports: list[CacheEntry] = many(4, lambda: CacheEntry)
    imports: list[CacheEntry] = many(5, lambda: CacheEntry)


@dataclass(slots=True)
class ControlSolveRequest(Message):
    ref: str = text(1)
    definition: Definition | None = one(2, lambda: Definition)
    exporter: str = text(3)
    exporter_attrs: dict[str, str] = text_map(4)
    session: str = text(5)
    frontend: str = text(6)
    frontend_attrs: dict[str, str] = text_map(7)
    cache: CacheOptions | None = one(8, lambda: CacheOptions)
    entitlements: list[str] = texts(9)
    frontend_inputs: dict[str, Definition] = map_of(10, lambda: Definition)
    internal: bool = flag(11)
    exporters: list[ExporterMessage] = many(13, lambda: ExporterMessage)


@dataclass(slots=True)
class ControlSolveResponse(Message):
    exporter_response: dict[str, str] = text_map(1)


@dataclass(slots=True)
class StatusRequest(Message):
    ref: str = text(1)


@dataclass(slots=True)
class VertexRecord(Message):
    digest: str = text(1)
    inputs: list[str] = texts(2)
    name: str = text(3)
    cached: bool = flag(4)
    started: Timestamp | None = one(5, lambda: Timestamp)
    completed: Timestamp | None = one(6, lambda: Timestamp)
    error: str = text(7)


@dataclass(slots=True)
class StatusRecord(Message):
    id: str = text(1)
    vertex: str = text(2)
    name: str = text(3)
    current: int = number(4)
    total: int = number(5)
    timestamp: Timestamp | None = one(6, lambda: Timestamp)
    started: Timestamp | None = one(7, lambda: Timestamp)
    completed: Timestamp | None = one(8, lambda: Timestamp)


@dataclass(slots=True)
class OutputRecord(Message):
    vertex: str = text(1)
    timestamp: Timestamp | None = one(2, lambda: Timestamp)
    stream: int = number(3)
    msg: bytes = raw(4)


@dataclass(slots=True)
class WarningRecord(Message):
    vertex: str = text(1)
    level: int = number(2)
    short: bytes = raw(3)
    detail: list[bytes] = raws(4)
    url: str = text(5)
    info: SourceInfo | None = one(6, lambda: SourceInfo)
    ranges: list[Range] = many(7, lambda: Range)


@dataclass(slots=True)
class StatusResponse(Message):
    vertexes: list[VertexRecord] = many(1, lambda: VertexRecord)
    statuses: list[StatusRecord] = many(2, lambda: StatusRecord)
    logs: list[OutputRecord] = many(3, lambda: OutputRecord)
    warnings: list[WarningRecord] = many(4, lambda: WarningRecord)


@dataclass(slots=True)
class ListWorkersResponse(Message):
    record: list[WorkerRecord] = many(1, lambda: WorkerRecord)


@dataclass(slots=True)
class InfoResponse(Message):
    buildkit_version: BuildkitVersion | None = one(1, lambda: BuildkitVersion)


# --- LLBBridge ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ApiCap(Message):
    id: str = text(1)
    enabled: bool = flag(2)


@dataclass(slots=True)
class PongResponse(Message):
    frontend_api_caps: list[ApiCap] = many(1, lambda: ApiCap)
    llb_caps: list[ApiCap] = many(2, lambda: ApiCap)
    workers: list[WorkerRecord] = many(3, lambda: WorkerRecord)


@dataclass(slots=True)
class BridgeSolveRequest(Message):
    definition: Definition | None = one(1, lambda: Definition)
    frontend: str = text(2)
    frontend_opt: dict[str, str] = text_map(3)
    cache_imports: list[CacheEntry] = many(12, lambda: CacheEntry)
    frontend_inputs: dict[str, Definition] = map_of(13, lambda: Definition)
    evaluate: bool = flag(14)


@dataclass(slots=True)
class Ref(Message):
    id: str = text(1)
    definition: Definition | None = one(2, lambda: Definition)


@dataclass(slots=True)
class RefMap(Message):
    refs: dict[str, Ref] = map_of(1, lambda: Ref)


@dataclass(slots=True)
class Result(Message):
    ref_deprecated: str = text(1)
    ref: Ref | None = one(3, lambda: Ref)
    refs: RefMap | None = one(4, lambda: RefMap)
    metadata: dict[str, bytes] = raw_map(10)


@dataclass(slots=True)
class BridgeSolveResponse(Message):
    ref: str = text(1)
    result: Result | None = one(3, lambda: Result)


@dataclass(slots=True)
class ReturnRequest(Message):
    result: Result | None = one(1, lambda: Result)
    error: RpcStatus | None = one(2, lambda: RpcStatus)


@dataclass(slots=True)
class EvaluateRequest(Message):
    ref: str = text(1)


@dataclass(slots=True)
class InputsResponse(Message):
    definitions: dict[str, Definition] = map_of(1, lambda: Definition)


# --- the session --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CredentialsRequest(Message):
    host: str = text(1)


@dataclass(slots=True)
class CredentialsResponse(Message):
    username: str = text(1)
    secret: str = text(2)


@dataclass(slots=True)
class GetSecretRequest(Message):
    id: str = text(1)


@dataclass(slots=True)
class GetSecretResponse(Message):
    data: bytes = raw(1)


@dataclass(slots=True)
class CheckAgentRequest(Message):
    id: str = text(1)


@dataclass(slots=True)
class Stat(Message):
    """fsutil's: `mode` is Go's os.FileMode, `mod_time` is in ns."""

    path: str = text(1)
    mode: int = number(2)
    uid: int = number(3)
    gid: int = number(4)
    size: int = number(5)
    mod_time: int = number(6)
    linkname: str = text(7)
    devmajor: int = number(8)
    devminor: int = number(9)
    xattrs: dict[str, bytes] = raw_map(10)


@dataclass(slots=True)
class Packet(Message):
    type: int = number(1)
    stat: Stat | None = one(2, lambda: Stat)
    id: int = number(3)
    data: bytes = raw(4)
