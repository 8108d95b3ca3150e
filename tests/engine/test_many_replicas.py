"""Many thousands of tasks, asked for by one request: everybody else is answered all the while."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.swarm import SwarmNode, open_swarm
from support.waiting import wait_for

MANY = 10_000
PING_S = 0.2
SETTLE_S = 120.0
MEMORY_BYTES = 400 * 1024 * 1024


@contextlib.contextmanager
def pinged(daemon: Daemon) -> Iterator[list[float]]:
    """How long each `_ping` took that was asked from beside, all through the block."""
    took: list[float] = []
    ended = threading.Event()

    def ping() -> None:
        while not ended.wait(0.02):
            began = time.perf_counter()
            daemon.request("GET", "/_ping")
            took.append(time.perf_counter() - began)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def swarm(able: None) -> Iterator[SwarmNode]:
    with open_swarm() as node:
        yield node


def create(swarm: SwarmNode, name: str, mode: object, **template: object) -> tuple[int, str]:
    spec = {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "nothing"}, **template},
        "Mode": mode,
    }
    headers = {"Content-Type": "application/json"}
    status, body = swarm.daemon.request("POST", "/services/create", json.dumps(spec), headers)
    return status, json.loads(body).get("message", "")


NOWHERE = {"Placement": {"Constraints": ["node.role==worker"]}}


def task_count(swarm: SwarmNode) -> int:
    return len(swarm.ask("/tasks"))


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_ten_thousand_replicas_that_fit_nowhere_keep_nobody_waiting(swarm: SwarmNode) -> None:
    with pinged(swarm.daemon) as took:
        assert create(swarm, "many", {"Replicated": {"Replicas": MANY}}, **NOWHERE)[0] == 201
        assert swarm.docker("service", "ls", "--format", "{{.Name}}").line == "many"
        wait_for(lambda: task_count(swarm) == MANY, timeout_s=SETTLE_S, what="all tasks to be made")
        swarm.docker("service", "inspect", "many")
        swarm.docker("service", "ps", "-q", "many")
        swarm.docker("service", "scale", "-d", "many=3")
        wait_for(lambda: task_count(swarm) == 3, timeout_s=SETTLE_S, what="all but three to be gone")
        swarm.docker("service", "scale", "-d", f"many={MANY}")
        wait_for(lambda: task_count(swarm) > MANY / 2, timeout_s=SETTLE_S, what="them to be made")
        swarm.docker("service", "rm", "many")
        wait_for(lambda: task_count(swarm) == 0, timeout_s=SETTLE_S, what="all tasks to be gone")
    assert max(took) < PING_S, sorted(took)[-10:]
    assert resident_bytes(swarm.daemon.pid) < MEMORY_BYTES
