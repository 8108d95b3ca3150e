"""`docker bennu WORD`: the real docker command finds the plugin, and the plugin the daemon that docker talks to."""

import sys
from pathlib import Path

import pytest

from support.cli import Cli
from support.daemon import Daemon

PLUGIN = Path(sys.executable).with_name("docker-bennu")


@pytest.fixture
def dead(docker: Cli, busybox: str) -> str:
    docker("run", "--name=dead", "--network=none", busybox, "sh", "-c", "exit 3", ok=False)
    return "dead"


@pytest.fixture
def plugged(daemon: Daemon, docker: Cli, tmp_path: Path) -> Cli:
    """docker with a folder of its own for plugins and contexts, and no daemon named in its environment."""
    (tmp_path / "cli-plugins").mkdir()
    (tmp_path / "cli-plugins/docker-bennu").symlink_to(PLUGIN)
    environment = {**docker.environment, "DOCKER_CONFIG": str(tmp_path)}
    del environment["DOCKER_HOST"]
    return Cli(docker.program, environment)


def test_docker_runs_our_words_on_its_own_daemon(daemon: Daemon, plugged: Cli, dead: str) -> None:
    named = {"DOCKER_HOST": daemon.host}
    assert "dead ended by itself with 3" in plugged("bennu", "why", dead, env=named).out
    assert plugged("-H", daemon.host, "bennu", "why", dead).code == 0
    missing = plugged("bennu", "why", "nobody", env=named, ok=False)
    assert (missing.code, missing.err) == (1, "Error response from daemon: No such container: nobody\n")
    plugged("context", "create", "bennu", "--docker", f"host={daemon.host}")
    assert plugged("-D", "--context", "bennu", "bennu", "why", dead).code == 0
    plugged("context", "use", "bennu")
    assert plugged("bennu", "why", dead).code == 0


def test_docker_lists_the_plugin_and_shows_its_help(plugged: Cli) -> None:
    assert "bennu*" in plugged("--help").out
    assert "docker bennu" in plugged("bennu", "--help").out
    assert "Watch and steer" in plugged("help", "bennu").out
    assert "No such command" in plugged("bennu", "run", ok=False).err
