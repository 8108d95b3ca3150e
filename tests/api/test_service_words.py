"""`bennu service` understands the words of `docker service`: the same words make the same specification."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.cli import Cli
from support.swarm import SwarmNode, open_swarm

IMAGE = ("busybox:latest", "sleep", "1000")


@pytest.fixture(scope="module")
def node(able: None) -> Iterator[SwarmNode]:
    with open_swarm("busybox") as node:
        daemon = node.daemon
        daemon.docker("node", "update", "--availability", "drain", daemon.docker("node", "ls", "-q").line)
        daemon.docker("network", "create", "-d", "overlay", "own")
        for kind in ("secret", "config"):
            daemon.docker(kind, "create", "word", "-", stdin="x")
        (daemon.root / "env").write_text("FILE=1\n# nothing\nHOME\n")
        yield node


def spec_after(node: SwarmNode, cli: Cli, *commands: tuple[str, ...]) -> Any:
    """What the service `s` is after the commands; `ENV` stands for a file."""
    for command in commands:
        words = [str(node.daemon.root / "env") if word == "ENV" else word for word in command]
        cli("service", *words)
    (found,) = json.loads(node.docker("service", "inspect", "s").out)
    node.docker("service", "rm", "s")
    spec = found["Spec"]
    container = spec["TaskTemplate"]["ContainerSpec"]
    for key in ("Env", "Hosts"):  # docker writes these in any order after an update
        container[key] = sorted(container.get(key) or [])
    if ports := spec.get("EndpointSpec", {}).get("Ports"):
        spec["EndpointSpec"]["Ports"] = sorted(ports, key=json.dumps)
    return _without_nothing(spec)


def _without_nothing(value: Any) -> Any:
    """Absent and empty are the same here."""
    if isinstance(value, dict):
        kept = {key: _without_nothing(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, "", 0, False, [], {})}
    return [_without_nothing(part) for part in value] if isinstance(value, list) else value


CREATE = ("create", "-d", "--no-resolve-image", "--name", "s")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--replicas", "3", "--label", "a=b", "--container-label", "c=d", "-l", "bare"),
        ("--mode", "global"),
        ("--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2"),
        ("--mode", "replicated-job", "--replicas", "4"),
        ("--mode", "global-job"),
        (
            "-e",
            "A=1",
            "--env",
            "HOME",
            "--env-file",
            "ENV",
            "--hostname",
            "h",
            "-u",
            "root",
            "-w",
            "/tmp",
            "--group",
            "g",
        ),
        (
            "--entrypoint",
            "sh -c 'a b'",
            "--init",
            "--read-only",
            "-t",
            "--stop-signal",
            "INT",
            "--stop-grace-period",
            "7s",
        ),
        ("--host", "one:1.2.3.4", "--dns", "1.1.1.1", "--dns-search", "x.org", "--dns-option", "ndots:2"),
        ("--cap-add", "NET_ADMIN", "--cap-add", "sys_time", "--cap-drop", "CAP_CHOWN"),
        ("--ulimit", "nofile=1:2", "--ulimit", "nproc=5", "--sysctl", "net.core.somaxconn=5"),
        (
            "--limit-cpu",
            ".5",
            "--limit-memory",
            "64M",
            "--limit-pids",
            "9",
            "--reserve-cpu",
            "0.1",
            "--reserve-memory",
            "8m",
        ),
        (
            "--generic-resource",
            "gpu=2",
            "--constraint",
            "node.role==manager",
            "--placement-pref",
            "spread=node.labels.x",
        ),
        ("--replicas-max-per-node", "2", "--log-driver", "json-file", "--log-opt", "max-size=1m"),
        ("--log-opt", "max-size=1m"),
        ("--restart-delay", "3s"),
        ("--restart-condition", "on-failure", "--restart-max-attempts", "2", "--restart-window", "9s"),
        ("--update-delay", "3s"),
        ("--update-parallelism", "0", "--update-order", "start-first", "--update-failure-action", "rollback"),
        ("--rollback-monitor", "3s", "--rollback-max-failure-ratio", "0.25"),
        ("--health-cmd", "true", "--health-interval", "2s", "--health-retries", "4", "--health-timeout", "1s"),
        ("--no-healthcheck",),
        ("--mount", "type=volume,src=v1,dst=/v,volume-label=a=b", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m"),
        ("--mount", "type=bind,src=/tmp,dst=/b,ro,bind-propagation=rslave"),
        ("--secret", "word", "--config", "source=word,target=/etc/c,uid=5,gid=6,mode=0400"),
        ("--network", "own"),
        ("--network", "name=own,alias=x,alias=y,driver-opt=a=b"),
        ("-p", "80", "-p", "8080:81/udp", "--publish", "published=8082,target=82,mode=host"),
        ("-p", "9000-9001:90-91"),
        ("--endpoint-mode", "dnsrr"),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_the_same_words_create_the_same_service(node: SwarmNode, words: tuple[str, ...]) -> None:
    command = (*CREATE, *words, *IMAGE)
    assert spec_after(node, node.daemon.bennu, command) == spec_after(node, node.docker, command)


@pytest.mark.parametrize(
    "words",
    [
        ("--env-add", "A=2", "--env-rm", "B", "--label-add", "x=y", "--label-rm", "a", "--container-label-add", "q=r"),
        ("--replicas", "5", "--image", "busybox", "--args", "sleep '5 6'", "--force"),
        ("--publish-add", "8090:90", "--publish-rm", "80"),
        ("--publish-rm", "80/tcp", "--publish-add", "published=8080,target=80,mode=host"),
        ("--constraint-add", "node.role==worker", "--constraint-rm", "node.role==manager"),
        ("--mount-add", "type=tmpfs,dst=/t", "--mount-rm", "/v"),
        ("--host-add", "two:5.6.7.8", "--dns-add", "8.8.8.8", "--dns-rm", "1.1.1.1"),
        ("--secret-rm", "word", "--config-add", "word"),
        ("--network-add", "own"),
        ("--ulimit-add", "nofile=5", "--ulimit-rm", "nproc", "--sysctl-add", "net.core.somaxconn=9"),
        ("--limit-memory", "32M", "--reserve-cpu", "0.2", "--update-parallelism", "2", "--restart-max-attempts", "3"),
        ("--entrypoint", "sh -c", "--user", "5", "--stop-grace-period", "1s", "--endpoint-mode", "vip"),
        ("--health-cmd", "false", "--health-interval", "9s"),
        ("--no-healthcheck",),
    ],
    ids=" ".join,
)
def test_the_same_words_update_to_the_same_service(node: SwarmNode, words: tuple[str, ...]) -> None:
    create = (
        *(*CREATE, "-e", "A=1", "-e", "B=1", "-l", "a=b", "-p", "8080:80", "--constraint", "node.role==manager"),
        *("--mount", "type=volume,src=v1,dst=/v", "--dns", "1.1.1.1", "--secret", "word", "--ulimit", "nproc=5"),
        *("--health-cmd", "true", *IMAGE),
    )
    update = ("update", "-d", "--no-resolve-image", *words, "s")
    if "--image" not in words:
        update = ("update", "-d", *words, "s")
    assert spec_after(node, node.daemon.bennu, create, update) == spec_after(node, node.docker, create, update)


RICH = (
    *(
        "--replicas",
        "3",
        "--label",
        "a=b",
        "--constraint",
        "node.role==manager",
        "--placement-pref",
        "spread=node.labels.x",
    ),
    *(
        "--update-delay",
        "2s",
        "--rollback-order",
        "start-first",
        "--env",
        "A=1",
        "--env",
        "B=2",
        "-w",
        "/tmp",
        "-u",
        "root",
    ),
    *("--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--sysctl", "net.core.somaxconn=5", "--ulimit", "nofile=1:2"),
    *("--mount", "type=volume,src=v1,dst=/v,ro", "--secret", "word", "--config", "word", "--log-driver", "json-file"),
    *(
        "--log-opt",
        "max-size=1m",
        "--limit-cpu",
        ".5",
        "--limit-pids",
        "9",
        "--reserve-memory",
        "16M",
        "--network",
        "own",
    ),
    *("-p", "8080:80/udp", "--health-cmd", "true", "--health-interval", "90s", "--health-retries", "3"),
)


@pytest.mark.parametrize("words", [(), RICH, ("--mode", "global")], ids=["nothing", "much", "global"])
def test_a_service_is_shown_to_people_as_docker_shows_it(node: SwarmNode, words: tuple[str, ...]) -> None:
    node.docker("service", *CREATE, *words, *IMAGE)
    try:
        shown = [cli("service", "inspect", "--pretty", "s").out for cli in (node.daemon.bennu, node.docker)]
    finally:
        node.docker("service", "rm", "s")
    mine, theirs = ([line.rstrip() for line in text.splitlines() if line.strip()] for text in shown)
    assert mine == theirs


@pytest.mark.parametrize("kind", ["node", "secret", "config"])
def test_what_else_a_swarm_has_is_shown_to_people_as_docker_shows_it(node: SwarmNode, kind: str) -> None:
    name = "self" if kind == "node" else "word"
    mine = node.daemon.bennu(kind, "inspect", "--pretty", name).out
    theirs = node.docker(kind, "inspect", "--pretty", name).out
    assert mine.split() == theirs.split()


def test_what_is_not_there_is_said_in_dockers_words(node: SwarmNode) -> None:
    for kind in ("service", "node", "secret", "config"):
        mine, theirs = (cli(kind, "inspect", "nope", ok=False) for cli in (node.daemon.bennu, node.docker))
        assert (mine.code, mine.out.split()) == (theirs.code, theirs.out.split())


def test_lists_are_dockers(node: SwarmNode) -> None:
    for name, *words in (
        ("web10",),
        ("web2", "--replicas-max-per-node", "1", "-p", "9000-9001:90-91/udp", "-p", "8088:80"),
        ("everywhere", "--mode", "global", "-p", "published=8099,target=99,mode=host"),
        ("job", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2"),
        ("jobs", "--mode", "global-job"),
    ):
        node.create(name, "--no-resolve-image", *words, *IMAGE)
    # How many words of a line are compared: what follows are ages, which may differ by a second.
    lists = {("service", "ls"): 9, ("node", "ls"): 9, ("secret", "ls"): 2, ("config", "ls"): 2}
    lists["service", "ps", "--no-trunc", "web2"] = 5
    try:
        for words, count in lists.items():
            mine, theirs = (
                [line.split()[:count] for line in cli(*words).lines] for cli in (node.daemon.bennu, node.docker)
            )
            assert mine == theirs, words
    finally:
        node.docker("service", "rm", "web10", "web2", "everywhere", "job", "jobs")
