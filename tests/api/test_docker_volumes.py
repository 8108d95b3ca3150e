"""Volumes of the unmodified docker command: data that outlives containers, filling, options, removal."""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.images import import_base
from support.silence import silent_folder
from support.waiting import wait_for


def run(docker: Cli, *words: str, **how):  # type: ignore[no-untyped-def]
    return docker("run", "--rm", "--network", "none", *words, **how)


def names(docker: Cli, *filters: str) -> set[str]:
    words = [word for text in filters for word in ("-f", text)]
    return set(docker("volume", "ls", "-q", *words).out.split())


def test_data_outlives_the_container(docker: Cli, busybox: str) -> None:
    docker("volume", "create", "kept")
    run(docker, "-v", "kept:/data", busybox, "sh", "-c", "echo text > /data/file")
    assert run(docker, "-v", "kept:/data:ro", busybox, "cat", "/data/file").out == "text\n"
    assert "Read-only" in run(docker, "-v", "kept:/data:ro", busybox, "touch", "/data/x", ok=False).err
    docker("volume", "rm", "kept")
    assert "kept" not in names(docker)


def test_a_volume_in_use_is_not_removed_and_says_by_whom(docker: Cli, busybox: str) -> None:
    container = docker("create", "-v", "used:/data", busybox).out.strip()
    said = docker("volume", "rm", "used", ok=False)
    assert said.code == 1
    assert f"remove used: volume is in use - [{container}]" in said.err
    docker("rm", container)
    docker("volume", "rm", "used")


def test_a_new_volume_is_filled_from_the_image_once(docker: Cli, busybox: str) -> None:
    listing = run(docker, busybox, "sh", "-c", "ls -ln /etc | sort; stat -c %a%u%g /etc").out
    assert run(docker, "-v", "filled:/etc", busybox, "sh", "-c", "touch /etc/mark").code == 0
    seen = run(
        docker, "-v", "filled:/seen", busybox, "sh", "-c", "rm /seen/mark; ls -ln /seen; stat -c %a%u%g /seen"
    ).out
    assert "passwd" in seen and seen.splitlines()[-1] == listing.splitlines()[-1]
    assert run(docker, "-v", "empty:/etc:nocopy", busybox, "/bin/ls", "-A", "/etc").out.split() == [
        "hostname", "hosts", "resolv.conf"
    ]  # fmt: skip
    docker("volume", "rm", "filled", "empty")


def test_anonymous_volumes_go_with_their_container_only_when_asked(docker: Cli, busybox: str) -> None:
    before = names(docker)
    run(docker, "-v", "/data", busybox, "true")
    assert names(docker) == before
    docker("create", "--name", "holder", "-v", "/data", busybox)
    [left] = names(docker) - before
    assert len(left) == 64
    docker("rm", "holder")
    assert left in names(docker, "dangling=true")
    docker("create", "--name", "holder", "-v", f"{left}:/data", "-v", "/other", busybox)
    assert left not in names(docker, "dangling=true")
    docker("rm", "-v", "holder")
    assert names(docker) - before == set()


@pytest.mark.recent_docker
def test_prune_takes_anonymous_ones_unless_told_to_take_all(docker: Cli, busybox: str) -> None:
    docker("volume", "create", "named")
    docker("volume", "create", "--label", "keep=1", "labelled")
    docker("create", "--name", "holder", "-v", "/data", busybox)
    docker("rm", "holder")
    pruned = docker("volume", "prune", "-f").out
    assert "named" in names(docker) and pruned.startswith("Deleted Volumes:\n")
    pruned = docker("volume", "prune", "-af", "--filter", "label!=keep").out
    assert "named" in pruned and names(docker) == {"labelled"}
    docker("volume", "rm", "labelled")
    assert docker("volume", "rm", "labelled", ok=False).err.strip().endswith("get labelled: no such volume")
    assert docker("volume", "rm", "-f", "labelled").code == 0


@pytest.mark.recent_docker
def test_inspect_shows_dockers_shape(docker: Cli, daemon: Daemon) -> None:
    docker("volume", "create", "--label", "a=b", "shown")
    [shown] = json.loads(docker("volume", "inspect", "shown").out)
    assert shown.pop("CreatedAt").endswith("Z")
    assert shown == {
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": f"{daemon.data_root}/volumes/shown/_data",
        "Name": "shown",
        "Options": None,
        "Scope": "local",
    }
    docker("volume", "rm", "shown")


def test_options_are_mounted_for_the_container_and_unmounted_after(docker: Cli, busybox: str, daemon: Daemon) -> None:
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=128k", "ram")
    said = run(docker, "-v", "ram:/data", busybox, "sh", "-c", "df -k /data | tail -1").out
    assert said.split()[:2] == ["tmpfs", "128"]
    with Path("/proc/self/mountinfo").open() as mounts:
        assert f"{daemon.data_root}/volumes/ram" not in mounts.read()
    docker("volume", "rm", "ram")
    docker("volume", "create", "-o", "type=none", "-o", "device=/nowhere", "-o", "o=bind", "bad")
    said = run(docker, "-v", "bad:/data:nocopy", busybox, "true", ok=False)
    assert said.code == 125 or "failed to mount local volume" in said.err
    docker("volume", "rm", "bad")


def test_creation_and_removal_are_told(docker: Cli) -> None:
    docker("volume", "create", "told")
    docker("volume", "rm", "told")
    until = str(int(time.time()) + 1)  # the client counts in whole seconds
    how = ("--since", "1m", "--until", until, "-f", "volume=told", "--format", "{{.Action}} {{json .Actor}}")
    events = docker("events", *how)
    actor = '{"ID":"told","Attributes":{"driver":"local"}}'
    assert events.out.splitlines() == [f"create {actor}", f"destroy {actor}"]


