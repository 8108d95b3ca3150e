"""Health checks on real containers: Docker's transitions, Bennu's own probes, and what is done about the unhealthy."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

FAST = ("--health-interval=100ms", "--health-retries=2")


def health(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("inspect", "-f", "{{json .State.Health}}", name).line)
    return found


def actions(cli: Cli, name: str, since: float = 1.0) -> list[str]:
    """What the container's events tell, until now."""
    until = f"{time.time() + 0.3:.9f}"
    words = ("--since", f"{since:.9f}", "--until", until, "--filter", f"container={name}", "--format", "{{.Action}}")
    return cli("events", *words).lines


def wait_status(cli: Cli, name: str, status: str) -> dict[str, Any]:
    wait_for(lambda: health(cli, name)["Status"] == status, what=f"{name} to be {status}")
    return health(cli, name)


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
    assert float(numbers["bennu_probes_limit"]) > 0
    assert float(numbers["bennu_probes_total"]) > 0
    assert float(numbers['bennu_containers_health{status="healthy"}']) >= 1


# --- probes past their timeout ------------------------------------------------------------------------------------

STUBBORN = "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 321' & sleep 321 & sleep 321"


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"sleep\x00321" in line:
                found.append(entry.name)
    return found


def leave_no_process(docker: Cli, busybox: str, timeouts: int) -> None:
    options = ("--health-interval=10ms", "--health-timeout=50ms", "--health-retries=1000000")
    docker("run", "-d", "--name", "hung", f"--health-cmd={STUBBORN}", *options, busybox, "sleep", "600")
    wait_for(lambda: health(docker, "hung")["FailingStreak"] >= timeouts, timeout_s=timeouts, what="timeouts")
    last = health(docker, "hung")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"].startswith("Health check exceeded timeout (50ms)")
    docker("pause", "hung")  # no probe is under way now
    docker("unpause", "hung")
    docker("top", "hung")
    docker("update", "--restart=no", "hung")
    docker("stop", "-t", "0", "hung")
    wait_for(lambda: not sleepers(), what="every process of the probes to be gone", describe=lambda: str(sleepers()))


def test_a_probe_past_its_timeout_leaves_no_process(docker: Cli, busybox: str) -> None:
    leave_no_process(docker, busybox, 15)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_thousand_timeouts_leave_no_process(docker: Cli, busybox: str) -> None:
    leave_no_process(docker, busybox, 1000)


def test_processes_of_a_hung_probe_end_with_it_while_the_container_runs(docker: Cli, busybox: str) -> None:
    options = ("--health-interval=30s", "--health-start-period=30s", "--health-start-interval=50ms")
    docker("run", "-d", "--name", "hung", f"--health-cmd={STUBBORN}", "--health-timeout=300ms", *options, busybox,
           "sleep", "600")  # fmt: skip
    wait_for(sleepers, what="a probe to start")
    wait_for(lambda: health(docker, "hung")["Log"], what="its timeout")
    seen = {entry["Start"] for entry in health(docker, "hung")["Log"]}
    assert len(seen) >= 1
    assert len(sleepers()) <= 6  # of one probe at most: none adds up


def test_a_hung_probe_delays_no_other_container(docker: Cli, busybox: str) -> None:
    hung = ("--health-cmd=sleep 600", "--health-timeout=30s", *FAST)
    docker("run", "-d", "--name", "hangs", *hung, busybox, "sleep", "600")
    docker("run", "-d", "--name", "brisk", "--health-cmd=true", *FAST, busybox, "sleep", "600")
    wait_status(docker, "brisk", "healthy")
    before = len(actions(docker, "brisk"))
    time.sleep(1)
    after = len(actions(docker, "brisk"))
    assert after - before >= 3 * 3, "ten probes a second, three events each, are due"


# --- probes without a process ----------------------------------------------------------------------------------------


def test_http_and_tcp_probes_need_nothing_in_the_image(docker: Cli, busybox: str) -> None:
    server = "mkdir /w; echo fine > /w/health; sleep 0.5; httpd -f -p 8080 -h /w"
    for name, label in (("http", "bennu.health.http=http://:8080/health"), ("tcp", "bennu.health.tcp=:8080")):
        docker("run", "-d", "--name", name, "-l", label, "--health-interval=100ms", busybox, "sh", "-c", server)
        found = wait_status(docker, name, "healthy")
        assert found["Log"][-1]["ExitCode"] == 0
    docker("exec", "http", "rm", "/w/health")
    found = wait_status(docker, "http", "unhealthy")
    assert "HTTP 404" in found["Log"][-1]["Output"]
    execs = [line for line in actions(docker, "http") if line.startswith("exec_create")]
    assert [line for line in execs if "rm" not in line] == []


def test_an_http_probe_can_ask_for_another_status_and_send_headers(docker: Cli, busybox: str) -> None:
    labels = (
        "bennu.health.http=http://:8080/missing",
        "bennu.health.http.status=404",
        "bennu.health.http.header.X-Probe=1",
    )
    words = [word for label in labels for word in ("-l", label)]
    docker("run", "-d", "--name", "odd", *words, *FAST, busybox, "httpd", "-f", "-p", "8080")
    wait_status(docker, "odd", "healthy")


@pytest.mark.parametrize("label", ["bennu.health.http=ftp://x", "bennu.health.tcp=nonsense", "bennu.on-unhealthy=x"])
def test_a_senseless_label_is_refused(docker: Cli, busybox: str, label: str) -> None:
    said = docker("run", "-d", "-l", label, busybox, "true", ok=False)
    assert said.code == 125
    assert label.partition("=")[0] in said.err


# --- readiness -------------------------------------------------------------------------------------------------------


def test_readiness_is_shown_apart_from_health(bennu: Cli, busybox: str) -> None:
    label = "bennu.ready.cmd=test -e /ready"
    bennu("run", "-d", "--name", "rd", "-l", label, busybox, "sleep", "600")
    wait_for(lambda: bennu("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "false", what="an answer")
    assert "(not ready)" in bennu("ps", "--filter", "name=rd").out
    bennu("exec", "rd", "touch", "/ready")
    wait_for(lambda: bennu("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "true", what="readiness")
    assert "(ready)" in bennu("ps", "--filter", "name=rd").out
    assert bennu("inspect", "-f", "{{.State.Status}} {{json .State.Health}}", "rd", ok=False).out.startswith("running")
    bennu("stop", "-t", "0", "rd")
    assert bennu("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "null"


# --- after the daemon's death ----------------------------------------------------------------------------------------


def test_probing_goes_on_after_the_daemon_died_without_a_false_alarm(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.bennu, "busybox")
    daemon.bennu("run", "-d", "--name", "hd", "--health-cmd=true", "--health-interval=200ms", busybox, "sleep", "600")
    wait_status(daemon.bennu, "hd", "healthy")
    began = time.time()
    daemon.kill()
    daemon.start()
    assert health(daemon.bennu, "hd")["Status"] in ("starting", "healthy")
    wait_status(daemon.bennu, "hd", "healthy")
    said = actions(daemon.bennu, "hd", began)
    assert "health_status: unhealthy" not in said
    daemon.bennu("rm", "-f", "hd")
    traces.assert_nothing_left(daemon)


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
