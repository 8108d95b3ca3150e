"""bennud --shutdown-containers: everything is stopped in parallel, and comes back by its policy."""

import time
from collections.abc import Callable

from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

STATE = "{{.State.Status}} {{.State.ExitCode}}"


def test_all_containers_are_stopped_together_and_return_by_their_policy(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(options=["--shutdown-containers"])
    busybox = images.import_base(daemon.bennu, "busybox")
    handler = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    for policy in ("no", "unless-stopped", "always", "on-failure"):
        daemon.bennu("run", "-d", "--name", policy, f"--restart={policy}", "-p", "0:80", busybox, "sh", "-c", handler)
    daemon.bennu("run", "-d", "--name", "person", "--restart=unless-stopped", busybox, "sleep", "600")
    daemon.bennu("stop", "-t", "0", "person")
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 4 * 1.0, "four containers that need a second each are stopped one by one"
    assert not traces.tables(daemon), "rules outlive the containers"
    assert not traces.processes(daemon)
    daemon.start()
    for name in ("unless-stopped", "always"):
        wait_for(
            lambda name=name: daemon.bennu("inspect", "-f", STATE, name).line == "running 0", what=f"{name} to run"
        )
    assert daemon.bennu("inspect", "-f", STATE, "no").line == "exited 0"
    assert daemon.bennu("inspect", "-f", STATE, "on-failure").line == "exited 0"
    assert daemon.bennu("inspect", "-f", STATE, "person").line == "exited 137"


def test_without_it_containers_live_on(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.bennu, "busybox")
    daemon.bennu("run", "-d", "--name", "lives", busybox, "sleep", "600")
    pid = daemon.bennu("inspect", "-f", "{{.State.Pid}}", "lives").line
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.bennu("inspect", "-f", "{{.State.Pid}}", "lives").line == pid
