"""Who comes back and who does not, through the real docker command: row by row."""

import json
import time
from itertools import pairwise

import pytest

from support.cli import Cli
from support.waiting import wait_for

# Ends with 3 on TERM, 4 on USR1, survives HUP, and dies of itself with 5.
PROGRAM = (
    "trap 'exit 3' TERM; trap 'exit 4' USR1; trap : HUP; echo up; "
    "while [ ! -e /die ]; do sleep 0.05; done; rm /die; exit 5"
)
LONG = ("-l", "bennu.restart.multiplier=100")  # 100 ms, then 10 s


def inspect(docker: Cli, form: str, name: str) -> str:
    return docker("inspect", "-f", form, name).line


def state(docker: Cli, name: str) -> str:
    return inspect(docker, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name)


def events(docker: Cli, name: str, since: float) -> list[dict[str, object]]:
    words = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}", "--filter", f"container={name}")
    return [json.loads(line) for line in docker("events", *words, "--format", "{{json .}}").lines]


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
@pytest.mark.parametrize(
    ("stop_signal", "deeds", "returns"),
    [
        pytest.param("", ["die"], {"always", "unless-stopped", "on-failure"}, id="dies-of-itself"),
        pytest.param("", ["kill -s TERM"], set(), id="told-to-end"),
        pytest.param(
            "", ["kill -s HUP", "die"], {"always", "unless-stopped", "on-failure"}, id="a-signal-that-it-survived"
        ),
        pytest.param("", ["stop"], set(), id="stopped"),
        pytest.param("", ["kill"], set(), id="killed"),
        pytest.param(
            "USR1", ["kill -s TERM"], {"always", "unless-stopped", "on-failure"}, id="not-the-declared-stop-signal"
        ),
        pytest.param("USR1", ["kill -s USR1"], set(), id="the-declared-stop-signal"),
        pytest.param("USR1", ["stop"], set(), id="stopped-by-the-declared-one"),
        pytest.param("USR1", ["kill"], set(), id="killed-whatever-is-declared"),
    ],
)
def test_what_a_persons_signal_means_to_the_policy(
    docker: Cli, busybox: str, policy: str, stop_signal: str, deeds: list[str], returns: set[str]
) -> None:
    options = ("--stop-signal", stop_signal) if stop_signal else ()
    docker("run", "-d", "--name=who", f"--restart={policy}", *options, busybox, "sh", "-c", PROGRAM)
    wait_for(lambda: "up" in docker("logs", "who").out, what="its handlers")
    for deed in deeds:
        words = deed.split()
        if deed == "die":
            docker("exec", "who", "touch", "/die")
        else:
            docker(*words, "who")
    if policy in returns:
        wait_for(lambda: state(docker, "who") == "running 0 1", what="it to return")
    else:
        wait_for(lambda: state(docker, "who").startswith("exited"), what="it to stay down")
        time.sleep(0.25)  # the policy's delay is 100 ms
        assert inspect(docker, "{{.State.Status}} {{.RestartCount}}", "who") == "exited 0"


@pytest.fixture
def waiting(docker: Cli, busybox: str) -> str:
    """A container in a long back-off: it ended twice, with 3."""
    docker("run", "-d", "--name=loop", "--restart=always", *LONG, busybox, "sh", "-c", "echo ran; sleep 0.1; exit 3")
    wait_for(lambda: state(docker, "loop") == "restarting 3 2", what="the long back-off")
    return "loop"


def test_while_it_waits_it_is_running_without_a_process(docker: Cli, waiting: str) -> None:
    form = "{{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.State.ExitCode}}"
    assert inspect(docker, form, waiting) == "true true 0 3"
    assert docker("ps", "--format", "{{.Status}}").line.startswith("Restarting (3) ")
    assert docker("start", waiting).code == 0, "it is said to run"
    for words in (["pause", waiting], ["exec", waiting, "true"]):
        said = docker(*words, ok=False)
        assert said.code == 1 and "is restarting, wait until the container is running" in said.err
    assert "cannot attach to a restarting container" in docker("attach", waiting, ok=False).err
    assert "container is restarting: stop the container" in docker("rm", waiting, ok=False).err


