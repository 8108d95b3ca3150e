"""Very many at once, or very much: of containers that die together, of forks, of output, of clients that do not read.

Nobody else is kept waiting, the daemon does not grow with what it is sent, and it ends as it began.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import traces
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

MIB = 1 << 20
ANSWER_S = 2.0  # for a small question, on a machine that does all this at once
JSON = {"Content-Type": "application/json"}


def ask(daemon: Daemon, method: str, path: str, body: Any = None) -> Any:
    status, answer = daemon.request(method, path, None if body is None else json.dumps(body), JSON)
    assert status < 300, f"{method} {path}: {status} {answer!r}"
    return json.loads(answer) if answer.strip() else None


def create(daemon: Daemon, script: str, policy: str = "no", **host: Any) -> str:
    host = {"NetworkMode": "none", "RestartPolicy": {"Name": policy}, **host}
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host}
    return str(ask(daemon, "POST", "/containers/create", body)["Id"])


def run(daemon: Daemon, script: str, policy: str = "no", **host: Any) -> str:
    made = create(daemon, script, policy, **host)
    ask(daemon, "POST", f"/containers/{made}/start")
    return made


def state(daemon: Daemon, container: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(daemon, "GET", f"/containers/{container}/json")
    return found["State"] | {"RestartCount": found["RestartCount"]}


def memory(daemon: Daemon) -> int:
    line = next(line for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1]) * 1024


@contextmanager
def answers_at_once(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """What is yielded asks small questions; at the end none may have waited long."""
    slowest = [0.0]

    def look() -> None:
        for path in ("/_ping", "/containers/json"):
            began = time.monotonic()
            assert daemon.request("GET", path)[0] == 200
            slowest[0] = max(slowest[0], time.monotonic() - began)

    yield look
    look()
    assert slowest[0] < ANSWER_S


@pytest.mark.parametrize("number", [24, pytest.param(200, marks=pytest.mark.soak)])
def test_many_that_are_killed_at_once_are_all_told_and_those_of_a_policy_return(
    daemon: Daemon, busybox: str, number: int
) -> None:
    script = "trap '' TERM; while :; do sleep 1; done"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda one: run(daemon, script, ("no", "always")[one % 2]), range(number)))
        pids = [state(daemon, one)["Pid"] for one in made]
        with answers_at_once(daemon) as look:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            look()
            for one in made[::2]:
                wait_for(lambda one=one: state(daemon, one)["Status"] == "exited", timeout_s=30)
            look()
            for one in made[1::2]:
                wait_for(lambda one=one: state(daemon, one)["Status"] == "running")
        assert {state(daemon, one)["ExitCode"] for one in made[::2]} == {137}
        alive = {one: state(daemon, one)["Pid"] for one in made[1::2]}
        assert 0 not in alive.values() and not set(alive.values()) & set(pids)
        daemon.kill()
        daemon.start()
        assert {one: state(daemon, one)["Pid"] for one in alive} == alive, "all found alive by the next daemon"
        began = time.monotonic()
        list(pool.map(lambda one: ask(daemon, "POST", f"/containers/{one}/stop?t=1"), alive))
        assert time.monotonic() - began < 1 + number, "stopped at once, not one after the other"
        assert {state(daemon, one)["ExitCode"] for one in alive} == {137}
        list(pool.map(lambda one: ask(daemon, "DELETE", f"/containers/{one}"), made))
    traces.assert_nothing_left(daemon, set(made))


@pytest.mark.parametrize("number", [32, pytest.param(200, marks=pytest.mark.soak)])
def test_many_short_runs_at_once_all_end_with_their_own_code(daemon: Daemon, busybox: str, number: int) -> None:
    def live(code: int) -> int:
        made = run(daemon, f"exit {code}", AutoRemove=False)
        ended = ask(daemon, "POST", f"/containers/{made}/wait")["StatusCode"]
        ask(daemon, "DELETE", f"/containers/{made}")
        return int(ended)

    with answers_at_once(daemon) as look, ThreadPoolExecutor(number) as pool:
        codes = pool.map(live, range(number))
        look()
        assert list(codes) == list(range(number))
    traces.assert_nothing_left(daemon)


def test_a_container_that_only_forks_is_held_by_its_limit_and_can_be_stopped(daemon: Daemon, busybox: str) -> None:
    # As many as may be, and no more than this machine bears should nothing hold them. Its first process hears no stop.
    bomb = "(i=0; while [ $i -lt 300 ]; do sleep 600 & i=$((i+1)); done) 2>/dev/null & exec sleep 600"
    made = run(daemon, bomb, PidsLimit=30)
    pid = state(daemon, made)["Pid"]
    stats = f"/containers/{made}/stats?stream=0&one-shot=1"
    wait_for(lambda: ask(daemon, "GET", stats)["pids_stats"].get("current", 0) >= 25, what="the bomb to go off")
    time.sleep(0.5)
    with answers_at_once(daemon) as look:
        look()
        assert ask(daemon, "GET", stats)["pids_stats"]["current"] <= 30
        ask(daemon, "POST", f"/containers/{made}/stop?t=1")
    assert state(daemon, made)["ExitCode"] == 137
    assert not Path(f"/proc/{pid}").exists()
    ask(daemon, "DELETE", f"/containers/{made}")
    traces.assert_nothing_left(daemon, {made})


FLOODS = {
    "lines": "yes 0123456789012345678901234567890123456789",
    "a line without an end": "cat /dev/zero",
    "no text": "cat /bin/busybox /bin/busybox; exec cat /dev/urandom",
}
SMALL_LOG = {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "2"}}


def open_and_never_read(daemon: Daemon, method: str, path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(str(daemon.socket))
    link.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return link


def test_floods_and_clients_that_never_read_hold_up_nobody(daemon: Daemon, docker: Cli, busybox: str) -> None:
    made = [run(daemon, script, LogConfig=SMALL_LOG) for script in FLOODS.values()]
    beside = run(daemon, "i=0; while :; do i=$((i+1)); echo $i >/tick; sleep 0.1; done")
    before = memory(daemon)
    with answers_at_once(daemon) as look, ExitStack() as clients:
        for _ in range(4):
            for one in made:
                follow = f"/containers/{one}/logs?follow=1&stdout=1"
                clients.enter_context(open_and_never_read(daemon, "GET", follow))
                clients.enter_context(
                    open_and_never_read(daemon, "POST", f"/containers/{one}/attach?stream=1&stdout=1")
                )
            clients.enter_context(open_and_never_read(daemon, "GET", "/events"))
        first = written(made)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            look()
            time.sleep(0.05)
        later = written(made)
        assert all(now > then for now, then in zip(later, first, strict=True)), (
            "no container waits for who does not read"
        )
        assert memory(daemon) < before + 128 * MIB
    one, two = (docker("exec", beside, "cat", "/tick").line for _ in range(2))
    assert int(one) > 10 and int(two) >= int(one)
    for container in made:
        ask(daemon, "DELETE", f"/containers/{container}?force=1")


def written(containers: list[str]) -> list[int]:
    """Bytes that their monitors have taken from them and written."""
    found = []
    for pid, words in traces.command_lines():
        if "conmon" in words and any(one in words for one in containers):
            counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
            found.append((next(one for one in containers if one in words), int(counts["rchar"])))
    return [count for _, count in sorted(found)]
