"""Probes past their timeout leave nothing; probes without a process; readiness."""

import json
import time
from collections.abc import Callable

import pytest

from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.health import FAST, STUBBORN, actions, health, sleepers, wait_status
from support.waiting import wait_for


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


@pytest.mark.recent_docker
def test_processes_of_a_hung_probe_end_with_it_while_the_container_runs(docker: Cli, busybox: str) -> None:
    options = ("--health-interval=30s", "--health-start-period=30s", "--health-start-interval=50ms")
    docker("run", "-d", "--name", "hung", f"--health-cmd={STUBBORN}", "--health-timeout=300ms", *options, busybox,
           "sleep", "600")  # fmt: skip
    wait_for(sleepers, what="a probe to start")
    wait_for(lambda: health(docker, "hung")["Log"], what="its timeout")
    seen = {entry["Start"] for entry in health(docker, "hung")["Log"]}
    assert len(seen) >= 1
    assert len(sleepers()) <= 6  # of one probe at most: none adds up


def test_a_probe_that_is_killed_for_memory_is_the_containers_trouble(docker: Cli, bennu: Cli, busybox: str) -> None:
    eats = ("--health-cmd=tail /dev/zero", "--health-interval=100ms", "--health-retries=100")
    docker("run", "-d", "--name", "eaten", "--memory=16m", *eats, busybox, "sleep", "600")
    wait_for(lambda: health(docker, "eaten")["Log"], what="a probe")
    wait_for(lambda: "oom" in actions(docker, "eaten"), what="the event")
    assert health(docker, "eaten")["Log"][-1]["ExitCode"] == 137
    docker("kill", "eaten")
    docker("wait", "eaten")
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", "eaten").line == "true"
    found = json.loads(bennu("why", "--json", "eaten").out)[0]
    assert (found["Cause"], found["Oom"]["MainProcess"], found["Oom"]["Kills"] > 0) == ("killed", False, True)
    docker("rm", "eaten")


def test_a_hung_probe_delays_no_other_container(docker: Cli, busybox: str) -> None:
    hung = ("--health-cmd=sleep 600", "--health-timeout=30s", *FAST)
    docker("run", "-d", "--name", "hangs", *hung, busybox, "sleep", "600")
    docker("run", "-d", "--name", "brisk", "--health-cmd=true", *FAST, busybox, "sleep", "600")
    wait_status(docker, "brisk", "healthy")
    before = len(actions(docker, "brisk"))
    time.sleep(1)
    after = len(actions(docker, "brisk"))
    assert after - before >= 3 * 3, "ten probes a second, three events each, are due"


def test_a_probe_that_a_killed_daemon_left_ends_with_the_next_one(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.docker, "busybox")
    options = (f"--health-cmd={STUBBORN}", "--health-interval=300ms", "--health-timeout=60s")
    daemon.docker("run", "-d", "--name", "left", *options, busybox, "sleep", "600")
    before = set(wait_for(sleepers, what="a probe"))
    daemon.kill()
    assert before <= set(sleepers())
    daemon.start()
    wait_for(lambda: not before & set(sleepers()), what="the probe of the former daemon to be gone")
    daemon.docker("rm", "-f", "left")
    traces.assert_nothing_left(daemon)


# --- probes without a process ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "label",
    [
        *("bennu.health.http=ftp://x", "bennu.health.http=http://db/", "bennu.health.tcp=nonsense"),
        *("bennu.health.htpp=:80", "bennu.ready.http.status=200", "bennu.ready.exec=true", "bennu.on-unhealthy=x"),
    ],
)
def test_a_senseless_label_is_refused(docker: Cli, busybox: str, label: str) -> None:
    said = docker("run", "-d", "-l", label, busybox, "true", ok=False)
    assert said.code == 125
    assert label.partition("=")[0] in said.err


# --- readiness ------------------------------------------------------------------------------------------------------


def test_readiness_is_shown_apart_from_health(docker: Cli, busybox: str) -> None:
    label = "bennu.ready.cmd=test -e /ready"
    docker("run", "-d", "--name", "rd", "-l", label, busybox, "sleep", "600")
    wait_for(lambda: docker("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "false", what="an answer")
    docker("exec", "rd", "touch", "/ready")
    wait_for(lambda: docker("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "true", what="readiness")
    assert docker("inspect", "-f", "{{.State.Status}} {{json .State.Health}}", "rd", ok=False).out.startswith("running")
    docker("stop", "-t", "0", "rd")
    assert docker("inspect", "-f", "{{json .Bennu.Ready}}", "rd").line == "null"


@pytest.mark.parametrize("label", ["bennu.ready.http=:8080/in", "bennu.ready.tcp=:8080"])
def test_readiness_needs_no_process(docker: Cli, busybox: str, label: str) -> None:
    script = "mkdir /w; echo > /w/in; while [ ! -e /go ]; do sleep 0.05; done; httpd -f -p 8080 -h /w"
    docker("run", "-d", "--name", "rdy", "-l", label, busybox, "sh", "-c", script)
    wait_for(lambda: docker("inspect", "-f", "{{json .Bennu.Ready}}", "rdy").line == "false", what="an answer")
    docker("exec", "rdy", "touch", "/go")
    wait_for(lambda: docker("inspect", "-f", "{{json .Bennu.Ready}}", "rdy").line == "true", what="readiness")
    assert "Health" not in json.loads(docker("inspect", "-f", "{{json .State}}", "rdy").line)