def test_a_stop_while_it_waits_says_stop_and_nothing_else(docker: Cli, waiting: str) -> None:
    since = time.time()
    docker("stop", waiting)
    assert state(docker, waiting) == "exited 3 2"
    told = [event["Action"] for event in events(docker, waiting, since) if event["Type"] == "container"]
    assert told == ["stop"]
    docker("start", waiting)
    assert inspect(docker, "{{.RestartCount}}", waiting) == "0", "a person's start begins anew"


@pytest.mark.parametrize("words", [["kill"], ["rm", "-f"]], ids=" ".join)
def test_other_ways_to_end_the_wait(docker: Cli, waiting: str, words: list[str]) -> None:
    docker(*words, waiting)
    found = docker("ps", "-a", "--filter", f"name={waiting}", "--format", "{{.Status}}").out
    assert found.startswith("Exited (3)") if words == ["kill"] else not found


def test_a_restart_while_it_waits_starts_it_at_once_and_counts_anew(docker: Cli, waiting: str) -> None:
    docker("restart", waiting)
    assert inspect(docker, "{{.RestartCount}} {{.State.Pid}}", waiting) not in ("2 0", "0 0")


def test_a_policy_taken_away_while_it_waits_counts_after_one_more_run(docker: Cli, bennu: Cli, waiting: str) -> None:
    docker("update", "--restart=no", waiting)
    bennu("restart", "--now", waiting)
    wait_for(lambda: state(docker, waiting) == "exited 3 2", what="it to stay down")
    assert docker("logs", waiting).lines == ["ran"] * 3


def test_a_wait_is_over_with_the_run_and_a_new_one_lasts_until_the_next(docker: Cli, bennu: Cli, waiting: str) -> None:
    with docker.running("wait", waiting) as begun:
        time.sleep(0.5)
        assert begun.poll() is None, "nothing ends while it waits for its restart"
        bennu("restart", "--now", waiting)
        assert begun.stdout is not None
        assert begun.stdout.readline() == b"3\n"
    wait_for(lambda: state(docker, waiting).startswith("restarting"), what="the next back-off")


def test_followed_logs_end_with_the_run_though_it_will_return(docker: Cli, busybox: str) -> None:
    script = "echo ran; sleep 1; exit 3"
    docker("run", "-d", "--name=logged", "--restart=always", *LONG, busybox, "sh", "-c", script)
    assert docker("logs", "-f", "logged").lines == ["ran"]


def test_each_delay_is_twice_the_last(docker: Cli, busybox: str) -> None:
    since = time.time()
    docker("run", "-d", "--name=loop", "--restart=on-failure:4", busybox, "false")
    wait_for(lambda: state(docker, "loop") == "exited 1 4", what="all retries to be used")
    told = [event for event in events(docker, "loop", since) if event["Action"] in ("die", "start")]
    assert [event["Action"] for event in told] == ["start", "die"] * 5
    waits_ms = [
        (later["timeNano"] - former["timeNano"]) / 1e6  # type: ignore[operator]
        for former, later in pairwise(told)
        if former["Action"] == "die"
    ]
    for wait_ms, delay_ms in zip(waits_ms, (100, 200, 400, 800), strict=True):
        assert delay_ms - 20 <= wait_ms < delay_ms + 1500, waits_ms


def test_a_restart_keeps_address_and_ports_and_namespace(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name=kept", "--restart=always", "-p", "0:80", busybox, "sh", "-c", PROGRAM)
    form = (
        "{{json .NetworkSettings.Ports}} {{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.SandboxKey}}"
    )
    before = inspect(docker, form, "kept")
    namespace = docker("exec", "kept", "readlink", "/proc/1/ns/net").line
    docker("exec", "kept", "touch", "/die")
    wait_for(lambda: state(docker, "kept") == "running 0 1", what="it to return")
    assert inspect(docker, form, "kept") == before
    assert docker("exec", "kept", "readlink", "/proc/1/ns/net").line == namespace
