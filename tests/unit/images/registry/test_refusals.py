"""What a registry's refusal becomes: the words of dockerd."""

import errno
import json
import socket
import ssl

import pytest

from bennu.errors import BennuError, Forbidden, NotFound, Unauthorized
from bennu.images.reference import parse_reference
from bennu.images.registry.challenges import Challenge, parse_challenges
from bennu.images.registry.refusals import RegistryError, of_connection, of_pull, of_push, of_status, refusal

JSON = "application/json; charset=utf-8"
APP = parse_reference("app:v1")


def answer(status: int, *errors: object, content_type: str = JSON, **challenge: str) -> RegistryError:
    body = json.dumps({"errors": errors}).encode()
    return refusal(status, "Reason", content_type, body, [Challenge("bearer", challenge)])


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        pytest.param(
            answer(404, {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {"Tag": "v1"}}),
            "manifest for app:v1 not found: manifest unknown: manifest unknown",
            NotFound,
            id="no such tag",
        ),
        pytest.param(
            answer(404, {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}),
            "manifest unknown",
            NotFound,
            id="no such tag, and no detail",
        ),
        pytest.param(
            answer(404, {"code": "NAME_UNKNOWN", "message": "not known", "detail": {"name": "app"}}),
            "repository app not found: name unknown: not known",
            NotFound,
            id="no such repository",
        ),
        pytest.param(
            answer(
                401,
                {"code": "UNAUTHORIZED", "message": "authentication required", "detail": []},
                error="insufficient_scope",
            ),
            "pull access denied for app, repository does not exist or may require 'docker login': denied: requested "
            "access to the resource is denied",
            NotFound,
            id="a token that allows less",
        ),
        pytest.param(
            answer(401, {"code": "UNAUTHORIZED", "message": "incorrect username or password", "detail": 1}),
            "unauthorized: incorrect username or password",
            Unauthorized,
            id="wrong password",
        ),
        pytest.param(
            answer(401, {"details": "x"}, content_type="text/html"),
            'unauthorized: {"errors": [{"details": "x"}]}',
            Unauthorized,
            id="no JSON",
        ),
        pytest.param(
            answer(404, content_type=JSON),
            'error parsing HTTP 404 response body: no error details found in HTTP response body: "{\\"errors\\": []}"',
            BennuError,
            id="no errors",
        ),
        pytest.param(answer(502), "received unexpected HTTP status: 502 Reason", BennuError, id="a gateway's fault"),
    ],
)
def test_a_registrys_refusal_is_told_in_dockers_words(
    error: RegistryError, message: str, kind: type[BennuError]
) -> None:
    translated = of_pull(error, APP)
    assert (str(translated), type(translated)) == (message, kind)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("UNAUTHORIZED", 401, Unauthorized), ("DENIED", 403, Forbidden), ("X", 404, BennuError)],
)
def test_a_question_passed_on_keeps_the_registrys_status(code: str, status: int, kind: type[BennuError]) -> None:
    assert type(of_status(answer(status, {"code": code, "message": "m", "detail": 1}))) is kind


def _untrusted(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "words of OpenSSL"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 5000)"),
            "dial tcp 10.0.0.1:5000: connect: connection refused",
        ),
        (
            OSError(errno.ECONNREFUSED, "Connect call failed ('::1', 5000, 0, 0)"),
            "dial tcp [::1]:5000: connect: connection refused",
        ),
        (OSError(errno.EHOSTUNREACH, ""), "dial tcp h:5000: connect: no route to host"),
        (socket.gaierror(-2, "Name or service not known"), "dial tcp: lookup h: no such host"),
        (_untrusted(20), "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        (_untrusted(10), "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"),
        (_untrusted(62), "tls: failed to verify certificate: x509: certificate is not valid for h"),
        (TimeoutError(), "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
    ],
)
def test_a_connection_that_fails_is_told_in_gos_words(error: BaseException, words: str) -> None:
    assert of_connection(error, "h:5000") == words


def test_what_had_to_come_before_a_request_is_told_with_it_and_a_push_tells_the_reason_alone() -> None:
    refused = answer(401, {"code": "UNAUTHORIZED", "message": "wrong password", "detail": 1})
    during = refused.during("HEAD", "https://h/v2/app/manifests/v1")
    words = 'Head "https://h/v2/app/manifests/v1": unauthorized: wrong password'
    assert (str(of_pull(during, APP)), type(of_pull(during, APP))) == (words, Unauthorized)
    assert str(of_push(during)) == "unauthorized: wrong password"
    missing = RegistryError("no basic auth credentials", spoken=True, final=True).during("POST", "https://h/")
    assert str(of_push(missing)) == "no basic auth credentials"
    broken = RegistryError("EOF", spoken=False, request='Get "https://h/v2/"')
    assert str(of_push(broken)) == 'Get "https://h/v2/": EOF'


def test_challenges_are_read_with_quotes_and_without() -> None:
    header = 'Bearer realm="https://a/token?x=\\"y\\"",service=reg.example, scope="repository:a:pull,push"'
    assert parse_challenges([header, 'Basic realm="r"', "", "Negotiate"]) == [
        Challenge(
            "bearer",
            {"realm": 'https://a/token?x="y"', "service": "reg.example", "scope": "repository:a:pull,push"},
        ),
        Challenge("basic", {"realm": "r"}),
        Challenge("negotiate", {}),
    ]
