"""BuildKit's LLBBridge: what a client asks while its build runs (`frontend/gateway/pb/gateway.proto`)."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

import bennu
from bennu.build.builder import Builder
from bennu.build.frontend import REQUEST, check_frontend, local_sessions, read_options
from bennu.build.jobs import BuildJob, Jobs, definition_of, name_of
from bennu.build.plan.requests import Answer
from bennu.build.request import BuildStepFailed, Solved, SolveRequest
from bennu.build.session_inputs import UPLOADS, SessionInputs
from bennu.build.wire.contexts import Contexts
from bennu.build.wire.grpc import Call, Code, Method, RpcFailed
from bennu.build.wire.messages import (
    AnyValue,
    ApiCap,
    BridgeSolveRequest,
    BridgeSolveResponse,
    BuildkitVersion,
    Definition,
    Empty,
    EvaluateRequest,
    InputsResponse,
    PlatformRecord,
    PongResponse,
    Ref,
    Result,
    ReturnRequest,
    WorkerRecord,
)
from bennu.build.wire.session import Sessions, while_there
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.images.platform import host_architecture

T = TypeVar("T")
BRIDGE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID: Final = "buildkit-controlapi-buildid"
SOURCE_DETAIL: Final = "github.com/moby/buildkit/errdefs.Source+json"
# What clients may rely on. What is not named here they do not ask for, or do in the way of before it was there.
FRONTEND_CAPS: Final = (
    *(
        "solve.base",
        "solve.inlinereturn",
        "resolveimage",
        "resolveimage.resolvemode",
        "readfile",
        "return",
        "returnmap",
    ),
    *("proto.refarray", "reference.output", "frontend.inputs", "gateway.solve.metadata", "gateway.solve.evaluate"),
    *("gateway.evaluate", "frontend.caps"),
)
LLB_CAPS: Final = (
    *("source.image", "source.image.resolvemode", "source.local", "source.local.unique", "source.local.sessionid"),
    *("source.local.includepatterns", "source.local.followpaths", "source.local.excludepatterns"),
    *("source.local.sharedkeyhint", "source.local.differ", "source.http", "source.http.checksum", "source.http.perm"),
    *("source.http.uidgid", "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.buildop.llbfilename"),
    *("exec.meta.base", "exec.meta.network", "exec.meta.proxyenv", "exec.meta.ulimit", "exec.meta.cgroup.parent"),
    *("exec.mount.bind", "exec.mount.bind.readwrite-nooutput", "exec.mount.cache", "exec.mount.cache.sharing"),
    *("exec.mount.selector", "exec.mount.tmpfs", "exec.mount.tmpfs.size", "exec.mount.secret", "exec.mount.ssh"),
    *("exec.secretenv", "file.base", "file.rm.wildcard", "file.copy.includeexcludepatterns", "constraints", "platform"),
    *("meta.ignorecache", "meta.description", "meta.exportcache", "mergeop", "diffop", "exporter.sourcedateepoch"),
)


def version_record() -> BuildkitVersion:
    return BuildkitVersion("github.com/bennu/bennu", f"v{bennu.__version__}", "")


def worker(gateways: Sequence[str]) -> WorkerRecord:
    """Describe this host as the one worker there is."""
    labels = {"org.mobyproject.buildkit.worker.executor": "containers", "org.mobyproject.buildkit.worker.network": ""}
    if gateways:
        labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] = ",".join(gateways)
    here = PlatformRecord(host_architecture(), "linux")
    return WorkerRecord("bennu", labels, [here], version_record())


class FrontendBridge:
    """The service of one host."""

    def __init__(
        self, builder: Builder, jobs: Jobs, sessions: Sessions, contexts: Contexts, worker: WorkerRecord
    ) -> None:
        self._builder = builder
        self._jobs = jobs
        self._sessions = sessions
        self._contexts = contexts
        self._worker = worker

    def methods(self) -> Mapping[str, Method]:
        named: Mapping[str, Method] = {
            "Ping": self._ping,
            "Solve": self._solve,
            "Return": self._return,
            "Evaluate": self._evaluate,
            "Inputs": self._inputs,
        }
        return {f"{BRIDGE}{name}": method for name, method in named.items()}

    async def _job(self, call: Call) -> BuildJob:
        return await self._jobs.find(call.value(BUILD_ID))

    async def _ping(self, call: Call) -> None:
        await call.receive_one(Empty)
        await self._job(call)
        caps = [[ApiCap(name, True) for name in names] for names in (FRONTEND_CAPS, LLB_CAPS)]
        await call.send(PongResponse(caps[0], caps[1], [self._worker]))

    async def _inputs(self, call: Call) -> None:
        await call.receive_one(Empty)
        job = await self._job(call)
        await call.send(InputsResponse(dict(job.inputs)))

    async def _return(self, call: Call) -> None:
        request = await call.receive_one(ReturnRequest)
        job = await self._job(call)
        if not job.returned.done():
            error = request.error
            failed = RpcFailed(error.code, error.message, error.details) if error is not None and error.code else None
            job.returned.set_result(failed or request.result or Result())
        await call.send(Empty())

    async def _evaluate(self, call: Call) -> None:
        request = await call.receive_one(EvaluateRequest)
        job = await self._job(call)
        if request.ref not in job.results:
            raise RpcFailed(Code.NOT_FOUND, f"ref {request.ref} not found")
        await call.send(Empty())

    async def _solve(self, call: Call) -> None:
        request = await call.receive_one(BridgeSolveRequest)
        job = await self._job(call)
        if request.definition is not None and request.definition.ops and not request.frontend:
            name = name_of(request.definition)
            solved = self._jobs.result(name)
            if solved is None:
                raise NotImplementedHere("solving a graph of the client's own (LLB) is not implemented")
            name = job.keep(solved)
        elif not request.frontend:
            name = ""
        elif request.frontend_opt.get(REQUEST):
            asking = self.ask(job, request.frontend, request.frontend_opt, request.frontend_inputs)
            await call.send(BridgeSolveResponse("", Result(metadata=dict(await job.run(asking)))))
            return
        else:
            work = self.build(job, request.frontend, request.frontend_opt, request.frontend_inputs)
            name = await job.run(work)
        await call.send(BridgeSolveResponse(name, self._result(job, name)))

    def _result(self, job: BuildJob, name: str) -> Result:
        if not name:
            return Result(ref=Ref())
        config = json.dumps(dict(job.results[name].config)).encode()
        return Result(ref=Ref(name, definition_of(name)), metadata={"containerimage.config": config})

    async def build(
        self, job: BuildJob, frontend: str, options: Mapping[str, str], inputs: Mapping[str, Definition]
    ) -> str:
        """Build as the options say; answer the result's reference in the job. Raises: RpcFailed, BennuError."""

        async def solve(request: SolveRequest, lent: SessionInputs) -> str:
            return job.keep(await self._builder.solve(request, lent, job.recorder, job.stack))

        return await self._with_inputs(job, frontend, options, inputs, solve)

    async def ask(
        self, job: BuildJob, frontend: str, options: Mapping[str, str], inputs: Mapping[str, Definition]
    ) -> Answer:
        """Answer what is asked of the Dockerfile instead of a build. Raises: RpcFailed, BennuError."""

        async def answer(request: SolveRequest, lent: SessionInputs) -> Answer:
            return await self._builder.answer(options[REQUEST], request, lent, job.recorder, job.stack)

        return await self._with_inputs(job, frontend, options, inputs, answer)

    async def _with_inputs(
        self,
        job: BuildJob,
        frontend: str,
        options: Mapping[str, str],
        inputs: Mapping[str, Definition],
        work_on: Callable[[SolveRequest, SessionInputs], Awaitable[T]],
    ) -> T:
        """Work on what the options say with what the client lends, while it is there. Raises: RpcFailed, BennuError."""
        check_frontend(frontend, options)
        request = replace(read_options(options, self._solved(inputs)), allow_host_network=job.allow_host_network)
        session = await self._sessions.find(job.session)
        lent = await self.lend(job, local_sessions(options))
        if request.context_url.startswith(UPLOADS):
            lent.bring = partial(lent.pull_upload, urlsplit(request.context_url).path)
            request = replace(request, context_url="")
        try:
            return await while_there(session, work_on(request, lent))
        except BuildStepFailed as error:
            raise RpcFailed(Code.UNKNOWN, str(error), source_details(error, lent.dockerfile)) from error

    async def lend(self, job: BuildJob, elsewhere: Mapping[str, str]) -> SessionInputs:
        """Make what a job's client lends to its build."""
        work = await job.stack.enter_async_context(self._builder.work())
        sessions, contexts = self._sessions, self._contexts
        return SessionInputs(sessions, contexts, job.session, job.recorder, work, job.stack, elsewhere)

    def _solved(self, inputs: Mapping[str, Definition]) -> dict[str, Solved]:
        found: dict[str, Solved] = {}
        for name, definition in inputs.items():
            solved = self._jobs.result(name_of(definition))
            if solved is None:
                raise InvalidParameter(f"the input {name} is not a result of another target")
            found[name] = solved
        return found


def source_details(error: BuildStepFailed, dockerfile: tuple[str, bytes]) -> list[AnyValue]:
    """Write where a build failed, for clients to show those lines (BuildKit `solver/errdefs/source.go`)."""
    name, data = error.source if error.source[1] else dockerfile
    if error.location is None or not data:
        return []
    lines = {"start": {"line": error.location.first}, "end": {"line": error.location.last}}
    info = {"filename": name, "data": base64.b64encode(data).decode(), "language": "Dockerfile"}
    return [AnyValue(SOURCE_DETAIL, json.dumps({"info": info, "ranges": [lines]}).encode())]
