"""bennud --shutdown-containers: everything is stopped in parallel, and comes back by its policy."""

from collections.abc import Callable

from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

STATE = "{{.State.Status}} {{.State.ExitCode}}"


def test_all_containers_are_stopped_together_and_return_by_their_policy(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(options=["--shutdown-containers"])
    busybox = images.import_base(daemon.docker, "busybox")
    # Each ends with 0 only once all four have been asked to end: stopped one by one, the first would have to be killed.
    meet = "touch /asked/$0; until [ $(ls /asked | wc -l) = 4 ]; do sleep 0.1; done"
    handler = f"trap '{meet}; exit 0' TERM; while :; do sleep 0.1; done"
    options = ("-d", "-v", "asked:/asked", "-p", "0:80")
    for policy in ("no", "unless-stopped", "always", "on-failure"):
        daemon.docker("run", *options, "--name", policy, f"--restart={policy}", busybox, "sh", "-c", handler, policy)
    daemon.docker("run", "-d", "--name", "person", "--restart=unless-stopped", busybox, "sleep", "600")
    daemon.docker("stop", "-t", "0", "person")
    assert daemon.stop() == 0
    assert not traces.tables(daemon), "rules outlive the containers"
    wait_for(lambda: not traces.processes(daemon), what="all helpers to end")
    daemon.start()
    for name in ("unless-stopped", "always"):
        wait_for(
            lambda name=name: daemon.docker("inspect", "-f", STATE, name).line == "running 0", what=f"{name} to run"
        )
    assert daemon.docker("inspect", "-f", STATE, "no").line == "exited 0"
    assert daemon.docker("inspect", "-f", STATE, "on-failure").line == "exited 0"
    assert daemon.docker("inspect", "-f", STATE, "person").line == "exited 137"


def test_without_it_containers_live_on(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.docker, "busybox")
    daemon.docker("run", "-d", "--name", "lives", busybox, "sleep", "600")
    pid = daemon.docker("inspect", "-f", "{{.State.Pid}}", "lives").line
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.docker("inspect", "-f", "{{.State.Pid}}", "lives").line == pid
