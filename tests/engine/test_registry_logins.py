"""Registries that want to know who asks, over TLS and without, and what else is asked of registries and servers."""

import contextlib
import gzip
import http.client
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images_fixtures import Server, image_server, plain_registry  # noqa: F401 - fixtures
from images_helpers import entry, make_tar
from test_images_registry import put_index

from bennu.images.platform import host_architecture
from support import registries
from support.certificates import Authority
from support.registries import PASSWORD, REFRESH, USER, TokenServer, run_registry

ADDRESS = "192.0.2.2"  # of this world, and not a loopback address: nothing is forgiven there
CERTIFICATES = Path("/etc/bennu/certs.d")
needs_registry = pytest.mark.skipif(registries.program() is None, reason="docker-registry is not installed")


def push_new(server: Server, name: str, content: bytes = b"") -> None:
    server.docker("import", "-", name, stdin=make_tar([entry("f", content or os.urandom(1000))]))
    server.docker("push", name)


@contextlib.contextmanager
def logged_in(server: Server, registry: str) -> Iterator[None]:
    told = server.docker("login", "-u", USER, "--password-stdin", registry, stdin=PASSWORD.encode())
    assert "Login Succeeded" in told.out
    try:
        yield
    finally:
        server.docker("logout", registry)


def refused(server: Server, *words: str, stdin: bytes = b"") -> str:
    done = server.docker(*words, ok=False, stdin=stdin)
    assert done.code != 0
    return done.err.strip().splitlines()[-1]


@needs_registry
def test_only_who_knows_the_password_is_let_in(server: Server) -> None:
    with run_registry(passwords=True) as registry:
        name = f"{registry}/kept:v1"
        url = f"http://{registry}/v2/"
        wrong = refused(server, "login", "-u", USER, "--password-stdin", registry, stdin=b"wrong")
        assert wrong.endswith(f"login attempt to {url} failed with status: 401 Unauthorized")
        with logged_in(server, registry):
            push_new(server, name)
            server.docker("rmi", name)
            server.docker("pull", name)
            server.docker("manifest", "inspect", "--insecure", name)
        assert refused(server, "push", name) == "no basic auth credentials"
        server.docker("rmi", name)
        why = f'Head "{url}kept/manifests/v1": no basic auth credentials'
        assert server.error("POST", f"/images/create?fromImage={registry}/kept&tag=v1") == (500, why)
        assert server.error("GET", f"/distribution/{name}/json") == (500, why)
    assert PASSWORD not in server.log()


@needs_registry
def test_a_token_server_says_who_may_do_what(server: Server, tmp_path: Path) -> None:
    with TokenServer(tmp_path / "tokens") as tokens, run_registry(tokens=tokens) as registry:
        own, public = f"{registry}/own/app:v1", f"{registry}/public/app:v1"
        wrong = refused(server, "login", "-u", USER, "--password-stdin", registry, stdin=b"wrong")
        assert wrong.endswith(f'Get "http://{registry}/v2/": unauthorized: incorrect username or password')
        with logged_in(server, registry):
            config = json.loads((server.root / "home/docker/config.json").read_text())
            assert config["auths"][registry]["identitytoken"] == REFRESH
            push_new(server, own)
            server.docker("tag", own, public)
            assert "Mounted from own/app" in server.docker("push", public).out
            assert "Layer already exists" in server.docker("push", public).out
        server.docker("rmi", public)
        server.docker("pull", public)
        assert refused(server, "push", public) == "denied: requested access to the resource is denied"
        status, message = server.error("POST", f"/images/create?fromImage={registry}/own/app&tag=v1")
        assert status == 404 and message == (
            f"pull access denied for {registry}/own/app, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied"
        )
        scopes = [scope for asked in tokens.asked for part in asked.get("scope", []) for scope in part.split()]
        assert {"repository:public/app:push,pull", "repository:own/app:pull"} <= set(scopes)
        server.docker("rmi", own, public)
    assert PASSWORD not in server.log() and REFRESH not in server.log()


