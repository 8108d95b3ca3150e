"""Health checks on real containers: Docker's transitions, Bennu's own probes, and what is done about the unhealthy."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from bennu.engine.probes import PROBES_AT_ONCE
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
    assert float(numbers["bennu_probes_limit"]) == PROBES_AT_ONCE
    assert {"bennu_probes_running", "bennu_probes_waiting", "bennu_probes_slow"} <= numbers.keys()
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


def test_what_has_no_effect_is_said(docker: Cli, busybox: str) -> None:
    words = "WARNING: bennu.on-unhealthy has no effect: the container has no health check"
    assert words in docker("create", "-l", "bennu.on-unhealthy=stop", busybox, "true").err
    assert docker("create", "-l", "bennu.on-unhealthy=stop", "--health-cmd=x", busybox, "true").err == ""


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


# --- what is asked for ------------------------------------------------------------------------------------------------

ALL_FLAGS = (
    *("--health-cmd=test -e /ok", "--health-interval=1s", "--health-timeout=2s", "--health-retries=4"),
    *("--health-start-period=5s", "--health-start-interval=6s"),
)
OF_IMAGE = "HEALTHCHECK --interval=1s --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD test -e /ok"
IMAGE_CHECK = {
    "Test": ["CMD-SHELL", "test -e /ok"],
    "Interval": 10**9,
    "Timeout": 2 * 10**9,
    "StartPeriod": 3 * 10**9,
    "StartInterval": 4 * 10**9,
    "Retries": 5,
}


def check_of(cli: Cli, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(cli("inspect", "-f", "{{json .Config.Healthcheck}}", name).line)
    return found


def build(cli: Cli, folder: Path, name: str, *lines: str) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    cli("build", "-q", "-t", name, str(folder), timeout_s=120)
    return name


def test_every_flag(cli: Cli, busybox: str) -> None:
    cli("create", "--name", "flags", *ALL_FLAGS, busybox, "true")
    assert check_of(cli, "flags") == {
        "Test": ["CMD-SHELL", "test -e /ok"],
        "Interval": 10**9,
        "Timeout": 2 * 10**9,
        "Retries": 4,
        "StartPeriod": 5 * 10**9,
        "StartInterval": 6 * 10**9,
    }


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--health-interval=999us", "Interval in Healthcheck cannot be less than 1ms"),
        ("--health-timeout=1us", "Timeout in Healthcheck cannot be less than 1ms"),
        ("--health-start-period=1us", "StartPeriod in Healthcheck cannot be less than 1ms"),
        ("--health-start-interval=1us", "StartInterval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_too_short_is_refused(cli: Cli, busybox: str, flag: str, words: str) -> None:
    assert words in cli("create", flag, busybox, "true", ok=False).err


def test_an_images_check_is_completed_field_by_field(cli: Cli, busybox: str, tmp_path: Path) -> None:
    image = build(cli, tmp_path / "a", "checked:1", f"FROM {busybox}", OF_IMAGE, 'CMD ["sleep", "600"]')
    assert check_of(cli, image) == IMAGE_CHECK
    other = build(cli, tmp_path / "b", "checked:2", f"FROM {image}", 'HEALTHCHECK --retries=2 CMD ["true"]')
    assert check_of(cli, other) == {"Test": ["CMD", "true"], "Retries": 2}
    heir = build(cli, tmp_path / "c", "checked:3", f"FROM {image} AS one", "ENV A=1", "FROM one", "ENV B=2")
    assert check_of(cli, heir) == IMAGE_CHECK
    for number, (flags, changed) in enumerate(
        {
            (): {},
            ("--health-cmd=exit 0",): {"Test": ["CMD-SHELL", "exit 0"]},
            ("--health-interval=9s", "--health-retries=8"): {"Interval": 9 * 10**9, "Retries": 8},
            ("--health-start-interval=7s",): {"StartInterval": 7 * 10**9},
            ("--no-healthcheck",): {"Test": ["NONE"]},
        }.items()
    ):
        cli("create", "--name", f"merged{number}", *flags, image)
        assert check_of(cli, f"merged{number}") == IMAGE_CHECK | changed
    cli("run", "-d", "--name", "unchecked", "--no-healthcheck", "-l", "bennu.health.tcp=:9", image)
    assert "Health" not in json.loads(cli("inspect", "-f", "{{json .State}}", "unchecked").line)


@pytest.mark.parametrize("test", [["NONE"], ["cmd", "true"], ["curl"], []], ids=str)
def test_a_check_of_another_kind_is_none(client: docker_py.DockerClient, busybox: str, test: list[str]) -> None:
    check = {"test": test, "interval": 10**8}
    container = client.containers.run(busybox, ["sleep", "600"], detach=True, healthcheck=check)
    assert "Health" not in client.containers.get(container.id).attrs["State"]
    assert client.containers.get(container.id).health == "unknown"


def test_the_images_shell_runs_the_check(docker: Cli, busybox: str, tmp_path: Path) -> None:
    lines = ('SHELL ["sh", "-ec"]', "HEALTHCHECK --interval=100ms CMD false; true", 'CMD ["sleep", "600"]')
    image = build(docker, tmp_path / "a", "shell:1", f"FROM {busybox}", *lines)
    docker("run", "-d", "--name", "shell", image)
    assert wait_for(lambda: health(docker, "shell")["Log"], what="a probe")[0]["ExitCode"] == 1


# --- what is shown of a probe -----------------------------------------------------------------------------------------


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


# --- acting upon it ---------------------------------------------------------------------------------------------------


def test_one_that_counted_as_unhealthy_while_paused_is_acted_upon_when_it_is(docker: Cli, busybox: str) -> None:
    words = ("--health-cmd=test -e /good", "--stop-signal=KILL", "-l", "bennu.on-unhealthy=restart", *FAST)
    docker("run", "-d", "--name", "acted", *words, busybox, "sh", "-c", "touch /good; sleep 600")
    wait_status(docker, "acted", "healthy")
    docker("pause", "acted")
    docker("unpause", "acted")
    assert health(docker, "acted")["Status"] == "unhealthy"
    assert docker("inspect", "-f", "{{.RestartCount}}", "acted").line == "0"
    docker("exec", "acted", "rm", "/good")
    wait_for(lambda: docker("inspect", "-f", "{{.RestartCount}}", "acted").line == "1", what="a restart")


def test_restarts_for_bad_health_use_up_the_retries_of_the_policy(bennu: Cli, busybox: str) -> None:
    words = ("--health-cmd=false", *FAST, "-l", "bennu.on-unhealthy=restart", "--restart=on-failure:1")
    loop = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    bennu("run", "-d", "--name", "twice", *words, busybox, "sh", "-c", loop)
    wait_for(lambda: bennu("inspect", "-f", "{{.State.Status}}", "twice").line == "exited", what="it to give up")
    assert bennu("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}}", "twice").line == "1 0"
    assert "all 1 retries are used" in bennu("why", "twice").out


def test_one_that_a_person_stops_is_not_revived(docker: Cli, busybox: str) -> None:
    loop = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done"  # it fails its check while it ends
    words = ("--health-cmd=! pidof sleep || test ! -e /end", *FAST, "-l", "bennu.on-unhealthy=restart")
    docker(
        "run", "-d", "--name", "stays", *words, busybox, "sh", "-c", loop.replace("sleep 1;", "touch /end; sleep 1;")
    )
    wait_status(docker, "stays", "healthy")
    docker("stop", "stays")
    assert docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "stays").line == "exited 0"
    time.sleep(0.5)
    assert docker("inspect", "-f", "{{.State.Status}}", "stays").line == "exited"


def test_a_probe_that_a_killed_daemon_left_ends_with_the_next_one(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.bennu, "busybox")
    options = (f"--health-cmd={STUBBORN}", "--health-interval=300ms", "--health-timeout=60s")
    daemon.bennu("run", "-d", "--name", "left", *options, busybox, "sleep", "600")
    before = set(wait_for(sleepers, what="a probe"))
    daemon.kill()
    assert before <= set(sleepers())
    daemon.start()
    wait_for(lambda: not before & set(sleepers()), what="the probe of the former daemon to be gone")
    daemon.bennu("rm", "-f", "left")
    traces.assert_nothing_left(daemon)


# --- readiness by each kind of probe ---------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["bennu.ready.http=:8080/in", "bennu.ready.tcp=:8080"])
def test_readiness_needs_no_process(bennu: Cli, docker: Cli, busybox: str, label: str) -> None:
    script = "mkdir /w; echo > /w/in; while [ ! -e /go ]; do sleep 0.05; done; httpd -f -p 8080 -h /w"
    bennu("run", "-d", "--name", "rdy", "-l", label, busybox, "sh", "-c", script)
    wait_for(lambda: bennu("inspect", "-f", "{{json .Bennu.Ready}}", "rdy").line == "false", what="an answer")
    assert "(not ready)" in bennu("ps", "--filter", "name=rdy").out
    assert "(not ready)" not in docker("ps", "--filter", "name=rdy").out
    bennu("exec", "rdy", "touch", "/go")
    wait_for(lambda: bennu("inspect", "-f", "{{json .Bennu.Ready}}", "rdy").line == "true", what="readiness")
    assert "(ready)" in bennu("ps", "--filter", "name=rdy").out
    assert "Health" not in json.loads(bennu("inspect", "-f", "{{json .State}}", "rdy").line)
