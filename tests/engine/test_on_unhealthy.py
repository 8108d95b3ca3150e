"""What is done about the unhealthy when a label asks for it."""

import time

from support.cli import Cli
from support.health import FAST, health, wait_status
from support.waiting import wait_for


def test_what_has_no_effect_is_said(docker: Cli, busybox: str) -> None:
    words = "WARNING: bennu.on-unhealthy has no effect: the container has no health check"
    assert words in docker("create", "-l", "bennu.on-unhealthy=stop", busybox, "true").err
    assert docker("create", "-l", "bennu.on-unhealthy=stop", "--health-cmd=x", busybox, "true").err == ""


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


def test_restarts_for_bad_health_use_up_the_retries_of_the_policy(docker: Cli, bennu: Cli, busybox: str) -> None:
    words = ("--health-cmd=false", *FAST, "-l", "bennu.on-unhealthy=restart", "--restart=on-failure:1")
    loop = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    docker("run", "-d", "--name", "twice", *words, busybox, "sh", "-c", loop)
    wait_for(lambda: docker("inspect", "-f", "{{.State.Status}}", "twice").line == "exited", what="it to give up")
    assert docker("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}}", "twice").line == "1 0"
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
