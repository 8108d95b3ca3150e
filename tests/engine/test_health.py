"""Health checks on real containers: Docker's transitions, and what is shown of a probe."""

import json
import time
from collections.abc import Callable
from typing import Any

import docker as docker_py
import pytest

from bennu.engine.probes import PROBES_AT_ONCE
from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.health import FAST, actions, health, wait_status
from support.waiting import wait_for


def test_the_scene_of_the_three_states(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "hc", "--health-cmd=test -e /good", *FAST, busybox, "sh", "-c", "sleep 600")
    assert "(health: starting)" in docker("ps", "--filter", "name=hc").out
    wait_status(docker, "hc", "unhealthy")
    assert "(unhealthy)" in docker("ps", "--filter", "health=unhealthy").out
    docker("exec", "hc", "touch", "/good")
    found = wait_status(docker, "hc", "healthy")
    assert found["FailingStreak"] == 0
    assert "(healthy)" in docker("ps", "--filter", "health=healthy").out
    said = actions(docker, "hc")
    assert [line for line in said if line.startswith("health_status")] == [
        "health_status: unhealthy",
        "health_status: healthy",
    ]
    assert "exec_create: /bin/sh -c test -e /good" in said


def test_the_log_keeps_five_results_of_4096_bytes(docker: Cli, busybox: str) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' x; echo err >&2; false"
    docker("run", "-d", "--name", "hl", f"--health-cmd={script}", *FAST, busybox, "sleep", "600")
    wait_for(lambda: health(docker, "hl")["FailingStreak"] >= 6, what="six probes")
    log = health(docker, "hl")["Log"]
    assert len(log) == 5
    assert log[-1]["ExitCode"] == 1
    assert log[-1]["Output"] == "x" * 4096 + "..."


@pytest.mark.recent_docker
def test_a_probe_in_the_start_period_does_not_count(docker: Cli, busybox: str) -> None:
    options = ("--health-start-period=1500ms", "--health-start-interval=100ms", *FAST)
    docker("run", "-d", "--name", "hs", "--health-cmd=false", *options, busybox, "sleep", "600")
    wait_for(lambda: len(health(docker, "hs")["Log"]) >= 3, what="probes in the start period")
    assert health(docker, "hs")["Status"] == "starting"
    assert health(docker, "hs")["FailingStreak"] == 0
    wait_status(docker, "hs", "unhealthy")


def test_a_paused_container_counts_as_unhealthy_until_it_is_probed_again(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "hp", "--health-cmd=true", "--health-interval=300ms", busybox, "sleep", "600")
    wait_status(docker, "hp", "healthy")
    docker("pause", "hp")
    assert health(docker, "hp")["Status"] == "unhealthy"
    docker("unpause", "hp")
    assert health(docker, "hp")["Status"] == "unhealthy"
    wait_status(docker, "hp", "healthy")


def test_a_restart_begins_anew_and_keeps_the_log(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "hr", "--health-cmd=true", "--health-interval=500ms", busybox, "sleep", "600")
    wait_status(docker, "hr", "healthy")
    docker("restart", "-t", "0", "hr")
    found = health(docker, "hr")
    assert found["Status"] == "starting"
    assert found["Log"]


