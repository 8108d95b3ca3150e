"""Volumes of the unmodified docker command: data that outlives containers, filling, options, removal."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from bennu.api.http.versions import API_VERSION
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


TREE = """
    mkdir -p /v/sub /v/links /v/bin; echo text > /v/sub/file; echo alone > /v/single
    ln -s ../sub /v/links/good; ln -s / /v/links/root; ln -s root /v/links/bad; ln -s ../../../../etc /v/links/up
"""


def test_a_part_of_a_volume_is_mounted_and_no_link_leads_out(docker: Cli, busybox: str) -> None:
    run(docker, "-v", "parts:/v", busybox, "sh", "-c", TREE)

    def part(path: str, *words: str, at: str = "/v", ok: bool = True):  # type: ignore[no-untyped-def]
        return run(docker, f"--mount=type=volume,src=parts,dst={at},volume-subpath={path}", busybox, *words, ok=ok)

    for path in ("sub", "links/good", "./sub/", "links/../sub"):
        assert part(path, "cat", "/v/file").out == "text\n"
    assert part("single", "cat", "/v").out == "alone\n"
    assert part("bin", "ls", "/bin/busybox", at="/bin").line == "/bin/busybox", "an empty part is filled from the image"
    for path, code, words in (
        ("none", 127, "no such file or directory"),
        ("links/root", 125, "path concatenation escapes the base directory"),
        ("links/bad", 125, "path concatenation escapes the base directory"),
        ("links/up/passwd", 125, "path concatenation escapes the base directory"),
        ("single/x", 125, "not a directory"),
        ("../sub", 125, "subpath must be a relative path within the volume"),
    ):
        said = part(path, "true", ok=False)
        assert (said.code, words in said.err) == (code, True), said.err
    docker("volume", "rm", "parts")


def test_a_part_of_a_volume_is_what_others_share_and_copy(
    docker: Cli, daemon: Daemon, busybox: str, tmp_path: Path
) -> None:
    run(docker, "-v", "parts:/v", busybox, "sh", "-c", TREE)
    docker("create", "--name=has-part", "--mount=type=volume,src=parts,dst=/v,volume-subpath=sub", busybox)
    (tmp_path / "copied").write_text("copied")
    docker("cp", tmp_path / "copied", "has-part:/v/")
    assert run(docker, "--volumes-from=has-part:ro", busybox, "ls", "/v").out.split() == ["copied", "file"]
    docker("rm", "-v", "has-part")
    assert not list((daemon.exec_root / "sources").iterdir()), "what was mounted for the runtime is unmounted"
    assert f"{daemon.exec_root}/sources" not in Path("/proc/self/mountinfo").read_text()
    docker("volume", "rm", "parts")


def test_a_read_only_root_has_read_only_files_of_the_engine(docker: Cli, busybox: str) -> None:
    script = "for f in hosts hostname resolv.conf; do echo x >> /etc/$f && echo $f; done; touch /dev/shm/x && echo shm"
    assert run(docker, "--read-only", busybox, "sh", "-c", script).out.split() == ["shm"]


def test_mounts_propagate_from_where_mounts_propagate(
    docker: Cli, daemon: Daemon, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    bind = f"{tmp_path}:/x"
    for mode, kind in (("rshared", "shared"), ("rslave", "shared or slave")):
        said = run(docker, "-v", f"{bind}:{mode}", busybox, "true", ok=False)
        assert f"path {tmp_path} is mounted on " in said.err and f"but it is not a {kind} mount" in said.err
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        for mode in ("rshared", "rslave"):
            docker("run", "-d", f"--name={mode}", "-v", f"{bind}:{mode}", busybox, "sleep", "1000")
        subprocess.run(["mount", "-t", "tmpfs", "later", tmp_path / "later"], check=True)
        for mode in ("rshared", "rslave"):
            assert " /x/later " in docker("exec", mode, "cat", "/proc/mounts").out
            docker("rm", "-f", mode)
    finally:
        subprocess.run(["umount", "--recursive", tmp_path], check=True)
    docker("run", "--name=shows-all", "-v", "/:/x:ro", busybox, "true")
    assert docker("inspect", "-f", "{{(index .Mounts 0).Propagation}}", "shows-all").line == "rslave"
    docker("rm", "shows-all")
    said = run(docker, "-v", f"{daemon.data_root}/volumes:/x:private", busybox, "true", ok=False)
    assert 'must use either propagation mode "rslave" or "rshared"' in said.err


def test_a_bind_mount_goes_as_deep_as_asked(docker: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "below"], check=True)
    try:

        def mounted(option: str) -> dict[str, str]:
            mount = f"--mount=type=bind,src={tmp_path},dst=/x,readonly{option}"
            lines = run(docker, mount, busybox, "cat", "/proc/mounts").out.splitlines()
            found = {line.split()[1]: line.split()[3][:2] for line in lines}
            return {target: found[target] for target in ("/x", "/x/below") if target in found}

        assert mounted("") == {"/x": "ro", "/x/below": "ro"}
        assert mounted(",bind-recursive=disabled") == {"/x": "ro"}
        assert mounted(",bind-recursive=writable") == {"/x": "ro", "/x/below": "rw"}
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)


def test_the_hosts_ipc_namespace_needs_no_mqueue_of_the_host(docker: Cli, busybox: str) -> None:
    seen = run(docker, "--ipc=host", busybox, "sh", "-c", "readlink /proc/self/ns/ipc; grep mqueue /proc/mounts").out
    assert seen.splitlines()[0] == str(Path("/proc/self/ns/ipc").readlink()) and "/dev/mqueue" in seen


@pytest.mark.skipif(int(API_VERSION.partition(".")[2]) < 48, reason="mounts of type image came with API 1.48")
def test_an_image_is_mounted_read_only_and_stays_while_a_container_has_it(
    docker: Cli, daemon: Daemon, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("text")
    (tmp_path / "folder" / "out").symlink_to("../../etc")
    docker("import", "-", "mounted", stdin=subprocess.check_output(["tar", "c", "-C", tmp_path, "folder"]))

    def create(name: str, subpath: str, *words: str) -> None:
        mount = {"Type": "image", "Source": "mounted", "Target": "/i", "ImageOptions": {"Subpath": subpath}}
        body = {"Image": busybox, "Cmd": words, "HostConfig": {"Mounts": [mount], "NetworkMode": "none"}}
        headers = {"Content-Type": "application/json"}
        status, said = daemon.request("POST", f"/containers/create?name={name}", json.dumps(body), headers)
        assert status == 201, said

    create("has-image", "folder", "sh", "-c", "cat /i/file; touch /i/x")
    said = docker("start", "-a", "has-image", ok=False)
    assert said.out == "text" and "Read-only file system" in said.err
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", "has-image").out)[0]
    assert (shown["Type"], shown["Name"], shown["Destination"], shown["RW"]) == ("image", "mounted", "/i", False)
    create("out", "folder/out", "true")
    assert "path concatenation escapes the base directory" in docker("start", "out", ok=False).err
    docker("rm", "out")
    assert "is using its referenced image" in docker("rmi", "mounted", ok=False).err
    docker("rmi", "-f", "mounted")
    assert docker("start", "-a", "has-image", ok=False).out == "text", "its layers stay until the container is gone"
    layers = set((daemon.data_root / "images" / "layers").iterdir())
    docker("rm", "has-image")
    assert len(layers - set((daemon.data_root / "images" / "layers").iterdir())) == 1
