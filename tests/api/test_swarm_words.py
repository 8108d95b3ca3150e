"""`bennu swarm` and `bennu node` understand docker's words, and say honestly what one node cannot do."""

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
    bennu = daemon.bennu
    assert "is not a swarm manager" in bennu("node", "ls", ok=False).err
    begun = bennu("swarm", "init", "--advertise-addr", "127.0.0.1", "--task-history-limit", "2").out
    assert "is now a manager" in begun
    assert "bennu swarm join --token SWMTKN-1-" in begun
    assert "already part of a swarm" in bennu("swarm", "init", ok=False).err

    token = bennu("swarm", "join-token", "-q", "worker").line
    assert token in begun
    rotated = bennu("swarm", "join-token", "--rotate", "-q", "worker").line
    assert rotated != token and rotated.rpartition("-")[0] == token.rpartition("-")[0]
    assert rotated not in bennu("swarm", "join-token", "manager").out

    bennu("swarm", "update", "--task-history-limit", "0", "--cert-expiry", "48h", "--dispatcher-heartbeat", "7s")
    shown = daemon.docker("info").out
    for words in ("Task History Retention Limit: 0", "Heartbeat Period: 7 seconds", "Expiry Duration: 2 days"):
        assert words in shown
    assert "Heartbeat Tick: 1" in shown and "Election Tick: 10" in shown
    assert bennu("swarm", "leave", ok=False).err.startswith("Error response from daemon: You are attempting to leave")
    assert bennu("swarm", "leave", "--force").line == "Node left the swarm."


def test_what_one_node_cannot_do_is_said(daemon: Daemon) -> None:
    bennu = daemon.bennu
    joined = bennu("swarm", "join", "--token", "SWMTKN-1-x-y", "10.0.0.1:2377", ok=False)
    assert "a swarm is one node for now" in joined.err
    bennu("swarm", "init", "--advertise-addr", "127.0.0.1")
    assert bennu("swarm", "unlock-key", ok=False).err.strip() == "no unlock key is set"
    assert "swarm is not locked" in bennu("swarm", "unlock", ok=False, stdin="x").err
    assert "autolock" in bennu("swarm", "update", "--autolock", ok=False).err
    assert "has no certificates" in bennu("swarm", "ca", "--rotate", ok=False).err
    assert "minimum heartbeat period" in bennu("swarm", "update", "--dispatcher-heartbeat", "1ms", ok=False).err
    short = bennu("swarm", "update", "--cert-expiry", "10m", ok=False).err
    assert "code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s" in short
    assert bennu("node", "demote", "self", ok=False).code == 1
    for words in (("rm", "self"), ("rm", "--force", "self")):
        assert "is a cluster manager" in bennu("node", *words, ok=False).err
    assert "is already a manager" in bennu("node", "promote", "self").out
    bennu("node", "update", "--label-add", "a=b", "--availability", "drain", "self")
    assert bennu("node", "ls", "-q", "--filter", "node.label=a=b").lines
    assert "Availability:         \tDrain" in bennu("node", "inspect", "--pretty", "self").out
