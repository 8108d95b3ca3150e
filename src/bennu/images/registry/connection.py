"""One registry at one endpoint, spoken to with one login: logins and tokens, redirects, and what failed where.

The first request asks how to be let in; what is asked for then goes with each later one to the same place, never to
where a redirect leads. As the client of github.com/docker/distribution.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
import msgspec
from aiohttp import BasicAuth, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from yarl import URL

from bennu import __version__
from bennu.go.proxy import proxy_for
from bennu.images.registry.challenges import Challenge, parse_challenges
from bennu.images.registry.endpoints import RegistryEndpoint, tls_context
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError, of_connection, of_request, refusal, status_line

CLIENT_ID: Final = "docker"  # token servers know this one
CONNECT_S: Final = 30.0
ANSWER_S: Final = 15.0  # for the first question, and for a token
IDLE_S: Final = 60.0  # without a byte
MAX_REDIRECTS: Final = 10
TOO_MANY: Final = f"stopped after {MAX_REDIRECTS} redirects"
MAX_ANSWER: Final = 4 << 20  # of whatever is no blob
READ_BYTES: Final = 1 << 20
LEAST_TOKEN_S: Final = 60.0
FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError)


class TokenAnswer(msgspec.Struct):
    """What a token server answers, in either of its forms."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float = 0


class RegistryConnection:
    """An endpoint that answers; `async with`. `identity_token` is what the token server gave for later logins."""

    def __init__(
        self, endpoint: RegistryEndpoint, auth: Auth, scopes: Sequence[str] = (), *, offline: bool = False
    ) -> None:
        """`scopes`: what tokens are to allow; `offline`: ask for a token that replaces the password."""
        self.endpoint = endpoint
        self.identity_token = auth.identitytoken
        self._auth = auth
        self._scopes = scopes
        self._offline = offline
        self._challenges: Sequence[Challenge] = ()
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}  # by scopes: the token, and when it ends
        self._turn = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Ask how to be let in. Raises: RegistryError, InvalidParameter for certificates that cannot be read."""
        context = await asyncio.to_thread(tls_context, self.endpoint)
        self._session = await self._stack.enter_async_context(new_session(TCPConnector(ssl=context, limit=0)))
        try:
            async with self._send("GET", f"{self.endpoint.url}/v2/", {}, None, seconds=ANSWER_S) as answer:
                if answer.status == 401:
                    self._challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        body: Any = None,
        more_scopes: Sequence[str] = (),
        seconds: float | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """Send a request below `/v2/`, or to a whole URL, and give the answer, whatever its status.

        Redirects of what only reads are followed. Raises: RegistryError when nobody answers, or no token is to be had.
        """
        url = urljoin(f"{self.endpoint.url}/v2/", path) if "://" not in path else path
        for _ in range(MAX_REDIRECTS):
            given = {"Accept-Encoding": "identity", **(headers or {})}
            if self._is_own(url):
                try:
                    given |= await self._let_in(more_scopes)
                except RegistryError as error:
                    raise error.during(method, url) from None
            async with self._send(method, url, given, body, seconds=seconds) as answer:
                if not 300 <= answer.status < 400 or answer.status == 304 or method not in ("GET", "HEAD"):
                    yield answer
                    return
                url = urljoin(url, answer.headers.get("Location", ""))
        raise RegistryError(TOO_MANY, spoken=True, final=True, request=of_request(method, url))

    async def ask(
        self, method: str, path: str, *, seconds: float = IDLE_S, **given: Any
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send a request; answer body and headers. Raises: RegistryError, also for a refusal."""
        async with self.request(method, path, seconds=seconds, **given) as answer:
            await expect_success(answer)
            return await read_answer(answer), answer.headers

    def _is_own(self, url: str) -> bool:
        own, other = urlsplit(self.endpoint.url), urlsplit(url)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc)

    @contextlib.asynccontextmanager
    async def _send(
        self, method: str, url: str, headers: Mapping[str, Any], body: Any, *, seconds: float | None
    ) -> AsyncIterator[ClientResponse]:
        async with send(self._session, method, url, headers=headers, body=body, seconds=seconds) as answer:
            yield answer

    # --- being let in ---------------------------------------------------------------------------------------------

    async def authorization(self) -> dict[str, str]:
        """Answer the header that lets in, for a request that goes another way. Raises: RegistryError."""
        return await self._let_in(())

    async def _let_in(self, more_scopes: Sequence[str]) -> dict[str, str]:
        """Answer the header with a token or the login, as the registry asked for. Raises: RegistryError."""
        found: dict[str, str] = {}
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                token = self._auth.registrytoken or await self._token(challenge, (*self._scopes, *more_scopes))
                found["Authorization"] = f"Bearer {token}"
        for challenge in self._challenges:
            if challenge.scheme == "basic" and not self._auth.registrytoken:
                name, password = self._auth.pair
                if not name or not password:
                    raise RegistryError("no basic auth credentials", spoken=True, final=True)
                found["Authorization"] = BasicAuth(name, password, "utf-8").encode()
        return found

    async def _token(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        async with self._turn:
            token, ends = self._tokens.get(scopes, ("", 0.0))
            if time.monotonic() >= ends:
                found = await self._fetch_token(challenge, scopes)
                token = found.access_token or found.token
                if not token:
                    raise RegistryError("authorization server did not include a token in the response", spoken=True)
                self._tokens[scopes] = token, time.monotonic() + max(found.expires_in, LEAST_TOKEN_S)
            return token

    async def _fetch_token(self, challenge: Challenge, scopes: Sequence[str]) -> TokenAnswer:
        """Ask the token server, with the identity token if there is one, else with name and password, else nameless."""
        realm = challenge.parameters.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            why = (
                f"invalid token auth challenge realm: {realm}"
                if realm
                else "no realm specified for token auth challenge"
            )
            raise RegistryError(why, spoken=True, final=True)
        service = challenge.parameters.get("service", "")
        if self.identity_token:
            form = {"scope": " ".join(scopes), "service": service, "client_id": CLIENT_ID}
            form |= {"grant_type": "refresh_token", "refresh_token": self.identity_token}
            method, url, body = "POST", realm, urlencode(form).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        else:
            name, password = self._auth.pair
            asked = [("service", service)] * bool(service) + [("scope", scope) for scope in scopes]
            asked += [("offline_token", "true"), ("client_id", CLIENT_ID)] * self._offline
            headers = {}
            if name and password:
                asked.append(("account", name))
                headers["Authorization"] = BasicAuth(name, password, "utf-8").encode()
            asked.sort(key=lambda pair: pair[0])
            method, body = "GET", None
            url = realm + ("&" if urlsplit(realm).query else "?") * bool(asked) + urlencode(asked)
        async with self._send(method, url, headers, body, seconds=ANSWER_S) as answer:
            await expect_success(answer)
            raw = await read_answer(answer)
        try:
            found = msgspec.json.decode(raw, type=TokenAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RegistryError(f"unable to decode token response: {error}", spoken=True) from None
        if found.refresh_token:
            self.identity_token = found.refresh_token
        return found


def new_session(connector: TCPConnector) -> ClientSession:
    """Make a client that adds nothing of its own: no cookies, no compression, no redirects."""
    return ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": f"bennu/{__version__}"},
        read_bufsize=READ_BYTES,
        raise_for_status=False,
    )


@contextlib.asynccontextmanager
async def send(
    session: ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, Any],
    body: Any = None,
    seconds: float | None = None,
) -> AsyncIterator[ClientResponse]:
    """Send one request, through the proxy if there is one for it. `seconds`: for all of it.

    Raises: RegistryError when it is not answered. What fails in the block is the caller's.
    """
    timeout = ClientTimeout(total=seconds, sock_connect=CONNECT_S, sock_read=IDLE_S)
    host = urlsplit(url).netloc
    try:
        proxy, login = _split_login(proxy_for(url, os.environ))
        pairs = [(key, one) for key, value in headers.items() for one in ([value] if isinstance(value, str) else value)]
        answer = await session.request(
            method,
            URL(url, encoded=True),
            headers=pairs,
            data=body,
            proxy=proxy,
            proxy_auth=login,
            timeout=timeout,
            allow_redirects=False,
        )
    except FAILURES as error:
        why = of_connection(error, host)
        raise RegistryError(why, spoken=False, request=of_request(method, url)) from error
    except ValueError as error:
        raise RegistryError(str(error), spoken=False, final=True, request=of_request(method, url)) from None
    async with answer:
        yield answer


