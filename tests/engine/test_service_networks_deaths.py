"""The daemon dies around a write while a swarm, a service or a network comes or goes: the next one makes it whole."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_helpers import QUICK, SERVE, assert_nothing_left, calls_from, client, lookup, networks, overlay, vips

from support import images
from support.daemon import BENNUD, Daemon
from support.swarm import SwarmNode
from support.waiting import wait_for

pytestmark = pytest.mark.slow
FAULTY = Path(__file__).parents[1] / "support/faulty_bennud.py"
FRONT = '"service_id"'  # of what a service shows on the network
CREATE = ("service", "create", "-d", "--no-resolve-image", "--name=web", *QUICK, "-p=8000", "--network=inner", *SERVE)


@pytest.fixture
def node(make_daemon: Callable[..., Daemon]) -> Iterator[SwarmNode]:
    yield SwarmNode(make_daemon())


def begin(node: SwarmNode) -> None:
    images.import_base(node.daemon.docker, "python")
    node.docker("swarm", "init")
    overlay(node, "inner")


def die_during(node: SwarmNode, number: int, moment: str, word: str, *request: str) -> None:
    """Have the daemon die before or after its N-th write with `word` in it, on its way through a request."""
    daemon = node.daemon
    daemon.stop()
    daemon.program = (sys.executable, FAULTY, str(number), moment, word)
    daemon.start()
    node.docker(*request, ok=False)
    assert daemon.process is not None
    assert daemon.process.wait(30) == -signal.SIGKILL, daemon.log()
    daemon.program = (BENNUD,)
    daemon.start()


def is_in_swarm(node: SwarmNode) -> bool:
    return node.docker("info", "--format={{.Swarm.LocalNodeState}}").line == "active"


MOMENTS = pytest.mark.parametrize("moment", ["before", "after"])


@MOMENTS
@pytest.mark.parametrize("word", ['"name":"ingress"', "ClusterRow"])
def test_a_swarm_is_begun_with_its_ingress_network_or_not_at_all(node: SwarmNode, word: str, moment: str) -> None:
    die_during(node, 1, moment, word, "swarm", "init")
    assert networks(node) == (["ingress"] if is_in_swarm(node) else [])
    assert is_in_swarm(node) is (word == "ClusterRow" and moment == "after")
    if not is_in_swarm(node):
        node.docker("swarm", "init")
    assert networks(node) == ["ingress"]


@MOMENTS
@pytest.mark.parametrize(
    ("number", "word"),
    [
        pytest.param(1, FRONT, id="its-addresses-are-lent"),
        pytest.param(1, "ServiceRow", id="it-is-written"),
        pytest.param(2, FRONT, id="it-is-shown"),
        pytest.param(3, FRONT, id="a-task-enters"),
    ],
)
def test_a_service_is_there_with_its_addresses_or_not_at_all(
    node: SwarmNode, number: int, word: str, moment: str
) -> None:
    begin(node)
    die_during(node, number, moment, word, *CREATE)
    made = bool(node.docker("service", "ls", "-q").lines)
    assert made is not ((number, word) == (1, FRONT) or (word == "ServiceRow" and moment == "before"))
    if not made:
        assert_nothing_left(node)
        node.docker(*CREATE)
    node.wait_running("web", 1)
    caller = client(node, "inner", "python")
    wait_for(lambda: lookup(node, caller, "web") == [vips(node, "web")["inner"]], what="its name")
    wait_for(lambda: len(calls_from(node, caller, "web", 8000, 0.1)) == 1, what="its task")
    assert vips(node, "web")["inner"].endswith(".2"), "the first address of the network was not lost"


@MOMENTS
@pytest.mark.parametrize("word", ['"remove"', FRONT, '"destroy"'])
def test_nothing_is_left_of_a_service_that_goes(node: SwarmNode, word: str, moment: str) -> None:
    begin(node)
    node.docker(*CREATE)
    node.wait_running("web", 1)
    die_during(node, 1, moment, word, "service", "rm", "web")
    if node.docker("service", "ls", "-q").lines:
        assert (word, moment) == ('"remove"', "before")
        node.docker("service", "rm", "web")
    wait_for(lambda: not node.docker("ps", "-aq").lines, what="its task to go", timeout_s=30)
    assert_nothing_left(node)
    node.docker("network", "rm", "inner")
    assert networks(node) == ["ingress"]


@MOMENTS
def test_nothing_is_left_of_a_swarm_that_ends(node: SwarmNode, moment: str) -> None:
    begin(node)
    node.docker(*CREATE)
    node.wait_running("web", 1)
    die_during(node, 1, moment, '"destroy"', "swarm", "leave", "--force")
    assert not is_in_swarm(node)
    assert networks(node) == []
    assert node.docker("ps", "-aq").lines == []
    assert_nothing_left(node)
    node.docker("swarm", "init")
    assert networks(node) == ["ingress"]