def wait_ended_for_good(docker: Cli, name: str) -> None:
    """`docker wait` returns at a death that is followed by a restart, if it was called before."""
    shape = "{{.State.Status}} {{.RestartCount}}"
    wait_for(
        lambda: docker("inspect", "-f", shape, name).out.strip() == "exited 1", what="the last of two lives to end"
    )


def test_mounts_are_told_once_a_start_by_hand_and_ends_before_the_death(docker: Cli, busybox: str) -> None:
    since = f"{time.time():.9f}"
    mounts = ("-v", "told:/data", "-v", "ro:/other:ro", "-v", "/tmp:/bound", "--tmpfs=/tmp2")
    run(docker, "--name=uses", *mounts, busybox, "true")
    docker(
        "run", "-d", "--network=none", "--name=again", "--restart=on-failure:1", "-v", "told:/data", busybox, "false"
    )
    wait_ended_for_good(docker, "again")
    docker("start", "again")
    wait_ended_for_good(docker, "again")
    shape = "{{.Type}} {{.Action}} {{json .Actor}}"
    told = docker("events", "--since", since, "--until", f"{time.time():.9f}", "--format", shape).lines
    mine = [line.split(" ", 2) for line in told if line.startswith("volume ") and "mount" in line]
    found = [(action, json.loads(actor)["ID"], json.loads(actor)["Attributes"]) for _, action, actor in mine]
    container = found[0][2]["container"]
    local = {"container": container, "driver": "local"}
    mounted = {**local, "destination": "/data", "propagation": "", "read/write": "true"}
    assert found[:4] == [
        ("mount", "told", mounted),
        ("mount", "ro", {**mounted, "destination": "/other", "read/write": "false"}),
        ("unmount", "told", local),
        ("unmount", "ro", local),
    ]
    assert [action for action, _, _ in found[4:]] == ["mount", "unmount"] * 2, "not at a restart by policy"
    order = [line.split(" ")[1] for line in told if "unmount" in line or " die " in line]
    assert order[:3] == ["unmount", "unmount", "die"]
    docker("rm", "again")
    docker("volume", "rm", "told", "ro")


def test_volumes_survive_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = import_base(daemon.docker, "busybox")
    run(daemon.docker, "-v", "kept:/data", busybox, "sh", "-c", "echo text > /data/file")
    daemon.kill()
    daemon.start()
    assert run(daemon.docker, "-v", "kept:/data", busybox, "cat", "/data/file").out == "text\n"


def test_a_volume_left_by_its_container_survives_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = import_base(daemon.docker, "busybox")
    daemon.docker("create", "--name", "left", "-v", "/data", busybox)
    [volume] = names(daemon.docker)
    daemon.docker("rm", "left")
    daemon.kill()
    daemon.start()
    assert names(daemon.docker) == {volume}


def test_a_creation_that_fails_takes_its_anonymous_volumes_back_and_leaves_named_ones(
    docker: Cli, busybox: str
) -> None:
    before = names(docker)
    mounts = ("-v", "mine:/a", "-v", "/b", "--mount", "type=volume,src=x,dst=/c,volume-driver=nosuch")
    # The client takes any 404 for a missing image, and would ask a registry.
    assert docker("create", "--pull=never", *mounts, busybox, ok=False).code == 1
    assert names(docker) - before == {"mine"}


def test_a_single_file_can_be_bound_read_only(docker: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("colour=red")
    bind = f"{tmp_path}/settings:/settings:ro"
    assert docker("run", "--rm", "-v", bind, busybox, "cat", "/settings").out == "colour=red"
    said = docker("run", "--rm", "-v", bind, busybox, "sh", "-c", "echo x > /settings", ok=False)
    assert "Read-only file system" in said.err


def test_two_containers_made_at_once_with_a_new_volume_both_find_it_filled(docker: Cli, busybox: str) -> None:
    def live(_: int) -> str:
        return run(docker, "-v", "shared:/bin", busybox, "ls", "/bin/busybox").out

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(live, range(6))) == {"/bin/busybox\n"}
    docker("volume", "rm", "shared")


def test_a_volume_is_not_pruned_while_a_container_is_made_with_it(docker: Cli, daemon: Daemon, busybox: str) -> None:
    ended = threading.Event()

    def prune() -> None:
        while not ended.is_set():
            daemon.request("POST", "/volumes/prune?filters=" + quote('{"all":["true"]}'))

    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(prune)
        try:
            for _ in range(8):
                assert run(docker, "-v", "/bin", busybox, "ls", "/bin/busybox").line == "/bin/busybox"
        finally:
            ended.set()
        pruning.result()


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no FUSE in this kernel")
def test_a_volume_on_a_server_that_is_gone_holds_up_no_other(docker: Cli, busybox: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, silent_folder(tmp_path / "silent") as silent:
        options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={silent}/x")
        docker("volume", "create", *options, "gone")
        docker("create", "--name=waits", "-v", "gone:/data:nocopy", busybox, "true")
        waiting = pool.submit(docker, "start", "waits", ok=False, timeout_s=100)
        time.sleep(0.5)
        assert run(docker, "-v", "/data", busybox, "echo", "served", timeout_s=10).line == "served"
        docker("volume", "create", "other", timeout_s=10)
        docker("volume", "rm", "other", timeout_s=10)
        assert not waiting.done()