def _split_login(proxy: str | None) -> tuple[URL | None, BasicAuth | None]:
    """Take the login out of a proxy's URL, which errors and logs repeat."""
    if proxy is None:
        return None, None
    url = URL(proxy)
    return url.with_user(None), BasicAuth(url.user or "", url.password or "") if url.user or url.password else None


@contextlib.asynccontextmanager
async def get(
    session: ClientSession, url: str, headers: Mapping[str, str] | None = None, secret: Mapping[str, str] | None = None
) -> AsyncIterator[ClientResponse]:
    """Ask for a URL and follow where it leads; `secret` headers go to the first place only. Raises: RegistryError."""
    place = url
    for _ in range(MAX_REDIRECTS):
        if urlsplit(place).scheme not in ("http", "https"):
            why = f'unsupported protocol scheme "{urlsplit(place).scheme}"'
            raise RegistryError(why, spoken=False, final=True, request=of_request("GET", url))
        given = {"Accept-Encoding": "identity", **(headers or {}), **((secret or {}) if place == url else {})}
        async with send(session, "GET", place, headers=given) as answer:
            if answer.status not in (301, 302, 303, 307, 308):
                yield answer
                return
            place = urljoin(place, answer.headers.get("Location", ""))
    raise RegistryError(TOO_MANY, spoken=True, final=True, request=of_request("GET", url))


async def read_answer(answer: ClientResponse, limit: int = MAX_ANSWER) -> bytes:
    """Read a short answer whole. Raises: RegistryError, also for one that is not short."""
    data = bytearray()
    try:
        async for part in answer.content.iter_any():
            data += part
            if len(data) > limit:
                raise RegistryError(f"the answer of {answer.url.host} is too large", spoken=True, final=True)
    except FAILURES as error:
        raise RegistryError(of_connection(error, answer.url.authority), spoken=True) from error
    return bytes(data)


async def expect_success(answer: ClientResponse) -> None:
    """Pass an answer that grants what was asked for. Raises: RegistryError."""
    if 200 <= answer.status < 400:
        return
    body = await read_answer(answer)
    challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", [])) if answer.status == 401 else []
    reason = status_line(answer.status, answer.reason).partition(" ")[2]
    raise refusal(answer.status, reason, answer.headers.get("Content-Type", ""), body, challenges)
