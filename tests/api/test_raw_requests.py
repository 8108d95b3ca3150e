"""The API as bytes on a socket, against a running engine: exact errors, and clients that behave badly."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support import traces
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def ask(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    status, raw = daemon.request(method, path, None if body is None else json.dumps(body), headers)
    return status, json.loads(raw) if raw.strip() else None


def create(daemon: Daemon, name: str, **config: Any) -> str:
    host = {"NetworkMode": "none", **config.pop("HostConfig", {})}
    status, made = ask(
        daemon, "POST", f"/containers/create?name={name}", {"Image": "busybox", "HostConfig": host, **config}
    )
    assert status == 201, made
    return str(made["Id"])


def start(daemon: Daemon, name: str, **config: Any) -> str:
    made = create(daemon, name, **{"Cmd": ["sleep", "1000"], **config})
    assert ask(daemon, "POST", f"/containers/{name}/start")[0] == 204
    return made


@contextmanager
def connected(daemon: Daemon, head: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(15)
        raw.connect(str(daemon.socket))
        raw.sendall(head.encode())
        yield raw


def read_head(raw: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = raw.recv(1)
        assert byte, head
        head += byte
    return head


def read_all(raw: socket.socket) -> bytes:
    data = b""
    while piece := raw.recv(65536):
        data += piece
    return data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        length = int.from_bytes(data[4:8], "big")
        assert data[1:4] == b"\0\0\0"
        found.append((data[0], data[8 : 8 + length]))
        data = data[8 + length :]
    return found


# --- errors -----------------------------------------------------------------------------------------------------

UNKNOWN = [
    ("GET", "/containers/nope/json"),
    ("GET", "/containers/nope/logs?stdout=1"),
    ("GET", "/containers/nope/top"),
    ("POST", "/containers/nope/start"),
    ("POST", "/containers/nope/stop"),
    ("POST", "/containers/nope/restart"),
    ("POST", "/containers/nope/pause"),
    ("POST", "/containers/nope/unpause"),
    ("POST", "/containers/nope/wait"),
    ("POST", "/containers/nope/rename?name=x1"),
    ("POST", "/containers/nope/resize?h=1&w=1"),
    ("DELETE", "/containers/nope"),
    ("DELETE", "/containers/nope?force=1"),
]


@pytest.mark.parametrize("path", ["/services", "/tasks", "/nodes", "/secrets", "/configs", "/swarm"])
def test_without_a_swarm_its_paths_say_how_to_get_one(daemon: Daemon, path: str) -> None:
    status, answer = ask(daemon, "GET", path)
    assert status == 503
    assert answer["message"].startswith('This node is not a swarm manager. Use "docker swarm init"')


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_an_unknown_container_is_404_everywhere(daemon: Daemon, method: str, path: str) -> None:
    assert ask(daemon, method, path) == (404, {"message": "No such container: nope"})


def test_a_kill_names_itself(daemon: Daemon) -> None:
    answer = (404, {"message": "cannot kill container: nope: No such container: nope"})
    assert ask(daemon, "POST", "/containers/nope/kill") == answer


def test_what_is_already_so_is_304(daemon: Daemon, busybox: str) -> None:
    create(daemon, "same", Cmd=["sleep", "100"])
    assert ask(daemon, "POST", "/containers/same/stop") == (304, None)
    assert ask(daemon, "POST", "/containers/same/start") == (204, None)
    assert ask(daemon, "POST", "/containers/same/start") == (304, None)


def test_states_that_forbid(daemon: Daemon, busybox: str) -> None:
    made = create(daemon, "rigid", Cmd=["sleep", "100"])
    idle = f"container {made} is not running"
    for path, message in (
        ("kill", f"cannot kill container: rigid: {idle}"),
        ("pause", idle),
        ("resize?h=1&w=1", idle),
    ):
        assert ask(daemon, "POST", f"/containers/rigid/{path}") == (409, {"message": message})
    assert ask(daemon, "GET", "/containers/rigid/top") == (409, {"message": idle})
    assert ask(daemon, "POST", "/containers/rigid/unpause") == (500, {"message": f"Container {made} is not paused"})
    ask(daemon, "POST", "/containers/rigid/start")
    assert ask(daemon, "POST", "/containers/rigid/pause")[0] == 204
    assert ask(daemon, "POST", "/containers/rigid/pause") == (409, {"message": f"container {made} is already paused"})
    assert ask(daemon, "POST", "/containers/rigid/start") == (
        409,
        {"message": "cannot start a paused container, try unpause instead"},
    )
    assert ask(daemon, "DELETE", "/containers/rigid")[0] == 409


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("stop?t=abc", 400, 'strconv.Atoi: parsing "abc": invalid syntax'),
        ("stop?signal=BOGUS", 500, "cannot stop container: picky: invalid signal: BOGUS"),
        ("kill?signal=BOGUS", 400, "cannot kill container: picky: invalid signal: BOGUS"),
        ("kill?signal=0", 400, "cannot kill container: picky: invalid signal: 0"),
        ("kill?signal=65", 400, "cannot kill container: picky: the linux daemon does not support signal 65"),
        ("resize?h=a&w=1", 400, 'invalid resize height "a": invalid syntax'),
        ("resize?h=1&w=4294967296", 400, 'invalid resize width "4294967296": value out of range'),
        ("wait?condition=bogus", 400, 'invalid condition: "bogus"'),
    ],
)
def test_bad_parameters(daemon: Daemon, busybox: str, path: str, status: int, message: str) -> None:
    start(daemon, "picky")
    assert ask(daemon, "POST", f"/containers/picky/{path}") == (status, {"message": message})
    assert ask(daemon, "GET", "/containers/picky/json")[1]["State"]["Running"] is True


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "Bad parameters: you must choose at least one stream"),
        ("stdout=1&since=abc", 'invalid value for "since": invalid timestamp "abc": invalid seconds "abc": '),
    ],
)
def test_bad_log_queries(daemon: Daemon, busybox: str, query: str, message: str) -> None:
    create(daemon, "logless", Cmd=["true"])
    status, answer = ask(daemon, "GET", f"/containers/logless/logs?{query}")
    assert (status, answer["message"][: len(message)]) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "invalid JSON: got EOF while reading request body"),
        ({}, "config cannot be empty in order to create a container"),
        ({"HostConfig": {}}, "config cannot be empty in order to create a container"),
        ({"Image": "busybox", "Cmd": [], "Entrypoint": [""]}, "no command specified"),
        (
            {"Image": "UPPER", "Cmd": ["x"]},
            "invalid reference format: repository name (library/UPPER) must be lowercase",
        ),
        (
            {"Image": "busybox", "Cmd": 5},
            "invalid JSON: json: cannot unmarshal number into Go struct field ContainerCreateBody.Cmd of type []string",
        ),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Memory": 1}}, "Minimum memory limit allowed is 6MB"),
        ({"Image": "busybox", "HostConfig": {"VolumesFrom": ["nope"]}}, "No such container: nope"),
        ({"Image": "busybox", "HostConfig": {"PidMode": "container:nope"}}, "No such container: nope"),
        ({"Image": "busybox", "HostConfig": {"IpcMode": "container:nope"}}, "No such container: nope"),
        ({"Image": "busybox", "Volumes": {"x": {}}}, "invalid volume specification: 'x'"),
        ({"Image": "busybox", "Volumes": {"//": {}}}, "invalid specification: destination can't be '/'"),
        ({"Image": "busybox", "Volumes": {"/a/..": {}}}, "invalid specification: destination can't be '/'"),
        ({"Image": "busybox", "ExposedPorts": {"zz": {}}}, 'invalid port specification: "zz"'),
        ({"Image": "busybox", "MacAddress": "zz"}, "address zz: invalid MAC address"),
        (
            {"Image": "busybox", "MacAddress": "01:00:5e:00:00:01"},
            "address 01:00:5e:00:00:01: invalid MAC address: no single interface can have it",
        ),
        (
            {"Image": "busybox", "MacAddress": "00:00:00:00:00:00"},
            "address 00:00:00:00:00:00: invalid MAC address: no single interface can have it",
        ),
        (
            {"Image": "busybox", "Cmd": ["x"], "Healthcheck": {"Test": ["CMD"]}},
            'Test in Healthcheck has no command: "CMD" needs at least one argument',
        ),
    ],
)
def test_create_refuses(daemon: Daemon, busybox: str, body: Any, message: str) -> None:
    assert ask(daemon, "POST", "/containers/create", body) == (400, {"message": message})
    assert ask(daemon, "GET", "/containers/json?all=1") == (200, [])


def test_a_network_is_not_connected_with_an_address_that_is_none(daemon: Daemon, busybox: str) -> None:
    start(daemon, "linked", HostConfig={"NetworkMode": "bridge"})
    assert ask(daemon, "POST", "/networks/create", {"Name": "other"})[0] == 201
    body = {"Container": "linked", "EndpointConfig": {"MacAddress": "null"}}
    status, answer = ask(daemon, "POST", "/networks/other/connect", body)
    ask(daemon, "DELETE", "/networks/other")
    assert status == 400
    assert "null" in answer["message"]


@pytest.mark.parametrize(
    ("platform", "status", "words"),
    [
        ("plan9/mips", 404, "was found but does not match the specified platform: wanted plan9/mips, actual: linux/"),
        ("bogus", 400, '"bogus": unknown operating system or architecture'),
    ],
)
def test_a_platform_is_held_against_the_image(
    daemon: Daemon, busybox: str, platform: str, status: int, words: str
) -> None:
    got = ask(daemon, "POST", f"/containers/create?platform={platform}", {"Image": "busybox"})
    assert got[0] == status
    assert words in got[1]["message"]


def test_a_taken_name_says_whose_it_is(daemon: Daemon, busybox: str) -> None:
    made = create(daemon, "mine", Cmd=["x"])
    status, answer = ask(daemon, "POST", "/containers/create?name=/mine", {"Image": "busybox", "Cmd": ["x"]})
    assert status == 409
    assert answer["message"] == (
        f'Conflict. The container name "/mine" is already in use by container "{made}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def test_create_answers_id_and_warnings(daemon: Daemon, busybox: str) -> None:
    status, answer = ask(daemon, "POST", "/containers/create", {"Image": "busybox", "Unknown": 1})
    assert status == 201
    assert (len(answer["Id"]), answer["Warnings"]) == (64, [])


def test_an_ambiguous_prefix_is_refused_and_a_unique_one_found(daemon: Daemon, busybox: str) -> None:
    ids = [create(daemon, f"many-{number}", Cmd=["x"]) for number in range(17)]
    firsts = [one[0] for one in ids]
    shared = next(first for first in firsts if firsts.count(first) > 1)
    assert ask(daemon, "GET", f"/containers/{shared}/json") == (
        400,
        {"message": f"multiple IDs found with provided prefix: {shared}"},
    )
    assert ask(daemon, "GET", f"/containers/{ids[3][:20]}/json")[1]["Id"] == ids[3]


def test_a_start_with_a_body_is_refused(daemon: Daemon, busybox: str) -> None:
    create(daemon, "plain", Cmd=["true"])
    status, answer = ask(daemon, "POST", "/containers/plain/start", {"Binds": ["/:/host"]})
    assert status == 400
    assert answer["message"].startswith("starting container with non-empty request body was deprecated")


# --- waits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["next-exit", "removed"])
def test_the_head_of_a_wait_comes_before_anything_has_ended(daemon: Daemon, busybox: str, condition: str) -> None:
    create(daemon, "awaited", Cmd=["sh", "-c", "exit 7"])
    head = f"POST /v1.44/containers/awaited/wait?condition={condition} HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(daemon, head) as waiting:
        assert b"Transfer-Encoding: chunked" in read_head(waiting)
        ask(daemon, "POST", "/containers/awaited/start")
        if condition == "removed":
            wait_for(lambda: ask(daemon, "DELETE", "/containers/awaited")[0] == 204)
        assert b'{"StatusCode":7}' in waiting.recv(1000)


def test_a_failed_start_is_not_the_next_exit(daemon: Daemon, busybox: str) -> None:
    create(daemon, "unborn", Cmd=["nosuchcmd"])
    head = "POST /v1.44/containers/unborn/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(daemon, head) as waiting:
        read_head(waiting)
        assert ask(daemon, "POST", "/containers/unborn/start")[0] == 400
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(1000)
        waiting.settimeout(10)
        assert ask(daemon, "DELETE", "/containers/unborn")[0] == 204
        assert b'{"StatusCode":127}' in waiting.recv(1000)


def test_a_wait_tells_why_a_start_failed(daemon: Daemon, busybox: str) -> None:
    create(daemon, "broken", Cmd=["nosuchcmd"])
    assert ask(daemon, "POST", "/containers/broken/start")[0] == 400
    status, answer = ask(daemon, "POST", "/containers/broken/wait")
    assert (status, answer["StatusCode"]) == (200, 127)
    assert "executable file not found in $PATH" in answer["Error"]["Message"]


# --- streams ----------------------------------------------------------------------------------------------------


def attach_head(name: str, query: str, version: str = "v1.44", headers: str = UPGRADE) -> str:
    return f"POST /{version}/containers/{name}/attach?stream=1&{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"


def test_attached_output_is_framed(daemon: Daemon, busybox: str) -> None:
    create(daemon, "framed", Cmd=["sh", "-c", "echo out; sleep 0.2; echo err >&2"])
    with connected(daemon, attach_head("framed", "stdout=1&stderr=1")) as client:
        assert b"multiplexed-stream" in read_head(client)
        ask(daemon, "POST", "/containers/framed/start")
        assert frames(read_all(client)) == [(1, b"out\n"), (2, b"err\n")]


def test_old_clients_and_who_asks_for_no_upgrade_are_told_raw_stream(daemon: Daemon, busybox: str) -> None:
    create(daemon, "olden", Cmd=["true"])
    for head in (attach_head("olden", "stdout=1", version="v1.41"), attach_head("olden", "stdout=1", headers="")):
        with connected(daemon, head) as client:
            assert b"raw-stream" in read_head(client)


def test_only_the_streams_asked_for_come(daemon: Daemon, busybox: str) -> None:
    create(daemon, "half", Cmd=["sh", "-c", "echo out; echo err >&2"])
    with connected(daemon, attach_head("half", "stderr=1")) as client:
        read_head(client)
        ask(daemon, "POST", "/containers/half/start")
        assert frames(read_all(client)) == [(2, b"err\n")]


def test_the_end_of_one_clients_input_ends_its_session_but_not_the_container(daemon: Daemon, busybox: str) -> None:
    start(daemon, "open", Cmd=["cat"], OpenStdin=True, StdinOnce=False)
    with connected(daemon, attach_head("open", "stdin=1&stdout=1")) as client:
        read_head(client)
        client.sendall(b"hello\n")
        assert client.recv(100)[8:] == b"hello\n"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert ask(daemon, "GET", "/containers/open/json")[1]["State"]["Running"] is True


def test_the_only_clients_end_of_input_is_the_containers(daemon: Daemon, busybox: str) -> None:
    start(daemon, "once", Cmd=["sh", "-c", "cat; echo done"], OpenStdin=True, StdinOnce=True)
    with connected(daemon, attach_head("once", "stdin=1&stdout=1")) as client:
        read_head(client)
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(data for _, data in frames(read_all(client))) == b"hello\ndone\n"
    assert ask(daemon, "GET", "/containers/once/json")[1]["State"]["Running"] is False


def test_attach_can_begin_with_the_log(daemon: Daemon, busybox: str) -> None:
    start(daemon, "logged", Cmd=["sh", "-c", "echo early; sleep 1; echo late"])
    wait_for(lambda: daemon.request("GET", "/containers/logged/logs?stdout=1")[1])
    with connected(daemon, attach_head("logged", "stdout=1&logs=1")) as client:
        read_head(client)
        assert b"".join(data for _, data in frames(read_all(client))) == b"early\nlate\n"


@pytest.mark.parametrize(
    ("name", "query", "first", "text"),
    [
        ("nope", "stdout=1", b"HTTP/1.1 404 Not Found", b"No such container: nope\r\n"),
        ("there", "detachKeys=bogus", b"HTTP/1.1 400 Bad Request", b"Invalid detach keys (bogus) provided\r\n"),
    ],
)
def test_attach_errors_are_text(daemon: Daemon, busybox: str, name: str, query: str, first: bytes, text: bytes) -> None:
    create(daemon, "there", Cmd=["true"])
    with connected(daemon, attach_head(name, query)) as client:
        assert read_head(client).splitlines()[0] == first
        assert read_all(client) == text


@pytest.mark.parametrize("by_keys", [False, True], ids=["started-detached", "detached-by-keys"])
def test_a_detached_exec_is_not_held_up_by_its_output(daemon: Daemon, busybox: str, by_keys: bool) -> None:
    start(daemon, "loud")
    script = "read -t 20 line; head -c 20000000 /dev/zero; exit 7"
    asked = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "AttachStdin": by_keys, "Tty": by_keys}
    made = ask(daemon, "POST", "/containers/loud/exec", asked)[1]["Id"]
    if by_keys:
        body = '{"Tty": true}'
        head = f"POST /v1.44/exec/{made}/start HTTP/1.1\r\nHost: x\r\n{UPGRADE}Content-Type: application/json\r\n"
        with connected(daemon, f"{head}Content-Length: {len(body)}\r\n\r\n{body}") as client:
            read_head(client)
            client.sendall(b"\n\x10\x11")
            read_all(client)
    else:
        assert ask(daemon, "POST", f"/exec/{made}/start", {"Detach": True})[0] == 200
    wait_for(lambda: not ask(daemon, "GET", f"/exec/{made}/json")[1]["Running"], what="the exec to end")
    assert ask(daemon, "GET", f"/exec/{made}/json")[1]["ExitCode"] == 7


def test_a_late_exec_error_comes_inside_the_stream(daemon: Daemon, busybox: str) -> None:
    start(daemon, "host")
    made = ask(daemon, "POST", "/containers/host/exec", {"Cmd": ["nosuch"], "AttachStdout": True})[1]["Id"]
    head = (
        f"POST /v1.44/exec/{made}/start HTTP/1.1\r\nHost: x\r\n{UPGRADE}"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    for text in (b"executable file not found in $PATH: unknown\r\n", b"has already run\r\n"):
        with connected(daemon, head) as client:
            shown = read_head(client)
            assert shown.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
            assert b"Api-Version: 1.51" in shown
            ((stream, message),) = frames(read_all(client))
            assert stream == 1
            assert message.endswith(text)
    assert ask(daemon, "GET", f"/exec/{made}/json")[1]["ExitCode"] == 127


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/containers/%00/json", None),
        ("POST", "/containers/create?name=a%00b", {"Image": "busybox"}),
        ("POST", "/build?dockerfile=a%00b", None),
        ("GET", "/containers/there/top?ps_args=%00", None),
        ("POST", "/containers/create", {"Image": "busybox", "WorkingDir": "/a\0b"}),
        ("POST", "/containers/create", {"Image": "busybox", "Labels": {"a\0b": "c"}}),
        ("POST", "/networks/create", {"Name": "a\0b"}),
        ("POST", "/volumes/create", {"Name": "x", "DriverOpts": {"device": "\0"}}),
    ],
)
def test_a_nul_character_is_refused_wherever_it_stands(
    daemon: Daemon, busybox: str, method: str, path: str, body: Any
) -> None:
    start(daemon, "there")
    status, answer = ask(daemon, method, path, body)
    assert status == 400
    assert "a NUL character" in answer["message"]


def test_a_backslash_before_u0000_is_no_nul_character(daemon: Daemon, busybox: str) -> None:
    made = create(daemon, "spelled", Labels={"a": r"\u0000"})
    assert ask(daemon, "GET", f"/containers/{made}/json")[1]["Config"]["Labels"]["a"] == r"\u0000"


def test_the_build_arguments_hold_no_nul_character(daemon: Daemon) -> None:
    status, answer = ask(daemon, "POST", "/build?buildargs=%7B%22a%22%3A%22%5Cu0000%22%7D")
    assert (status, answer) == (
        400,
        {"message": "error reading buildargs: invalid JSON: a NUL character in a string"},
    )


def test_attach_by_web_socket_needs_one(daemon: Daemon, busybox: str) -> None:
    start(daemon, "there")
    status, answer = ask(daemon, "GET", "/containers/there/attach/ws?stream=1&stdout=1")
    assert status == 400
    assert "web sockets" in answer["message"]


def test_a_body_is_read_as_it_comes_whatever_its_encoding_is_said_to_be(daemon: Daemon, busybox: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    status, raw = daemon.request("POST", "/volumes/create", '{"Name": "plain"}', headers)
    assert (status, json.loads(raw).get("Name")) == (201, "plain")
    ask(daemon, "DELETE", "/volumes/plain")
    status, raw = daemon.request("POST", "/volumes/create", b"\x1f\x8b\x08broken", headers)
    assert status == 400
    assert json.loads(raw)["message"].startswith("invalid JSON")


BROKEN_OFF = [
    "Content-Length: 100\r\n\r\n{",
    "Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nZZ\r\n",
    "Transfer-Encoding: chunked\r\n\r\n-1\r\n{\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{\r\n0\r\n\r\n",
    "Transfer-Encoding: gzip\r\n\r\n{}",
    "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "Content-Length: 99999999999999999999\r\n\r\n{}",
    "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x0b\x08x",
    "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{",
]


@pytest.mark.parametrize(
    "path", ["/containers/create", "/volumes/create", "/images/load", "/build", "/images/create?fromSrc=-"]
)
def test_a_body_that_breaks_off_is_the_clients_fault_and_no_internal_error(
    daemon: Daemon, busybox: str, path: str
) -> None:
    logged = len(daemon.log())
    for rest in BROKEN_OFF:
        with connected(
            daemon, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{rest}"
        ) as client:
            client.shutdown(socket.SHUT_WR)
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1."), answer
        assert b"internal error" not in answer
    assert "Traceback" not in daemon.log()[logged:]


# --- clients that behave badly ----------------------------------------------------------------------------------


def test_clients_that_vanish_leave_nothing_open(daemon: Daemon, busybox: str) -> None:
    start(daemon, "haunted", Cmd=["sh", "-c", "while true; do echo x; sleep 0.05; done"], OpenStdin=True)
    create(daemon, "quiet", Cmd=["true"], OpenStdin=True)
    wait_for(lambda: ask(daemon, "GET", "/containers/json")[1])
    before = traces.open_files(daemon)
    heads = [
        attach_head("haunted", "stdin=1&stdout=1"),
        attach_head("quiet", "stdin=1&stdout=1"),
        "POST /containers/haunted/wait HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/haunted/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        "GET /_ping HTTP/1.1\r\nHo",
        "\0\0\0",
    ]
    for pause_s in (0.0, 0.002, 0.02):  # some leave before anything is done
        for head in heads:
            with connected(daemon, head):
                time.sleep(pause_s)
            with connected(daemon, head) as client:
                client.shutdown(socket.SHUT_WR)
                time.sleep(pause_s)
    wait_for(lambda: traces.open_files(daemon) <= before, what="descriptors to be closed")
    assert ask(daemon, "GET", "/containers/haunted/json")[1]["State"]["Running"] is True


def test_a_client_that_reads_nothing_does_not_hold_up_the_container(daemon: Daemon, docker: Cli, busybox: str) -> None:
    start(daemon, "torrent", Cmd=["sh", "-c", "head -c 30000000 /dev/zero; echo end >&2; sleep 100"])
    with connected(daemon, attach_head("torrent", "stdout=1&stderr=1")) as client:
        read_head(client)
        wait_for(
            lambda: daemon.request("GET", "/containers/torrent/logs?stderr=1&tail=9")[1],
            timeout_s=40,
            what="the container to get through",
        )


def test_a_stop_goes_on_when_its_client_leaves(daemon: Daemon, busybox: str) -> None:
    start(daemon, "stubborn")
    with connected(daemon, "POST /containers/stubborn/stop?t=1 HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.1)
    assert ask(daemon, "GET", "/containers/stubborn/json")[1]["State"]["Running"] is True
    wait_for(lambda: not ask(daemon, "GET", "/containers/stubborn/json")[1]["State"]["Running"])


def test_a_thousand_clients_at_once_find_room_to_wait(daemon: Daemon) -> None:
    """While the daemon is held up nobody is turned away (by EAGAIN, which a unix socket gives at once)."""
    with ExitStack() as stack:
        os.kill(daemon.pid, signal.SIGSTOP)
        stack.callback(os.kill, daemon.pid, signal.SIGCONT)
        for _ in range(1000):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(daemon.socket))
    assert ask(daemon, "GET", "/containers/json") == (200, [])


def test_the_daemon_answers_after_all_sorts_of_rubbish(daemon: Daemon, busybox: str) -> None:
    for junk in (
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET /containers/%00/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /containers/..%2f..%2fetc/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /containers/json?filters=%7B%22name%22%3A%5B%22%28%28a%2B%29%2B%22%5D%7D HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5)
            raw.connect(str(daemon.socket))
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(65536)
            assert answer == b"" or answer.startswith(b"HTTP/1."), answer
    assert ask(daemon, "GET", "/containers/json") == (200, [])
