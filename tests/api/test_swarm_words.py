"""`docker swarm` and `docker node`: what one node can do of a swarm, and honest words for what it cannot."""

from collections.abc import Iterator

import pytest

from support import traces
from support.daemon import Daemon


@pytest.fixture
def daemon(able: None) -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        yield daemon.start()
    finally:
        traces.discard(daemon)


def test_a_swarm_begins_is_changed_and_ends(daemon: Daemon) -> None:
    docker = daemon.docker
    assert "is not a swarm manager" in docker("node", "ls", ok=False).err
    begun = docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--task-history-limit", "2").out
    assert "is now a manager" in begun
    assert "docker swarm join --token SWMTKN-1-" in begun
    assert "already part of a swarm" in docker("swarm", "init", ok=False).err

    token = docker("swarm", "join-token", "-q", "worker").line
    assert token in begun
    rotated = docker("swarm", "join-token", "--rotate", "-q", "worker").line
    assert rotated != token and rotated.rpartition("-")[0] == token.rpartition("-")[0]
    assert rotated not in docker("swarm", "join-token", "manager").out

    docker("swarm", "update", "--task-history-limit", "0", "--cert-expiry", "48h", "--dispatcher-heartbeat", "7s")
    shown = daemon.docker("info").out
    for words in ("Task History Retention Limit: 0", "Heartbeat Period: 7 seconds", "Expiry Duration: 2 days"):
        assert words in shown
    assert "Heartbeat Tick: 1" in shown and "Election Tick: 10" in shown
    assert docker("swarm", "leave", ok=False).err.startswith("Error response from daemon: You are attempting to leave")
    assert docker("swarm", "leave", "--force").line == "Node left the swarm."


def test_what_one_node_cannot_do_is_said(daemon: Daemon) -> None:
    docker = daemon.docker
    joined = docker("swarm", "join", "--token", "SWMTKN-1-x-y", "10.0.0.1:2377", ok=False)
    assert "a swarm is one node for now" in joined.err
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    assert docker("swarm", "unlock-key", ok=False).err.strip() == "no unlock key is set"
    assert "swarm is not locked" in docker("swarm", "unlock", ok=False, stdin="x").err
    assert "autolock" in docker("swarm", "update", "--autolock", ok=False).err
    assert "has no certificates" in docker("swarm", "ca", "--rotate", ok=False).err
    assert "minimum heartbeat period" in docker("swarm", "update", "--dispatcher-heartbeat", "1ms", ok=False).err
    short = docker("swarm", "update", "--cert-expiry", "10m", ok=False).err
    assert "code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s" in short
    assert docker("node", "demote", "self", ok=False).code == 1
    for words in (("rm", "self"), ("rm", "--force", "self")):
        assert "is a cluster manager" in docker("node", *words, ok=False).err
    assert "is already a manager" in docker("node", "promote", "self").out
    docker("node", "update", "--label-add", "a=b", "--availability", "drain", "self")
    assert docker("node", "ls", "-q", "--filter", "node.label=a=b").lines
    assert "Availability:         \tDrain" in docker("node", "inspect", "--pretty", "self").out
