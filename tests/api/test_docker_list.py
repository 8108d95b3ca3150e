"""`ps`, `inspect`, `rename`, `top`, `prune`, `wait` and `events` of the unmodified CLI."""

import json
import socket
import time
from typing import Any

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

ZERO = "0001-01-01T00:00:00Z"


def run(docker: Cli, name: str, *words: str) -> str:
    return docker("run", "-d", "--name", name, "--network", "none", *words).line


def names(docker: Cli, *filters: str, every: bool = True) -> list[str]:
    words = [word for one in filters for word in ("-f", one)]
    return docker("ps", *(("-a",) if every else ()), "--format", "{{.Names}}", *words).lines


def inspect(docker: Cli, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", name).out)
    return found[0]


# --- inspect ----------------------------------------------------------------------------------------------------

TOP_LEVEL = (
    "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform "
    "MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings"
)
STATE = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
CONFIG = (
    "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes "
    "WorkingDir Entrypoint OnBuild Labels"
)
NETWORK = (
    "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses "
    "SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway "
    "MacAddress Networks"
)


def test_inspect_has_dockers_keys_in_dockers_order(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "shape", busybox, "true")
    shown = inspect(docker, "shape")
    assert [key for key in shown if key != "Bennu"] == TOP_LEVEL.split()
    assert list(shown["State"]) == STATE.split()
    assert list(shown["Config"]) == CONFIG.split()
    assert list(shown["NetworkSettings"]) == NETWORK.split()


def test_the_state_of_a_container_through_its_life(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "life", "--network", "none", busybox, "sh", "-c", "trap 'exit 3' TERM; sleep 100 & wait")
    made = inspect(docker, "life")["State"]
    assert (made["Status"], made["Running"], made["Pid"], made["ExitCode"]) == ("created", False, 0, 0)
    assert (made["StartedAt"], made["FinishedAt"]) == (ZERO, ZERO)
    docker("start", "life")
    runs = inspect(docker, "life")["State"]
    assert (runs["Status"], runs["Running"], runs["FinishedAt"]) == ("running", True, ZERO)
    assert runs["Pid"] > 0
    docker("pause", "life")
    frozen = inspect(docker, "life")["State"]
    assert (frozen["Status"], frozen["Running"], frozen["Paused"], frozen["Pid"]) == (
        "paused",
        True,
        True,
        runs["Pid"],
    )
    docker("unpause", "life")
    time.sleep(0.2)
    docker("stop", "life")
    over = inspect(docker, "life")["State"]
    assert (over["Status"], over["Running"], over["Pid"], over["ExitCode"]) == ("exited", False, 0, 3)
    assert over["FinishedAt"] > over["StartedAt"] == runs["StartedAt"]


@pytest.mark.recent_docker
def test_what_was_asked_is_echoed(docker: Cli, busybox: str) -> None:
    words = ["-e", "A=b", "-l", "x=y", "-w", "/tmp//", "-u", "1:2", "--hostname", "hh", "--stop-signal", "USR1"]
    limits = ["-m", "32m", "--cpus", "0.5", "--pids-limit", "7", "--cap-add", "net_admin", "--restart", "on-failure:3"]
    docker("create", "--name", "echo", *words, *limits, "--stop-timeout", "4", busybox, "a", "b c")
    shown = inspect(docker, "echo")
    config, host = shown["Config"], shown["HostConfig"]
    assert (shown["Path"], shown["Args"]) == ("a", ["b c"])
    assert (config["WorkingDir"], config["User"], config["Hostname"]) == ("/tmp", "1:2", "hh")
    assert (config["StopSignal"], config["StopTimeout"], config["Labels"]) == ("USR1", 4, {"x": "y"})
    assert config["Env"][0] == "A=b"
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        32 << 20,
        64 << 20,
        500_000_000,
        7,
    )
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["CapAdd"] == ["CAP_NET_ADMIN"]
    assert (host["NetworkMode"], host["IpcMode"]) == ("bridge", "private")


