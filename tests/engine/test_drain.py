"""Whatever ends a serving task: it takes no new connection, those it has are answered, then it gets its stop signal.

The server is the story's: it dies of SIGTERM at once, whatever it is answering.
"""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bennu.host.kernel import check_connects
from bennu.network.nat.sock_diag import list_syn_sent
from support import images
from support.frozen import filesystem_that_can_be_frozen, in_state_d
from support.load import Load
from support.swarm import SwarmNode, container_of, open_swarm
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
CROWD = 8
# Lets one client wait while it answers another; who comes then finds the queue full.
SLOWLY = """
import socket, time
listener = socket.create_server(("0.0.0.0", 8000), backlog=1)
while True:
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        time.sleep(0.2)
        client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nslowly")
"""
ONE_AT_A_TIME = ("python", "python3", "-c", SLOWLY)
ANSWER = "You are using version 1\n"


@pytest.fixture(scope="module")
def _node(able: None) -> Iterator[SwarmNode]:
    with serving_swarm() as node:
        yield node


@contextlib.contextmanager
def serving_swarm() -> Iterator[SwarmNode]:
    with open_swarm("python") as node:
        images.build_example(node.daemon.docker, "webserver", "webserver:v1")
        yield node


@pytest.fixture
def node(_node: SwarmNode) -> Iterator[SwarmNode]:
    yield _node
    assert _node.daemon.is_alive, _node.daemon.log()[-3000:]
    _node.docker("node", "update", "--availability=active", "self")
    _node.clear()


