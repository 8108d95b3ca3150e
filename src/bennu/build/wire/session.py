"""Sessions: clients that answer calls of ours about the files, secrets and logins that their builds need."""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

from bennu.build.wire.grpc import Call, Code, Outgoing, RpcFailed, ask, begin
from bennu.build.wire.http2 import Http2, Link
from bennu.build.wire.http2_stream import Headers, StreamReset
from bennu.build.wire.messages import (
    BytesMessage,
    CheckAgentRequest,
    CredentialsRequest,
    CredentialsResponse,
    Empty,
    GetSecretRequest,
    GetSecretResponse,
)
from bennu.build.wire.protobuf import Message
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound

WAIT_S: Final = 5.0  # a session may come a moment after the build that names it
ANSWER_S: Final = 60.0  # for a client to answer a small question
TUNNEL_PIECE: Final = 1 << 20
MAX_SESSIONS: Final = 1024
HEADER: Final = "x-docker-expose-session-"
DIFF_COPY: Final = "/moby.filesync.v1.FileSync/DiffCopy"
SEND_FILES: Final = "/moby.filesync.v1.FileSend/DiffCopy"
CREDENTIALS: Final = "/moby.filesync.v1.Auth/Credentials"
GET_SECRET: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK_AGENT: Final = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT: Final = "/moby.sshforward.v1.SSH/ForwardAgent"
PULL_UPLOAD: Final = "/moby.upload.v1.Upload/Pull"

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class SessionGone(BennuError):
    """The client of a session has left, or answered no more."""


class ClientSession:
    """One client that lends things to its builds."""

    def __init__(self, session_id: str, shared_key: str, methods: Sequence[str], connection: Http2) -> None:
        self.id = session_id
        self.shared_key = shared_key
        self._methods = frozenset(method.lower() for method in methods)
        self._connection = connection

    @property
    def gone(self) -> asyncio.Event:
        return self._connection.ended

    def offers(self, method: str) -> bool:
        return method.lower() in self._methods

    def begin(self, method: str, metadata: Headers = ()) -> Outgoing:
        """Begin a call. Raises: NotFound if the client does not offer it; SessionGone."""
        if not self.offers(method):
            raise NotFound(f"the client's session does not offer {method.removeprefix('/')}")
        try:
            return begin(self._connection, method, metadata)
        except StreamReset:
            raise SessionGone("the client's session is gone") from None

    async def _ask(self, method: str, request: Message, kind: type[M]) -> M:
        if not self.offers(method):
            raise NotFound(f"the client's session does not offer {method.removeprefix('/')}")
        try:
            async with asyncio.timeout(ANSWER_S):
                return await ask(self._connection, method, request, kind)
        except (StreamReset, TimeoutError):
            raise SessionGone(f"the client's session does not answer {method.removeprefix('/')}") from None

    async def secret(self, secret_id: str) -> bytes | None:
        """Fetch a secret; None: the client has none of this name. Raises: RpcFailed, SessionGone."""
        try:
            return (await self._ask(GET_SECRET, GetSecretRequest(secret_id), GetSecretResponse)).data
        except NotFound:
            return None
        except RpcFailed as error:
            if error.code == Code.NOT_FOUND:
                return None
            raise

    async def has_agent(self, agent_id: str) -> bool:
        """Ask whether the client lends this agent. Raises: SessionGone."""
        try:
            await self._ask(CHECK_AGENT, CheckAgentRequest(agent_id), Empty)
        except (NotFound, RpcFailed):
            return False
        return True

    async def credentials(self, host: str) -> tuple[str, str]:
        """Fetch the login for a registry, both "" if there is none. Raises: RpcFailed, SessionGone."""
        try:
            answer = await self._ask(CREDENTIALS, CredentialsRequest(host), CredentialsResponse)
        except NotFound:
            return "", ""
        return answer.username, answer.secret


class Sessions:
    """The sessions of one host, by their ids."""

    def __init__(self) -> None:
        self._known: dict[str, ClientSession] = {}
        self._came = asyncio.Condition()

    async def attend(self, link: Link, headers: Mapping[str, Sequence[str]]) -> None:
        """Keep a client's session until it leaves. `headers`: with lower-case names. Raises: see `check`."""
        session_id = self.check(headers)
        connection = Http2(link, serve=None)
        methods = [str(name) for name in headers.get(f"{HEADER}grpc-method", ())]
        shared_key = next(iter(headers.get(f"{HEADER}sharedkey", ())), "")
        session = ClientSession(session_id, shared_key, methods, connection)
        async with self._came:
            self._known[session_id] = session
            self._came.notify_all()
        try:
            await connection.run()
        finally:
            if self._known.get(session_id) is session:
                del self._known[session_id]

    def check(self, headers: Mapping[str, Sequence[str]]) -> str:
        """Answer the id of a session to be. Raises: InvalidParameter, Conflict."""
        session_id = next(iter(headers.get(f"{HEADER}uuid", ())), "")
        if not session_id:
            raise InvalidParameter("a session needs an id")
        if session_id in self._known:
            raise Conflict(f"the session {session_id} is there already")
        if len(self._known) >= MAX_SESSIONS:
            raise Conflict("too many sessions are open")
        return session_id

    async def find(self, session_id: str) -> ClientSession:
        """Wait a moment for a session, if need be. Raises: NotFound."""
        session_id = session_id.rpartition(":")[2]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S), self._came:
                await self._came.wait_for(lambda: session_id in self._known)
        found = self._known.get(session_id)
        if found is None:
            raise NotFound(f"no active session for {session_id}: context deadline exceeded")
        return found


async def while_there(session: ClientSession, work: Awaitable[T]) -> T:
    """Do work that ends when its session ends. Raises: SessionGone; whatever the work raises."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(session.gone.wait())
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise SessionGone("the client's session is gone")
        return task.result()
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


class Tunnel:
    """A connection inside of a call: a `Link` whose messages carry a session's whole HTTP/2 (Control.Session)."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> bytes | None:
        try:
            message = await self._call.receive()
        except StreamReset:
            return None
        return None if message is None else BytesMessage.decode(message).data

    async def write(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), TUNNEL_PIECE):
                await self._call.send(BytesMessage(data[at : at + TUNNEL_PIECE]))
        except StreamReset as error:
            raise ConnectionResetError("the call is gone") from error
