"""`/exec`: further processes in a running container (moby `api/server/router/container/exec.go`)."""

import base64
import dataclasses
from typing import Any, Final

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.detach_keys import parse_keys
from bennu.api.http.query import is_version_at_least
from bennu.api.http.responses import empty_response, json_response
from bennu.api.http.sessions import AttachOptions, SessionEnd, join
from bennu.api.http.streams import STDOUT, Hijacked, ends_with_client, frame, stream_type, take_over
from bennu.api.http.terminal import Size, read_size, terminal_size
from bennu.api.http.versions import API_VERSION, SERVER
from bennu.engine.engine import Engine
from bennu.engine.execs import ExecSession
from bennu.errors import BennuError, InvalidParameter
from bennu.model import Shape
from bennu.runtime import ExecRequest

ROUTED: Final = {"Api-Version": API_VERSION, "Docker-Experimental": "false", "Ostype": "linux", "Server": SERVER}


class ExecBody(Shape):
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    detach_keys: str = ""
    console_size: list[int] | None = None


class StartBody(Shape):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


def routes(engine: Engine) -> list[web.RouteDef]:
    api = ExecRoutes(engine)
    return [
        web.route("POST", "/containers/{id}/exec", api.create),
        web.route("POST", "/exec/{id}/start", api.start),
        web.route("POST", "/exec/{id}/resize", api.resize),
        web.route("GET", "/exec/{id}/json", api.inspect),
    ]


class ExecRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: web.Request) -> web.Response:
        body = await read_body(request, ExecBody)
        container = self._engine.find(request.match_info["id"])
        sized = is_version_at_least(request, 42)
        session = container.new_session(exec_request(body, terminal_size(body.console_size) if sized else None))
        session.detach_keys = body.detach_keys
        session.attach_stdin = body.attach_stdin
        session.attach_stdout = body.attach_stdout
        session.attach_stderr = body.attach_stderr
        if body.detach_keys:
            check_keys(body.detach_keys)
        await self._engine.execs.create(container, session)
        return json_response({"Id": session.id}, 201)

    @ends_with_client
    async def start(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, StartBody)
        session = self._engine.execs.find(request.match_info["id"])
        size = terminal_size(body.console_size) if is_version_at_least(request, 42) else None
        if size is not None:
            session.request = dataclasses.replace(session.request, console_size=size)
        if body.detach:
            (await self._engine.execs.start(session)).discard()
            return empty_response()

        async def work(connection: Hijacked) -> None:
            await self._run(connection, session, framed=not body.tty)

        return await take_over(request, stream_type(request, multiplexed=not body.tty), work, headers=ROUTED)

    async def _run(self, connection: Hijacked, session: ExecSession, *, framed: bool) -> None:
        """Run the session. Errors come inside the stream; the exit code is final before the connection closes."""
        try:
            process = await self._engine.execs.start(session)
        except BennuError as error:
            text = f"{error}\r\n".encode()
            await connection.write(frame(STDOUT, text) if framed else text)
            return
        options = AttachOptions(
            framed=framed,
            stdin=session.attach_stdin,
            stdout=session.attach_stdout,
            stderr=session.attach_stderr,
            keys=parse_keys(session.detach_keys) if session.request.tty else None,
        )
        why = await join(connection, process, options)
        process.discard()  # whatever comes now has no reader
        match why:
            case SessionEnd.OUTPUT:
                await session.ended.wait()
            case SessionEnd.DETACHED:
                await session.container.publish("exec_detach", execID=session.id)
            case SessionEnd.LEFT:
                await process.close_stdin()

    async def resize(self, request: web.Request) -> web.Response:
        height, width = read_size(request)
        await self._engine.execs.resize(self._engine.execs.find(request.match_info["id"]), height, width)
        return empty_response()

    async def inspect(self, request: web.Request) -> web.Response:
        return json_response(session_json(self._engine.execs.find(request.match_info["id"])))


def exec_request(body: ExecBody, size: Size | None) -> ExecRequest:
    return ExecRequest(
        args=body.cmd or [],
        env=body.env or (),
        cwd=body.working_dir,
        user=body.user,
        tty=body.tty,
        stdin=body.attach_stdin,
        output=body.attach_stdout or body.attach_stderr,
        privileged=body.privileged,
        console_size=size or (0, 0),
    )


def check_keys(keys: str) -> None:
    """Refuse bad detach keys. Raises: BennuError: dockerd answers 500 here, unlike for attach."""
    try:
        parse_keys(keys)
    except InvalidParameter:
        raise BennuError(f"Invalid escape keys ({keys}) provided") from None


def session_json(session: ExecSession) -> dict[str, Any]:
    request = session.request
    process: dict[str, Any] = {
        "tty": request.tty,
        "entrypoint": request.args[0],
        "arguments": request.args[1:],
        "privileged": request.privileged,
    }
    if request.user:
        process["user"] = request.user
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": process,
        "OpenStdin": session.attach_stdin,
        "OpenStderr": session.attach_stderr,
        "OpenStdout": session.attach_stdout,
        "CanRemove": False,
        "ContainerID": session.container.id,
        "DetachKeys": base64.b64encode(parse_keys(session.detach_keys)).decode() if session.detach_keys else "",
        "Pid": session.pid,
    }
