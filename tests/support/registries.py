"""Registries of the test's own: open, with a list of passwords, with a token server; with TLS or without."""

import base64
import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.waiting import wait_for

USER, PASSWORD = "alice", "secret"
REFRESH = "refresh-token-of-alice"
PASSWORDS = f"{USER}:$2b$05$a.slndXSjyzmgCf5U99D4uI5KGpo6i5GG.6GYnaFMSIR/.pTTH.ii\n"  # `secret`, by bcrypt
ISSUER, SERVICE = "test-issuer", "test-registry"


def program() -> str | None:
    return shutil.which("docker-registry") or shutil.which("registry")


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def run_registry(
    *,
    address: str = "127.0.0.1",
    passwords: bool = False,
    tokens: "TokenServer | None" = None,
    tls: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[str]:
    """host:port of a registry; `tls` is a folder with cert.pem, key.pem and ca.pem, whose clients it then wants.

    `prefix` is what starts it in another network.
    """
    found = program()
    assert found
    port = free_port(address)
    root = Path(tempfile.mkdtemp(prefix=f"bennu-registry-{port}-"))
    settings: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "http": {"addr": f"{address}:{port}"},
    }
    if passwords:
        (root / "passwords").write_text(PASSWORDS)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "passwords")}}
    if tokens is not None:
        settings["auth"] = {
            "token": {
                "realm": tokens.url,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(tokens.folder / "cert.pem"),
            }
        }
    if tls is not None:
        files = {"certificate": str(tls / "cert.pem"), "key": str(tls / "key.pem"), "clientcas": [str(tls / "ca.pem")]}
        settings["http"]["tls"] = files
    (root / "config.yml").write_text(json.dumps(settings))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([*prefix, found, "serve", root / "config.yml"], stdout=log, stderr=log)
    try:
        listens = "listening on"
        wait_for(lambda: listens in (root / "log").read_text(), what="the registry", describe=(root / "log").read_text)
        yield f"{address}:{port}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def data_of(registry: str) -> Path:
    """The folder in which a registry keeps what it has."""
    port = registry.rpartition(":")[2]
    return next(Path(tempfile.gettempdir()).glob(f"bennu-registry-{port}-*/data"))


class TokenServer:
    """Gives tokens to who knows the password, and to everybody what may be read of `public/`; `with` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[dict[str, list[str]]] = []  # what each request asked for
        folder.mkdir(parents=True)
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem")
        command = ["openssl", "req", "-x509", *key, "-out", "cert.pem", "-subj", "/CN=tokens"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        body = (folder / "cert.pem").read_text().split("-----")[2]
        self._certificate = "".join(body.split())

    def __enter__(self) -> "TokenServer":
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                login = self.headers.get("Authorization", "")
                owner._answer(self, asked, login)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                owner._answer(self, parse_qs(body), "")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, asked: dict[str, list[str]], login: str) -> None:
        self.asked.append(asked)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        is_known = login == f"Basic {pair}" or asked.get("refresh_token") == [REFRESH]
        if not is_known and (login or "refresh_token" in asked):
            self._send(handler, 401, {"details": "incorrect username or password"})
            return
        scopes = [scope for part in asked.get("scope", []) for scope in part.split()]
        key = "token" if handler.command == "GET" else "access_token"
        answer: dict[str, Any] = {key: self._token(scopes, is_known=is_known), "expires_in": 300}
        if is_known and asked.get("offline_token") == ["true"]:
            answer["refresh_token"] = REFRESH
        self._send(handler, 200, answer)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _token(self, scopes: list[str], *, is_known: bool) -> str:
        access = []
        for kind, name, actions in (scope.split(":") for scope in scopes):
            granted = [one for one in actions.split(",") if is_known or (one == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "", "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now}
        claims |= {"jti": hashlib.sha256(str(time.time_ns()).encode()).hexdigest(), "access": access}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._certificate]}
        signed = f"{_encode(json.dumps(head).encode())}.{_encode(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", self.folder / "key.pem"]
        signature = subprocess.run(command, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
