"""BuildKit's services, as clients see them: Control (`api/services/control/control.proto`).

A build, in order: Control.Solve with an empty frontend, which waits; on the same connection LLBBridge.Solve, which
builds (`bridge.py`); LLBBridge.Return with the result, upon which the first call exports it and answers. Control.Status
tells of it meanwhile.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.build.bridge import FrontendBridge, version_record, worker
from bennu.build.builder import Builder
from bennu.build.jobs import BuildJob, Jobs
from bennu.build.preparation import internal_step
from bennu.build.request import Solved, SolveRequest
from bennu.build.session_inputs import ContextShelf, SessionInputs, Transferring
from bennu.build.steps.trees import Folders, send_tree, tar_tree
from bennu.build.usage import PruneRequest, UsageRecord, freed_bytes, matches
from bennu.build.wire.contexts import Contexts
from bennu.build.wire.grpc import Call, Code, Method, RpcFailed, answers
from bennu.build.wire.http2 import Http2, Link
from bennu.build.wire.messages import (
    CacheRecordMessage,
    ControlSolveRequest,
    ControlSolveResponse,
    DiskUsageRequest,
    DiskUsageResponse,
    Empty,
    ExporterMessage,
    InfoResponse,
    ListWorkersResponse,
    PruneMessage,
    Result,
    StatusRequest,
    Timestamp,
)
from bennu.build.wire.sending import send_bytes, send_folder
from bennu.build.wire.session import ClientSession, Sessions, Tunnel, while_there
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.images.image import Image
from bennu.images.reference import Reference, parse_reference

Announce = Callable[[str, str, str, Mapping[str, str]], Awaitable[None]]  # kind, action, whose, attributes
HOST_NETWORK: Final = "network.host"
IMAGE_STORE: Final = ("moby", "image")
CONTROL: Final = "/moby.buildkit.v1.Control/"


@dataclass(frozen=True, slots=True)
class Destination:
    """One output that was asked for."""

    kind: str  # "image", "local", "tar"
    number: int = 0  # of the client's outputs
    names: tuple[Reference, ...] = ()


class Front:
    """The services of one host."""

    def __init__(self, builder: Builder, contexts: Contexts, gateways: Sequence[str], announce: Announce) -> None:
        """Make the services. `gateways`: the addresses that `host-gateway` stands for."""
        self._announce = announce
        builder.shelves.append(ContextShelf(contexts))
        self._builder = builder
        self.sessions = sessions = Sessions()
        self.jobs = Jobs()
        self._worker = worker(gateways)
        self.bridge = FrontendBridge(builder, self.jobs, sessions, contexts, self._worker)
        methods: Mapping[str, Method] = {
            "ListWorkers": self._list_workers,
            "Info": self._info,
            "Solve": self._solve,
            "Status": self._status,
            "DiskUsage": self._disk_usage,
            "Prune": self._prune,
            "Session": self._session,
        }
        named = {f"{CONTROL}{name}": method for name, method in methods.items()}
        self._serve = answers({**named, **self.bridge.methods()})

    async def attend(self, link: Link) -> None:
        """Serve a client's connection until it leaves."""
        await Http2(link, serve=self._serve).run()

    # --- what is here -------------------------------------------------------------------------------------------

    async def _list_workers(self, call: Call) -> None:
        await call.receive_one(Empty)
        await call.send(ListWorkersResponse([self._worker]))

    async def _info(self, call: Call) -> None:
        await call.receive_one(Empty)
        await call.send(InfoResponse(version_record()))

    async def _disk_usage(self, call: Call) -> None:
        request = await call.receive_one(DiskUsageRequest)
        filters = [one for one in request.filter if one]  # clients send an empty one where they mean none
        await call.send(
            DiskUsageResponse([cache_record(one) for one in await self._builder.usage() if matches(one, filters)])
        )

    async def _prune(self, call: Call) -> None:
        request = await call.receive_one(PruneMessage)
        asked = PruneRequest(
            everything=request.all,
            filters=tuple(one for one in request.filter if one),
            unused_before_ns=time.time_ns() - request.keep_duration if request.keep_duration else None,
            reserved_space=request.reserved_space,
            max_used_space=request.max_used_space,
            min_free_space=request.min_free_space,
        )
        gone = await self._builder.prune(asked)
        await self._announce("builder", "prune", "", {"reclaimed": str(freed_bytes(gone))})
        for one in gone:
            await call.send(cache_record(one))

    async def _session(self, call: Call) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in call.metadata:
            headers.setdefault(name.lower(), []).append(value)
        await self.sessions.attend(Tunnel(call), headers)

    # --- a build ------------------------------------------------------------------------------------------------

    async def _status(self, call: Call) -> None:
        request = await call.receive_one(StatusRequest)
        job = await self.jobs.find(request.ref)
        async for response in job.recorder.responses():
            await call.send(response)

    async def _solve(self, call: Call) -> None:
        request = await call.receive_one(ControlSolveRequest)
        check_solve(request)
        destinations = read_exporters(request)
        async with self.jobs.open(request.ref, request.session) as job:
            job.inputs = request.frontend_inputs
            job.allow_host_network = HOST_NETWORK in request.entitlements
            job.frontend_attrs = request.frontend_attrs
            if request.frontend:
                name = await job.run(self.bridge.build(job, request.frontend, request.frontend_attrs, job.inputs))
                solved: Solved | None = job.results[name]
            else:
                solved = self._chosen(job, await job.wait_returned())
            answer: dict[str, str] = {}
            for destination in destinations:
                if solved is not None:
                    answer |= await job.run(self._export(job, solved, destination))
            job.recorder.end()
            await call.send(ControlSolveResponse(answer))

    def _chosen(self, job: BuildJob, result: Result) -> Solved | None:
        """Answer which of its results a client returns; None: none. Raises: RpcFailed, NotImplementedHere."""
        if result.refs is not None and len(result.refs.refs) > 1:
            raise NotImplementedHere("a result of several platforms is not implemented")
        refs = list(result.refs.refs.values()) if result.refs is not None else [result.ref]
        name = (refs[0].id if refs and refs[0] is not None else "") or result.ref_deprecated
        if not name:
            return None
        if name not in job.results:
            raise RpcFailed(Code.NOT_FOUND, f"ref {name} not found")
        return job.results[name]

    async def _export(self, job: BuildJob, solved: Solved, destination: Destination) -> dict[str, str]:
        if destination.kind != "image":
            await self._send(job, solved, destination)
            return {}
        tags = destination.names
        image_id = (await self.export_image(solved, tags, job)).id
        answer = {"containerimage.config.digest": image_id, "containerimage.digest": image_id}
        return answer | ({"image.name": ",".join(map(full_name, tags))} if tags else {})

    async def export_image(self, solved: Solved, tags: Sequence[Reference], job: BuildJob) -> Image:
        """Make an image of a result and name it. Raises: BennuError."""
        image = await self._builder.export_image(solved, tags, job.recorder)
        await self._announce("image", "create", image.id, {**image.labels, "name": image.id})
        for tag in tags:
            await self._announce("image", "tag", image.id, {**image.labels, "name": str(tag)})
        return image

    async def solve(self, request: SolveRequest, inputs: SessionInputs, job: BuildJob) -> Solved:
        """Build for a job. Raises: BuildStepFailed, BennuError."""
        return await self._builder.solve(request, inputs, job.recorder, job.stack)

    async def _send(self, job: BuildJob, solved: Solved, destination: Destination) -> None:
        """Send a result's files to the client. Raises: BennuError."""
        session = await self.sessions.find(job.session)
        folders = self._builder.folders(solved)
        is_tar = destination.kind == "tar"
        async with internal_step(
            job.recorder, f"exporting to client {'tarball' if is_tar else 'directory'}"
        ) as telling:
            shown = Transferring(job.recorder, telling.digest, "sending tarball" if is_tar else "copying files")
            if is_tar:
                work = send_bytes(session, destination.number, tar_tree(folders), shown.hear)
            else:
                work = self._send_folder(session, destination.number, folders, shown)
            await while_there(session, work)
            shown.end()

    async def _send_folder(self, session: ClientSession, number: int, folders: Folders, shown: Transferring) -> None:
        async with send_tree(folders) as tree:
            await send_folder(session, number, tree, shown.hear)


