"""Twenty-odd ways to die, and `bennu why` names each of them."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import images
from support.cli import Cli
from support.daemon import Daemon
from support.health import actions
from support.waiting import wait_for

LOOP = "while :; do sleep 0.05; done"


@dataclass(frozen=True, slots=True)
class Death:
    """One cause. `run` are the words after `bennu run --name X`; `then` does what kills it."""

    cause: str
    exit_code: int | None
    run: tuple[str, ...]
    then: Callable[[Cli, str], object] = lambda bennu, name: None
    asked_by: str = "nobody"
    told: str = ""  # a pattern the story must contain
    hint: str = ""  # a pattern the hints must contain
    action: str = "stay"


def sh(script: str, *options: str) -> tuple[str, ...]:
    return ("-d", *options, "busybox", "sh", "-c", script)


def host_kill(number: int) -> Callable[[Cli, str], object]:
    """A signal from outside of the engine."""

    def kill(docker: Cli, name: str) -> None:
        os.kill(int(docker("inspect", "-f", "{{.State.Pid}}", name).line), number)

    return kill


def say(*words: str) -> Callable[[Cli, str], object]:
    return lambda docker, name: docker(*words, name)


def kill_monitor(docker: Cli, name: str) -> None:
    """conmon, which alone hears how the first process ends."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).line
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]), signal.SIGKILL)


def reload_and_host_kill(docker: Cli, name: str) -> None:
    docker("kill", "-s", "HUP", name)
    host_kill(signal.SIGKILL)(docker, name)


def tell_init(docker: Cli, name: str) -> None:
    wait_for(
        lambda: re.search(r"^\d+ +sleep 600$", docker("top", name, "-o", "pid,args").out, re.M), what="the init's child"
    )
    docker("kill", "-s", "TERM", name)


def exec_kill(docker: Cli, name: str) -> None:
    docker("exec", name, "sh", "-c", "kill -USR1 1")


DEATHS = {
    "exits with 0": Death("exited", 0, sh("echo bye"), told="ended by itself.*The last it said was: bye"),
    "exits with an error": Death("exited", 3, sh("exit 3"), told="3: exited with an error"),
    "exits with 0 under on-failure": Death(
        "exited", 0, sh("exit 0", "--restart=on-failure"), hint="0 is no failure", told="it exited with 0"
    ),
    "uses up its retries": Death("exited", 4, sh("exit 4", "--restart=on-failure:2"), told="all 2 retries are used"),
    "is restarted": Death("exited", 5, sh("sleep 0.2; exit 5", "--restart=always"), action="restart"),
    "command not found in the shell": Death("exited", 127, sh("nosuchcommand"), hint="not found"),
    "command not found": Death("start failed", 127, ("-d", "busybox", "nosuch"), hint="spelling", told="could not be"),
    "not executable": Death("start failed", 126, ("-d", "busybox", "/etc/passwd"), hint="execute bit"),
    "a folder": Death("start failed", 126, ("-d", "busybox", "/etc"), hint="folder"),
    "no such user": Death("start failed", 128, ("-d", "-u", "nosuch", "busybox", "true"), told="unable to find user"),
    "no such network": Death("start failed", 128, ("-d", "--network", "nosuch", "busybox", "true"), told="nosuch"),
    "port in use": Death(
        "start failed", 128, ("-d", "-p", "{port}:80", "busybox", "true"), told="already in use", hint="listens"
    ),
    "out of memory": Death(
        "oom", 137, sh("x=a; while :; do x=$x$x; done", "-m", "16m", "--memory-swap", "16m"), hint="more memory"
    ),
    "a child out of memory": Death(
        "exited", 9, sh("sh -c 'x=a; while :; do x=$x$x; done'; exit 9", "-m", "16m", "--memory-swap", "16m"),
        hint="a child",
    ),
    "SIGKILL from outside": Death(
        "signal", 137, sh(LOOP), host_kill(signal.SIGKILL), told="from outside", hint="kill -9"
    ),
    # The first process of a PID namespace is spared by every signal it does not handle but SIGKILL.
    "SIGSEGV from outside": Death(
        "signal", 139, ("-d", "--pid=host", "busybox", "sleep", "600"), host_kill(signal.SIGSEGV), told="SIGSEGV"
    ),
    "a signal from inside": Death("exited", 7, sh(f"trap 'exit 7' USR1; {LOOP}"), exec_kill),
    "stopped, and obeys": Death(
        "stopped", 0, sh(f"trap 'exit 0' TERM; {LOOP}"), say("stop"), "client", told=r"stop .*\(pid \d+, uid 0\)"
    ),
    "stopped, and does not listen": Death(
        "stopped", 137, sh(LOOP), say("stop", "-t", "1"), "client", told="SIGKILL followed", hint="exec form"
    ),
    "killed": Death("killed", 137, sh(LOOP), say("kill"), "client", told="was killed by"),
    "killed with a signal it handles": Death(
        "killed", 15, sh(f"trap 'exit 15' TERM; {LOOP}"), say("kill", "-s", "TERM"), "client", told="was killed by"
    ),
    "reloaded, then ends by itself": Death(
        "exited", 3, sh("trap 'touch /re' HUP; until test -e /re; do sleep 0.05; done; sleep 0.3; exit 3"),
        say("kill", "-s", "HUP"), told="ended by itself.* ms before, .*SIGHUP, for which it has a handler",
    ),
    "reloaded, then killed from outside": Death(
        "signal", 137, sh(f"trap : HUP; {LOOP}"), reload_and_host_kill, told="from outside.*SIGHUP"
    ),
    "ends by itself while a stop waits": Death(
        "exited", 4, sh("sleep 1.5; exit 4"), say("stop"), told="ended by itself.*SIGTERM, which had no effect on it"
    ),
    "dies of a signal behind an init that passes it on": Death(
        "killed", 143, ("-d", "--init", "busybox", "sleep", "600"), tell_init, "client",
        told="was killed by",
    ),
    "dies of a hang-up without an init": Death(
        "killed", 129, ("-d", "--pid=host", "busybox", "sleep", "600"), say("kill", "-s", "HUP"), "client",
        told="was killed by",
    ),
    "restarted by a person": Death(
        "stopped", 137, sh(LOOP), say("restart", "-t", "0"), "client", told="a restart was asked for", action="restart"
    ),
    "unhealthy, stopped": Death(
        "unhealthy", 137,
        sh(LOOP, "--stop-timeout=0", "--health-cmd=echo sick; false", "--health-interval=100ms",
           "--health-retries=2", "-l", "bennu.on-unhealthy=stop"),
        asked_by="health", told="unhealthy.*`/bin/sh -c echo sick; false`.* sick",
    ),
    "unhealthy, restarted": Death(
        "unhealthy", 137,
        sh(LOOP, "--stop-timeout=0", "--health-cmd=false", "--health-interval=100ms", "--health-retries=2",
           "-l", "bennu.on-unhealthy=restart"),
        asked_by="health", action="restart", told="bennu.on-unhealthy is restart",
    ),
    "unhealthy, killed": Death(
        "unhealthy", 137,
        sh(LOOP, "--restart=on-failure", "-l", "bennu.health.tcp=:9", "--health-interval=100ms",
           "--health-retries=2", "-l", "bennu.on-unhealthy=kill"),
        asked_by="health", action="restart", told="`connect to 127.0.0.1:9`.*Connection refused.*on-failure",
    ),
    "a code that is never restarted": Death(
        "exited", 64, sh("exit 64", "--restart=always", "-l", "bennu.restart.never-codes=64"), told="never"
    ),
    "nobody saw its end": Death("unknown", None, sh(LOOP), kill_monitor, told="nobody could see how"),
    "its budget is used": Death(
        "exited", 1, sh("exit 1", "--restart=always", "-l", "bennu.restart.budget=2 in 10m"), told="budget"
    ),
}  # fmt: skip