def test_ports_and_addresses_of_a_running_container(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--expose", "81", busybox, "sleep", "100")
    settings = inspect(docker, "web")["NetworkSettings"]
    assert settings["Ports"]["81/tcp"] is None
    (binding,) = settings["Ports"]["80/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    bridge = settings["Networks"]["bridge"]
    assert settings["IPAddress"] == bridge["IPAddress"] != ""
    assert len(bridge["NetworkID"]) == 64
    assert docker("port", "web").lines == [f"80/tcp -> 127.0.0.1:{binding['HostPort']}"]
    row = docker("ps", "--format", "{{.Ports}}", "-f", "name=web").line
    assert row == f"81/tcp, 127.0.0.1:{binding['HostPort']}->80/tcp"
    docker("kill", "web")
    stopped = inspect(docker, "web")["NetworkSettings"]
    assert (stopped["Ports"], stopped["IPAddress"]) == ({}, "")
    assert stopped["Networks"]["bridge"]["NetworkID"] == bridge["NetworkID"]


def test_sizes_on_request(docker: Cli, busybox: str) -> None:
    run(docker, "fat", busybox, "sh", "-c", "head -c 200000 /dev/zero >/big; sleep 100")
    wait_for(lambda: json.loads(docker("inspect", "-s", "fat").out)[0]["SizeRw"] >= 200_000)
    shown = json.loads(docker("inspect", "-s", "fat").out)[0]
    assert shown["SizeRootFs"] > shown["SizeRw"]
    assert "virtual" in docker("ps", "-s", "--format", "{{.Size}}", "-f", "name=fat").line


# --- ps ---------------------------------------------------------------------------------------------------------


def test_ps_shows_what_runs_and_ps_a_everything_newest_first(docker: Cli, busybox: str) -> None:
    run(docker, "one", busybox, "sleep", "100")
    docker("create", "--name", "two", busybox, "true")
    run(docker, "three", busybox, "sleep", "100")
    docker("pause", "three")
    assert names(docker, every=False) == ["three", "one"]
    assert names(docker) == ["three", "two", "one"]
    assert docker("ps", "-n", "2", "--format", "{{.Names}}").lines == ["three", "two"]
    assert docker("ps", "-l", "--format", "{{.Names}}").lines == ["three"]


def test_status_texts(docker: Cli, busybox: str) -> None:
    run(docker, "up", busybox, "sleep", "100")
    run(docker, "still", busybox, "sleep", "100")
    docker("pause", "still")
    docker("create", "--name", "new", busybox)
    run(docker, "over", busybox, "sh", "-c", "exit 3")
    docker("wait", "over")
    texts = dict(line.split("|") for line in docker("ps", "-a", "--format", "{{.Names}}|{{.Status}}").lines)
    assert texts["up"].startswith("Up ")
    assert texts["still"].startswith("Up ")
    assert texts["still"].endswith(" (Paused)")
    assert texts["new"] == "Created"
    assert texts["over"].startswith("Exited (3) ")
    assert texts["over"].endswith(" ago")


def test_filters(docker: Cli, busybox: str) -> None:
    first = run(docker, "web-1", "-l", "tier=front", "-l", "x", "-v", "/data", busybox, "sleep", "100")
    run(docker, "web-2", "-l", "tier=back", busybox, "sh", "-c", "exit 5")
    docker("wait", "web-2")
    docker("create", "--name", "db", "-l", "tier=front", "--network", "none", busybox, "true")
    assert names(docker, "name=web") == ["web-2", "web-1"]
    assert names(docker, "name=^/web-1$") == ["web-1"]
    assert names(docker, "name=(") == []
    assert names(docker, "name=web", "name=db") == ["db", "web-2", "web-1"]
    assert names(docker, f"id={first[:12]}") == ["web-1"]
    assert names(docker, "label=tier=front") == ["db", "web-1"]
    assert names(docker, "label=tier=front", "label=x") == ["web-1"]
    assert names(docker, "status=exited") == ["web-2"]
    assert names(docker, "status=exited", "status=created", every=False) == ["db", "web-2"]
    assert names(docker, "exited=5") == ["web-2"]
    assert names(docker, "exited=4") == []
    assert names(docker, "health=none") == ["db", "web-2", "web-1"]
    assert names(docker, "before=web-2") == ["web-1"]
    assert names(docker, "since=web-2") == ["db"]
    assert names(docker, "volume=/data") == ["web-1"]
    assert names(docker, "network=none") == ["db", "web-2", "web-1"]
    assert names(docker, "network=bridge") == []
    assert names(docker, f"ancestor={busybox}") == ["db", "web-2", "web-1"]
    assert names(docker, "ancestor=nosuch") == []
    assert names(docker, "is-task=false") == ["db", "web-2", "web-1"]
    assert names(docker, "is-task=true") == []


def test_port_filters(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "ported", "-p", "127.0.0.1:18123:80", "--expose", "99/udp", busybox, "sleep", "100")
    for asked in ("publish=18123", "publish=18000-18200/tcp", "expose=80", "expose=99/udp"):
        assert names(docker, asked) == ["ported"]
    for asked in ("publish=80", "publish=18123/udp", "expose=99"):
        assert names(docker, asked) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("bogus=1", "invalid filter 'bogus'"),
        (
            "status=x",
            "invalid filter 'status=x': invalid value for state (x): must be one of "
            "created, running, paused, restarting, removing, exited, dead",
        ),
        ("exited=x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("before=nope", "No such container: nope"),
    ],
)
def test_bad_filters(docker: Cli, asked: str, message: str) -> None:
    said = docker("ps", "-f", asked, ok=False)
    assert said.code == 1
    assert message in said.err


# --- the rest ---------------------------------------------------------------------------------------------------


def test_rename(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "old", busybox)
    docker("create", "--name", "other", busybox)
    docker("rename", "old", "new")
    assert sorted(names(docker)) == ["new", "other"]
    for target, words in (
        ("other", "is already in use by container"),
        ("new", "Renaming a container with the same name as its current name"),
        ("a b", "Error when allocating new name: Invalid container name (a b)"),
    ):
        said = docker("rename", "new", target, ok=False)
        assert (said.code, words in said.err) == (1, True), said.err


def test_top(docker: Cli, busybox: str) -> None:
    run(docker, "busy", busybox, "sh", "-c", "sleep 123 & sleep 124 & wait")
    wait_for(lambda: len(docker("top", "busy").lines) == 4)
    shown = docker("top", "busy", "-o", "pid,args").lines
    assert shown[0].split() == ["PID", "COMMAND"]
    assert {line.split(None, 1)[1] for line in shown[1:]} >= {"sleep 123", "sleep 124"}
    docker("stop", "-t", "0", "busy")
    assert "is not running" in docker("top", "busy", ok=False).err


def test_wait_answers_every_kind_of_container(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "fresh", busybox)
    run(docker, "ended", busybox, "sh", "-c", "exit 6")
    run(docker, "going", busybox, "sleep", "100")
    assert docker("wait", "fresh", "ended").lines == ["0", "6"]
    with docker.running("wait", "going") as waiting:
        time.sleep(0.3)
        docker("kill", "going")
        assert waiting.stdout
        assert waiting.stdout.read() == b"137\n"


def test_prune_takes_what_does_not_run_and_what_the_filters_leave(docker: Cli, busybox: str) -> None:
    run(docker, "alive", busybox, "sleep", "100")
    for name, label in (("gone-1", "a=1"), ("gone-2", "a=2"), ("kept", "keep=1")):
        docker("create", "--name", name, "-l", label, busybox)
    assert docker("container", "prune", "-f", "--filter", "until=1h").out == "Total reclaimed space: 0B\n"
    said = docker("container", "prune", "-f", "--filter", "label!=keep")
    assert len([line for line in said.lines if len(line) == 64]) == 2
    assert sorted(names(docker)) == ["alive", "kept"]


def test_remove(docker: Cli, busybox: str) -> None:
    run(docker, "strong", busybox, "sleep", "100")
    said = docker("rm", "strong", ok=False)
    assert said.code == 1
    assert "container is running: stop the container before removing or force remove" in said.err
    docker("rm", "-f", "strong")
    assert "No such container: strong" in docker("rm", "strong", ok=False).err
    assert docker("rm", "-f", "strong").code == 0


@pytest.mark.recent_docker
def test_events_tell_a_life_in_order(docker: Cli, daemon: Daemon, busybox: str) -> None:
    since = str(time.time())
    docker("run", "--name", "narrated", "-l", "color=red", busybox, "true")
    docker("rm", "narrated")
    words = ["events", "--since", since, "--until", f"{time.time():.9f}"]
    told = [json.loads(line) for line in docker(*words, "--format", "json", "-f", "type=container").lines]
    assert [event["Action"] for event in told] == ["create", "attach", "start", "die", "destroy"]
    for event in told:
        assert event["status"] == event["Action"]
        assert event["from"] == event["Actor"]["Attributes"]["image"] == busybox
        assert event["Actor"]["Attributes"]["name"] == "narrated"
        assert event["Actor"]["Attributes"]["color"] == "red"
    assert told[3]["Actor"]["Attributes"]["exitCode"] == "0"
    both = [json.loads(line) for line in docker(*words, "--format", "json").lines]
    assert [f"{event['Type']} {event['Action']}" for event in both if event["Type"] == "network"] == [
        "network connect",
        "network disconnect",
    ]
    assert docker(*words, "-f", "event=die", "-f", "container=narrated", "--format", "{{.Action}}").lines == ["die"]
    assert docker(*words, "-f", "label=color=blue").out == ""
    refused = docker("events", "--since", "20", "--until", "10", ok=False)
    assert "cannot be after `until` time" in refused.err


def test_events_follow_what_happens(docker: Cli, busybox: str) -> None:
    with docker.running("events", "-f", "event=create", "--format", "{{.Actor.Attributes.name}}") as following:
        time.sleep(0.5)
        docker("create", "--name", "live", busybox)
        assert following.stdout
        assert following.stdout.readline() == b"live\n"


def test_logs(docker: Cli, busybox: str) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.1; done; printf tail; sleep 0.5"
    run(docker, "talker", busybox, "sh", "-c", script)
    followed = docker("logs", "-f", "talker")
    assert followed.out == "out 1\nout 2\nout 3\ntail"
    assert followed.err == "err 1\nerr 2\nerr 3\n"
    assert docker("logs", "--tail", "1", "talker").out == "tail"
    stamped = docker("logs", "-t", "talker").lines[0]
    stamp, _, text = stamped.partition(" ")
    assert (len(stamp), stamp[-1], text) == (30, "Z", "out 1")
    assert docker("logs", "--since", stamp, "talker").out == followed.out
    assert docker("logs", "--until", stamp, "talker").out == "out 1\n"
    assert "No such container: nope" in docker("logs", "nope", ok=False).err
    docker("run", "--name", "mute", "--log-driver", "none", "--network", "none", busybox, "echo", "x")
    assert "configured logging driver does not support reading" in docker("logs", "mute", ok=False).err


@pytest.mark.recent_docker
def test_version_and_info_are_readable(docker: Cli) -> None:
    version = json.loads(docker("version", "--format", "json").out)
    assert version["Server"]["ApiVersion"] == "1.51"
    assert version["Server"]["Components"][0]["Name"] == "Engine"
    info = json.loads(docker("info", "--format", "json").out)
    assert info["LiveRestoreEnabled"] is True
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["NCPU"] >= 1


def test_system_prune_tells_what_went_and_one_total(docker: Cli, busybox: str) -> None:
    gone = docker("create", "-l", "prune=me", busybox).out.strip()
    docker("network", "create", "--label", "prune=me", "unused")
    said = docker("system", "prune", "-f", "--filter", "label=prune=me")
    assert said.lines[:5] == ["Deleted Containers:", gone, "", "Deleted Networks:", "unused"]
    assert [line for line in said.lines if line.startswith("Total")] == said.lines[-1:]


def test_pruning_images_leaves_one_that_is_used_its_last_name(docker: Cli, busybox: str) -> None:
    identifier = docker("commit", "-c", "LABEL prune=used", docker("create", busybox).line, "used:b").line
    for tag in ("z", "a", "c"):
        docker("tag", "used:b", f"used:{tag}")
    docker("create", "--name=uses", identifier)
    docker("image", "prune", "-af", "--filter=label=prune=used")
    assert docker("inspect", "-f", "{{.RepoTags}}", identifier).line == "[used:z]"
    docker("rm", "uses")
    docker("rmi", "used:z")


# --- info -------------------------------------------------------------------------------------------------------


def test_info_counts_who_follows_the_events_and_what_runs_at_once(daemon: Daemon) -> None:
    def counts() -> tuple[int, int]:
        info = json.loads(daemon.request("GET", "/info")[1])
        return info["NEventsListener"], info["NGoroutines"]

    listeners, running = counts()
    with socket.socket(socket.AF_UNIX) as follower:
        follower.connect(str(daemon.socket))
        follower.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: counts()[0] == listeners + 1, what="the follower to be counted")
        assert counts()[1] > running
    wait_for(lambda: counts()[0] == listeners, what="the follower to be forgotten")
