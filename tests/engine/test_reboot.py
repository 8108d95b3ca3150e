"""After a reboot of the host every container comes up by its policy, and each knows how it was lost."""

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from support import images, traces
from support.daemon import BENNUD, Daemon
from support.swarm import SwarmNode, container_of
from support.waiting import wait_for

STATE = "{{.State.Status}} {{.State.ExitCode}}"
# The boot's identity is a kernel file; a mount over it, seen by this daemon alone, makes it another boot.
AS_ANOTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


def reboot(daemon: Daemon, boot_id: Path) -> None:
    """Take away all that a reboot takes: processes, mounts, interfaces, rules, everything below /run."""
    daemon.kill()
    for pid in traces.processes(daemon):
        for one in (*traces.children_of(pid), pid):
            traces.send_kill(one)
    wait_for(lambda: not traces.processes(daemon), what="all processes to end")
    for place in reversed(traces.mounts(daemon)):
        subprocess.run(["umount", "--lazy", place], check=True)
    for table in traces.tables(daemon):
        subprocess.run(["nft", "delete", "table", *table.split(" ")], check=True)
    for name in traces.links(daemon):
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", daemon.exec_root], check=True)
    boot_id.write_text(f"{uuid.uuid4()}\n")
    daemon.program = ("unshare", "--mount", "sh", "-c", AS_ANOTHER_BOOT, boot_id, BENNUD)
    daemon.start()


def test_containers_come_up_by_policy_after_a_reboot(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    docker = daemon.docker
    busybox = images.import_base(docker, "busybox")

    def state(name: str) -> str:
        return docker("inspect", "-f", STATE, name).line

    script = "trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.1; done"
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        docker("run", "-d", "--name", policy, f"--restart={policy}", "-p", "0:80", busybox, "sh", "-c", script)
        for said in ("ready", "reloaded"):
            wait_for(lambda: said in docker("logs", policy).out)  # noqa: B023
            docker("kill", "-s", "HUP", policy)  # no wish that it end
    docker("run", "-d", "--name", "person", "--restart=unless-stopped", busybox, "sleep", "600")
    docker("stop", "-t", "0", "person")
    joined = ("--network=container:always", "--restart=always")
    docker("create", "--name", "joins-first", *joined, busybox, "sleep", "600")
    docker("start", "joins-first")
    docker("run", "-d", "--rm", "--name", "vanishes", busybox, "sleep", "600")

    reboot(daemon, tmp_path / "boot_id")

    for name in ("always", "unless-stopped", "on-failure", "joins-first"):
        wait_for(lambda: state(name) == "running 0", what=f"{name} to run", describe=daemon.log)  # noqa: B023
    assert state("no") == "exited 255"
    assert state("person") == "exited 137"
    wait_for(lambda: "vanishes" not in docker("ps", "-a").out, what="the --rm container to go")
    lost = json.loads(daemon.bennu("why", "--json", "no").out)[0]
    assert lost["Cause"] == "lost at reboot"
    assert lost["ExitCode"] is None
    one, other = (docker("exec", name, "readlink", "/proc/1/ns/net").line for name in ("always", "joins-first"))
    assert one == other
    assert docker("port", "always").out.strip(), "published ports are back"


def test_services_are_right_again_after_a_reboot(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    node = SwarmNode(daemon)
    node.docker("swarm", "init")
    node.docker("secret", "create", "word", "-", stdin="open sesame")
    node.create(
        "web", "--replicas=2", "--restart-delay=1s", "--secret=word", "-p", "28180:80", "busybox", "sleep", "600"
    )
    node.create("once", "--restart-condition=none", "busybox", "sleep", "600")
    before = {task["ID"] for task in node.wait_running("web", 2)}
    node.wait_running("once", 1)

    reboot(daemon, tmp_path / "boot_id")

    def is_back() -> bool:
        return len({task["ID"] for task in node.running("web")} - before) == 2

    wait_for(is_back, timeout_s=30, what="both slots to have a new task", describe=daemon.log)
    assert node.docker("node", "ls", "--format", "{{.Status}} {{.Availability}}").lines == ["Ready Active"]
    for task in node.tasks("web"):
        if task["ID"] in before:
            assert task["Status"]["State"] == "failed"
            assert task["Status"]["Err"] == "task: non-zero exit (unknown)"
        else:
            assert node.docker("exec", container_of(task), "cat", "/run/secrets/word").out == "open sesame"
    assert node.wait_task("once", "failed")["DesiredState"] == "shutdown"
    assert node.running("once") == []
    assert "the host went down" in node.daemon.bennu("why", "web").out
