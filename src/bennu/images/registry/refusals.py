"""What a registry's refusal, or a connection that fails, is called in dockerd's words. Pure; `test_refusals.py`.

Codes and messages are those of the OCI distribution specification and of its reference implementation.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound, Unauthorized, Unavailable
from bennu.images.reference import Reference
from bennu.images.registry.challenges import Challenge

# By code: the message that says nothing more than the code, and the status.
CODES: Final = {
    "UNKNOWN": ("unknown error", 500),
    "UNSUPPORTED": ("The operation is unsupported.", 405),
    "UNAUTHORIZED": ("authentication required", 401),
    "DENIED": ("requested access to the resource is denied", 403),
    "UNAVAILABLE": ("service unavailable", 503),
    "TOOMANYREQUESTS": ("too many requests", 429),
    "DIGEST_INVALID": ("provided digest did not match uploaded content", 400),
    "SIZE_INVALID": ("provided length did not match content length", 400),
    "NAME_INVALID": ("invalid repository name", 400),
    "TAG_INVALID": ("manifest tag did not match URI", 400),
    "NAME_UNKNOWN": ("repository name not known to registry", 404),
    "MANIFEST_UNKNOWN": ("manifest unknown", 404),
    "MANIFEST_INVALID": ("manifest invalid", 400),
    "MANIFEST_UNVERIFIED": ("manifest failed signature verification", 400),
    "MANIFEST_BLOB_UNKNOWN": ("blob unknown to registry", 400),
    "BLOB_UNKNOWN": ("blob unknown to registry", 404),
    "BLOB_UPLOAD_UNKNOWN": ("blob upload unknown to registry", 404),
    "BLOB_UPLOAD_INVALID": ("blob upload invalid", 404),
    "PAGINATION_NUMBER_INVALID": ("invalid number of results requested", 400),
    "RANGE_INVALID": ("invalid content range", 416),
}
BY_STATUS: Final = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}
BY_ERROR: Final = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}
KINDS: Final[dict[int, type[BennuError]]] = {
    400: InvalidParameter,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    503: Unavailable,
}
NO_HOST: Final = "no such host"
GONE: Final = ("DENIED", "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
FINAL: Final = ("UNAUTHORIZED", "UNSUPPORTED", "DENIED", "TOOMANYREQUESTS", "NAME_UNKNOWN")
UNTRUSTED: Final = frozenset({2, 7, 18, 19, 20, 21, 24})  # X509_V_ERR_…: no chain to an authority that is known
EXPIRED: Final = frozenset({9, 10})
NOT_ITS_NAME: Final = frozenset({62, 64})
CALL: Final = re.compile(r"Connect call failed \('([^']*)', ([0-9]+)")
SHOWN_BYTES: Final = 4096  # of an answer that is no list of errors


@dataclass(frozen=True, slots=True)
class Complaint:
    """One entry of a registry's list of errors; `message` None: it says nothing more than the code."""

    code: str
    message: str | None

    def __str__(self) -> str:
        """Write it as the distribution library does."""
        shown = self.code.lower().replace("_", " ")
        return shown if self.message is None else f"{shown}: {self.message}"


class RegistryError(Exception):
    """A request to a registry that failed.

    `reason` is why, without the request; `spoken` tells that HTTP was spoken, so that TLS or none was right; `final`
    that asking again, or elsewhere, changes nothing.
    """

    def __init__(
        self, reason: str, *, spoken: bool, complaints: Sequence[Complaint] = (), final: bool = False, request: str = ""
    ) -> None:
        super().__init__(f"{request}: {reason}" if request else reason)
        self.reason = reason
        self.request = request
        self.spoken = spoken
        self.complaints = complaints
        self.final = final

    @property
    def code(self) -> str:
        return self.complaints[0].code if self.complaints else ""

    def during(self, method: str, url: str) -> "RegistryError":
        """Answer the same failure as one of what had to come before this request."""
        request = of_request(method, url)
        return RegistryError(
            str(self), spoken=self.spoken, complaints=self.complaints, final=self.final, request=request
        )


def refusal(status: int, reason: str, content_type: str, body: bytes, challenges: Sequence[Challenge]) -> RegistryError:
    """Read the answer to a request that was refused."""
    if not 400 <= status < 500:
        return RegistryError(f"received unexpected HTTP status: {status} {reason}", spoken=True)
    told = [
        Complaint(code, challenge.parameters.get("error_description") or CODES[code][0])
        for challenge in challenges
        if challenge.scheme == "bearer" and (code := BY_ERROR.get(challenge.parameters.get("error", "")))
    ][:1]
    found = _read_complaints(status, content_type.partition(";")[0].strip().lower(), body)
    if isinstance(found, str):
        if status != 401 and not told:
            return RegistryError(found, spoken=True, final=True)
        found = [Complaint("UNAUTHORIZED", CODES["UNAUTHORIZED"][0])] if status == 401 else []
    complaints = [*told, *found]
    words = str(complaints[0]) if len(complaints) == 1 else "errors:\n" + "".join(f"{one}\n" for one in complaints)
    return RegistryError(words, spoken=True, complaints=complaints, final=complaints[0].code in FINAL)