def serve(node: SwarmNode, *options: str, mode: str = "ingress", replicas: int = 1) -> int:
    """A service `web`; its port, once it answers there."""
    port = free_port()
    publish = f"--publish=mode={mode},published={port},target=8000"
    quick = ("--no-resolve-image", "--stop-grace-period=2s")  # a server that is only just starting ignores SIGTERM
    node.create("web", f"--replicas={replicas}", publish, *quick, *options, "webserver:v1")
    node.wait_running("web", replicas)
    assert ask(port) == ANSWER
    return port


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def ask(port: int, path: str = "/") -> str:
    """The body of the answer. Raises: OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        text = b""
        while more := sock.recv(4096):
            text += more
        return text.decode().partition("\r\n\r\n")[2]


@contextlib.contextmanager
def slow_request(port: int) -> Iterator[list[str]]:
    """A request that is answered after three seconds, under way during the block; its answer, or how it failed."""
    answer: list[str] = []

    def run() -> None:
        try:
            answer.append(ask(port, "/slow"))
        except OSError as error:
            answer.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    try:
        yield answer
    finally:
        thread.join()


def stop(node: SwarmNode) -> None:
    node.docker("stop", container_of(node.running("web")[0]))


def restart(node: SwarmNode) -> None:
    node.docker("restart", container_of(node.running("web")[0]))


def scale(node: SwarmNode) -> None:
    node.docker("service", "scale", "-d", "web=0")


def remove(node: SwarmNode) -> None:
    node.docker("service", "rm", "web")


def update(node: SwarmNode) -> None:
    node.docker("service", "update", "-d", "--no-resolve-image", "--env-add=V=2", "web")


def drain_node(node: SwarmNode) -> None:
    node.docker("node", "update", "--availability=drain", "self")


def turn_unhealthy(node: SwarmNode) -> None:
    node.docker("exec", container_of(node.running("web")[0]), "touch", "/tmp/bad")


PATHS = (stop, restart, scale, remove, update, drain_node, turn_unhealthy)
ENDS = [*((end, "ingress") for end in PATHS), *((end, "host") for end in (stop, scale, update))]
# Healthy from when it listens on port 8000, until it is told not to be.
HEALTHY = "test ! -e /tmp/bad && cat /proc/net/tcp /proc/net/tcp6 | grep -q :1F40"
HEALTH = (f"--health-cmd={HEALTHY}", "--health-start-period=30s", "--health-interval=100ms", "--health-retries=1")


@pytest.mark.parametrize(("end", "mode"), ENDS)
def test_a_request_under_way_is_answered_before_its_task_is_stopped(
    node: SwarmNode, end: Callable[[SwarmNode], None], mode: str
) -> None:
    options = HEALTH if end is turn_unhealthy else ()
    port = serve(node, "--restart-delay=30s", *options, mode=mode)
    first = container_of(node.running("web")[0])
    with slow_request(port) as answer:
        end(node)
    assert answer == [ANSWER]
    wait_for(lambda: first not in node.docker("ps", "-q", "--no-trunc").lines or end is restart, what="its end")


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_task_that_is_being_stopped_takes_no_new_connection(node: SwarmNode, mode: str) -> None:
    port = serve(node, "--restart-delay=30s", mode=mode)
    with slow_request(port) as answer:
        stopping = threading.Thread(target=stop, args=(node,))
        stopping.start()
        wait_for(lambda: is_refused(port), timeout_s=2, what="new connections to be refused")
        assert answer == []
        stopping.join()
    assert answer == [ANSWER]


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_client_that_found_the_queue_full_is_answered_before_its_task_is_stopped(node: SwarmNode, mode: str) -> None:
    """Its first packet fell, so the task has nothing of it yet; it was led there and will try again."""
    if "straight" not in (text := check_connects().text):
        pytest.skip(text)
    port = free_port()
    publish = f"--publish=mode={mode},published={port},target=8000"
    node.create("web", "--no-resolve-image", "--stop-signal=SIGKILL", "--restart-delay=30s", publish, *ONE_AT_A_TIME)
    node.wait_running("web", 1)
    with ThreadPoolExecutor(CROWD) as pool:
        answers = [pool.submit(ask, port) for _ in range(CROWD)]
        time.sleep(0.5)
        assert waiting(8000) > 0, "nobody found the queue full"
        stop(node)
        assert [answer.result() for answer in answers] == CROWD * ["slowly"]


def waiting(port: int) -> int:
    """Clients of this host whom nobody on that port has answered yet."""
    return sum(one.port == port for one in list_syn_sent())


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_client_that_found_the_queue_full_is_not_led_to_a_stranger(node: SwarmNode, mode: str) -> None:
    """Its task died, and whoever gets the address next would have its next attempt."""
    if "straight" not in (text := check_connects().text):
        pytest.skip(text)
    port = free_port()
    publish = f"--publish=mode={mode},published={port},target=8000"
    node.create("web", "--no-resolve-image", "--restart-delay=30s", publish, *ONE_AT_A_TIME)
    node.wait_running("web", 1)
    with ThreadPoolExecutor(CROWD) as pool:
        answers = [pool.submit(ask, port) for _ in range(CROWD)]
        time.sleep(0.5)
        assert waiting(8000) > 0, "nobody found the queue full"
        node.docker("kill", container_of(node.running("web")[0]))
        wait_for(lambda: not waiting(8000), timeout_s=5, what="those who wait to be told")
        assert any(isinstance(answer.exception(), ConnectionAbortedError) for answer in answers)


def test_two_who_stop_the_same_task_wait_for_the_same_connections(node: SwarmNode) -> None:
    port = serve(node, "--restart-delay=30s")
    with slow_request(port) as answer:
        stopping = threading.Thread(target=stop, args=(node,))
        stopping.start()
        node.docker("service", "scale", "-d", "web=0")
        stopping.join()
    assert answer == [ANSWER]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_a_person_who_stops_a_task_fails_no_request(node: SwarmNode, verb: str) -> None:
    port = serve(node, "--restart-delay=100ms", replicas=2)
    with Load("127.0.0.1", port) as load:
        time.sleep(0.5)
        for _ in range(2):
            node.docker(verb, container_of(node.running("web")[0]))
            node.wait_running("web", 2)
        time.sleep(0.5)
    print(f"{load.result.requests} requests, {load.result.rate:.0f}/s")
    assert load.result.failed == 0, load.result.failures
    assert load.result.requests > 100


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_the_deadline_of_the_label_ends_the_patience(node: SwarmNode, mode: str) -> None:
    port = serve(node, "--restart-delay=30s", "--label=bennu.drain.deadline=1s", mode=mode)
    with slow_request(port) as answer:
        began = time.monotonic()
        stop(node)
        taken_s = time.monotonic() - began
    assert 1 <= taken_s < 2.5
    assert answer != [ANSWER]


def test_nobody_waits_for_a_task_without_connections(node: SwarmNode) -> None:
    serve(node, "--restart-delay=30s")
    began = time.monotonic()
    stop(node)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("words", [("kill",), ("rm", "-f")])
def test_a_kill_does_not_wait(node: SwarmNode, words: tuple[str, ...]) -> None:
    port = serve(node, "--restart-delay=30s")
    with slow_request(port) as answer:
        began = time.monotonic()
        node.docker(*words, container_of(node.running("web")[0]))
        assert time.monotonic() - began < 2
    assert answer != [ANSWER]


def test_a_task_that_dies_while_it_is_drained_is_not_waited_for(node: SwarmNode) -> None:
    port = serve(node, "--restart-delay=30s")
    with slow_request(port):
        began = time.monotonic()
        stopping = threading.Thread(target=stop, args=(node,))
        stopping.start()
        wait_for(lambda: is_refused(port), timeout_s=2, what="new connections to be refused")
        node.docker("kill", container_of(node.running("web")[0]))
        stopping.join()
        assert time.monotonic() - began < 2.5


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_a_stop_that_waits_for_connections_outlives_the_daemon(able: None, verb: str) -> None:
    with serving_swarm() as node:
        port = serve(node, "--restart-delay=30s")
        first = container_of(node.running("web")[0])
        began = started_at(node, first)
        with slow_request(port) as answer:
            with node.docker.running(verb, first):
                wait_for(lambda: is_refused(port), timeout_s=2, what="new connections to be refused")
                node.daemon.kill()
            assert is_refused(port), "the balancer keeps what it was told"
            node.daemon.start()
        assert answer == [ANSWER]
        if verb == "stop":
            wait_for(lambda: first not in node.docker("ps", "-q", "--no-trunc").lines, what="its end")
        else:
            wait_for(lambda: started_at(node, first) != began, what="its second life")
        told = node.daemon.bennu("why", first).out
        assert f"docker {verb} {first}" in told, told


def started_at(node: SwarmNode, container: str) -> str:
    return node.docker("inspect", "-f", "{{.State.StartedAt}}", container).line


HANGS = """
import http.server, threading
def write():
    while True:
        open("/data/file", "w").write("x")
