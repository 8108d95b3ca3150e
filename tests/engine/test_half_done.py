"""A request that the daemon's death cut short is done to its end, or undone, when the next daemon starts."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from images_fixtures import plain_registry  # noqa: F401 - a fixture

from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.dying import SOUND, die_at
from support.waiting import wait_for

pytestmark = pytest.mark.slow
DEAF = "trap 'echo hup' HUP; while :; do sleep 0.05; done"
OBEYS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


@pytest.fixture
def host(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    yield daemon


def die_during(daemon: Daemon, request: tuple[str, ...], moment: str, word: str) -> None:
    """Have the daemon die before or after its first write with `word` in it, on its way through a request."""
    daemon.stop()
    assert die_at(daemon, 1, moment, lambda until_dead: fail(daemon.docker, request), word)
    daemon.program = SOUND
    daemon.start()


def fail(docker: Cli, request: tuple[str, ...]) -> None:
    assert docker(*request, ok=False).code != 0


def state(docker: Cli, name: str) -> str:
    said = docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name, ok=False)
    return said.line if said.code == 0 else "gone"


@dataclass(frozen=True, slots=True)
class Cut:
    """`request` of a container that runs `script` ends with the daemon `moment` a write with `word`; then `becomes`."""

    script: str
    request: tuple[str, ...]
    moment: str
    word: str
    becomes: str
    cause: str = ""


CUTS = {
    "a stop whose signal was not sent": Cut(
        OBEYS, ("stop", "one"), "after", '"unsent":15', "exited 0", cause="stopped"
    ),
    "a stop whose signal was sent": Cut(
        OBEYS, ("stop", "one"), "before", '"Action":"kill"', "exited 0", cause="stopped"
    ),
    "a stop within its grace period": Cut(
        DEAF, ("stop", "-t", "2", "one"), "after", '"Action":"kill"', "exited 137", cause="stopped"
    ),
    "a kill that was not sent": Cut(DEAF, ("kill", "one"), "after", '"unsent":9', "exited 137", cause="killed"),
    "a restart before its end": Cut(
        DEAF, ("restart", "-t", "1", "one"), "after", '"unsent":15', "running 0", cause="stopped"
    ),
    "a restart between end and start": Cut(
        DEAF, ("restart", "-t", "0", "one"), "after", '"Action":"die"', "running 0", cause="stopped"
    ),
    "a removal whose kill was not sent": Cut(DEAF, ("rm", "-fv", "one"), "after", '"unsent":9', "gone", cause="killed"),
    "a removal after the kill": Cut(DEAF, ("rm", "-fv", "one"), "before", '"Action":"destroy"', "gone", cause="killed"),
    "a pause that is not written": Cut(DEAF, ("pause", "one"), "before", '"Action":"pause"', "paused 0"),
    "a commit that has paused": Cut(DEAF, ("commit", "one", "made"), "before", '"Action":"pause"', "running 0"),
    "a commit at its end": Cut(DEAF, ("commit", "one", "made"), "before", '"Action":"unpause"', "running 0"),
}  # fmt: skip


@pytest.mark.parametrize("cut", [pytest.param(cut, id=name) for name, cut in CUTS.items()])
def test_what_was_begun_is_done(host: Daemon, cut: Cut) -> None:
    docker = host.docker
    bennu = host.bennu
    docker("run", "-d", "--name=one", "--restart=unless-stopped", "-v", "/data", "busybox", "sh", "-c", cut.script)
    pid = docker("inspect", "-f", "{{.State.Pid}}", "one").line
    die_during(host, cut.request, cut.moment, cut.word)
    wait_for(lambda: state(docker, "one") == cut.becomes, what=cut.becomes, describe=lambda: state(docker, "one"))
    if cut.cause:
        found = wait_for(lambda: json.loads(bennu("why", "--json", "one").out), what="a certificate")[0]
        assert found["Cause"] == cut.cause
        assert found["AskedBy"]["Command"].startswith("docker ")
    if cut.request[0] == "restart":
        assert docker("inspect", "-f", "{{.State.Pid}}", "one").line != pid
    if cut.becomes == "gone":
        wait_for(lambda: not docker("volume", "ls", "-q").lines, what="the anonymous volume to go")
    if cut.becomes == "paused 0":
        docker("unpause", "one")
    docker("rm", "-f", "one")
    traces.assert_nothing_left(host)


def test_a_thaw_that_is_not_written_is_seen(host: Daemon) -> None:
    host.docker("run", "-d", "--name=one", "busybox", "sh", "-c", DEAF)
    host.docker("pause", "one")
    die_during(host, ("unpause", "one"), "before", '"Action":"unpause"')
    assert state(host.docker, "one") == "running 0"
    host.docker("exec", "one", "true")


def test_a_signal_that_was_not_sent_is_sent(host: Daemon) -> None:
    host.docker("run", "-d", "--name=one", "busybox", "sh", "-c", DEAF)
    die_during(host, ("kill", "-s", "HUP", "one"), "after", '"unsent":1')
    wait_for(lambda: "hup" in host.docker("logs", "one").out, what="the signal")
    assert state(host.docker, "one") == "running 0"


def test_a_creation_without_its_write_has_not_been(host: Daemon) -> None:
    die_during(host, ("create", "--name=one", "-v", "/data", "busybox"), "before", '"Action":"create"')
    assert state(host.docker, "one") == "gone"
    assert not host.docker("volume", "ls", "-q").lines
    traces.assert_nothing_left(host)
    host.docker("create", "--name=one", "busybox")


def test_a_start_without_its_write_has_not_been(host: Daemon) -> None:
    host.docker("create", "--name=one", "-p", "0:80", "busybox", "sleep", "600")
    die_during(host, ("start", "one"), "before", '"Action":"start"')
    assert state(host.docker, "one") == "created 0"
    assert not traces.processes(host), "its process is gone"
    host.docker("start", "one")


def test_what_an_end_did_not_come_to_give_back_is_given_back(host: Daemon) -> None:
    host.docker("run", "-d", "--name=one", "-p", "0:80", "-v", "/data", "busybox", "sh", "-c", OBEYS)
    die_during(host, ("stop", "one"), "after", '"Action":"die"')
    assert state(host.docker, "one") == "exited 0"
    assert not [place for place in traces.mounts(host) if "/containers/" in place], "its root is unmounted"
    assert not traces.names_in(host.exec_root / "c")


def test_a_container_of_one_run_that_never_ran_is_removed(host: Daemon) -> None:
    die_during(host, ("run", "-d", "--rm", "--name=one", "busybox", "true"), "before", '"Action":"start"')
    wait_for(lambda: state(host.docker, "one") == "gone", what="the container to go")
    traces.assert_nothing_left(host)


def test_a_pull_cut_short_leaves_nothing_and_can_be_repeated(host: Daemon, registry: str) -> None:
    name = f"{registry}/app:v1"
    host.docker("tag", "busybox", name)
    host.docker("push", name)
    host.docker("rmi", name, "busybox")
    die_during(host, ("pull", name), "before", '"id":"sha256:')
    assert not host.docker("images", "-q").lines
    assert not list((host.data_root / "images/tmp").iterdir())
    wait_for(lambda: not traces.processes(host), what="what fetched the image to end")
    host.docker("pull", name)
    host.docker("run", "--rm", name, "true")