@needs_registry
def test_a_registry_with_an_authority_of_its_own_is_trusted_by_its_folder_and_sees_our_certificate(
    server: Server, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    client = authority.client("engine", "/CN=engine")
    with run_registry(address=ADDRESS, tls=authority.server(ADDRESS), passwords=True) as registry:
        folder = CERTIFICATES / registry
        folder.mkdir(parents=True)
        try:
            words = ("login", "-u", USER, "--password-stdin", registry)
            failed = f'Get "https://{registry}/v2/": '
            assert refused(server, *words, stdin=PASSWORD.encode()).endswith(
                f"{failed}tls: failed to verify certificate: x509: certificate signed by unknown authority"
            )
            shutil.copy(client / "ca.pem", folder / "ca.crt")
            assert f"{failed}remote error: tls: " in refused(server, *words, stdin=PASSWORD.encode())
            shutil.copy(client / "cert.pem", folder / "client.cert")
            assert "missing key client.key for client certificate client.cert" in refused(
                server, *words, stdin=PASSWORD.encode()
            )
            shutil.copy(client / "key.pem", folder / "client.key")
            with logged_in(server, registry):
                push_new(server, f"{registry}/tls:v1")
                server.docker("rmi", f"{registry}/tls:v1")
                server.docker("pull", f"{registry}/tls:v1")
        finally:
            shutil.rmtree(folder)


def test_a_registry_tells_what_a_name_stands_for(server: Server, registry: str) -> None:
    name = f"{registry}/asked:one"
    push_new(server, name)
    found = json.loads(server.request("GET", f"/distribution/{name}/json")[1])
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    digest, size = found["Descriptor"]["digest"], found["Descriptor"]["size"]
    assert found["Descriptor"]["mediaType"] == kind
    assert found["Platforms"] == [{"architecture": host_architecture(), "os": "linux"}]
    platforms = [{"architecture": "arm64", "os": "linux", "variant": "v8"}, {"architecture": "s390x", "os": "linux"}]
    entries = [{"mediaType": kind, "digest": digest, "size": size, "platform": one} for one in platforms]
    listed = put_index(registry, "asked", "both", entries)
    for asked in (f"{registry}/asked:both", f"{registry}/asked@{listed}"):
        answer = json.loads(server.request("GET", f"/distribution/{asked}/json")[1])
        assert answer["Descriptor"]["digest"] == listed and answer["Platforms"] == platforms
    assert server.error("GET", f"/distribution/{registry}/asked:none/json") == (
        404,
        "manifest unknown: manifest unknown",
    )
    assert server.error("GET", f"/distribution/{'0' * 64}/json") == (500, "no manifest found for full image ID")
    assert server.error("POST", f"/images/create?fromImage={registry}/asked&tag=both&platform=linux/arm/v6") == (
        500,
        "no matching manifest for linux/arm/v6 in the manifest list entries",
    )
    server.docker("rmi", name)
    told = server.docker("pull", "--platform", "linux/arm64", f"{registry}/asked:both").out
    assert "WARNING" not in told  # the list says that it is the right one
    told = server.docker("pull", "--platform", "linux/arm64", name).out
    assert f"image with reference {name} was found but its platform (linux/{host_architecture()})" in told
    assert server.inspect(name)["RepoDigests"] == [f"{registry}/asked@{one}" for one in sorted((digest, listed))]
    server.docker("rmi", name, f"{registry}/asked:both")


Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[str]:
    """host:port of a web server; `answer` maps a path to status, headers and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        web.server_close()


def test_an_image_is_made_of_what_lies_behind_a_url(server: Server) -> None:
    tar = gzip.compress(make_tar([entry("f", b"from afar" * 1000)]))

    def answer(path: str) -> Answer:
        match path:
            case "/moved":
                return 302, {"Location": "/root.tar.gz"}, b""
            case "/root.tar.gz":
                return 200, {}, tar
            case "/short":
                return 200, {"Content-Length": str(len(tar) + 1)}, tar
            case "/round":
                return 302, {"Location": "/round"}, b""
        return 404, {}, b"there is nothing here\n"

    with serving(answer) as host:
        told = server.messages("POST", f"/images/create?fromSrc={host}/moved&repo=fetched&changes=ENV%20A=b")
        assert told[0] == {"status": f"Downloading from http://{host}/moved"}
        assert told[-2]["status"] == "Importing"
        assert told[-2]["progressDetail"] == {"current": len(tar), "total": len(tar)}
        found = server.inspect("fetched")
        assert told[-1] == {"status": found["Id"]} and found["Comment"] == f"Imported from {host}/moved"
        assert found["Config"]["Env"] == ["A=b"] and found["Size"] == 9000
        server.docker("rmi", "fetched")

        def error(path: str) -> tuple[int, str]:
            return server.error("POST", f"/images/create?fromSrc={path}")

        words = f"failed to GET http://{host}/none with status 404 Not Found: there is nothing here"
        assert error(f"http://{host}/none") == (404, words)
        assert error(f"{host}/round")[1] == f'Get "http://{host}/round": stopped after 10 redirects'
        assert error("ftp://h/x") == (500, 'Get "ftp://h/x": unsupported protocol scheme "ftp"')
        broken = server.messages("POST", f"/images/create?fromSrc={host}/short&repo=short")
        assert "error" in broken[-1]
    assert server.error("GET", "/images/short/json")[0] == 404
    assert list((server.images_root / "tmp").iterdir()) == []


def test_an_index_is_searched_and_what_it_finds_is_filtered(server: Server) -> None:
    asked: list[str] = []
    results = [
        {"name": "few", "star_count": 1, "is_official": True, "is_automated": True, "description": "d"},
        {"name": "many", "star_count": 9, "is_official": False},
    ]

    def answer(path: str) -> Answer:
        asked.append(path)
        return 200, {}, json.dumps({"results": results} if path.startswith("/v1/search") else {}).encode()

    with serving(answer) as host:

        def names(query: str = "") -> list[str]:
            return [one["name"] for one in json.loads(server.request("GET", f"/images/search?{query}")[1])]

        assert names(f"term={host}/some%20thing") == ["few", "many"]
        assert asked[-1] == "/v1/search?q=some+thing&n=25"
        assert names(f'term={host}/x&limit=7&filters={{"stars":["2","5"]}}') == ["many"]
        assert asked[-1] == "/v1/search?q=x&n=7"
        assert names(f'term={host}/x&filters={{"is-official":["true"]}}') == ["few"]
        assert names(f'term={host}/x&filters={{"is-automated":["true"]}}') == []
        assert "many" in server.docker("search", f"{host}/x").out
        for query, words in (
            ("limit=101", "limit 101 is outside the range of [1, 100]"),
            ('filters={"stars":["x"]}', "invalid filter 'stars=x'"),
            ('filters={"other":["x"]}', "invalid filter 'other'"),
        ):
            status, message = server.error("GET", f"/images/search?term={host}/x&{query}")
            assert status == 400 and words in message
    assert server.error("GET", "/images/search?term=127.0.0.1:1/x") == (
        400,
        'invalid registry endpoint "http://127.0.0.1:1/v1/". HTTPS attempt: Get "https://127.0.0.1:1/v1/_ping": '
        'dial tcp 127.0.0.1:1: connect: connection refused. HTTP attempt: Get "http://127.0.0.1:1/v1/_ping": '
        "dial tcp 127.0.0.1:1: connect: connection refused",
    )


@pytest.mark.slow
def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, registry: str) -> None:
    name = f"{registry}/torn:v1"
    push_new(server, name, os.urandom(400_000))
    server.docker("rmi", name)
    starts: list[str] = []

    class Tearing(http.server.BaseHTTPRequestHandler):
        def _pass_on(self, *, body: bool) -> None:
            connection = http.client.HTTPConnection(registry, timeout=20)
            names = {name.title() for name in self.headers} - {"Host"}
            headers = {name: ", ".join(self.headers.get_all(name, [])) for name in names}
            connection.request(self.command, self.path, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                self.send_header(key, value)
            self.end_headers()
            is_layer = "/blobs/" in self.path and len(data) > 100_000
            if is_layer:
                starts.append(self.headers.get("Range", ""))
            if body:
                self.wfile.write(data[:150_000] if is_layer and len(starts) == 1 else data)
            self.close_connection = True
            connection.close()

        def do_GET(self) -> None:
            self._pass_on(body=True)

        def do_HEAD(self) -> None:
            self._pass_on(body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tearing)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        path = f"/images/create?fromImage=127.0.0.1:{proxy.server_port}/torn&tag=v1"
        words = [message.get("status", "") for message in server.messages("POST", path)]
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert starts == ["", "bytes=150000-"]
    assert "Retrying in 5 seconds" in words and "Retrying in 1 second" in words
    assert words[-1].startswith("Status: Downloaded newer image")
    server.docker("rmi", f"127.0.0.1:{proxy.server_port}/torn:v1")