def test_docker_py_reads_and_switches_off(client: docker_py.DockerClient, busybox: str) -> None:
    check = {"test": ["CMD", "true"], "interval": 100_000_000, "timeout": 10**9, "retries": 2}
    container = client.containers.run(busybox, ["sleep", "600"], detach=True, healthcheck=check)
    wait_for(lambda: client.containers.get(container.id).health == "healthy", what="health")
    assert client.containers.get(container.id).attrs["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
    silent = client.containers.run(busybox, ["sleep", "600"], detach=True, healthcheck={"test": ["NONE"]})
    assert "Health" not in client.containers.get(silent.id).attrs["State"]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"Test": ["CMD"]}, "has no command"),
        ({"Test": ["CMD", "true"], "Interval": 999_999}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Timeout": -1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "StartPeriod": 5}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_a_senseless_check_is_refused(daemon: Daemon, busybox: str, check: dict[str, Any], words: str) -> None:
    body = json.dumps({"Image": busybox, "Cmd": ["true"], "Healthcheck": check})
    status, answer = daemon.request("POST", "/containers/create", body, {"Content-Type": "application/json"})
    assert status == 400
    assert words in json.loads(answer)["message"]


def test_metrics_show_the_bound_and_what_was_probed(daemon: Daemon, docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "hm", "--health-cmd=true", *FAST, busybox, "sleep", "600")
    wait_status(docker, "hm", "healthy")
    status, text = daemon.request("GET", "/metrics")
    numbers = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert status == 200
    assert float(numbers["bennu_probes_limit"]) == PROBES_AT_ONCE
    assert {"bennu_probes_running", "bennu_probes_waiting", "bennu_probes_slow"} <= numbers.keys()
    assert float(numbers["bennu_probes_total"]) > 0
    assert float(numbers['bennu_containers_health{status="healthy"}']) >= 1


def test_a_kill_that_ends_a_pause_resumes_the_probes(docker: Cli, busybox: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "hk",
        "--health-cmd=true",
        *FAST,
        busybox,
        "sh",
        "-c",
        "trap : HUP; while :; do sleep 1; done",
    )
    wait_status(docker, "hk", "healthy")
    docker("pause", "hk")
    assert health(docker, "hk")["Status"] == "unhealthy"
    docker("kill", "-s", "HUP", "hk")
    assert docker("inspect", "-f", "{{.State.Status}}", "hk").line == "running"
    wait_status(docker, "hk", "healthy")


def test_the_event_of_a_probe_cut_off_carries_127(docker: Cli, busybox: str) -> None:
    words = ("--health-interval=100ms", "--health-timeout=200ms", "--health-retries=1")
    # By its id: a name stands for all that begin so, and others have lived before.
    container_id = docker("run", "-d", "--name", "ht", "--health-cmd=sleep 60", *words, busybox, "sleep", "600").line
    wait_status(docker, "ht", "unhealthy")
    until = f"{time.time() + 0.3:.9f}"
    said = docker(
        *("events", "--since", "1", "--until", until, "--filter", "event=exec_die"),
        *("--filter", f"container={container_id}", "--format", "{{.Actor.Attributes.exitCode}}"),
    ).lines
    assert set(said) == {"127"}


# --- what is shown of a probe ---------------------------------------------------------------------------------------


def test_a_probe_is_an_exec_with_its_events(docker: Cli, daemon: Daemon, busybox: str) -> None:
    options = ("--health-cmd=sleep 1; exit 3", "--health-interval=50ms")
    container_id = docker("run", "-d", "--name", "shown", *options, busybox, "sleep", "600").line
    ids = wait_for(lambda: json.loads(docker("inspect", "-f", "{{json .ExecIDs}}", "shown").line), what="an exec")
    found = json.loads(daemon.request("GET", f"/exec/{ids[0]}/json")[1])
    assert (found["Running"], found["ExitCode"], found["ContainerID"]) == (True, None, container_id)
    assert found["ProcessConfig"]["arguments"] == ["-c", "sleep 1; exit 3"]
    wait_for(lambda: health(docker, "shown")["Log"], what="its end")
    docker("rename", "shown", "renamed")  # an event that is kept on disk comes after those that are not
    until = f"{time.time() + 0.3:.9f}"
    words = ("--filter", f"container={container_id}", "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}")
    lines = docker("events", "--since", "1", "--until", until, *words, "--filter", f"label=execID={ids[0]}").lines
    command = "/bin/sh -c sleep 1; exit 3"
    assert [line.strip() for line in lines] == [
        f"exec_create: {command} <no value>",
        f"exec_start: {command} <no value>",
        "exec_die 3",
    ]
    assert docker("events", "--since", "1", "--until", until, *words, "--filter", "event=exec_create").lines


def test_a_probe_that_cannot_be_started_says_so(docker: Cli, client: docker_py.DockerClient, busybox: str) -> None:
    check = {"test": ["CMD", "/no/such"], "interval": 10**8, "retries": 1}
    container = client.containers.run(busybox, ["sleep", "600"], detach=True, healthcheck=check, name="nosuch")
    found = wait_status(docker, "nosuch", "unhealthy")["Log"][0]
    assert found["ExitCode"] == -1
    assert found["Output"] == (
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "/no/such": stat /no/such: '
        "no such file or directory: unknown"
    )
    assert client.containers.get(container.id).health == "unhealthy"


def test_both_streams_are_told_in_their_order(docker: Cli, busybox: str) -> None:
    script = "echo one; echo two >&2; echo three; false"
    docker("run", "-d", "--name", "both", f"--health-cmd={script}", *FAST, busybox, "sleep", "600")
    assert wait_status(docker, "both", "unhealthy")["Log"][0]["Output"] == "one\ntwo\nthree\n"


# --- after the daemon's death ---------------------------------------------------------------------------------------


def test_probing_goes_on_after_the_daemon_died_without_a_false_alarm(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.docker, "busybox")
    daemon.docker("run", "-d", "--name", "hd", "--health-cmd=true", "--health-interval=200ms", busybox, "sleep", "600")
    wait_status(daemon.docker, "hd", "healthy")
    began = time.time()
    daemon.kill()
    daemon.start()
    assert health(daemon.docker, "hd")["Status"] in ("starting", "healthy")
    wait_status(daemon.docker, "hd", "healthy")
    said = actions(daemon.docker, "hd", began)
    assert "health_status: unhealthy" not in said
    daemon.docker("rm", "-f", "hd")
    traces.assert_nothing_left(daemon)
