"""What a container refers to is what was meant when it was made, whatever bears the name later."""

import json
from pathlib import Path

from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for


def shown(docker: Cli, form: str, name: str) -> str:
    return docker("inspect", "-f", form, name).line


def test_namespaces_are_shared_with_the_container_that_was_named_and_not_with_its_name(
    docker: Cli, busybox: str
) -> None:
    docker("run", "-d", "--name=parent", "--ipc=shareable", busybox, "sleep", "600")
    parent = shown(docker, "{{.Id}}", "parent")
    shares = ("--network=container:parent", f"--pid=container:{parent[:12]}", "--ipc=container:parent")
    docker("run", "-d", "--name=child", *shares, busybox, "sleep", "600")
    modes = "{{.HostConfig.NetworkMode}} {{.HostConfig.PidMode}} {{.HostConfig.IpcMode}}"
    assert shown(docker, modes, "child") == " ".join([f"container:{parent}"] * 3)
    docker("rename", "parent", "old")
    docker("run", "-d", "--name=parent", "--ipc=shareable", busybox, "sleep", "600")
    docker("restart", "-t", "0", "child")
    for kind in ("net", "pid", "ipc"):
        look = ("readlink", f"/proc/self/ns/{kind}")
        assert docker("exec", "child", *look).line == docker("exec", "old", *look).line, kind


def test_an_ipc_namespace_is_shared_on_by_whom_it_is_shared_with(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name=owner", "--ipc=shareable", busybox, "sh", "-c", "touch /dev/shm/mark; sleep 600")
    docker("run", "-d", "--name=guest", "--ipc=container:owner", busybox, "sleep", "600")
    docker("run", "-d", "--name=hosts", "--ipc=host", busybox, "sleep", "600")
    look = ("sh", "-c", "readlink /proc/self/ns/ipc; ls /dev/shm/mark")
    assert docker("run", "--ipc=container:guest", busybox, *look).out == docker("exec", "owner", *look).out
    joined = docker("run", "--ipc=container:hosts", busybox, "readlink", "/proc/self/ns/ipc").line
    assert joined == str(Path("/proc/self/ns/ipc").readlink())


def test_what_cannot_be_shared_is_said_for_each_namespace_as_docker_says_it(
    docker: Cli, daemon: Daemon, busybox: str
) -> None:
    def start(mode: str) -> tuple[int, str]:
        name = docker("create", mode, busybox, "true").line
        status, said = daemon.request("POST", f"/containers/{name}/start")
        return status, json.loads(said)["message"].replace(other, "ID")

    other = docker("create", "--name=other", busybox, "sleep", "600").line
    ended = {kind: start(f"--{kind}=container:other") for kind in ("pid", "ipc", "network")}
    assert ended == {
        "pid": (500, "failed to join PID namespace: container ID is not running"),
        "ipc": (409, "failed to join IPC namespace: container ID is not running"),
        "network": (409, "cannot join network namespace of a non running container: container other is created"),
    }
    waiting = [docker("create", f"--{kind}=container:other", busybox, "true").line for kind in ended]
    docker("start", "other")
    told = "failed to join IPC namespace: container ID: non-shareable IPC (hint: use IpcMode:shareable for the donor"
    assert start("--ipc=container:other") == (400, told + " container)")
    docker("rm", "-f", "other")
    answers = [daemon.request("POST", f"/containers/{name}/start") for name in waiting]
    assert [(status, json.loads(said)["message"].replace(other, "ID")) for status, said in answers] == [
        (500, "failed to join PID namespace: No such container: ID"),
        (400, "failed to join IPC namespace: No such container: ID"),
        (500, "joining network namespace of container: No such container: ID"),
    ]


def test_a_link_follows_its_container_and_is_shown_by_its_present_name(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name=db", busybox, "sleep", "600")
    docker("run", "-d", "--name=web", "--link=db:store", busybox, "sleep", "600")
    assert shown(docker, "{{json .HostConfig.Links}}", "web") == '["/db:/web/store"]'
    first = shown(docker, "{{.NetworkSettings.IPAddress}}", "db")
    docker("rename", "db", "old-db")
    docker("run", "-d", "--name=db", busybox, "sleep", "600")
    docker("restart", "-t", "0", "web")
    assert shown(docker, "{{json .HostConfig.Links}}", "web") == '["/old-db:/web/store"]'
    assert docker("exec", "web", "grep", "store", "/etc/hosts").line.split()[0] == first


def test_a_bind_source_that_has_vanished_is_named_and_one_that_may_be_made_is_made_again(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    docker("create", "--name=mounted", "--mount", f"type=bind,src={source},dst=/x", busybox, "true")
    docker("create", "--name=bound", "-v", f"{source}:/x", busybox, "true")
    source.rmdir()
    words = f'invalid mount config for type "bind": bind source path does not exist: {source}'
    state = "{{.State.Status}} {{.State.ExitCode}}{{with .State.Error}} {{.}}{{end}}"
    said = docker("start", "mounted", ok=False)
    assert said.code == 1 and words in said.err
    assert shown(docker, state, "mounted") == "created 0", "a start that is refused changes nothing"
    said = docker("restart", "mounted", ok=False)
    assert said.code == 1 and words in said.err
    assert shown(docker, state, "mounted") == f"created 128 {words}", "one that has failed is told"
    docker("start", "bound")
    wait_for(lambda: shown(docker, "{{.State.Status}} {{.State.ExitCode}}", "bound") == "exited 0", what="its end")
    assert source.is_dir()


def test_a_network_made_anew_is_another_one_for_who_was_on_the_first(docker: Cli, busybox: str) -> None:
    first = docker("network", "create", "shop").line
    try:
        docker("run", "-d", "--name=was-on", "--network=shop", busybox, "sleep", "600")
        docker("create", "--name=never-on", "--network=shop", busybox, "sleep", "600")
        docker("create", "--name=by-id", f"--network={first[:12]}", busybox, "sleep", "600")
        networks = "{{range $name, $on := .NetworkSettings.Networks}}{{$name}} {{$on.NetworkID}}{{end}}"
        assert shown(docker, networks, "by-id").split()[0] == "shop"
        docker("stop", "-t", "0", "was-on")
        docker("network", "rm", "shop")
        second = docker("network", "create", "shop").line
        for name in ("was-on", "by-id"):
            said = docker("start", name, ok=False)
            assert said.code == 1 and f"network {first} not found" in said.err, name
            assert shown(docker, networks, name) == f"shop {first}"
        docker("start", "never-on")
        assert shown(docker, networks, "never-on") == f"shop {second}"
        docker("network", "disconnect", "shop", "was-on")
        docker("network", "connect", "shop", "was-on")
        docker("start", "was-on")
        assert shown(docker, networks, "was-on") == f"shop {second}"
    finally:
        docker("rm", "-f", "was-on", "never-on", "by-id", ok=False)
        docker("network", "rm", "shop", ok=False)
