"""Legacy authorization plugins are asked before each request is served and before its answer is given."""

import base64
import json
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest

from support import images, traces
from support.certificates import Authority
from support.daemon import Daemon
from support.plugin_server import FOLDER, Json, PluginServer
from support.waiting import wait_for

REQUEST, RESPONSE = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"


class Judge:
    """A plugin whose verdict a test chooses; `ping` is always allowed, for the daemon is watched by it."""

    def __init__(self, name: str) -> None:
        self.verdicts: dict[str, Json | str] = {}
        self.server = PluginServer(name, "authz", self.judge)

    def judge(self, method: str, body: Json) -> Json | str:
        allow: Json = {"Allow": True}
        return allow if body["RequestUri"].endswith("/_ping") else self.verdicts.get(method, allow)

    def heard(self, method: str, part: str) -> list[Json]:
        return [body for said, body in self.server.heard if said == method and part in body["RequestUri"]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki") / "ours")
    authority.server("127.0.0.1")
    authority.client("alice", "/O=a, CN=root/CN=alice, the first")
    return authority


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def judged(able: None, authority: Authority, port: int) -> Iterator[tuple[Daemon, Judge, Judge]]:
    judges = [Judge(f"bt-{secrets.token_hex(4)}-{number}") for number in (1, 2)]
    words = [f"--authorization-plugin={judges[number].server.name}" for number in (0, 1, 0)]
    pki = authority.folder / "server"
    words += ["--tlsverify", f"--tlscacert={pki}/ca.pem", f"--tlscert={pki}/cert.pem", f"--tlskey={pki}/key.pem"]
    daemon = Daemon(options=[*words, "-H", f"tcp://127.0.0.1:{port}"])
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        yield daemon, judges[0], judges[1]
    finally:
        for judge in judges:
            judge.verdicts.clear()
        traces.discard(daemon)
        for judge in judges:
            judge.server.close()


@pytest.fixture(autouse=True)
def all_is_allowed_afterwards(judged: tuple[Daemon, Judge, Judge]) -> Iterator[None]:
    yield
    for judge in judged[1:]:
        judge.verdicts.clear()
        judge.server.heard.clear()


def test_each_plugin_is_shown_each_request_and_answer_once(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, first, second = judged
    body, secret = json.dumps({"Image": "busybox", "Cmd": ["true"]}), {"X-Registry-Auth": "c2VjcmV0", "X-Own": "yes"}
    status, said = daemon.request(
        "POST", "/containers/create?name=seen", body, {"Content-Type": "application/json", **secret}
    )
    assert status == 201
    for judge in (first, second):
        asked, answered = judge.heard(REQUEST, "/containers/create"), judge.heard(RESPONSE, "/containers/create")
        assert len(asked) == len(answered) == 1
        assert (asked[0]["RequestMethod"], asked[0]["RequestUri"]) == ("POST", "/containers/create?name=seen")
        assert base64.b64decode(asked[0]["RequestBody"]).decode() == body
        assert asked[0]["RequestHeaders"]["X-Own"] == "yes"
        assert not {"X-Registry-Auth", "Host"} & asked[0]["RequestHeaders"].keys()
        assert answered[0]["ResponseStatusCode"] == 201
        assert json.loads(base64.b64decode(answered[0]["ResponseBody"])) == json.loads(said)
    assert daemon.request("GET", "/info")[0] == 200
    told = json.loads(daemon.request("GET", "/info")[1])["Plugins"]["Authorization"]
    assert told == [first.server.name, second.server.name]
    daemon.docker("rm", "seen")


@pytest.mark.parametrize(
    ("method", "verdict", "status", "message"),
    [
        (REQUEST, {"Allow": False, "Msg": "no"}, 403, "authorization denied by plugin NAME: no"),
        (RESPONSE, {"Allow": False, "Msg": "no"}, 403, "authorization denied by plugin NAME: no"),
        (REQUEST, {}, 403, "authorization denied by plugin NAME: "),
        (REQUEST, "broken", 500, f"plugin NAME failed with error: {REQUEST}: broken"),
        (RESPONSE, "broken", 500, f"plugin NAME failed with error: {RESPONSE}: broken"),
    ],
)
def test_one_plugins_no_is_enough(
    judged: tuple[Daemon, Judge, Judge], method: str, verdict: Json | str, status: int, message: str
) -> None:
    daemon, first, second = judged
    second.verdicts[method] = verdict
    got, said = daemon.request("GET", "/version")
    assert (got, json.loads(said)["message"]) == (status, message.replace("NAME", second.server.name))
    assert len(first.heard(REQUEST, "/version")) == 1
    assert len(second.heard(RESPONSE, "/version")) == (1 if method == RESPONSE else 0)


def test_what_was_refused_has_not_been_done(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, first, _ = judged
    first.verdicts[REQUEST] = {"Allow": False, "Msg": "not you"}
    said = daemon.docker("create", "--name=refused", "busybox", "true", ok=False)
    assert f"authorization denied by plugin {first.server.name}: not you" in said.err
    first.verdicts.clear()
    assert not daemon.docker("ps", "-aq", "--filter=name=refused").out


def test_plugins_are_shown_who_asks_over_tls(
    judged: tuple[Daemon, Judge, Judge], authority: Authority, port: int
) -> None:
    _, first, _ = judged
    folder = authority.folder / "alice"
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with urlopen(f"https://127.0.0.1:{port}/version", timeout=20, context=context) as answer:
        assert answer.status == 200
    asked = first.heard(REQUEST, "/version")[0]
    assert (asked["User"], asked["UserAuthNMethod"]) == ("alice, the first", "TLS")
    shown = base64.b64decode(asked["RequestPeerCertificates"][0]).decode()
    assert shown.split() == (folder / "cert.pem").read_text().split()


def test_streams_pass(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, first, _ = judged
    assert daemon.docker("run", "--rm", "-i", "busybox", "cat", stdin="through\n").line == "through"
    assert len(first.heard(RESPONSE, "/attach")) == 1
    assert daemon.docker("save", "busybox").out


def test_no_body_is_too_long_to_be_judged(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, first, _ = judged
    wanted = json.dumps({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Privileged": True}})
    head = {"Content-Type": "application/json"}
    status, text = daemon.request("POST", "/containers/create", " " * (2 << 20) + wanted, head)
    assert status == 201
    assert base64.b64decode(first.heard(REQUEST, "/containers/create")[-1]["RequestBody"]).decode().strip() == wanted
    daemon.docker("rm", json.loads(text)["Id"])
    first.server.heard.clear()
    status, text = daemon.request("POST", "/containers/create", " " * (4 << 20) + wanted, head)
    assert (status, b"too large" in text) == (400, True)
    assert not first.heard(REQUEST, "/containers/create")


def test_a_plugin_that_never_answers_holds_up_only_those_who_ask_for_it(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, _, _ = judged
    name = f"bt-{secrets.token_hex(4)}"
    path = FOLDER / f"{name}.sock"
    with socket.socket(socket.AF_UNIX) as silent, ThreadPoolExecutor(1) as aside:
        silent.bind(str(path))
        silent.listen()
        wanted = json.dumps({"Name": name, "Driver": name})
        asked = aside.submit(daemon.request, "POST", "/volumes/create", wanted, {"Content-Type": "application/json"})
        try:
            connection, _ = silent.accept()
            with connection:
                assert daemon.request("GET", "/containers/json")[0] == 200
                assert not asked.done()
        finally:
            silent.close()
            path.unlink()
        assert asked.result()[0] >= 400


def test_a_plugin_that_is_not_there_lets_no_reload_and_no_start_pass(judged: tuple[Daemon, Judge, Judge]) -> None:
    daemon, first, _ = judged
    before = daemon.log()
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: "Reloaded configuration" in daemon.log()[len(before) :], what="the reload", describe=daemon.log)
    first.server.path.rename(first.server.path.with_suffix(".away"))
    try:
        assert daemon.request("GET", "/version")[0] == 500
    finally:
        first.server.path.with_suffix(".away").rename(first.server.path)
    assert daemon.request("GET", "/version")[0] == 200
