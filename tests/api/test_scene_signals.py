"""Signals and exit codes as a person meets them, word for word."""

import time
from collections.abc import Callable

import pytest

from support.cli import Cli
from support.images import EXAMPLES, build_example
from support.waiting import wait_for

Start = Callable[..., str]


@pytest.fixture
def start(docker: Cli, signaltest: str) -> Start:
    """Start the program and return when it has set its handlers: before that PID 1 ignores every signal."""

    def run(*options: str, image: str = signaltest) -> str:
        docker("run", "-d", "--name", "signaltest", *options, image)
        await_alive(docker, 1)
        return "signaltest"

    return run


def await_alive(docker: Cli, lives: int) -> None:
    """Each life ends in its own way, so its lines are counted from the last ending on."""
    wait_for(
        lambda: docker("logs", "signaltest").out.rpartition("Handling")[2].count("I am alive"),
        what=f"life {lives} of signaltest to speak",
    )


def status(docker: Cli, name: str = "signaltest") -> str:
    return docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").line


def exit_code(docker: Cli, name: str = "signaltest") -> str:
    return docker("inspect", "-f", "{{.State.ExitCode}}", name).line


@pytest.mark.parametrize(
    ("signal", "line", "code"),
    [
        pytest.param("SIGINT", "signal 2 , Handling Ctrl+C/SIGINT!", 2, id="interrupt"),
        pytest.param("SIGTERM", "signal 15 , Handling SIGTERM!", 15, id="terminate"),
        pytest.param("SIGUSR1", "signal 10 , Handling SIGUSR1!", 0, id="user-defined"),
        pytest.param("2", "signal 2 , Handling Ctrl+C/SIGINT!", 2, id="by-number"),
        pytest.param("term", "signal 15 , Handling SIGTERM!", 15, id="short-name"),
    ],
)
def test_a_handled_signal_lets_the_program_choose_its_exit_code(
    docker: Cli, start: Start, signal: str, line: str, code: int
) -> None:
    name = start()
    assert docker("kill", f"--signal={signal}", name).line == name
    assert docker("wait", name).line == str(code)
    assert docker("logs", name).lines[-1] == line
    assert status(docker).startswith(f"Exited ({code}) ")
    assert status(docker).endswith(" ago")


def test_kill_without_a_signal_ends_it_with_137(docker: Cli, start: Start) -> None:
    name = start()
    docker("kill", name)
    assert docker("wait", name).line == "137"
    assert status(docker).startswith("Exited (137) ")


def test_logs_follow_until_the_program_ends_and_not_longer(docker: Cli, start: Start) -> None:
    name = start()
    with docker.running("logs", "-f", name) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"I am alive\n"
        docker("kill", "--signal=SIGINT", name)
        rest = following.stdout.read()
        assert following.wait(10) == 0
    assert rest.endswith(b"signal 2 , Handling Ctrl+C/SIGINT!\n")


def test_stop_is_sigterm_and_does_not_wait_for_a_program_that_obeys(docker: Cli, start: Start) -> None:
    name = start()
    began = time.monotonic()
    assert docker("stop", name).line == name
    assert time.monotonic() - began < 5
    assert exit_code(docker) == "15"


def test_the_shell_form_never_hears_sigterm_and_is_killed_after_the_grace_period(docker: Cli, start: Start) -> None:
    file = str(EXAMPLES / "signaltest/Dockerfile.shell")
    name = start(image=build_example(docker, "signaltest", "signaltest:shell", "-f", file))
    began = time.monotonic()
    docker("stop", "-t", "1", name)
    assert 1 <= time.monotonic() - began < 5
    assert "Handling" not in docker("logs", name).out
    assert exit_code(docker) == "137"


def test_init_lets_the_shell_form_die_of_sigterm(docker: Cli, start: Start) -> None:
    file = str(EXAMPLES / "signaltest/Dockerfile.shell")
    name = start("--init", image=build_example(docker, "signaltest", "signaltest:shell", "-f", file))
    docker("stop", "-t", "5", name)
    assert exit_code(docker) == "143"


def test_a_killed_container_keeps_its_files_and_starts_again(docker: Cli, start: Start) -> None:
    name = start()
    docker("exec", name, "sh", "-c", "echo kept > /file")
    docker("kill", name)
    docker("start", name)
    assert docker("exec", name, "cat", "/file").line == "kept"


def test_rm_refuses_a_running_container_and_rm_f_kills_it(docker: Cli, start: Start) -> None:
    name = start()
    refused = docker("rm", name, ok=False)
    assert refused.code == 1
    assert "container is running: stop the container before removing or force remove" in refused.err
    assert docker("rm", "-f", name).line == name
    assert docker("ps", "-aq").out == ""


def test_every_death_is_in_the_events_with_its_exit_code(docker: Cli, start: Start) -> None:
    since = str(int(time.time()) - 1)
    name = start()
    docker("kill", "--signal=SIGINT", name)
    docker("wait", name)
    until = str(int(time.time()) + 1)
    said = docker("events", "--since", since, "--until", until, "--filter", f"container={name}").lines
    assert any("container die" in line and "exitCode=2" in line for line in said), said
    assert any("container kill" in line and "signal=2" in line for line in said), said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param(["busybox", "true"], 0, id="success"),
        pytest.param(["busybox", "sh", "-c", "exit 42"], 42, id="its-own"),
        pytest.param(["busybox", "sh", "-c", "exit 255"], 255, id="out-of-range"),
        pytest.param(["--no-such-flag", "busybox"], 125, id="run-itself-failed"),
        pytest.param(["busybox", "/etc"], 126, id="cannot-be-invoked"),
        pytest.param(["busybox", "no-such-program"], 127, id="not-found"),
        pytest.param(["--init", "busybox", "sh", "-c", "kill -INT $$"], 130, id="died-of-interrupt"),
        pytest.param(["--init", "busybox", "sh", "-c", "kill -KILL $$"], 137, id="died-of-kill"),
        pytest.param(["--init", "busybox", "sh", "-c", "kill -TERM $$"], 143, id="died-of-terminate"),
    ],
)
def test_run_ends_with_the_exit_code_that_tells_what_happened(
    docker: Cli, busybox: str, words: list[str], code: int
) -> None:
    assert docker("run", "--rm", *words, ok=False).code == code
    assert docker("ps", "-aq").out == ""