threading.Thread(target=write).start()
http.server.HTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_task_that_could_not_be_stopped_serves_again(node: SwarmNode, tmp_path: Path) -> None:
    with filesystem_that_can_be_frozen(tmp_path) as place:
        port = free_port()
        mount = f"--mount=type=bind,source={place},target=/data"
        node.create("web", mount, f"--publish={port}:8000", "--no-resolve-image", "python", "python3", "-uc", HANGS)
        (task,) = node.wait_running("web", 1)
        container = container_of(task)
        pid = int(node.docker("inspect", "-f", "{{.State.Pid}}", container).line)
        subprocess.run(["fsfreeze", "-f", place], check=True)
        try:
            wait_for(lambda: any(in_state_d(thread) for thread in threads_of(pid)), what="the writer to hang")
            with node.docker.running("stop", "-t0", container) as stopping:
                wait_for(lambda: is_refused(port), timeout_s=5, what="new connections to be refused")
                assert stopping.wait(30) == 1
            wait_for(lambda: not is_refused(port), timeout_s=5, what="it to serve again")
        finally:
            subprocess.run(["fsfreeze", "-u", place], check=True)
        node.docker("service", "rm", "web")
        wait_for(lambda: container not in node.docker("ps", "-aq", "--no-trunc").lines, what="its end")


def threads_of(pid: int) -> list[int]:
    return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