@pytest.mark.parametrize("death", [pytest.param(death, id=name) for name, death in DEATHS.items()])
def test_why_names_the_cause(docker: Cli, bennu: Cli, busybox: str, death: Death) -> None:
    name = f"dies{time.monotonic_ns()}"
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        words = [word.format(port=taken.getsockname()[1]) if word.startswith("{") else word for word in death.run]
        docker("run", "--name", name, *words, ok=death.cause != "start failed")
    death.then(bennu, name)
    found = wait_for(lambda: matching(bennu, name, death), what="the certificate", timeout_s=20)
    assert found["ExitCode"] == death.exit_code
    assert found["AskedBy"]["Kind"] == death.asked_by
    assert found["Decision"]["Reason"]
    assert re.search(death.told, " ".join(found["Story"])), found["Story"]
    assert re.search(death.hint, " ".join(found["Hints"])), found["Hints"]
    # One that is restarted may die again between two questions: then the words are those of another of its lives.
    newest = bennu("why", name).lines[0]
    assert newest in [one["Story"][0] for one in all_of(bennu, name)]


def matching(bennu: Cli, name: str, death: Death) -> dict[str, Any] | None:
    """The newest certificate once it says what is expected to follow; lives before it may be told otherwise."""
    said = bennu("why", "--json", "--all", name, ok=False)
    found: list[dict[str, Any]] = json.loads(said.out) if said.code == 0 else []
    fitting = [one for one in found if one["Cause"] == death.cause and one["Decision"]["Action"] == death.action]
    return fitting[0] if fitting else None


def all_of(bennu: Cli, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bennu("why", "--json", "--all", name).out)
    return found


def test_what_is_killed_for_memory_is_told_at_once_and_once(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    docker = daemon.docker

    def told() -> list[str]:
        return [action for action in actions(docker, "eater") if action in ("start", "oom", "die")]

    script = "until test -e /go; do sleep 0.05; done; exec tail /dev/zero"
    docker("run", "-d", "--name=eater", "--memory=16m", "--network=none", "busybox", "sh", "-c", script)
    assert docker("exec", "eater", "tail", "/dev/zero", ok=False).code == 137
    wait_for(lambda: told() == ["start", "oom"], what="the event")
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", "eater").line == "running false"
    daemon.kill()
    daemon.start()
    docker("exec", "eater", "tail", "/dev/zero", ok=False)
    wait_for(lambda: told() == ["start", "oom", "oom"], what="the next one; the first is not told again")
    docker("exec", "eater", "touch", "/go")
    assert docker("wait", "eater").line == "137"
    assert told() == ["start", "oom", "oom", "oom", "die"]
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", "eater").line == "true"
    docker("rm", "eater")