def cache_record(one: UsageRecord) -> CacheRecordMessage:
    """Write a record of the cache as a message."""
    return CacheRecordMessage(
        id=one.id,
        mutable=one.mutable,
        in_use=one.in_use,
        size=max(0, one.size),
        created_at=Timestamp.of(one.created_ns),
        last_used_at=Timestamp.of(one.used_ns) if one.used_ns else None,
        usage_count=one.uses,
        description=one.description,
        record_type=one.kind,
        shared=one.shared,
        parents=list(one.parents),
    )


def full_name(name: Reference) -> str:
    """Write a name with its domain and tag: `docker.io/library/busybox:latest`."""
    return f"{name.full_name}:{name.tag}" if name.tag else name.full_name


def check_solve(request: ControlSolveRequest) -> None:
    """Refuse what a build may not have here. Raises: NotImplementedHere, RpcFailed."""
    for wish in request.entitlements:
        if wish != HOST_NETWORK:
            raise RpcFailed(Code.PERMISSION_DENIED, f"{wish} is not allowed")
    if request.definition is not None and request.definition.ops:
        raise NotImplementedHere("solving a graph of the client's own (LLB) is not implemented")
    if request.cache is not None and request.cache.exports:
        kinds = {entry.type for entry in request.cache.exports} - {"inline"}
        if kinds:
            raise NotImplementedHere(f"exporting the build cache ({', '.join(sorted(kinds))}) is not implemented")


def read_exporters(request: ControlSolveRequest) -> list[Destination]:
    """Read what is to become of a result. Raises: InvalidParameter, NotImplementedHere."""
    exporters = list(request.exporters)
    if not exporters and request.exporter:
        exporters = [ExporterMessage(request.exporter, request.exporter_attrs)]
    return [_destination(number, exporter) for number, exporter in enumerate(exporters)]


def _destination(number: int, exporter: ExporterMessage) -> Destination:
    if exporter.type in ("local", "tar"):
        return Destination(exporter.type, number)
    if exporter.type not in IMAGE_STORE:
        raise NotImplementedHere(f"the output type {exporter.type} is not implemented")
    names = [name for name in exporter.attrs.get("name", "").split(",") if name]
    return Destination("image", number, tuple(_tag(name) for name in names))


def _tag(name: str) -> Reference:
    reference = parse_reference(name)
    if reference.digest:
        raise InvalidParameter("build tag cannot contain a digest")
    return reference.tagged()
