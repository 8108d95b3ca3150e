"""Asks authorization plugins before a request is served, and before its answer is given.

Their protocol is Docker's (docs `extend/plugins_authorization`, moby `pkg/authorization`): each plugin in turn may
refuse with a message, and what cannot be asked is refused. Bodies are shown to them only where they are JSON; one too
long to be shown is refused, for the plugin would judge a request without it. The answer to a stream is shown when it
has ended, and can then no longer be refused.
"""

import base64
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from bennu.api.http.body import PEEKED, read_bounded
from bennu.api.http.errors import Handler, status_of
from bennu.api.http.serve import Connection
from bennu.errors import BennuError, Forbidden
from bennu.plugins import Plugin

MOST_BODY: Final = 4 << 20  # what is shown (moby `pkg/authorization/authz.go`)
TIMEOUT_S: Final = 60.0
SECRET_HEADERS: Final = frozenset({"authorization", "x-registry-config", "x-registry-auth"})
SUBJECT_PART: Final = re.compile(r"([^=,]+)=((?:[^\\,]|\\.)*)(?:, |\Z)")  # commas within a value are escaped
AUTH_PATH: Final = re.compile(r"[^/]*/(v[0-9][0-9.]*/)?auth")
Judges = Callable[[], Awaitable[Sequence[Plugin]]]
log = logging.getLogger(__name__)


def make_authorizer(judges: Judges) -> Any:
    """Make the middleware; `judges` answers the plugins that are to be asked now, in their order."""

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        plugins = await judges()
        if not plugins:
            return await handler(request)
        asked = await describe_request(request)
        await _judge(plugins, "AuthZPlugin.AuthZReq", asked)
        try:
            response = await handler(request)
        except BennuError as error:
            await _tell(await judges(), asked | {"ResponseStatusCode": status_of(error)})
            raise
        if response.prepared or not isinstance(response, web.Response):
            await _tell(await judges(), asked | {"ResponseStatusCode": response.status})
            return response
        await _judge(await judges(), "AuthZPlugin.AuthZRes", asked | describe_response(request, response))
        return response

    return authorize


async def _judge(plugins: Sequence[Plugin], method: str, asked: Mapping[str, Any]) -> None:
    for plugin in plugins:
        try:
            verdict = await plugin.call(method, asked, TIMEOUT_S)
        except BennuError as error:
            raise BennuError(f"plugin {plugin.name} failed with error: {error}") from None
        if verdict.get("Allow") is not True:
            raise Forbidden(f"authorization denied by plugin {plugin.name}: {verdict.get('Msg') or ''}")


async def _tell(plugins: Sequence[Plugin], asked: Mapping[str, Any]) -> None:
    """Show them how it ended; what they say changes nothing any more."""
    try:
        await _judge(plugins, "AuthZPlugin.AuthZRes", asked)
    except BennuError as error:
        log.error("the answer to %s %s was already given: %s", asked["RequestMethod"], asked["RequestUri"], error)


async def describe_request(request: web.Request) -> dict[str, Any]:
    """Write a request as plugins are shown it; its body is kept for whoever serves it.

    Raises: InvalidParameter for a body that is to be shown, but is too long for that.
    """
    told: dict[str, Any] = {
        "RequestMethod": request.method,
        "RequestUri": request.raw_path,
        "RequestHeaders": headers_of(request.headers, leave_out={"host"}),
    }
    connection = request.protocol
    if isinstance(connection, Connection) and connection.subject is not None:
        told |= {"User": common_name(connection.subject), "UserAuthNMethod": "TLS"}
        told["RequestPeerCertificates"] = [base64.b64encode(connection.certificate.encode()).decode()]
    is_shown = request.body_exists and shows_body(request.path, request.headers.get("Content-Type", ""))
    if is_shown and (body := await _peek(request)):
        told["RequestBody"] = base64.b64encode(body).decode()
    return told


async def _peek(request: web.Request) -> bytes:
    """Read the body and put it back. Raises: InvalidParameter when it is larger than `MOST_BODY`."""
    body = await read_bounded(request, MOST_BODY)
    request[PEEKED] = body
    return body


def describe_response(request: web.Request, response: web.Response) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ResponseStatusCode": response.status,
        "ResponseHeaders": headers_of(response.headers),
    }
    body = response.body
    if isinstance(body, bytes) and body and shows_body(request.path, response.headers.get("Content-Type", "")):
        told["ResponseBody"] = base64.b64encode(body).decode()
    return told


def shows_body(path: str, content_type: str) -> bool:
    """Tell whether plugins are shown a body: it is JSON, and nobody's password."""
    return content_type.partition(";")[0].strip().lower() == "application/json" and not AUTH_PATH.match(path)


def headers_of(headers: Mapping[str, str], leave_out: frozenset[str] | set[str] = frozenset()) -> dict[str, str]:
    """Write headers under their usual names, without those that carry passwords."""
    return {
        name.title(): value for name, value in headers.items() if name.lower() not in SECRET_HEADERS | set(leave_out)
    }


def common_name(subject: str) -> str:
    """Answer the CN of a certificate's subject."""
    for name, value in SUBJECT_PART.findall(subject):
        if name == "CN":
            return re.sub(r"\\(.)", r"\1", value)
    return ""
