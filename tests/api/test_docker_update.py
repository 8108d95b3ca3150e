"""`docker update`, `stats`, `system df` of the unmodified CLI."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for


def host_config(docker: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", name).out)
    return found


def limit_in_force(docker: Cli, name: str, v1: str, v2: str) -> str:
    """A value of the container's control group, whatever the version."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).line
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup") / (controllers if v1.partition(".")[0] in controllers.split(",") else "")
        for name_of_file in (v1, v2):
            file = folder / path.lstrip("/") / name_of_file
            if file.exists():
                return file.read_text().strip()
    raise AssertionError(f"neither {v1} nor {v2}")


def test_limits_change_at_once_and_stay(docker: Cli, busybox: str) -> None:
    docker(
        "run", "-d", "--name", "elastic", "--network", "none", "-m", "32m", "--pids-limit", "50", busybox, "sleep", "99"
    )
    docker("update", "-m", "48m", "--memory-swap", "96m", "--pids-limit", "9", "--cpu-shares", "512", "elastic")
    shown = host_config(docker, "elastic")
    assert (shown["Memory"], shown["PidsLimit"], shown["CpuShares"]) == (48 << 20, 9, 512)
    assert limit_in_force(docker, "elastic", "memory.limit_in_bytes", "memory.max") == str(48 << 20)
    assert limit_in_force(docker, "elastic", "pids.max", "pids.max") == "9"
    docker("update", "--pids-limit", "-1", "elastic")
    assert host_config(docker, "elastic")["PidsLimit"] == 0
    docker("kill", "elastic")
    docker("update", "-m", "64m", "--memory-swap", "-1", "elastic")
    docker("start", "elastic")
    assert limit_in_force(docker, "elastic", "memory.limit_in_bytes", "memory.max") == str(64 << 20)


def test_the_restart_policy_changes_for_the_next_death(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "reborn", "--network", "none", busybox, "sleep", "1000")
    docker("update", "--restart", "always", "reborn")
    assert host_config(docker, "reborn")["RestartPolicy"]["Name"] == "always"
    first = pid_of(docker, "reborn")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pid_of(docker, "reborn") not in (0, first))
    docker("update", "--restart", "no", "reborn")
    os.kill(pid_of(docker, "reborn"), signal.SIGKILL)
    wait_for(lambda: docker("inspect", "-f", "{{.State.Status}}", "reborn").line == "exited")


def pid_of(docker: Cli, name: str) -> int:
    return int(docker("inspect", "-f", "{{.State.Pid}}", name).line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "64m"], "Memory limit should be smaller than already set memoryswap limit, update the memoryswap"),
        (["-m", "1m", "--memory-swap", "2m"], "Minimum memory limit allowed is 6MB"),
        (["--restart", "always:3"], "maximum retry count can only be used with 'on-failure'"),
        (["--cpuset-cpus", "4000"], "Requested CPUs are not available"),
    ],
)
def test_a_refused_update_changes_nothing(docker: Cli, busybox: str, words: list[str], message: str) -> None:
    docker("create", "--name", "rigid", "-m", "16m", busybox)
    before = host_config(docker, "rigid")
    said = docker("update", *words, "rigid", ok=False)
    assert said.code == 1
    assert message in said.err
    assert host_config(docker, "rigid") == before


def test_an_auto_removed_container_keeps_its_policy(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--rm", "--name", "fleeting", "--network", "none", busybox, "sleep", "99")
    said = docker("update", "--restart", "always", "fleeting", ok=False)
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in said.err


def test_stats_of_what_runs_and_of_what_does_not(docker: Cli, client: docker_py.DockerClient, busybox: str) -> None:
    docker("run", "-d", "--name", "busy", busybox, "sh", "-c", "while true; do :; done")
    row = docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.CPUPerc}} {{.NetIO}}", "busy").line
    name, pids, percent, _ = row.split(" ", 3)
    assert (name, pids) == ("busy", "1")
    assert float(percent.rstrip("%")) > 1
    looks = client.containers.get("busy").stats(decode=True)
    first, second = next(looks), next(looks)
    looks.close()
    assert second["preread"] == first["read"]
    assert second["cpu_stats"]["cpu_usage"]["total_usage"] > first["cpu_stats"]["cpu_usage"]["total_usage"]
    assert "eth0" in second["networks"]
    docker("kill", "busy")
    still = client.containers.get("busy").stats(stream=False)
    assert (still["read"], still["pids_stats"]) == ("0001-01-01T00:00:00Z", {})


@pytest.mark.recent_docker
def test_disk_usage(docker: Cli, daemon: Daemon, busybox: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "writer",
        "--network",
        "none",
        "-v",
        "disk:/v",
        busybox,
        "sh",
        "-c",
        "echo x >/v/x; sleep 9",
    )
    wait_for(lambda: docker("exec", "writer", "cat", "/v/x", ok=False).out)
    rows = {
        line.split("|")[0]: line.split("|")[1:]
        for line in docker("system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}").lines
    }
    # Other tests may have left images and volumes; containers they may not.
    assert rows["Images"] == [str(len(set(docker("images", "-q").lines))), "1"]
    assert rows["Containers"] == ["1", "1"]
    assert rows["Local Volumes"] == [str(len(docker("volume", "ls", "-q").lines)), "1"]
    assert daemon.request("GET", "/v1.42/system/df?type=zz") == (400, b'{"message":"unknown object type: zz"}\n')
    found = json.loads(daemon.request("GET", "/v1.42/system/df?type=volume")[1])
    assert found["LayersSize"] == 0 and found["Images"] is None
    before = json.loads(daemon.request("GET", "/v1.42/system/df?type=image")[1])
    docker("commit", "writer", "disk")
    after = json.loads(daemon.request("GET", "/v1.42/system/df?type=image")[1])
    both = [one for one in after["Images"] if set(one["RepoTags"]) & {"disk:latest", busybox}]
    assert len({one["SharedSize"] for one in both}) == 1 and both[0]["SharedSize"] > 0
    assert after["LayersSize"] - before["LayersSize"] < both[0]["SharedSize"], "a layer of two images counts once"
    docker("rm", "-f", "writer")
    docker("rmi", "disk")
    docker("volume", "rm", "disk")
