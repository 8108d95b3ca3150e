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
PING_S = 0.2  # most of the time
WORST_PING_S = 2.0  # where the processor has others to serve; in one piece it would be all the time that it takes
IDLE_PING_S = 0.01  # at most, where this machine has nothing else to do
SETTLE_S = 60.0
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


def idle_pings(daemon: Daemon) -> list[float]:
    with pinged(daemon) as took:
        time.sleep(0.5)
    return took


def check_answered(took: list[float], idle: list[float]) -> None:
    """Check how long pings took, on a machine that is so busy with other things as the `idle` ones tell."""
    busy = max(1.0, sorted(idle)[len(idle) // 2] / IDLE_PING_S)
    assert sorted(took)[len(took) * 3 // 4] < PING_S * busy, (busy, sorted(took)[-10:])
    assert max(took) < WORST_PING_S * busy, (busy, sorted(took)[-10:])


@pytest.fixture(scope="module")
def swarm(able: None) -> Iterator[SwarmNode]:
    with open_swarm() as node:
        yield node


def create(swarm: SwarmNode, name: str, mode: object, **template: object) -> tuple[int, str]:
    spec = {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "nothing:latest"}, **template},
        "Mode": mode,
    }
    headers = {"Content-Type": "application/json"}
    status, body = swarm.daemon.request("POST", "/services/create", json.dumps(spec), headers)
    return status, json.loads(body).get("message", "")


NOWHERE = {"Placement": {"Constraints": ["node.role==worker"]}}


def word_of(swarm: SwarmNode, name: str) -> str:
    return str(swarm.ask("/services", name=[name])[0]["Spec"]["Mode"]["Replicated"]["Replicas"])


def task_count(swarm: SwarmNode) -> int:
    time.sleep(0.5)  # the list is long: asking for it all the time would be most of the work
    return len(swarm.ask("/tasks"))


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_ten_thousand_replicas_that_fit_nowhere_keep_nobody_waiting(swarm: SwarmNode) -> None:
    idle = idle_pings(swarm.daemon)
    with pinged(swarm.daemon) as took:
        assert create(swarm, "many", {"Replicated": {"Replicas": MANY}}, **NOWHERE)[0] == 201
        assert swarm.docker("service", "ls", "--format", "{{.Name}}").line == "many"
        wait_for(lambda: task_count(swarm) == MANY, timeout_s=SETTLE_S, what="all tasks to be made")
        swarm.docker("service", "inspect", "many")
        assert len(swarm.docker("service", "ps", "-q", "many").lines) == MANY
        swarm.docker("service", "scale", "-d", "many=3")
        wait_for(lambda: task_count(swarm) == 3, timeout_s=SETTLE_S, what="all but three to be gone")
        swarm.docker("service", "rm", "many")
        wait_for(lambda: task_count(swarm) == 0, timeout_s=SETTLE_S, what="all tasks to be gone")
    check_answered(took, [*idle, *idle_pings(swarm.daemon)])
    assert resident_bytes(swarm.daemon.pid) < MEMORY_BYTES


@pytest.mark.parametrize(
    "mode",
    [
        {"Replicated": {"Replicas": 10_001}},
        {"Replicated": {"Replicas": 2**40}},
        {"ReplicatedJob": {"MaxConcurrent": 10_001}},
        {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2**62}},
    ],
    ids=str,
)
def test_more_tasks_than_a_service_may_have_are_refused(swarm: SwarmNode, mode: object) -> None:
    status, message = create(swarm, "greedy", mode)
    assert status == 400
    assert "are too many: a service may have 10000" in message


def test_a_service_is_not_scaled_beyond_the_bound_either(swarm: SwarmNode) -> None:
    swarm.create("modest", "--replicas=0", "busybox")
    refused = swarm.docker("service", "scale", "-d", "modest=99999", ok=False)
    assert "99999 replicas are too many" in refused.err
    refused = swarm.docker("service", "update", "-d", "--replicas=99999", "modest", ok=False)
    assert "99999 replicas are too many" in refused.err
    assert word_of(swarm, "modest") == "0"


@pytest.mark.parametrize(
    "body",
    [
        b'{"X":[' + b"[]," * 2_600_000 + b"1234567890123456789]}",
        b'{"Hostname":null,"Env":[' + b'"a=b",' * 1_200_000 + b'""]}',
    ],
    ids=["nested", "environment"],
)
def test_a_large_request_keeps_nobody_waiting(swarm: SwarmNode, body: bytes) -> None:
    idle = idle_pings(swarm.daemon)
    with pinged(swarm.daemon) as took:
        for _ in range(3):
            swarm.daemon.request("POST", "/containers/create", body, {"Content-Type": "application/json"})
    check_answered(took, [*idle, *idle_pings(swarm.daemon)])