def _read_complaints(status: int, content_type: str, body: bytes) -> list[Complaint] | str:
    """Read a list of errors; a text tells why it is none."""
    code = BY_STATUS.get(status, "UNKNOWN")
    text = body.decode(errors="replace")
    if content_type not in ("application/json", "application/vnd.api+json"):
        return [Complaint(code, text[:SHOWN_BYTES])]
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
        details = document.get("details")
        if isinstance(details, str) and details:
            return [Complaint(code, details)]
        listed = [_complaint(one) for one in document.get("errors") or [] if isinstance(one, dict)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _unread(status, str(error), text)
    return listed or _unread(status, "no error details found in HTTP response body", text)


def _complaint(entry: dict[str, Any]) -> Complaint:
    code, message = str(entry.get("code") or ""), str(entry.get("message") or "")
    code = code if code in CODES else "UNKNOWN"
    is_bare = entry.get("detail") is None and message in ("", CODES[code][0])
    return Complaint(code, None if is_bare else message)


def _unread(status: int, why: str, text: str) -> str:
    shown = msgspec.json.encode(text[:SHOWN_BYTES]).decode()
    return f"error parsing HTTP {status} response body: {why}: {shown}"


def of_pull(error: RegistryError, reference: Reference) -> BennuError:
    """Translate what went wrong with a pull, as dockerd tells it."""
    if error.request or not error.complaints:
        return of_status(error)
    complaint = error.complaints[0]
    if complaint.message is None or complaint.code not in GONE:
        return _kind(error)(str(complaint))
    match complaint.code:
        case "DENIED":
            why = "repository does not exist or may require 'docker login'"
            return NotFound(f"pull access denied for {reference.familiar_name}, {why}: {complaint}")
        case "MANIFEST_UNKNOWN":
            return NotFound(f"manifest for {reference} not found: {complaint}")
    return NotFound(f"repository {reference.familiar_name} not found: {complaint}")


def of_push(error: RegistryError) -> BennuError:
    """Translate what went wrong with a push: without the request where it is the login that is wrong."""
    if error.complaints:
        return _kind(error)(str(error.complaints[0]))
    return BennuError(error.reason if error.final else str(error))


def of_status(error: RegistryError) -> BennuError:
    """Translate what went wrong with a question that is passed on to a registry, and keep its status."""
    return _kind(error)(str(error))


def _kind(error: RegistryError) -> type[BennuError]:
    return KINDS.get(CODES[error.code][1], BennuError) if error.complaints else BennuError


def of_request(method: str, url: str) -> str:
    """Write a request that failed as Go's HTTP client does."""
    return f'{method.capitalize()} "{url}"'


def of_connection(error: BaseException, host: str) -> str:
    """Tell why nobody answered, or not to the end."""
    cause = getattr(error, "os_error", None) or error.__cause__ or error
    for one in (cause, error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _of_certificate(one, host)
        if isinstance(one, ssl.SSLError):
            return _of_tls(one)
        if isinstance(one, socket.gaierror):
            return f"dial tcp: lookup {host.rsplit(':', 1)[0]}: {NO_HOST}"
    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(cause, OSError) and cause.errno:
        call = CALL.search(str(cause))
        address = f"{call[1]}:{call[2]}" if call and ":" not in call[1] else f"[{call[1]}]:{call[2]}" if call else host
        why = os.strerror(cause.errno).lower()
        if cause.errno in (errno.ECONNRESET, errno.EPIPE):
            return f"read tcp {address}: read: {why}"
        return f"dial tcp {address}: connect: {why}"
    return "EOF" if "isconnected" in type(error).__name__ or not str(error) else str(error)


def _of_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in UNTRUSTED:
        why = "certificate signed by unknown authority"
    elif error.verify_code in EXPIRED:
        why = "certificate has expired or is not yet valid"
    elif error.verify_code in NOT_ITS_NAME:
        why = f"certificate is not valid for {host.rsplit(':', 1)[0]}"
    else:
        why = error.verify_message
    return f"tls: failed to verify certificate: x509: {why}"


def _of_tls(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "http: server gave HTTP response to HTTPS client"
    if "CERTIFICATE_REQUIRED" in reason:
        return "remote error: tls: certificate required"
    if "BAD_CERTIFICATE" in reason:
        return "remote error: tls: bad certificate"
    return f"tls: {reason.lower().replace('_', ' ')}"


def status_line(status: int, reason: str | None) -> str:
    """Write a status with its words, those of HTTP where the server sent none."""
    try:
        return f"{status} {reason or HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
